"""Preparing images beside its parts: python -m pytest tests/bench/test_bench_pipeline.py --benchmark-only -s

Nothing is asserted about time: on a machine with other work no bound is honest. CPU seconds stand beside the wall's,
for they do not count what other work took.
"""

import statistics
import time
from collections.abc import Callable
from contextlib import closing
from io import BytesIO
from multiprocessing import get_context
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from test_bench_loop import SAMPLE, photographs

from vgg_reference.weights import random_weights
from vggbench import resample
from vggbench.environment import usable_cores
from vggbench.errors import BackendUnavailable
from vggbench.images import Dataset
from vggbench.images.decode import DECODERS, decoder_name, picture_bytes
from vggbench.measure.accuracy import run_passes
from vggbench.measure.ahead import Ahead
from vggbench.measure.heaps import Trimmer
from vggbench.measure.pipeline import DecodedImages, decoded_image
from vggbench.measure.stages import Stages
from vggbench.protocols import Choices, Pass

#: Files of about the size of ImageNet's validation images, 126 KB in the mean of 6.3 GB.
ROUNDS, IMAGES, SIZE, NOISE = 3, 192, (375, 500), 22.0
#: Where a process' memory comes to lie makes decoding up to a fifth faster or slower for as long as it lives, and more
#: so with images of one size: so each comparison is made in several lives, of processes whose memory begins elsewhere,
#: over images of many sizes (each side up to this share smaller). In a life each takes so many turns of so many passes
#: over the files, short ones, for the speed of a shared host wanders within seconds.
LIVES, SMALLER, TURNS, PASSES = 12, 0.25, 3, 2


@pytest.fixture(autouse=True)
def _on_demand(request):
    if not request.config.getoption("--benchmark-only", False):
        pytest.skip("a benchmark; run it with: nox -s bench")


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    return photographs(tmp_path_factory.mktemp("photographs") / "images", IMAGES, SIZE, NOISE)


@pytest.fixture(scope="module")
def varied(tmp_path_factory):
    return photographs(tmp_path_factory.mktemp("varied") / "images", IMAGES, SIZE, NOISE, SMALLER)


def by_pillow(file: Path | BytesIO) -> Image.Image:
    image = Image.open(file)
    image.load()
    return image


def by_simplejpeg(file: Path | BytesIO) -> np.ndarray:
    import simplejpeg

    return simplejpeg.decode_jpeg(file.read_bytes() if isinstance(file, Path) else file.getvalue(), "RGB")


#: The decoders alone, as their documentation calls them: no check of the file, no way round what they refuse.
BARE = {"pillow": by_pillow, "simplejpeg": by_simplejpeg}


def bare(dataset: Dataset, decoder: str, read: bool) -> Callable[[], float]:
    """Decoding all files one after the other, each read from the disk's cache first, or all in memory from the start.

    Memory is kept from one image to the next, as in the pipeline.
    """
    alone, paths = BARE[decoder], [image.path for image in dataset.images]
    files = [path.read_bytes() for path in paths]
    Trimmer()

    def turn() -> float:
        for path, data in [*zip(paths, files, strict=True)] * PASSES:
            alone(path if read else BytesIO(data))
        return 0.0

    return turn


def through_the_pipeline(dataset: Dataset, decoder: str) -> Callable[[], float]:
    """Reading, checking and decoding all files on all cores; gives the seconds of it that were spent decoding."""
    cores = usable_cores()

    def turn() -> float:
        stages, trimmer = Stages(), Trimmer()

        def prepare(index: int) -> bytes:
            image = decoded_image(dataset, index, "ignore", DecodedImages(0), decoder, stages)
            trimmer.look(picture_bytes(image))
            return b""

        # The thread that asks prepares, too.
        ahead = Ahead(prepare, [*range(IMAGES)] * PASSES, cores - 1 or 1, 1 << 30, len, Stages())
        with closing(ahead.results()) as results:
            for _ in results:
                pass
        return stages.seconds()["decode"]

    return turn


class Life:
    """A process of its own that takes turns: of ``make(*arguments)``, after so many bytes of its memory."""

    def __init__(self, shift: int, make: Callable[..., Callable[[], float]], *arguments: Any) -> None:
        context = get_context("spawn")
        self._turns, other = context.Pipe()
        self._process = context.Process(target=live, args=(shift, make, arguments, other), daemon=True)
        self._process.start()
        other.close()

    def begun(self) -> None:
        """Waits until it has taken a turn that does not count: before that it would be beside the others' turns."""
        self._turns.recv()

    def ask(self) -> None:
        self._turns.send(True)

    def answer(self) -> tuple[float, float]:
        """Images a second, and what the turn gave."""
        return self._turns.recv()

    def end(self) -> None:
        self._turns.send(False)
        self._process.join()


