"""Measurements -> records, with all that is needed to know what they are."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from typing import Any

from vgg_reference.weights import Weights
from vggbench.backends import Session
from vggbench.images import Dataset
from vggbench.images.decode import DECODER
from vggbench.measure.accuracy import PassResults
from vggbench.measure.multilabel import ranks_of_best
from vggbench.measure.posteriors import answer, hardest
from vggbench.protocols import Choices, Pass, Protocol, as_flat_dict
from vggbench.ranges import Quantization
from vggbench.results import NetworkRun, Record, Samples, Workload
from vggbench.variants import Variant


def accuracy_record(
    dataset: Dataset,
    parts: Sequence[tuple[PassResults, Protocol]],
    *,
    choices: Choices,
    environment: dict[str, Any],
    claim: str | None = None,
    fingerprint_full: str | None = None,
    started: str = "",
    elapsed_seconds: float | None = None,
) -> Record:
    """Ranks of a network, or of the mean over several, on a dataset or on as many first images of the one that ran.

    fingerprint_full: of the complete dataset, where ``dataset`` is a prefix of it; records over prefixes pair by it.
    """
    posteriors, kept = answer(parts, len(dataset.images))
    found, labels = ranks_of_best(posteriors, [dataset.images[index].labels for index in kept])
    ids = [dataset.images[index].id for index in kept]
    names = list(dict.fromkeys(protocol.name for _, protocol in parts))
    return Record(
        kind="accuracy",
        claim=claim,
        networks=[_network(results, protocol.passes) for results, protocol in parts],
        workload=Workload(
            protocol=" + ".join(names),
            choices=as_flat_dict(choices),
            data=describe(dataset, parts, len(kept)) | {"fingerprint_full": fingerprint_full or dataset.fingerprint},
        ),
        samples=Samples(unit="rank", values=found.tolist()),
        seed=_seed([results.weights for results, _ in parts]),
        environment=environment,
        started=started,
        elapsed_seconds=elapsed_seconds,
        hardest=hardest(posteriors, labels, ids),
    )


def describe(dataset: Dataset, parts: Sequence[tuple[PassResults, Protocol]], images: int) -> dict[str, Any]:
    """The data of a record. images: how many were evaluated."""
    present = {image.id for image in dataset.images}
    bad = {each.id: each.why for results, _ in parts for each in results.bad if each.id in present}
    return {
        "name": dataset.name,
        "split": dataset.split,
        "fingerprint": dataset.fingerprint,
        "layout": dataset.layout,
        "classes": len(dataset.classes),
        "images": images,
        "total": dataset.total,
        "decoder": parts[0][0].decoder if parts else DECODER,
        "bad": [{"id": image, "why": why} for image, why in bad.items()],
        **({"labels": dataset.label_set} if dataset.label_set else {}),
    }


def latency_record(
    session: Session,
    variant: Variant,
    samples: Samples,
    batch: int,
    size: tuple[int, int],
    *,
    environment: dict[str, Any],
    started: str = "",
    scenario: str = "latency",
    process: int | None = None,
    conditions: dict[str, Any] | None = None,
) -> Record:
    """Seconds a call of one session. size: (h, w) of an image in pixels; conditions: see measure.conditions."""
    run = NetworkRun(
        network=variant.weights.network,
        weights=describe_weights(variant.weights),
        passes=[],
        backend=variant.backend,
        precision=variant.precision,
        session={
            **session.info,
            "device": session.device,
            "form": variant.form,
            "pool_rounding": variant.pool_rounding,
            "transfers": session.info.get("transfers", "host to host"),
        },
        calibration=describe_calibration(variant.quantization),
    )
    return Record(
        kind="latency",
        networks=[run],
        workload=Workload(batch=batch, size=list(size), scenario=scenario),
        samples=samples,
        environment=environment,
        started=started,
        elapsed_seconds=sum(samples.values) + sum(samples.warmups),
        process=process,
        conditions=conditions or {},
    )


def describe_weights(weights: Weights) -> dict[str, Any]:
    """As JSON has it, without the path, which says where a user keeps files."""
    fields = json.loads(json.dumps(dataclasses.asdict(weights)))
    return {key: value for key, value in fields.items() if key != "path"}


def describe_calibration(quantization: Quantization | None) -> dict[str, Any]:
    """Where the ranges of an INT8 network come from and how they were used; empty for other precisions."""
    if quantization is None:
        return {}
    ranges = quantization.ranges
    return {
        "digest": ranges.digest,
        "method": ranges.method,
        "percentile": ranges.percentile,
        "images": len(ranges.images),
        "data": dict(ranges.data),
        "layout": quantization.layout,
        "float_layers": list(quantization.float_layers),
    }


def _network(results: PassResults, passes: Sequence[Pass]) -> NetworkRun:
    return NetworkRun(
        network=results.weights.network,
        weights=describe_weights(results.weights),
        passes=[dataclasses.asdict(step) for step in passes],
        backend=results.backend,
        precision=results.precision,
        session=results.session,
        calibration=describe_calibration(results.quantization),
    )


def _seed(weights: Sequence[Weights]) -> int | None:
    """The training seed that all have in common; random weights were not trained."""
    seeds = {each.seed if each.status != "random" else None for each in weights}
    return seeds.pop() if len(seeds) == 1 else None
