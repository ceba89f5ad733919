"""The paper's tables as rows to show: printed values beside measured ones."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from vggbench import paper
from vggbench.paper import Claim, Quoted
from vggbench.report.rows import Measured, Verdict, for_claim, verdict
from vggbench.results_names import precision_name


@dataclass(frozen=True)
class ClaimRow:
    """One row of Tables 3-6. first: the record in the main cell; others: further seeds or backends; note: a letter."""

    claim: Claim
    name: str
    train_scales: str
    test_scales: str
    ran_at: str
    first: Measured | None
    others: tuple[Measured, ...]
    verdict: Verdict
    note: str

    @property
    def ran_as(self) -> str:
        """Backend, precision and training seeds: "onnxruntime fp32, seeds 0, 1, 2"."""
        if self.first is None:
            return ""
        runs = dict.fromkeys(f"{run.backend} {precision_name(run)}" for run in self.first.record.networks)
        rows = (self.first, *self.others)
        seeds = list(dict.fromkeys(str(row.record.seed) for row in rows if row.record.seed is not None))
        named = f", seed{'s' if len(seeds) > 1 else ''} {', '.join(seeds)}" if seeds else ""
        return " + ".join(runs) + named + (" (recorded)" if self.first.record.origin == "recorded" else "")


@dataclass(frozen=True)
class ClaimTable:
    """notes: letter -> reason, so that a reason shared by many rows is written once."""

    number: int
    about: str
    protocol: str
    rows: tuple[ClaimRow, ...]
    notes: dict[str, str]

    @property
    def images(self) -> list[int]:
        """The numbers of images that rows were measured on, each once, the least first."""
        return sorted({row.first.images for row in self.rows if row.first})

    @property
    def has_test_column(self) -> bool:
        return any(row.claim.top5_test_error_percent is not None for row in self.rows)


def claim_tables(rows: Sequence[Measured]) -> list[ClaimTable]:
    """Tables 3-6."""
    tables = []
    for number in (3, 4, 5, 6):
        table, letters = paper.table(number), dict[str, str]()
        found = [_claim_row(claim, rows, letters) for claim in paper.claims() if claim.table == number]
        notes = {letter: reason for reason, letter in letters.items()}
        tables.append(ClaimTable(number, table.about, table.protocol or "", tuple(found), notes))
    return tables


def _claim_row(claim: Claim, rows: Sequence[Measured], letters: dict[str, str]) -> ClaimRow:
    mine = for_claim(rows, claim)
    first = mine[0] if mine else None
    judged = verdict(claim, first.record if first else None)
    note = ""
    if judged.kind in ("not comparable", "not measured"):
        note = letters.setdefault(judged.reason, chr(ord("a") + len(letters)))
    scales = [", ".join(map(str, entry.test_scales)) for entry in claim.entries]
    return ClaimRow(
        claim,
        claim_name(claim),
        " + ".join(dict.fromkeys(entry.train_scale for entry in claim.entries)),
        " / ".join(dict.fromkeys(scales)),
        _ran_at(first),
        first,
        tuple(mine[1:]),
        judged,
        note,
    )


def claim_name(claim: Claim) -> str:
    """ "D", "D · multi-crop", "D + E · dense", "7 networks · dense"."""
    names = [entry.network for entry in claim.entries]
    shown = " + ".join(names) if len(names) <= 3 else f"{len(names)} networks"
    return shown if claim.table <= 4 else f"{shown} · {claim.technique}"


def _ran_at(row: Measured | None) -> str:
    """The scales that really ran, in pixels: on small networks the paper's are scaled with the crop."""
    if row is None:
        return ""
    sets = [sorted({int(step["scale"]) for step in run.passes}) for run in row.record.networks]
    return " / ".join(dict.fromkeys(", ".join(map(str, scales)) for scales in sets))


def networks() -> list[dict[str, Any]]:
    """Table 2 with exact counts: one row a network."""
    printed = {name: row["params_millions"] for row in paper.table(2).rows for name in row["configs"]}
    return [
        {"name": name, "depth": paper.depth(name), "millions": printed[name], **sizes}
        for name, sizes in paper.exact_sizes().items()
    ]


def configurations() -> dict[str, Any]:
    """Table 1: names of the columns, and per block the layers of each."""
    table = paper.table(1)
    names = [key for key in table.columns if key != "block"]
    return {"names": names, "depths": {name: paper.depth(name) for name in names}, "blocks": table.rows}


@dataclass(frozen=True)
class QuotedTable:
    number: int
    about: str
    columns: dict[str, str]
    rows: tuple[Quoted, ...]
    needs: str


_COLUMN_TITLES = {
    "top1_val_error": "top-1, val",
    "top5_val_error": "top-5, val",
    "top5_test_error": "top-5, test",
    "gt_class_localisation_error": "localisation error, true class given",
    "train_S": "S",
    "test_Q": "Q",
    "top5_val_loc_error": "top-5 localisation, val",
    "top5_test_loc_error": "top-5 localisation, test",
    "voc2007_map": "VOC-2007",
    "voc2007_map_extended": "VOC-2007, 2000 classes",
    "voc2012_map": "VOC-2012",
    "voc2012_map_extended": "VOC-2012, 2000 classes",
    "caltech101": "Caltech-101",
    "caltech256": "Caltech-256",
    "voc2012_action_map": "mean AP",
}
_UNIT = {7: "error, %", 8: "error, %", 9: "error, %", 10: "error, %", 11: "mean AP or class recall, %", 12: "%"}


def quoted_tables() -> list[QuotedTable]:
    """Tables 7-12."""
    tables = []
    for number in range(7, 13):
        rows = tuple(row for row in paper.quoted() if row.table == number)
        columns = {key: _COLUMN_TITLES.get(key, key) for key in rows[0].values}
        about = f"{paper.table(number).about.rstrip('.')} ({_UNIT[number]})."
        tables.append(QuotedTable(number, about, columns, rows, rows[0].needs))
    return tables


def quoted_value(value: Any) -> str:
    """A quoted cell as the paper prints it."""
    if value is None:
        return "\N{EN DASH}"
    if isinstance(value, dict):
        return f"{value['mean']} ± {value['std']}"
    if isinstance(value, list):
        return (
            " / ".join(quoted_value(v) for v in value)
            if any(isinstance(v, list) for v in value)
            else ", ".join(map(str, value))
        )
    return str(value)
