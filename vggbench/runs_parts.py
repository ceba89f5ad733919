"""The parts of a run's time, each measured for a moment: the network, and preparing its views on one thread."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from vgg_reference.architectures import architecture, count_parameters
from vgg_reference.weights import Weights
from vggbench import paper, plan
from vggbench.backends import open_session
from vggbench.images import Dataset, read_image
from vggbench.images.decode import BadImage, decode
from vggbench.measure.latency import random_input
from vggbench.protocols import Choices, Pass
from vggbench.runs_inputs import Setting
from vggbench.variants import Variant
from vggbench.views import make_views

#: The network's speed is taken on so many crops at once, for so long; preparing on so many images, for so long.
TRIAL_BATCH, TRIAL_SECONDS, TRIAL_IMAGES = 8, 0.5, 24


@dataclass(frozen=True)
class Preparing:
    """CPU seconds an image, of one thread: reading, checking and decoding it; its views in each pass."""

    decode: float
    views: Mapping[Pass, float]

    def seconds(self, work: Sequence[tuple[Pass, int]]) -> float:
        """Of passes over so many images each, every image decoded once."""
        most = max((images for _, images in work), default=0)
        return most * self.decode + sum(images * self.views[step] for step, images in work)


def macs_per_second(weights: Weights, setting: Setting, batch: int = TRIAL_BATCH) -> float:
    """Multiply-accumulates a second of the network here, on crops. Raises BackendUnavailable."""
    variant = Variant(weights, "crop", setting.backend, setting.precision, sizes=setting.sizes)
    session = open_session(variant, setting.device, setting.threads)
    try:
        images = random_input(batch, (weights.crop_size, weights.crop_size))
        session(images)
        calls, started = 0, time.perf_counter()
        while (elapsed := time.perf_counter() - started) < TRIAL_SECONDS or not calls:
            session(images)
            calls += 1
        return calls * batch * plan.crop_macs(weights) / elapsed
    finally:
        session.close()


def preparing(
    dataset: Dataset, steps: Sequence[Pass], crop_size: int, choices: Choices, decoder: str = "pillow"
) -> Preparing:
    """Measured on the first images that can be decoded. CPU time, so that other work beside does not count."""
    decoding, views, count = 0.0, dict.fromkeys(steps, 0.0), 0
    for index in range(min(TRIAL_IMAGES, len(dataset.images))):
        started = time.thread_time()
        try:
            image = decode(read_image(dataset, index), choices.exif, decoder)
        except BadImage:
            continue
        decoding += time.thread_time() - started
        for step in views:
            started = time.thread_time()
            make_views(image, step, crop_size, choices)
            views[step] += time.thread_time() - started
        count += 1
    return Preparing(decoding / max(count, 1), {step: seconds / max(count, 1) for step, seconds in views.items()})


def posterior_bytes(weights: Weights, work: Sequence[tuple[Pass, int]]) -> int:
    """On the disk: four bytes a class, image and pass."""
    return sum(images for _, images in work) * weights.num_classes * 4


def downloads(missing: Sequence[str]) -> dict[str, int]:
    """Of the networks that a plan misses ("D trained at S = 256"), those with public weights -> bytes of the file."""
    wanted = {name.partition(" ")[0]: name for name in missing}
    return {
        name: 4 * count_parameters(architecture(network))
        for network, name in wanted.items()
        if network in paper.PUBLIC_NETWORKS
    }


def as_line(found: Preparing) -> dict[str, Any]:
    """For people and JSON."""
    views = {f"{step.form} at {step.scale}": round(seconds, 6) for step, seconds in found.views.items()}
    return {"decode_seconds_an_image": round(found.decode, 6), "views_seconds_an_image": views}
