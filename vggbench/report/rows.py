"""Records -> the numbers the page shows: error rates with intervals, and a verdict on each row of the paper."""

from __future__ import annotations

import base64
import hashlib
import re
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from vggbench import paper_anchors
from vggbench.paper import Claim
from vggbench.results import Record
from vggbench.statistics import wilson

#: The validation set of ILSVRC-2012, the paper's test set (section 4).
IMAGENET_IMAGES = 50_000
IMAGENET_CLASSES = 1000
#: What vggbench.images calls it, in whatever layout it lies.
IMAGENET_NAME = "ILSVRC-2012"
#: The paper prints one decimal.
ROUNDING_POINTS = 0.05
#: Top-1 error of labels that have nothing to do with the images: 99.9 of 1000 classes; shuffled orders share a few.
CHANCE_PERCENT = 98.0


@dataclass(frozen=True)
class Rate:
    """An error rate in percent with its 95 % Wilson interval."""

    errors: int
    images: int
    percent: float
    low: float
    high: float


@dataclass(frozen=True)
class Measured:
    """One accuracy record, counted. anchor: its id on the page; line: its line in records.jsonl, from 1."""

    record: Record
    anchor: str
    line: int
    images: int
    top1: Rate
    top5: Rate

    @property
    def seed_label(self) -> str:
        return "" if self.record.seed is None else f"seed {self.record.seed}"


@dataclass(frozen=True)
class Verdict:
    """kind: "reproduced", "not reproduced", "not comparable" or "not measured"; reason: a sentence, no full stop.

    likely: of what is not reproduced, what most likely makes the difference.
    """

    kind: str
    reason: str
    likely: str = ""


def anchor_of(record: Record) -> str:
    """A record's id on the page, from its content."""
    return "record-" + hashlib.sha256(record.model_dump_json().encode()).hexdigest()[:12]


def rate(errors: int, images: int) -> Rate:
    """Errors among images as a rate in percent."""
    low, high = wilson(errors, images)
    return Rate(errors, images, 100 * errors / images, 100 * low, 100 * high)


def measured(records: Iterable[Record]) -> list[Measured]:
    """All accuracy records with at least one image, in their order."""
    found = []
    for line, record in enumerate(records, start=1):
        if record.kind != "accuracy" or not record.samples.values:
            continue
        images = len(record.samples.values)
        top1 = sum(1 for rank in record.samples.values if rank >= 1)
        top5 = sum(1 for rank in record.samples.values if rank >= 5)
        found.append(Measured(record, anchor_of(record), line, images, rate(top1, images), rate(top5, images)))
    return found


def for_claim(rows: Iterable[Measured], claim: Claim) -> list[Measured]:
    """The records that stand beside a claim: this run's first, then by seed."""
    mine = [row for row in rows if row.record.claim == claim.id]
    return sorted(
        mine, key=lambda row: (row.record.origin != "measured", -1 if row.record.seed is None else row.record.seed)
    )


def class_name(label: Any, data: Mapping[str, Any]) -> str:
    """A label's class by a dataset's description; the label itself where that names none."""
    classes = data.get("classes")
    names = classes if isinstance(classes, list | tuple) else ()
    known = isinstance(label, int) and not isinstance(label, bool) and 0 <= label < len(names)
    return str(names[label]) if known else str(label)


def embedded(jpeg: bytes | None) -> str:
    """An image as the address of itself, "" for none: a page that requests nothing holds its pictures."""
    return "data:image/jpeg;base64," + base64.b64encode(jpeg).decode() if jpeg else ""


def rank_counts(record: Record) -> dict[str, int]:
    """How many images had the true label at each rank; from this every error rate of the record follows."""
    return {str(rank): count for rank, count in sorted(Counter(record.samples.values).items())}


def verdict(claim: Claim, record: Record | None) -> Verdict:
    """What a record says about a row of the paper.

    Only the authors' weights on the whole ILSVRC-2012 validation set by the paper's protocol can confirm or
    contradict a row; then the printed value must lie in the 95 % interval, widened by the rounding of the print.
    """
    if record is None:
        return Verdict("not measured", _why_not_measured(claim))
    reasons = [*_weights_reasons(claim, record), *data_reasons(record), *_protocol_reasons(claim, record)]
    if reasons:
        return Verdict("not comparable", "; ".join(reasons))
    return compare(measured([record])[0], claim.top1_error_percent, claim.top5_error_percent, ROUNDING_POINTS)


def _why_not_measured(claim: Claim) -> str:
    missing = [entry for entry in claim.entries if not entry.has_public_weights]
    if not missing:
        return "not part of this run"
    names = ", ".join(dict.fromkeys(f"{entry.network} trained at S = {entry.train_scale}" for entry in missing))
    return f"not part of this run, and no public weights exist for {names}"


def _weights_reasons(claim: Claim, record: Record) -> list[str]:
    statuses = {str(run.weights.get("status", "other")) for run in record.networks}
    words = {
        "sample": "small networks trained by vggbench, not the authors' weights",
        "random": "random weights",
        "other": "not known to be the authors' weights (--authors-weights states it)",
    }
    reasons = [words.get(status, words["other"]) for status in sorted(statuses - {"authors"})]
    if not reasons:
        ran = sorted((run.network, str(run.weights.get("train_scale"))) for run in record.networks)
        if ran != sorted((entry.network, entry.train_scale) for entry in claim.entries):
            reasons.append("other networks or training scales than the row's")
    return reasons


