"""What the paper found out about its networks, as data: which measured rows speak for which sentence."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Contrast:
    """Two rows by key (see findings_rows.row_key); the effect is the error of a minus the error of b."""

    a: str
    b: str


@dataclass(frozen=True)
class Question:
    """What the paper says. each: groups of contrasts that must all hold; the contrasts of a group are averaged.

    about: "training" compares differently trained networks, "testing" the same networks tested in two ways.
    """

    id: str
    statement: str
    kind: Literal["better", "equal", "no-gain"]
    about: Literal["training", "testing"]
    each: tuple[tuple[Contrast, ...], ...]
    note: str = ""


_SCALES = ("256", "384", "[256;512]")
_JITTERED = "[256;512]"


def _trained(a: str, b: str, scales: Sequence[str] = ("256",)) -> tuple[Contrast, ...]:
    return tuple(Contrast(f"table3/{a}/{scale}", f"table3/{b}/{scale}") for scale in scales)


def _tested(a: str, b: str, networks: Sequence[str] = ("D", "E")) -> tuple[Contrast, ...]:
    rows = [f"table5/{network}/{_JITTERED}" for network in networks]
    return tuple(Contrast(f"{row}/{a}", f"{row}/{b}") for row in rows)


def _fused(technique: str) -> str:
    return f"table6/D/{_JITTERED}+E/{_JITTERED}/{technique}"


_BOTH = "multi-crop-and-dense"
_MULTI_SCALE = [("B", "256"), *((network, scale) for network in "CDE" for scale in _SCALES)]

#: The findings of sections 4.1 to 4.4 that Tables 3-6 carry, in the paper's order.
QUESTIONS: tuple[Question, ...] = (
    Question(
        "lrn",
        "Local response normalization does not improve a network: A-LRN against A (section 4.1, Table 3).",
        "no-gain",
        "training",
        (_trained("A-LRN", "A"),),
    ),
    Question(
        "depth-11-13",
        "More depth, less error: B with 13 layers beats A with 11, at S = 256 (section 4.1, Table 3).",
        "better",
        "training",
        (_trained("A", "B"),),
    ),
    Question(
        "depth-13-16",
        "More depth, less error: D with 16 layers beats B with 13, at S = 256 (section 4.1, Table 3).",
        "better",
        "training",
        (_trained("B", "D"),),
    ),
    Question(
        "depth-saturates",
        "The gain from depth saturates at 19 layers: E errs as often as D at each S (section 4.1, Table 3).",
        "equal",
        "training",
        (_trained("E", "D", _SCALES),),
    ),
    Question(
        "nonlinearity",
        "Additional non-linearity helps: C, which is B with 1x1 layers added, beats B (section 4.1, Table 3).",
        "better",
        "training",
        (_trained("B", "C"),),
    ),
    Question(
        "spatial-context",
        "Spatial context matters: D with 3x3 layers beats C with 1x1 layers in their place, at each S "
        "(section 4.1, Table 3).",
        "better",
        "training",
        (_trained("C", "D", _SCALES),),
    ),
    Question(
        "small-filters",
        "Two 3x3 layers beat one 5x5 layer: B against the shallow network, on center crops (section 4.1).",
        "better",
        "training",
        ((Contrast("center/shallow-B/256", "center/B/256"),),),
    ),
    Question(
        "train-jitter",
        "Scale jittering at training time beats a fixed S = 384: C, D and E at Q = 384 (section 4.1, Table 3).",
        "better",
        "training",
        (tuple(Contrast(f"table3/{network}/384", f"table3/{network}/{_JITTERED}") for network in "CDE"),),
        "The sample family trains both sides for the same number of further epochs.",
    ),
    Question(
        "multi-scale",
        "Testing at several scales beats testing at one (section 4.2, Table 4 against Table 3).",
        "better",
        "testing",
        (tuple(Contrast(f"table3/{network}/{scale}", f"table4/{network}/{scale}") for network, scale in _MULTI_SCALE),),
    ),
    Question(
        "multi-crop",
        "Multi-crop testing is slightly better than dense testing: D and E (section 4.3, Table 5).",
        "better",
        "testing",
        (_tested("dense", "multi-crop"),),
    ),
    Question(
        "crops-and-dense",
        "Multi-crop and dense testing together beat each alone: D and E (section 4.3, Table 5).",
        "better",
        "testing",
        (_tested("dense", _BOTH), _tested("multi-crop", _BOTH)),
    ),
    Question(
        "fusion",
        "The mean of D and E beats each of them, tested densely at three scales (section 4.4, Table 6).",
        "better",
        "testing",
        tuple((Contrast(f"table5/{network}/{_JITTERED}/dense", _fused("dense")),) for network in "DE"),
    ),
    Question(
        "fusion-crops-and-dense",
        "For D and E fused, multi-crop and dense together beat each alone (section 4.4, Table 6).",
        "better",
        "testing",
        ((Contrast(_fused("dense"), _fused(_BOTH)),), (Contrast(_fused("multi-crop"), _fused(_BOTH)),)),
    ),
)


def label(key: str) -> str:
    """A row's key for people: "table5/D/[256;512]/dense" -> "D/[256;512] dense (Table 5)"."""
    place, names = key.split("/", 1)
    technique = ""
    if place in ("table5", "table6"):
        names, technique = names.rsplit("/", 1)
    where = f"Table {place[5:]}" if place.startswith("table") else {"center": "center crop"}.get(place, place)
    return f"{names}{' ' + technique.replace('-and-', ' & ') if technique else ''} ({where})"


#: A finding's name for tables and charts.
TITLES = {
    "lrn": "LRN brings no gain",
    "depth-11-13": "Depth, 11 to 13 layers",
    "depth-13-16": "Depth, 13 to 16 layers",
    "depth-saturates": "Depth saturates at 19",
    "nonlinearity": "1x1 layers help",
    "spatial-context": "3x3 beats 1x1",
    "small-filters": "Two 3x3 beat one 5x5",
    "train-jitter": "Scale jitter in training",
    "multi-scale": "Several test scales",
    "multi-crop": "Crops against dense",
    "crops-and-dense": "Crops and dense",
    "fusion": "Fusion of two networks",
    "fusion-crops-and-dense": "Fusion, crops and dense",
}
