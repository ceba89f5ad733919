"""What a precision costs: the paper's rows once more, a column a precision, paired with the main one by image."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from vggbench import paper
from vggbench.paper import Claim
from vggbench.report.rows import Measured
from vggbench.report.tables import claim_name
from vggbench.results import Numerics, Record, main_precision, precision_of
from vggbench.results_names import precision_names
from vggbench.statistics import holm, paired_effect

#: Change of top-1 error, in points, that a precision is expected to stay within on a trained network.
EXPECTED_POINTS = {"bf16": 0.2, "fp16": 0.2, "tf32": 0.2, "int8": 0.5, "fp8": 0.5}
#: Left to right on the page.
ORDER = ("fp32", "tf32", "bf16", "fp16", "int8", "fp8")
#: Layers named as the cause where a precision changes more than expected.
CAUSES = 3


@dataclass(frozen=True)
class Change:
    """A precision against the main one on the same images, in points of top-1 error, with a 95 % interval.

    lost: right at the main precision only; gained: right at this one only; p: exact McNemar; p_holm: over the table.
    causes: layers that a numerics record blames, where the change is larger than expected.
    """

    row: Measured
    points: float
    low: float
    high: float
    lost: int
    gained: int
    p: float
    p_holm: float
    expected: float | None
    causes: tuple[str, ...] = ()

    @property
    def is_expected(self) -> bool:
        return self.expected is None or abs(self.points) <= self.expected + 1e-9


@dataclass(frozen=True)
class PrecisionRow:
    """One row of the paper, or another protocol (claim None). changes: column -> change, where it was measured."""

    name: str
    place: str
    claim: Claim | None
    main: Measured
    changes: dict[str, Change]


def precision_rows(rows: Sequence[Measured], records: Sequence[Record]) -> tuple[list[str], list[PrecisionRow]]:
    """The columns beside the main precision, and every measured row that has one of them. records: for the causes.

    A column is a precision, as "int8", or one with layers that stayed in floating point, as "int8 (fc6 in float)".
    """
    mine = [row for row in rows if row.record.origin == "measured"]
    main = main_precision(row.record for row in mine)
    claims = {claim.id: claim for claim in paper.claims()}
    found = []
    for row in mine:
        if precision_of(row.record) == main:
            others = [other for other in mine if precision_of(other.record) != main and _pairs(row, other)]
            changes = {precision_names(other.record): _change(row, other) for other in others}
            if changes:
                claim = claims.get(row.record.claim or "")
                found.append(PrecisionRow(_name(row, claim), _place(row, claim), claim, row, changes))
    present = {name for row in found for name in row.changes}
    names = sorted(present, key=place_of)
    return names, _with_causes(_adjusted(found), records)


def expected(rows: Sequence[PrecisionRow]) -> dict[str, float]:
    """What the columns' precisions are expected to stay within, in points."""
    shown = {precision_of(change.row.record) for row in rows for change in row.changes.values()}
    return {name: EXPECTED_POINTS[name] for name in ORDER if name in shown and name in EXPECTED_POINTS}


def missed(rows: Sequence[PrecisionRow]) -> list[tuple[PrecisionRow, str, Change]]:
    """Rows whose error changed by more than is expected of the precision."""
    return [(row, name, change) for row in rows for name, change in row.changes.items() if not change.is_expected]


def place_of(column: str) -> tuple[int, str]:
    """Sorts columns: by precision from left to right, and those that keep layers behind the one that keeps none."""
    precision = column.split(" ")[0]
    return (*ORDER, precision).index(precision), column


def what_ran(rows: Sequence[PrecisionRow]) -> dict[str, str]:
    """Precision -> backend and arithmetic, as the sessions said."""
    found: dict[str, dict[str, None]] = {}
    for row in rows:
        for each in (row.main, *(change.row for change in row.changes.values())):
            for run in each.record.networks:
                said = str(run.session.get("arithmetic", run.precision))
                text = run.backend if said == run.precision else f"{run.backend}, {said}"
                found.setdefault(run.precision, {})[text] = None
    return {name: " and ".join(found[name]) for name in sorted(found, key=lambda name: (*ORDER, name).index(name))}


def _pairs(row: Measured, other: Measured) -> bool:
    """Whether two records are the same networks, passes, choices and images in another precision."""

    def world(record: Record) -> Any:
        data = record.workload.data
        bad = sorted(str(entry.get("id")) for entry in data.get("bad", []))
        networks = [(run.network, run.weights.get("digest"), run.passes) for run in record.networks]
        return record.claim, networks, record.workload.choices, data.get("fingerprint"), bad

    return world(row.record) == world(other.record) and row.images == other.images


def _change(row: Measured, other: Measured) -> Change:
    right = np.asarray(row.record.samples.values) == 0
    also = np.asarray(other.record.samples.values) == 0
    lost, gained = int((right & ~also).sum()), int((~right & also).sum())
    effect = paired_effect(right.astype(float) - also.astype(float))
    return Change(
        row=other,
        points=100 * (lost - gained) / row.images,
        low=100 * effect.low,
        high=100 * effect.high,
        lost=lost,
        gained=gained,
        p=effect.p,
        p_holm=effect.p,
        expected=EXPECTED_POINTS.get(precision_of(other.record)),
    )


def _adjusted(rows: list[PrecisionRow]) -> list[PrecisionRow]:
    adjusted = iter(holm([change.p for row in rows for change in row.changes.values()]))
    return [
        replace(row, changes={name: replace(change, p_holm=next(adjusted)) for name, change in row.changes.items()})
        for row in rows
    ]


def _with_causes(rows: list[PrecisionRow], records: Sequence[Record]) -> list[PrecisionRow]:
    """Layers blamed by a numerics record of the same weights and precision, for the rows that changed too much."""
    blamed = {
        (record.networks[0].weights.get("digest"), precision_names(record)): _blamed(record.numerics)
        for record in records
        if record.numerics is not None
    }

    def with_causes(row: PrecisionRow, name: str, change: Change) -> Change:
        digest = row.main.record.networks[0].weights.get("digest")
        return change if change.is_expected else replace(change, causes=blamed.get((digest, name), ()))

    return [
        replace(row, changes={name: with_causes(row, name, change) for name, change in row.changes.items()})
        for row in rows
    ]


def _blamed(numerics: Numerics) -> tuple[str, ...]:
    """The layers that cost most alone, where that was measured; else those that add most to what came before them."""
    if numerics.sensitivity:
        return tuple(each.layer for each in numerics.sensitivity[:CAUSES])
    before = [0.0, *(each.relative_l2 for each in numerics.layers)]
    added = {each.layer: each.relative_l2 - last for each, last in zip(numerics.layers, before, strict=False)}
    return tuple(sorted(added, key=lambda layer: -added[layer])[:CAUSES])


def _name(row: Measured, claim: Claim | None) -> str:
    if claim is not None:
        return claim_name(claim)
    return f"{' + '.join(run.network for run in row.record.networks)} · {row.record.workload.protocol}"


def _place(row: Measured, claim: Claim | None) -> str:
    """ "Table 3, S = 256"."""
    found = (str(run.weights.get("train_scale") or "not known") for run in row.record.networks)
    scales = " + ".join(dict.fromkeys(found))
    return f"Table {claim.table}, S = {scales}" if claim else f"S = {scales}"
