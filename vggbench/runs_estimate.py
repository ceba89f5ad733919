"""What a run would cost, before it runs: images, passes, crop-equivalents and time."""

from __future__ import annotations

import io
import time
from dataclasses import dataclass
from statistics import median
from typing import Any

from PIL import Image

from vgg_reference.weights import Weights
from vggbench import plan, runs_inputs, runs_precision
from vggbench.backends import open_session
from vggbench.images import Dataset
from vggbench.measure.accuracy import missing_views
from vggbench.measure.latency import random_input
from vggbench.precisions import QUANTIZED
from vggbench.progress import Report, silent
from vggbench.protocols import Pass
from vggbench.runs_inputs import Request, Setting
from vggbench.variants import Variant

#: The speed is taken on so many crops at once, for so long; images whose headers give the typical shape.
TRIAL_BATCH, TRIAL_SECONDS, SHAPES = 8, 0.5, 100


@dataclass(frozen=True)
class Estimate:
    """networks: one flat dict each. views_to_compute: those that the cache does not hold."""

    data: str
    images: int
    rows: int
    networks: list[dict[str, Any]]
    crop_equivalents: float
    views: int
    views_to_compute: int
    seconds: float
    speed: str
    missing: tuple[str, ...]


def estimate(request: Request, progress: Report = silent) -> Estimate:
    """Plans the run and times a short trial of its first network; the others, at every precision, are taken to be as
    fast per multiply-accumulate. Decoding is not counted, nor is what the cache holds of int8: that would need its
    ranges. Raises any VggbenchError."""
    dataset = runs_inputs.dataset_of(request, progress)
    work = runs_inputs.plan_of(request, dataset)
    aspect = typical_aspect(dataset)
    first = work.networks[0].weights
    macs_per_second = _speed(first, request.setting)
    lines = [
        _line(network, dataset, each.setting, aspect, macs_per_second)
        for each in (request, *runs_precision.others(request))
        for network in (work if each is request else runs_inputs.plan_of(each, dataset)).networks
    ]
    return Estimate(
        data=f"{dataset.name} ({dataset.split})",
        images=max(row.images for row in work.rows),
        rows=len(work.rows),
        networks=lines,
        crop_equivalents=sum(line["crop_equivalents"] for line in lines),
        views=sum(line["views"] for line in lines),
        views_to_compute=sum(line["views_to_compute"] for line in lines),
        seconds=sum(line["seconds"] for line in lines),
        speed=f"{macs_per_second / 1e9:.0f} billion multiply-accumulates/s in a trial of {first.network}",
        missing=work.missing,
    )


def typical_aspect(dataset: Dataset) -> float:
    """Median of longer over shorter side of the first images, from their headers; 4/3 if none can be read."""
    found = []
    for image in dataset.images[:SHAPES]:
        try:
            with Image.open(io.BytesIO(image.path.read_bytes())) as picture:
                found.append(max(picture.size) / min(picture.size))
        except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):
            continue
    return median(found) if found else 4 / 3


def _speed(weights: Weights, setting: Setting) -> float:
    """Multiply-accumulates a second."""
    session = open_session(
        Variant(weights, "crop", setting.backend, setting.precision), setting.device, setting.threads
    )
    try:
        images = random_input(TRIAL_BATCH, (weights.crop_size, weights.crop_size))
        session(images)
        calls, started = 0, time.perf_counter()
        while (elapsed := time.perf_counter() - started) < TRIAL_SECONDS or not calls:
            session(images)
            calls += 1
        return calls * TRIAL_BATCH * plan.crop_macs(weights) / elapsed
    finally:
        session.close()


def _line(
    network: plan.NetworkPlan, dataset: Dataset, setting: Setting, aspect: float, macs_per_second: float
) -> dict[str, Any]:
    """One network's share."""
    weights = network.weights
    absent: dict[Pass, int] = {}
    if setting.precision in QUANTIZED:
        absent = {step: images * step.views for step, images in network.passes}
    for images, steps in () if absent else network.batches:
        views = missing_views(
            dataset.first(images),
            weights,
            steps,
            backend=setting.backend,
            precision=setting.precision,
            choices=setting.choices,
            device=setting.device,
        )
        for step, count in views.items():
            absent[step] = max(absent.get(step, 0), count)
    crops = {step: plan.image_crops(weights, step, setting.choices, aspect) for step, _ in network.passes}
    to_do = sum(count / step.views * crops[step] for step, count in absent.items())
    return {
        "network": weights.network,
        "precision": setting.precision,
        "train_scale": weights.train_scale,
        "weights": weights.name,
        "passes": {f"{step.form} at {step.scale}": images for step, images in network.passes},
        "claims": list(network.claims),
        "crop_equivalents": plan.crop_equivalents(network, setting.choices, aspect),
        "views": sum(images * step.views for step, images in network.passes),
        "views_to_compute": sum(absent.values()),
        "seconds": to_do * plan.crop_macs(weights) / macs_per_second,
    }
