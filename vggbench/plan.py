"""Claims -> work: which networks run which passes on how many images, and what that costs.

A row is one number to be measured. Rows share passes: a pass of a network runs once, on as many images as the row that
needs most of them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from vgg_reference.architectures import architecture, count_macs, dense_macs
from vgg_reference.weights import Weights
from vggbench import paper, paper_anchors
from vggbench.errors import UsageError
from vggbench.paper import Claim, Entry
from vggbench.protocols import Choices, Pass, Protocol, default_scales, protocol, protocol_for

#: Images of the default run for rows with 150 crops an image; --full takes all.
COSTLY_IMAGES = 600

#: (network, training scale S as the paper prints it) -> weights.
Available = Mapping[tuple[str, str], Weights]

#: Which of other people's figures of the same files get a row, their views measured as they say.
ANCHORS = {
    "center": "those of one center crop",
    "all": "every one whose views can be had: ten crops and dense ones too",
    "only": "those of one center crop, and no row of the paper",
    "none": "none",
}

#: Section 4.1 compares B with its shallow form on center crops, in a sentence and not in a table.
CENTER_CROP = (Entry("B", "256", (256,)), Entry("shallow-B", "256", (256,)))


@dataclass(frozen=True)
class Part:
    """One network of a row: its weights and how they are tested."""

    weights: Weights
    protocol: Protocol


@dataclass(frozen=True)
class Row:
    """One number to be measured over the first ``images`` images; several parts are fused. claim: its id, or None.

    resize_filter: of a figure that names another than the run's; None for the run's.
    """

    claim: str | None
    parts: tuple[Part, ...]
    images: int
    resize_filter: str | None = None

    def choices(self, choices: Choices) -> Choices:
        """The run's, with the row's own filter."""
        return replace(choices, resize_filter=self.resize_filter or choices.resize_filter)


@dataclass(frozen=True)
class NetworkPlan:
    """One network's work: passes with the number of images each must cover, and the claims that they serve.

    batches: the same work as runs over the first so many images, most images first; each holds all passes that the rows
    over so many images need. resize_filter: as of its rows; a network whose rows differ in it stands twice.
    """

    weights: Weights
    passes: tuple[tuple[Pass, int], ...]
    claims: tuple[str, ...]
    batches: tuple[tuple[int, tuple[Pass, ...]], ...]
    resize_filter: str | None = None

    def choices(self, choices: Choices) -> Choices:
        """The run's, with the rows' own filter."""
        return replace(choices, resize_filter=self.resize_filter or choices.resize_filter)


@dataclass(frozen=True)
class Plan:
    """missing: "C trained at S = 256" for every network that a chosen claim needs and nobody gave."""

    rows: tuple[Row, ...]
    networks: tuple[NetworkPlan, ...]
    missing: tuple[str, ...]


def choose_claims(tables: Sequence[int] | None = None) -> tuple[Claim, ...]:
    """The rows of these tables (all of 3-6 if None). Raises UsageError for a table that is only quoted or unknown."""
    known = sorted({claim.table for claim in paper.claims()})
    for number in tables or ():
        if number not in known:
            raise UsageError(f"Table {number} holds no rows to measure. Known: {', '.join(map(str, known))}.")
    return tuple(claim for claim in paper.claims() if not tables or claim.table in tables)


def plan(
    claims: Sequence[Claim],
    available: Available,
    images: int,
    costly_images: int | None = COSTLY_IMAGES,
    anchors: str = "none",
    choices: Choices | None = None,
) -> Plan:
    """Rows for all claims whose networks are there, over ``images`` images.

    costly_images: at most so many for rows with multi-crop testing; None takes all. anchors: a name of ANCHORS, for
    images that other people's figures are of; each set of views once. choices: the run's, None for the default ones.
    """
    rows, missing = [], []
    for claim in claims:
        absent = [entry for entry in claim.entries if (entry.network, entry.train_scale) not in available]
        missing += [f"{entry.network} trained at S = {entry.train_scale}" for entry in absent]
        if not absent:
            costly = "multi-crop" in claim.technique and costly_images is not None
            count = min(images, costly_images) if costly and costly_images else images
            parts = tuple(_part(claim, entry, available) for entry in claim.entries)
            rows.append(Row(claim.id, parts, count))
    if any(claim.table == 3 for claim in claims):
        rows += _center_rows(available, images)
    rows += _anchor_rows(available, images, anchors, choices or Choices(), rows)
    return Plan(tuple(rows), _networks(rows), tuple(dict.fromkeys(missing)))


def published(missing: Sequence[str]) -> tuple[list[str], list[str]]:
    """Of a plan's missing networks, those whose weights the authors published, and those that nobody has."""
    public = {f"{network} trained at S = {paper.PUBLIC_TRAIN_SCALE}" for network in paper.PUBLIC_NETWORKS}
    return [name for name in missing if name in public], [name for name in missing if name not in public]


