"""The parts of a run's time, each measured for a moment: the network, and preparing its views on one thread."""

from __future__ import annotations

import shutil
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from vgg_reference.architectures import architecture, count_parameters
from vgg_reference.weights import Weights
from vggbench import cache, plan
from vggbench.backends import open_session
from vggbench.backends.uploads import for_passes
from vggbench.images import Dataset, read_image
from vggbench.images.decode import BadImage, decode_picture
from vggbench.measure.latency import random_input
from vggbench.protocols import Choices, Pass
from vggbench.runs_inputs import Setting
from vggbench.variants import Variant
from vggbench.views import make_views

#: The network's speed is taken on so many crops at once, for so long; preparing on so many images, for so long.
TRIAL_BATCH, TRIAL_SECONDS, TRIAL_IMAGES = 8, 0.5, 24
#: Backends that keep a file of each network and form in the cache, and what it is called; others keep none.
_KEEPS = {"onnxruntime": "graphs", "tensorrt": "engines", "torch-tensorrt": "engines"}


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
    sizes = for_passes(setting.backend, setting.sizes)
    variant = Variant(weights, "crop", setting.backend, setting.precision, sizes=sizes)
    session = open_session(variant, setting.device, setting.threads)
    try:
        images = trial_images(variant, batch)
        session(images)
        calls, started = 0, time.perf_counter()
        while (elapsed := time.perf_counter() - started) < TRIAL_SECONDS or not calls:
            session(images)
            calls += 1
        return calls * batch * plan.crop_macs(weights) / elapsed
    finally:
        session.close()


def trial_images(variant: Variant, batch: int) -> npt.NDArray[Any]:
    """Random crops as the variant's session takes them."""
    side = variant.weights.crop_size
    if variant.takes_pixels:
        return np.random.default_rng(0).integers(0, 256, (batch, side, side, 3), np.uint8)
    return random_input(batch, (side, side))


def preparing(
    dataset: Dataset, steps: Sequence[Pass], crop_size: int, choices: Choices, decoder: str = "pillow"
) -> Preparing:
    """Measured on the first images that can be decoded. CPU time, so that other work beside does not count."""
    decoding, views, count = 0.0, dict.fromkeys(steps, 0.0), 0
    for index in range(min(TRIAL_IMAGES, len(dataset.images))):
        started = time.thread_time()
        try:
            image = decode_picture(read_image(dataset, index), choices.exif, decoder)
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


def tensor_bytes(weights: Weights) -> int:
    """Of all tensors in FP32."""
    return 4 * count_parameters(architecture(weights.network, weights.batch_norm), **weights.size)


def kept_bytes(work: Sequence[tuple[plan.NetworkPlan, Setting]]) -> dict[str, int]:
    """What a run may leave in the cache, by kind: posteriors, a graph or an engine of each form of a network, and the
    safetensors that files of other formats are converted to."""
    folder = cache.root() / "weights"
    files: dict[tuple[str, str, str, str], int] = {}
    for network, setting in work:
        weights = network.weights
        size = tensor_bytes(weights)
        if weights.source is not None and (weights.path is None or Path(weights.path).parent == folder):
            files["converted weights", weights.digest, "", ""] = size
        for step, _ in network.passes if setting.backend in _KEEPS else ():
            files[_KEEPS[setting.backend], weights.digest, step.form, setting.precision] = size
    found = {"posteriors": sum(posterior_bytes(network.weights, network.passes) for network, _ in work)}
    for (kind, *_), size in files.items():
        found[kind] = found.get(kind, 0) + size
    return found


def free_bytes() -> int:
    """On the cache's disk; 0 where it cannot be asked."""
    folder = cache.root()
    try:
        return shutil.disk_usage(next(each for each in (folder, *folder.parents) if each.exists())).free
    except OSError:
        return 0


def downloads(missing: Sequence[str]) -> dict[str, int]:
    """Of the networks that a plan misses ("D trained at S = 256"), those with public weights -> bytes of the file."""
    public, _ = plan.published(missing)
    return {name: 4 * count_parameters(architecture(name.partition(" ")[0])) for name in public}


def pass_name(step: Pass) -> str:
    """ "dense at 384", "50 crops at 256", "center crop at 256"."""
    crops = "center crop" if step.views == 1 else f"{step.views} crops"
    return f"{'dense' if step.form == 'dense' else crops} at {step.scale}"


def as_line(found: Preparing) -> dict[str, Any]:
    """For people and JSON."""
    views = {pass_name(step): round(seconds, 6) for step, seconds in found.views.items()}
    return {"decode_seconds_an_image": round(found.decode, 6), "views_seconds_an_image": views}
