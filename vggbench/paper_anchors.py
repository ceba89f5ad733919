"""Other people's figures for published weights, with the protocol of each: what a measurement may be held against.

Read from paper_tables.json; its protocols are sentences, and what they mean as views of an image is said here.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from vggbench import paper, paper_models
from vggbench.paper_models import Published

#: Views of an image, as the passes of a record: (form, shorter side in pixels, grid, flip).
Views = frozenset[tuple[str, int, str, bool]]

CENTER: Views = frozenset({("crop", 256, "center", False)})
TEN_CROP: Views = frozenset({("crop", 256, "corners", True)})

#: The first phrase found in a protocol's words decides: its views, or why no run of vggbench is the same.
_PHRASES: tuple[tuple[str, Views | str], ...] = (
    ("warped", "its images were warped to a square, vggbench keeps their shape"),
    ("earlier image loader", "measured with an image loader that its maker has replaced"),
    ("first loader", "measured with an image loader that its maker has replaced"),
    ("10-crop", TEN_CROP),
    ("centre crop", CENTER),
)


@dataclass(frozen=True)
class Anchor:
    """One published figure of one network's weights, errors in percent; None where it is not given.

    lineage: "authors" (their weights in any container) or the name of a torchvision model. protocol: in the source's
    words. views: the same as passes; None where ``why_not`` says why nothing can be held against it. resize_filter:
    where the source says. rounding_points: half of the last digit given.
    """

    who: str
    weights: str
    lineage: str
    network: str
    protocol: str
    views: Views | None
    why_not: str
    top1_error_percent: float | None
    top5_error_percent: float | None
    rounding_points: float
    resize_filter: str | None = None


@functools.cache
def anchors() -> tuple[Anchor, ...]:
    """All of them: the authors' own figures, those of others for the same weights, torchvision's."""
    return (*_authors(), *_secondary(), *_torchvision())


def of_model(model: Published) -> tuple[Anchor, ...]:
    """What may be held against a published file."""
    lineage = model.lineage if model.lineage == "authors" else model.name
    return of_lineage(lineage, model.network)


def of_lineage(lineage: str, network: str) -> tuple[Anchor, ...]:
    """The figures of these weights."""
    return tuple(anchor for anchor in anchors() if (anchor.lineage, anchor.network) == (lineage, network))


def lineage(network: str, status: str, digests: Mapping[str, str]) -> tuple[str, str] | None:
    """Whose weights these are, and of which network: by their file's digests, or as stated; None if unknown."""
    model = paper_models.identify(digests)
    if model is not None and model.network == network:
        return (model.lineage if model.lineage == "authors" else model.name, network)
    return ("authors", network) if status == "authors" else None


def protocol_of(views: Views) -> tuple[str, tuple[int, ...]]:
    """What a figure's views are called on the command line, and their scales in pixels."""
    scales = tuple(sorted(scale for _, scale, _, _ in views))
    grids = {grid for _, _, grid, _ in views}
    name = "center" if "center" in grids else "ten-crop" if "corners" in grids else "dense"
    return ("multi-scale" if len(scales) > 1 else name, scales)


@functools.cache
def loader_spread_points() -> float:
    """By how much the center crop's top-1 error of one file moved with nothing but the image loader."""
    errors: dict[str, list[float]] = {}
    for anchor in anchors():
        if anchor.who.startswith("MatConvNet") and anchor.top1_error_percent is not None:
            errors.setdefault(anchor.network, []).append(anchor.top1_error_percent)
    return max(max(found) - min(found) for found in errors.values())


def _authors() -> Iterator[Anchor]:
    for model in paper.public_models()["authors_caffe"]:
        for key, value in model["published"].items() if "config" in model else ():
            match = re.fullmatch(r"dense_Q([\d_]+)_top5_val", key)
            if match is None:
                continue  # the test server's
            scales = [int(scale) for scale in match[1].split("_")]
            yield Anchor(
                who="the authors, with the model",
                weights=model["name"],
                lineage="authors",
                network=model["config"],
                protocol=f"dense, Q = {', '.join(map(str, scales))}",
                views=frozenset(("dense", scale, "whole", True) for scale in scales),
                why_not="",
                top1_error_percent=None,
                top5_error_percent=value,
                rounding_points=_rounding(value),
            )


def _secondary() -> Iterator[Anchor]:
    protocol = ""
    for row in paper.anchors():
        protocol = protocol if row["protocol"] == "same" else row["protocol"]
        for index, depth in enumerate(re.findall(r"(?<!\d)1[69]", row["weights"])):
            plain = _anchor(row, depth, protocol, _error(row, "1", index), _error(row, "5", index))
            if plain is not None:
                yield plain
            ten = _anchor(row, depth, f"10-crop of: {protocol}", None, row.get("err5_10crop"))
            if ten is not None:
                yield ten


def _anchor(row: dict[str, Any], depth: str, protocol: str, top1: float | None, top5: float | None) -> Anchor | None:
    given = [error for error in (top1, top5) if error is not None]
    if not given:
        return None
    meaning = next((means for phrase, means in _PHRASES if phrase in protocol.lower()), "its protocol is not stated")
    return Anchor(
        who=row["who"],
        weights=row["weights"],
        lineage="authors",
        network=paper_models.DEPTHS[depth],
        protocol=protocol,
        views=None if isinstance(meaning, str) else meaning,
        why_not=meaning if isinstance(meaning, str) else "",
        top1_error_percent=top1,
        top5_error_percent=top5,
        rounding_points=max(map(_rounding, given)),
    )


def _error(row: dict[str, Any], which: str, index: int) -> float | None:
    """An error in percent, from an accuracy where only that is given."""
    for key, sign in ((f"err{which}", 1), (f"acc{which}", -1)):
        value = row.get(key)
        value = value[index] if isinstance(value, list) else value
        if isinstance(value, (int, float)):
            return value if sign > 0 else round(100 - value, _digits(value))
    return None


def _torchvision() -> Iterator[Anchor]:
    found = paper.public_models()["torchvision"]
    protocol = found["note"].split(";")[1].strip()
    for model in found["weights"]:
        yield Anchor(
            who="torchvision",
            weights=model["name"],
            lineage=model["name"],
            network=model["config"],
            protocol=f"{protocol}, bilinear",
            views=CENTER,
            why_not="",
            top1_error_percent=model["err1"],
            top5_error_percent=model["err5"],
            rounding_points=max(_rounding(model["err1"]), _rounding(model["err5"])),
            resize_filter=paper_models.torchvision_filter(),
        )


def _digits(value: float) -> int:
    return len(str(value).partition(".")[2])


def _rounding(value: float) -> float:
    return float(0.5 * 10 ** -_digits(value))
