"""The evaluation loop beside its parts: OMP_WAIT_POLICY=passive python -m pytest tests/bench --benchmark-only -s

The variable is what `vggbench evaluate` sets for itself; without it OpenMP's threads spin beside those that decode.
Nothing is asserted about time: on a machine with other work no bound is honest. The ratios are printed and kept with
the benchmark's own figures.
"""

import os
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from vgg_reference.weights import Weights, random_weights
from vggbench import backends
from vggbench.images import Dataset
from vggbench.images.folder import open_folder
from vggbench.measure import pipeline, shards
from vggbench.measure.accuracy import run_passes
from vggbench.measure.pipeline import DecodedImages
from vggbench.measure.stages import Stages
from vggbench.measure.stored import Job
from vggbench.protocols import Choices, Pass, Protocol, protocol
from vggbench.variants import Variant
from vggbench.views import make_views, rescale_all

SAMPLE = {"width": 1 / 8, "hidden_width": 1 / 16, "num_classes": 60, "crop_size": 64}
ROUNDS = 3

CENTER_256, CENTER_73 = protocol("center", (256,)), protocol("center", (73,))
DENSE_110, CROPS_110 = protocol("dense", (110,)), protocol("multi-crop", (110,))

#: What -> weights, protocol, (height, width) of the files, how many, the session's threads (None: the default).
CASES = {
    "VGG-16 at full size, center crops": (random_weights("D"), CENTER_256, (375, 500), 64, None),
    "D of the sample family, center crops": (random_weights("D", **SAMPLE), CENTER_73, (152, 182), 512, 1),
    "D of the sample family, center crops, two threads": (random_weights("D", **SAMPLE), CENTER_73, (152, 182), 512, 2),
    "D of the sample family, dense": (random_weights("D", **SAMPLE), DENSE_110, (152, 182), 256, 1),
    "D of the sample family, 50 crops": (random_weights("D", **SAMPLE), CROPS_110, (152, 182), 64, 1),
}


@pytest.fixture(autouse=True)
def _on_demand(request):
    if not request.config.getoption("--benchmark-only", False):
        pytest.skip("a benchmark; run it with: nox -s bench")


@pytest.mark.parametrize("backend", list(backends.BACKENDS))
@pytest.mark.parametrize("case", CASES)
def test_the_loop_beside_decoding_and_inference_alone(benchmark, tmp_path, case, backend):
    weights, tested, size, count, threads = CASES[case]
    dataset = photographs(tmp_path / "images", count, size)
    seconds: dict[str, list[float]] = {"loop": [], "decoding alone": [], "bare session": []}
    options = {"backend": backend, "device": "cpu", "threads": threads, "workers": 1}

    def loop() -> None:
        root = tmp_path / f"cache{len(seconds['loop'])}"
        seconds["loop"].append(run_passes(dataset, weights, tested.passes, cache_root=root, **options).counts.seconds)
        seconds["decoding alone"].append(decoding(dataset, weights, tested))
        seconds["bare session"].append(inference(dataset, weights, tested, backend, threads))

    benchmark.pedantic(loop, rounds=ROUNDS, warmup_rounds=0)
    rates = {name: count / statistics.median(values) for name, values in seconds.items()}
    rates["loop / bare session"] = rates["loop"] / rates["bare session"]
    rates["loop / slower of both"] = rates["loop"] / min(rates["bare session"], rates["decoding alone"])
    benchmark.extra_info.update(rates)
    print(f"\n{case}, {backend}: " + ", ".join(f"{name} {rate:.3g}" for name, rate in rates.items()))


def photographs(folder: Path, count: int, size: tuple[int, int], noise: float = 8.0, smaller: float = 0.0) -> Dataset:
    """JPEG files of about a photograph's detail and the given (height, width), opened as a user's folder is.

    smaller: by up to this share each side of each file is.
    """
    (folder / "one").mkdir(parents=True)
    generator = np.random.default_rng(0)
    for index in range(count):
        height, width = (round(side * generator.uniform(1 - smaller, 1)) if smaller else side for side in size)
        coarse = generator.integers(0, 256, (height // 8, width // 8, 3), dtype=np.uint8)
        smooth = np.asarray(Image.fromarray(coarse).resize((width, height)), np.int16)
        noisy = smooth + generator.normal(0, noise, smooth.shape)
        path = folder / "one" / f"{index}.jpg"
        Image.fromarray(noisy.clip(0, 255).astype(np.uint8)).save(path, quality=90)
        os.utime(path, (10**9, 10**9))  # a user's have not been written this moment, either
    return open_folder(folder)


def decoding(dataset: Dataset, weights: Weights, tested: Protocol) -> float:
    """Seconds to prepare every view on one thread, which is what the loop has for it, with nothing else to do.

    Not through the pipeline: there the session's thread would help, for it has nothing else to do either.
    """
    choices, scales = Choices(), list(dict.fromkeys(step.scale for step in tested.passes))

    def prepare(index: int) -> None:
        image = pipeline.decoded_image(dataset, index, choices.exif, DecodedImages(0), "pillow", Stages())
        scaled = rescale_all(image, scales, choices)
        for step in tested.passes:
            make_views(scaled[step.scale], step, weights.crop_size, choices)

    return seconds_of(lambda: [prepare(index) for index in range(len(dataset.images))])


def inference(dataset: Dataset, weights: Weights, tested: Protocol, backend: str, threads: int | None) -> float:
    """Seconds of the session's calls on the batches that the loop makes, with the inputs ready.

    The session is fresh, as the loop's is: a first call takes longer (its memory is touched for the first time).
    """
    shapes: list[tuple[Pass, tuple[int, ...]]] = []

    def noting(step: Pass) -> "NoSession":
        return NoSession(weights, lambda shape: shapes.append((step, shape)))

    run_through(dataset, weights, tested, noting)
    generator = np.random.default_rng(0)
    ready = {shape: generator.normal(0, 64, shape).astype(np.float32) for _, shape in shapes}
    session = backends.open_session(Variant(weights, tested.passes[0].form, backend), "cpu", threads)
    try:
        return seconds_of(lambda: [session(ready[shape]) for _, shape in shapes])
    finally:
        session.close()


def run_through(dataset: Dataset, weights: Weights, tested: Protocol, session_for: Callable) -> None:
    """The pipeline with another session."""
    jobs = [
        Job(step, block) for step in tested.passes for block in shards.blocks(step, weights.crop_size, dataset.digests)
    ]
    sessions = {step.form: session_for(step) for step in tested.passes}
    for _ in pipeline.compute(dataset, jobs, sessions, weights, Choices(), DecodedImages(0), workers=1):
        pass


class NoSession:
    """Scores of zero, at once."""

    device = "cpu"
    info: dict = {}  # noqa: RUF012

    def __init__(self, weights: Weights, note: Callable = lambda shape: None) -> None:
        self.classes, self.note = weights.num_classes, note

    def __call__(self, images: np.ndarray) -> np.ndarray:
        self.note(images.shape)
        return np.zeros((len(images), self.classes), np.float32)

    def close(self) -> None:
        pass


def seconds_of(work: Callable) -> float:
    started = time.perf_counter()
    work()
    return time.perf_counter() - started
