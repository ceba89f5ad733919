"""The paper's tables as typed data, read from paper_tables.json; no figure is typed in code.

Imports nothing of the project.
"""

from __future__ import annotations

import functools
import json
from dataclasses import dataclass
from importlib import resources
from typing import Any

#: The authors released one model each of these networks, trained with this scale jittering (their model gists).
PUBLIC_NETWORKS = ("D", "E")
PUBLIC_TRAIN_SCALE = "[256;512]"


@dataclass(frozen=True)
class Entry:
    """One network of a row: its configuration, training scale S and test scales Q (pixels, shorter side)."""

    network: str
    train_scale: str
    test_scales: tuple[int, ...]

    @property
    def has_public_weights(self) -> bool:
        """Whether the authors published the weights behind it."""
        return self.network in PUBLIC_NETWORKS and self.train_scale == PUBLIC_TRAIN_SCALE


@dataclass(frozen=True)
class Claim:
    """One classification row of Tables 3-6: what the paper printed, in percent; None where it printed "-".

    technique: "dense", "multi-crop" or "multi-crop & dense". Several entries are fused by the mean of posteriors.
    """

    id: str
    table: int
    entries: tuple[Entry, ...]
    technique: str
    top1_error_percent: float | None
    top5_error_percent: float | None
    top5_test_error_percent: float | None = None
    group: str | None = None

    @property
    def has_public_weights(self) -> bool:
        return all(entry.has_public_weights for entry in self.entries)


@dataclass(frozen=True)
class Quoted:
    """A row that is quoted, not measured (Tables 7-12): values by column key, and what would measure it."""

    table: int
    label: str
    values: dict[str, Any]
    this_paper: bool
    needs: str


@dataclass(frozen=True)
class Table:
    """A table's number, caption, columns (key -> unit) and rows as in the file."""

    number: int
    about: str
    columns: dict[str, str | None]
    rows: tuple[dict[str, Any], ...]
    protocol: str | None


@functools.cache
def _file() -> dict[str, Any]:
    text = resources.files("vggbench").joinpath("paper_tables.json").read_text(encoding="utf-8")
    data: dict[str, Any] = json.loads(text)
    return data


def table(number: int) -> Table:
    """One of Tables 1-12. Raises KeyError."""
    found = _file()["tables"][f"table{number}"]
    columns = {column["key"]: column["unit"] for column in found["columns"]}
    return Table(number, found["about"], columns, tuple(found["rows"]), found.get("protocol"))


def source() -> dict[str, str]:
    """Title, authors, arXiv number, venue and address of the paper."""
    return dict(_file()["paper"])


def exact_sizes() -> dict[str, dict[str, int]]:
    """Per network: params, weights, biases and macs_224 (multiply-accumulates of one 224 px crop), from Table 1."""
    return {name: dict(sizes) for name, sizes in _file()["derived"]["exact_sizes"].items()}


def depth(network: str) -> int:
    """Weight layers of a network, the first line of Table 1: 11 for A, 19 for E."""
    return int(_file()["tables"]["table1"]["weight_layers"][network])


def public_models() -> dict[str, Any]:
    """Published weights with addresses, digests, preprocessing and licences, as in the file."""
    return dict(_file()["public_models"])


def anchors() -> list[dict[str, Any]]:
    """Other people's figures for the authors' weights."""
    return list(_file()["secondary_anchors"])


@functools.cache
def claims() -> tuple[Claim, ...]:
    """All rows of Tables 3-6, in the paper's order."""
    found: list[Claim] = []
    for number in (3, 4, 5):
        for row in table(number).rows:
            entry = Entry(row["config"], row["train_S"], tuple(row["test_Q"]))
            technique = row.get("method", "dense")
            found.append(_claim(number, (entry,), technique, row))
    for row in table(6).rows:
        entries = tuple(Entry(m["config"], m["train_S"], tuple(m["test_Q"])) for m in row["models"])
        found.append(_claim(6, entries, row["evaluation"], row))
    return tuple(found)


def _claim(number: int, entries: tuple[Entry, ...], technique: str, row: dict[str, Any]) -> Claim:
    names = "+".join(f"{entry.network}/{entry.train_scale}" for entry in entries)
    suffix = f"/{technique.replace(' & ', '-and-')}" if number >= 5 else ""
    return Claim(
        id=f"table{number}/{names}{suffix}",
        table=number,
        entries=entries,
        technique=technique,
        top1_error_percent=row["top1_val_error"],
        top5_error_percent=row["top5_val_error"],
        top5_test_error_percent=row.get("top5_test_error"),
        group=row.get("group"),
    )


#: What would measure the rows that are only quoted.
_NEEDS = {
    7: "ILSVRC validation images and both public models for this paper's rows; the others are other systems",
    8: "localisation networks (no public weights) and ILSVRC boxes",
    9: "localisation networks (no public weights) and ILSVRC boxes",
    10: "localisation networks (no public weights) and ILSVRC boxes",
    11: "features of the public models on VOC-2007, VOC-2012, Caltech-101 and Caltech-256, and a linear SVM",
    12: "features of the public models on VOC-2012 action images and a linear SVM",
}
_LABEL_KEYS = ("method", "model", "finetuned_layers")


def quoted() -> tuple[Quoted, ...]:
    """All rows of Tables 7-12."""
    rows = []
    for number, needs in _NEEDS.items():
        for row in table(number).rows:
            label = " / ".join(str(row[key]) for key in (*_LABEL_KEYS, "regression") if key in row)
            values = {key: row.get(key) for key in table(number).columns if key not in (*_LABEL_KEYS, "regression")}
            rows.append(Quoted(number, label, values, bool(row.get("this_paper", number in (8, 9))), needs))
    return tuple(rows)
