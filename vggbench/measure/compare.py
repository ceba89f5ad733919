"""One set of images through the reference and its variants: logits by the session that serves accuracy and latency,
layers by what backends.layers makes visible."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from vggbench import backends, cache, graphs
from vggbench.backends.layers import layer_outputs, why_not
from vggbench.errors import DataError
from vggbench.measure.batches import Views
from vggbench.measure.numerics import Moved, changed, layer_drifts, moved, rounded
from vggbench.measure.pipeline import BATCH_CROPS
from vggbench.measure.records import describe_calibration, describe_weights
from vggbench.progress import Report, silent
from vggbench.protocols import Pass
from vggbench.results import LayerDrift, NetworkRun, Numerics, Record, Samples, Workload
from vggbench.statistics import mcnemar
from vggbench.variants import Variant, digest_of

Array = npt.NDArray[np.float32]
Ints = npt.NDArray[np.int64]

#: Pixels of a batch whose layers are kept in memory: 4 crops of 224, half a gigabyte for two networks of VGG-16's size.
LAYER_PIXELS = 4 * 224**2


@dataclass(frozen=True)
class Logits:
    """(images, classes), and what ran."""

    values: Array
    run: NetworkRun


@dataclass(frozen=True)
class Bench:
    """The images and the means that all variants share."""

    views: Views
    device: str = "auto"
    threads: int | None = None
    progress: Report = silent

    def logits(self, variant: Variant, stage: str = "", before: int = 0, total: int = 1) -> Logits:
        """Of every image. stage, before, total: of a run of several sessions that this one is part of.

        Raises DataError if no image is left, and what open_session raises.
        """
        stage, images = stage or f"Logits, {label(variant)}", len(self.views.dataset.images)
        session = backends.open_session(variant, self.device, self.threads)
        parts: list[Array] = []
        try:
            limit = BATCH_CROPS[session.device.split(":")[0]] * variant.weights.crop_size**2
            for batch in self.views.batches(limit):
                parts.append(session(batch))
                self.progress(stage, before + sum(map(len, parts)) / images, total, "")
            run = network_run(variant, self.views.step, {**session.info, "device": session.device})
        finally:
            session.close()
        self.progress(stage, before + 1, total, "")
        if not parts:
            raise DataError("No image could be decoded, so there is nothing to compare. Repair them, or name others.")
        return Logits(np.concatenate(parts), run)

    def layers(self, reference: Variant, variant: Variant) -> tuple[list[LayerDrift], str]:
        """Every layer over all images, or why there is none."""
        note = why_not(reference.backend) or why_not(variant.backend)
        if note:
            return [], note
        with (
            layer_outputs(reference, self.device, self.threads) as one,
            layer_outputs(variant, self.device, self.threads) as other,
        ):

            def pairs() -> Iterator[tuple[Mapping[str, Array], Mapping[str, Array]]]:
                done, images = 0, len(self.views.dataset.images)
                for batch in self.views.batches(min(LAYER_PIXELS, 16 * variant.weights.crop_size**2)):
                    yield one(batch), other(batch)
                    done += len(batch)
                    self.progress(f"Layers, {label(variant)}", done, images, "")

            return layer_drifts(pairs()), ""


def label(variant: Variant) -> str:
    """ "int8 onnxruntime/cpu"."""
    layout = f"/{variant.quantization.layout}" if variant.quantization else ""
    return f"{variant.precision} {variant.backend}{layout}"


def forget(variant: Variant) -> None:
    """Removes a variant's graph from the cache: a sensitivity of VGG-16 would else leave 32 of half a gigabyte."""
    cache.remove(cache.root() / "graphs" / f"{digest_of(graphs.provenance(variant))}.onnx")


def network_run(variant: Variant, step: Pass, session: dict[str, Any]) -> NetworkRun:
    """What a record says of a session that gave logits."""
    return NetworkRun(
        network=variant.weights.network,
        weights=describe_weights(variant.weights),
        passes=[dataclasses.asdict(step)],
        backend=variant.backend,
        precision=variant.precision,
        session=session,
        calibration=describe_calibration(variant.quantization),
    )


def record_of_logits(
    views: Views, reference: Logits, found: Logits, layers_note: str, environment: dict[str, Any], started: str
) -> Record:
    """Of the kept images' center crops through two networks that ran where no other run compares them.

    layers_note: why their layers were not looked at.
    """
    dataset = views.dataset
    kept = [dataset.images[index] for index in views.kept()]
    labels = np.array([image.label for image in kept], np.int64)
    drift = moved(reference.values, found.values, labels)
    return Record(
        kind="numerics",
        networks=[found.run],
        workload=Workload(protocol="center", data={"name": dataset.name, "split": dataset.split, "images": len(kept)}),
        samples=Samples(unit="ratio", values=[rounded(ratio) for ratio in drift.ratios]),
        environment=environment,
        started=started,
        numerics=numerics_of(reference.run, drift, [image.id for image in kept], labels, [], layers_note),
    )


def numerics_of(
    reference: NetworkRun, found: Moved, ids: list[str], labels: Ints, layers: list[LayerDrift], layers_note: str
) -> Numerics:
    """Counts, test and the values of every image."""
    return Numerics(
        reference=reference,
        images=len(labels),
        reference_errors=found.reference_errors,
        variant_errors=found.variant_errors,
        flips=int(found.flipped.sum()),
        lost=found.lost,
        gained=found.gained,
        p_value=mcnemar(found.lost, found.gained),
        layers=layers,
        layers_note=layers_note,
        changed=changed(found, ids, labels),
        margins=[rounded(value) for value in found.margins],
        drifts=[rounded(value) for value in found.drifts],
    )
