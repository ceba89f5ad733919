"""Records as rows of errors that can be paired: the set that is judged, its rows by seed, differences by image."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import numpy.typing as npt

from vggbench.questions import Contrast, label
from vggbench.results import Record

Array = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Row:
    """One record's top-1 errors in the data's order (images,), 0 or 1. bad: ids of the images it skipped."""

    errors: Array
    bad: frozenset[str]
    decoder: str
    recorded: bool


#: Row key -> training seed -> row; and the differences of one contrast by seed, (images,) each.
Rows = dict[str, dict[int | None, Row]]
Differences = dict[int | None, Array]


def row_key(record: Record) -> str:
    """What a record stands for: its claim's id, else "<protocol>/<networks>/<train scale>"."""
    if record.claim is not None:
        return record.claim
    names = "+".join(f"{run.network}/{run.weights.get('train_scale')}" for run in record.networks)
    return f"{record.workload.protocol}/{names}"


def rows_of(records: Sequence[Record]) -> tuple[Rows, int]:
    """Key -> seed -> row, of the set that is judged, and how many records are of other sets.

    Of two records of one row and seed the one over more images counts, then the one measured in this run.
    """
    worlds: dict[str, list[Record]] = {}
    for record in records:
        if record.kind == "accuracy" and record.samples.unit == "rank" and record.samples.values:
            worlds.setdefault(_world(record), []).append(record)
    if not worlds:
        return {}, 0
    chosen = max(worlds.values(), key=lambda found: (sum(r.origin == "measured" for r in found), len(found)))
    rows: Rows = {}
    for record in sorted(chosen, key=lambda r: (len(r.samples.values), r.origin == "measured")):
        data = record.workload.data
        rows.setdefault(row_key(record), {})[record.seed] = Row(
            errors=(np.asarray(record.samples.values) > 0).astype(np.float64),
            bad=frozenset(str(entry["id"]) for entry in data.get("bad", [])),
            decoder=str(data.get("decoder")),
            recorded=record.origin == "recorded",
        )
    return rows, sum(map(len, worlds.values())) - len(chosen)


def _world(record: Record) -> str:
    """Records pair only where this agrees: the complete data in its order, the open choices, the kind of weights."""
    data = record.workload.data
    order = data.get("fingerprint_full") or data.get("fingerprint")
    statuses = sorted({str(run.weights.get("status")) for run in record.networks})
    return repr((data.get("split"), order, sorted(record.workload.choices.items()), statuses))


def differences_of(contrast: Contrast, rows: Rows) -> Differences | str:
    """error_a - error_b by seed over the images that both have, (images,) each; or why they cannot be paired."""
    a, b = rows[contrast.a], rows[contrast.b]
    seeds = sorted((seed for seed in a if seed in b), key=str)
    names = f"{label(contrast.a)} and {label(contrast.b)}"
    if not seeds:
        return f"{names} have no training seed in common."
    pairs = [(a[seed], b[seed]) for seed in seeds]
    if not aligned([row for pair in pairs for row in pair]):
        return f"{names} skipped different bad images, so they cannot be paired by image."
    images = min(len(row.errors) for pair in pairs for row in pair)
    if images < 2:
        return f"{names} have {images} images in common."
    return {seed: a[seed].errors[:images] - b[seed].errors[:images] for seed in seeds}


def aligned(rows: list[Row]) -> bool:
    """Whether the rows' common first values are of the same images: all skipped the same ones, or, with one decoder,
    each longer row skipped the shorter ones' and more behind them."""
    if len({row.bad for row in rows}) == 1:
        return True
    reach = sorted((len(row.errors) + len(row.bad), len(row.bad), row.bad) for row in rows)
    nested = all(a[2] <= b[2] and (a[0] < b[0] or a[2] == b[2]) for a, b in pairwise(reach))
    return nested and len({row.decoder for row in rows}) == 1
