"""Claims -> work: which networks run which passes on how many images, and what that costs.

A row is one number to be measured. Rows share passes: a pass of a network runs once, on as many images as the row that
needs most of them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from vgg_reference.architectures import architecture, count_macs, dense_macs
from vgg_reference.weights import Weights
from vggbench import paper
from vggbench.errors import UsageError
from vggbench.paper import Claim, Entry
from vggbench.protocols import Choices, Pass, Protocol, default_scales, protocol, protocol_for

#: Images of the default run for rows with 150 crops an image; --full takes all.
COSTLY_IMAGES = 600

#: (network, training scale S as the paper prints it) -> weights.
Available = Mapping[tuple[str, str], Weights]

#: Section 4.1 compares B with its shallow form on center crops, in a sentence and not in a table.
_CENTER_CROP = (Entry("B", "256", (256,)), Entry("shallow-B", "256", (256,)))


@dataclass(frozen=True)
class Part:
    """One network of a row: its weights and how they are tested."""

    weights: Weights
    protocol: Protocol


@dataclass(frozen=True)
class Row:
    """One number to be measured over the first ``images`` images; several parts are fused. claim: its id, or None."""

    claim: str | None
    parts: tuple[Part, ...]
    images: int


@dataclass(frozen=True)
class NetworkPlan:
    """One network's work: passes with the number of images each must cover, and the claims that they serve."""

    weights: Weights
    passes: tuple[tuple[Pass, int], ...]
    claims: tuple[str, ...]


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


def plan(claims: Sequence[Claim], available: Available, images: int, costly_images: int | None = COSTLY_IMAGES) -> Plan:
    """Rows for all claims whose networks are there, over ``images`` images.

    costly_images: at most so many for rows with multi-crop testing; None takes all.
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
    return Plan(tuple(rows), _networks(rows), tuple(dict.fromkeys(missing)))


def single(weights: Weights, protocol_: Protocol, images: int) -> Plan:
    """One network tested in one way: what `evaluate` runs."""
    rows = (Row(None, (Part(weights, protocol_),), images),)
    return Plan(rows, _networks(rows), ())


def crop_equivalents(network: NetworkPlan, choices: Choices, aspect: float = 4 / 3) -> float:
    """The network's work in center crops: multiply-accumulates over those of one crop.

    aspect: of a typical image, longer over shorter side; dense passes depend on it.
    """
    weights = network.weights
    return sum(images * _pass_macs(weights, pass_, choices, aspect) for pass_, images in network.passes) / crop_macs(
        weights
    )


def crop_macs(weights: Weights) -> int:
    """Multiply-accumulates of one crop."""
    return count_macs(architecture(weights.network, weights.batch_norm), **weights.size)


def _pass_macs(weights: Weights, pass_: Pass, choices: Choices, aspect: float) -> float:
    if pass_.form == "crop":
        return pass_.views * crop_macs(weights)
    network = architecture(weights.network, weights.batch_norm)
    ceil = choices.pool_rounding == "ceil"
    return pass_.views * dense_macs(network, pass_.scale, round(pass_.scale * aspect), ceil, **weights.size)


def _part(claim: Claim, entry: Entry, available: Available) -> Part:
    weights = available[entry.network, entry.train_scale]
    return Part(weights, protocol_for(claim, entry, weights.crop_size))


def _center_rows(available: Available, images: int) -> list[Row]:
    rows = []
    for entry in _CENTER_CROP:
        weights = available.get((entry.network, entry.train_scale))
        if weights is not None:
            scales = default_scales("center", entry.train_scale, weights.crop_size)
            rows.append(Row(None, (Part(weights, protocol("center", scales)),), images))
    return rows


def _networks(rows: Sequence[Row]) -> tuple[NetworkPlan, ...]:
    """Each network's passes once, on the images of the row that needs most; networks in order of first use."""
    needed: dict[str, dict[Pass, int]] = {}
    claims: dict[str, list[str]] = {}
    weights: dict[str, Weights] = {}
    for row in rows:
        for part in row.parts:
            digest = part.weights.digest
            weights.setdefault(digest, part.weights)
            claims.setdefault(digest, []).extend([row.claim] if row.claim else [])
            passes = needed.setdefault(digest, {})
            for pass_ in part.protocol.passes:
                passes[pass_] = max(passes.get(pass_, 0), row.images)
    return tuple(
        NetworkPlan(weights[digest], tuple(passes.items()), tuple(dict.fromkeys(claims[digest])))
        for digest, passes in needed.items()
    )