def single(weights: Weights, protocol_: Protocol, images: int) -> Plan:
    """One network tested in one way: what `evaluate` runs."""
    rows = (Row(None, (Part(weights, protocol_),), images),)
    return Plan(rows, _networks(rows), ())


def crop_equivalents(network: NetworkPlan, choices: Choices, aspect: float = 4 / 3) -> float:
    """The network's work in center crops: multiply-accumulates over those of one crop.

    aspect: of a typical image, longer over shorter side; dense passes depend on it.
    """
    return sum(images * image_crops(network.weights, step, choices, aspect) for step, images in network.passes)


def image_crops(weights: Weights, step: Pass, choices: Choices, aspect: float = 4 / 3) -> float:
    """Crop-equivalents of one image in one pass: 50 for a 5x5 grid with flips."""
    if step.form == "crop":
        return step.views
    network = architecture(weights.network, weights.batch_norm)
    ceil = choices.pool_rounding == "ceil"
    macs = dense_macs(network, step.scale, round(step.scale * aspect), ceil, **weights.size)
    return step.views * macs / crop_macs(weights)


def crop_macs(weights: Weights) -> int:
    """Multiply-accumulates of one crop."""
    return count_macs(architecture(weights.network, weights.batch_norm), **weights.size)


def _part(claim: Claim, entry: Entry, available: Available) -> Part:
    weights = available[entry.network, entry.train_scale]
    return Part(weights, protocol_for(claim, entry, weights.crop_size))


def _center_rows(available: Available, images: int) -> list[Row]:
    rows = []
    for entry in CENTER_CROP:
        weights = available.get((entry.network, entry.train_scale))
        if weights is not None:
            scales = default_scales("center", entry.train_scale, weights.crop_size)
            rows.append(Row(None, (Part(weights, protocol("center", scales)),), images))
    return rows


def _anchor_rows(available: Available, images: int, which: str, choices: Choices, others: Sequence[Row]) -> list[Row]:
    """What the figures of these weights need beside the other rows."""
    rows = list(others)
    for weights in available.values() if which != "none" else ():
        source = weights.source
        digests = {"sha1": source.sha1, "sha256": source.sha256, "md5": source.md5} if source else {}
        known = paper_anchors.lineage(weights.network, weights.status, digests)
        for anchor in paper_anchors.of_lineage(*known) if known else ():
            if anchor.views is None or (which != "all" and anchor.views != paper_anchors.CENTER):
                continue
            part = Part(weights, protocol(*paper_anchors.protocol_of(anchor.views)))
            named = anchor.resize_filter if anchor.resize_filter != choices.resize_filter else None
            if not any(row.resize_filter == named and _same(row, part, images) for row in rows):
                rows.append(Row(None, (part,), images, named))
    return rows[len(others) :]


def _same(row: Row, part: Part, images: int) -> bool:
    """Whether a row measures this part alone, on as many images."""
    first = row.parts[0]
    alone = len(row.parts) == 1 and first.weights.digest == part.weights.digest and row.images == images
    return alone and set(first.protocol.passes) == set(part.protocol.passes)


def _networks(rows: Sequence[Row]) -> tuple[NetworkPlan, ...]:
    """Each network's passes once, on the images of the row that needs most; networks in order of first use."""
    parts: dict[tuple[str, str | None], list[tuple[Row, Part]]] = {}
    for row in rows:
        for part in row.parts:
            parts.setdefault((part.weights.digest, row.resize_filter), []).append((row, part))
    return tuple(_network(found) for found in parts.values())


def _network(parts: Sequence[tuple[Row, Part]]) -> NetworkPlan:
    most: dict[Pass, int] = {}
    batches: dict[int, dict[Pass, None]] = {}
    for row, part in parts:
        for step in part.protocol.passes:
            most[step] = max(most.get(step, 0), row.images)
            batches.setdefault(row.images, {})[step] = None
    return NetworkPlan(
        weights=parts[0][1].weights,
        passes=tuple(most.items()),
        claims=tuple(dict.fromkeys(row.claim for row, _ in parts if row.claim)),
        batches=tuple((images, tuple(batches[images])) for images in sorted(batches, reverse=True)),
        resize_filter=parts[0][0].resize_filter,
    )