def live(shift: int, make: Callable[..., Callable[[], float]], arguments: tuple[Any, ...], turns: Connection) -> None:
    kept = [bytearray(shift), bytearray(513)]  # noqa: F841 - from malloc, until the end
    turn = make(*arguments)
    turn()
    turns.send(None)
    while turns.recv():
        started = time.perf_counter()
        found = turn()
        turns.send((PASSES * IMAGES / (time.perf_counter() - started), found))


@pytest.mark.parametrize("decoder", DECODERS)
def test_decoding_on_all_cores_beside_bare_decoders(benchmark, varied, decoder):
    """Reading and checking the files is part of the pipeline; bare decoders read theirs, or have them in memory.

    Cores that share caches, memory or a clock give less together than alone: so the bare decoder runs once on one
    core, and once in a process on each of them, which is what the cores have to give. The shares are of the means over
    all turns of all lives.
    """
    try:
        decoder_name(decoder)
    except BackendUnavailable as absent:
        pytest.skip(str(absent))
    cores = usable_cores()
    rates: dict[str, list[float]] = {}
    shifts = iter(np.random.default_rng(0).integers(513, 1 << 16, LIVES * (2 * cores + 1)).tolist())

    def taken(name: str, *lives: Life) -> None:
        for each in lives:
            each.ask()
        found = [each.answer() for each in lives]
        rates.setdefault(name, []).append(sum(rate for rate, _ in found))
        if found[0][1]:
            share = found[0][1] * found[0][0] / (PASSES * IMAGES * cores)
            rates.setdefault("share of the cores' time in the decoder", []).append(share)

    def life() -> None:
        alone = [Life(next(shifts), bare, varied, decoder, False) for _ in range(cores)]
        reading = [Life(next(shifts), bare, varied, decoder, True) for _ in range(cores)]
        ours = Life(next(shifts), through_the_pipeline, varied, decoder)
        try:
            for each in (*alone, *reading, ours):
                each.begun()
            for turn in range(TURNS):
                taken("one bare", alone[turn % cores])
                taken("one bare, reading", reading[turn % cores])
                taken("pipeline", ours)
                taken("one bare a core", *alone)
                taken("one bare a core, reading", *reading)
        finally:
            for each in (*alone, *reading, ours):
                each.end()

    benchmark.pedantic(life, rounds=LIVES)
    found = {name: statistics.fmean(values) for name, values in rates.items()}
    for name in ("one bare", "pipeline"):
        found[f"{name}, slowest"], found[f"{name}, fastest"] = min(rates[name]), max(rates[name])
    for what in ("", ", reading"):
        found[f"pipeline / one bare a core{what}"] = found["pipeline"] / found[f"one bare a core{what}"]
        found[f"pipeline / (one bare{what} x cores)"] = found["pipeline"] / (cores * found[f"one bare{what}"])
    report(benchmark, f"decoding by {decoder} on {cores} cores", found)


@pytest.mark.parametrize(
    ("resize_filter", "by"),
    [
        ("bicubic", "compiled"),
        ("bicubic", "Pillow"),
        ("bilinear", "compiled"),
        ("bilinear", "Pillow"),
        ("torch-bicubic", "PyTorch"),
    ],
)
def test_three_scales_from_one_decode_beside_three_runs(benchmark, dataset, tmp_path, monkeypatch, resize_filter, by):
    """All that three runs do more than one is to read and decode."""
    if by == "Pillow":
        monkeypatch.setattr(resample, "_found", "not wanted here")
    elif by == "compiled":
        assert resample.load(), resample.why()
    weights = random_weights("A", **{**SAMPLE, "width": 1 / 32})
    passes = [Pass("crop", scale, "center", False) for scale in (64, 73, 82)]
    seconds: dict[str, list[float]] = {"one run": [], "three runs": [], "one run, CPU": [], "three runs, CPU": []}
    options = {"backend": "onnxruntime", "device": "cpu", "threads": 1, "workers": 1}
    options["choices"] = Choices(resize_filter=resize_filter)

    def timed(name: str, steps: list[list[Pass]]) -> None:
        cpu, wall = time.process_time(), 0.0
        for number, part in enumerate(steps):
            root = tmp_path / f"{name} {number} {len(seconds[name])}"
            wall += run_passes(dataset, weights, part, cache_root=root, **options).counts.seconds
        seconds[name].append(wall)
        seconds[f"{name}, CPU"].append(time.process_time() - cpu)

    def once() -> None:
        timed("one run", [passes])
        timed("three runs", [[step] for step in passes])

    benchmark.pedantic(once, rounds=ROUNDS, warmup_rounds=1)
    found = {name: statistics.median(values) for name, values in seconds.items()}
    found["three runs / one run"] = found["three runs"] / found["one run"]
    found["three runs / one run, CPU"] = found["three runs, CPU"] / found["one run, CPU"]
    report(benchmark, f"three scales of a small A, {resize_filter} by {by}", found)


def report(benchmark, what: str, found: dict[str, float]) -> None:
    benchmark.extra_info.update(found)
    print(f"\n{what}: " + ", ".join(f"{name} {value:.3g}" for name, value in found.items()))