def is_imagenet(data: dict[str, Any]) -> bool:
    """Whether the data is taken for ILSVRC-2012's validation images, whole or in part."""
    # ImageNet-V2, Imagenette and ReaL's labels are other tests, whatever their folders are called.
    return data.get("name") == IMAGENET_NAME and class_count(data) == IMAGENET_CLASSES and not data.get("labels")


def class_count(data: dict[str, Any]) -> int:
    """Number of classes of a dataset's description; 0 if it does not say."""
    classes = data.get("classes", 0)
    return int(classes) if isinstance(classes, int | float | str) else len(classes)


def data_reasons(record: Record) -> list[str]:
    """Why a record's images are not the paper's test set; nothing where they are."""
    data = record.workload.data
    if not is_imagenet(data):
        return [f"images of {data.get('name') or 'another set'}, not the ILSVRC-2012 validation set"]
    images = len(record.samples.values)
    if images != IMAGENET_IMAGES:
        return [f"{images:,} of the 50,000 validation images"]
    return []


def _protocol_reasons(claim: Claim, record: Record) -> list[str]:
    if any(run.weights.get("status") != "authors" for run in record.networks):
        return []  # scaled to another crop size on purpose, and the weights' reason stands already
    from vggbench.protocols import Choices, as_flat_dict  # its import loads the networks, so only where needed

    reasons = []
    if any(views(run.passes) not in _paper_passes(claim) for run in record.networks):
        reasons.append("other scales or views than the paper's protocol")
    others = other_choices(record, as_flat_dict(Choices()))
    if others:
        named = ", ".join(f"{name} = {value}" for name, value in sorted(others.items()))
        reasons.append(f"another reading than the default one ({named})")
    return reasons


def other_choices(record: Record, wanted: dict[str, str]) -> dict[str, str]:
    """The open choices of a record that are not as wanted."""
    return {name: value for name, value in record.workload.choices.items() if wanted.get(name, value) != value}


Views = frozenset[tuple[str, int, str, bool]]


def views(passes: Iterable[dict[str, Any]]) -> Views:
    """Passes as paper_anchors has them, whatever their order."""
    return frozenset((str(p["form"]), int(p["scale"]), str(p["grid"]), bool(p["flip"])) for p in passes)


def _paper_passes(claim: Claim) -> set[Views]:
    """The passes of each network of a claim (section 3.2, Tables 3-6)."""
    found = set()
    for entry in claim.entries:
        steps = [("dense", q, "whole", True) for q in entry.test_scales if "dense" in claim.technique]
        steps += [("crop", q, "5x5", True) for q in entry.test_scales if "multi-crop" in claim.technique]
        found.add(frozenset(steps))
    return found


def compare(row: Measured, top1: float | None, top5: float | None, rounding_points: float) -> Verdict:
    """Published errors beside measured ones, in percent: each must lie in the interval, widened by its rounding."""
    pairs = (("top-1", top1, row.top1), ("top-5", top5, row.top5))
    away = {
        name: seen.percent - printed
        for name, printed, seen in pairs
        if printed is not None and not seen.low - rounding_points <= printed <= seen.high + rounding_points
    }
    if not away:
        return Verdict("reproduced", "the printed value lies within the interval and the rounding of the print")
    told = " and ".join(f"{name} by {signed(points, 2)} points" for name, points in away.items())
    return Verdict("not reproduced", f"differs in {told}", _likely(row, max(away.values(), key=abs)))


def _likely(row: Measured, points: float) -> str:
    """The likeliest reason for being off by so many points, from what the record says and what is known of others."""
    precisions = {run.precision for run in row.record.networks} - {"fp32"}
    if precisions and abs(points) < 2:
        return f"it ran at {', '.join(sorted(precisions))}; fp32 says whether that is the reason"
    if row.record.workload.data.get("bad"):
        return "images that could not be read were left out"
    if row.top1.percent >= CHANCE_PERCENT:
        return "labels in another class order: the devkit's instead of WordNet's"
    spread = paper_anchors.loader_spread_points()
    if abs(points) <= spread:
        return (
            f"decoding and rescaling of the images: image loaders alone moved the center-crop error of one file by "
            f"{spread:.1f} points"
        )
    if points < 0:
        return "other images or labels: compare the data's fingerprint"
    return "the input: channel order, mean or scale other than the weights expect, or images that were cut or warped"


def titled(precisions: str) -> str:
    """For people: "int8 (fc6 in float)" as "INT8 (fc6 in float)"; a layer's name stays as it is."""
    return re.sub(r"(^|\+ )\w+", lambda found: found[0].upper(), precisions)


def signed(value: float, digits: int = 1) -> str:
    """With a sign in front, the typographic minus included: "+0.4", "\u22120.4"; never "-0.0"."""
    text = f"{value:+.{digits}f}"
    return f"{0:.{digits}f}" if float(text) == 0 else text.replace("-", "\N{MINUS SIGN}")
