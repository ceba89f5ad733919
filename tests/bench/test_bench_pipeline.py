"""Preparing images beside its parts: python -m pytest tests/bench/test_bench_pipeline.py --benchmark-only -s

Nothing is asserted about time: on a machine with other work no bound is honest. CPU seconds stand beside the wall's,
for they do not count what other work took.
"""

import io
import statistics
import time
from contextlib import closing
from multiprocessing import get_context
from multiprocessing.connection import Connection

import numpy as np
import pytest
from PIL import Image
from test_bench_loop import SAMPLE, photographs

from vgg_reference.weights import random_weights
from vggbench.environment import usable_cores
from vggbench.errors import BackendUnavailable
from vggbench.images.decode import DECODERS, decoder_name
from vggbench.measure.accuracy import run_passes
from vggbench.measure.ahead import Ahead
from vggbench.measure.heaps import Trimmer
from vggbench.measure.pipeline import DecodedImages, decoded_image
from vggbench.measure.stages import Stages
from vggbench.protocols import Choices, Pass

#: Files of about the size of ImageNet's validation images, 126 KB in the mean of 6.3 GB.
ROUNDS, IMAGES, SIZE, NOISE = 3, 192, (375, 500), 22.0
#: Rounds of decoding and passes over the files in one: the speed of a shared host wanders within seconds, so that what
#: is compared takes short turns, beside which starting threads is still little.
TURNS, PASSES = 15, 2


@pytest.fixture(autouse=True)
def _on_demand(request):
    if not request.config.getoption("--benchmark-only", False):
        pytest.skip("a benchmark; run it with: nox -s bench")


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    return photographs(tmp_path_factory.mktemp("photographs") / "images", IMAGES, SIZE, NOISE)


def by_pillow(data: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(data)))


def by_simplejpeg(data: bytes) -> np.ndarray:
    import simplejpeg

    return simplejpeg.decode_jpeg(data, "RGB")


#: The decoders alone, as their documentation calls them: no check of the file, no way round what they refuse.
BARE = {"pillow": by_pillow, "simplejpeg": by_simplejpeg}


def bare(files: list[bytes], decoder: str, keep: bool, turns: Connection) -> None:
    """A process that decodes all files each time it is asked, and answers with its images a second.

    keep: memory, as the pipeline does; without that Pillow's speed is one or the other of two that are a third apart.
    """
    alone = BARE[decoder]
    if keep:
        Trimmer()
    for data in files:
        alone(data)
    while turns.recv():
        started = time.perf_counter()
        for data in files * PASSES:
            alone(data)
        turns.send(PASSES * len(files) / (time.perf_counter() - started))


@pytest.mark.parametrize("decoder", DECODERS)
def test_decoding_on_all_cores_beside_bare_decoders(benchmark, dataset, decoder):
    """Reading and checking the files, and handing the pixels over, are part of the one and not of the others.

    The shares are medians of the turns' own shares.

    Cores that share caches, memory or a clock give less together than alone: so the bare decoder runs once on one
    core, and once in a process on each of them, which is what the cores have to give. Where a process' memory comes to
    lie moves each of these rates by some percent; the share of the time in the decoder is of one process alone.
    """
    try:
        decoder_name(decoder)
    except BackendUnavailable as absent:
        pytest.skip(str(absent))
    cores = usable_cores()
    files = [image.path.read_bytes() for image in dataset.images]
    rates: dict[str, list[float]] = {"pipeline": [], "one bare": [], "one bare a core": []}
    rates["share of the cores' time in the decoder"] = []
    rates["one bare as glibc has it"] = []
    processes, plain = [Bare(files, decoder) for _ in range(cores)], Bare(files, decoder, keep=False)

    def once() -> None:
        rates["one bare"].append(processes[0].rate())
        rates["one bare as glibc has it"].append(plain.rate())
        for each in processes:
            each.ask()
        rates["one bare a core"].append(sum(each.answer() for each in processes))

        stages, trimmer = Stages(), Trimmer()

        def prepare(index: int) -> bytes:
            trimmer.look(decoded_image(dataset, index, "ignore", DecodedImages(0), decoder, stages).nbytes)
            return b""

        ahead = Ahead(prepare, [*range(IMAGES)] * PASSES, cores - 1 or 1, 1 << 30, len, Stages())
        wall = time.perf_counter()
        with closing(ahead.results()) as results:
            for _ in results:
                pass
        seconds = time.perf_counter() - wall
        rates["pipeline"].append(PASSES * IMAGES / seconds)
        rates["share of the cores' time in the decoder"].append(stages.seconds()["decode"] / (cores * seconds))

    try:
        benchmark.pedantic(once, rounds=TURNS, warmup_rounds=1)
    finally:
        for each in [*processes, plain]:
            each.end()
    found = {name: statistics.median(values) for name, values in rates.items()}
    found["pipeline / one bare a core"] = share(rates["pipeline"], rates["one bare a core"])
    found["pipeline / (one bare x cores)"] = share(rates["pipeline"], [rate * cores for rate in rates["one bare"]])
    report(benchmark, f"decoding by {decoder} on {cores} cores", found)


def share(some: list[float], of: list[float]) -> float:
    return statistics.median(one / whole for one, whole in zip(some, of, strict=True))


class Bare:
    """A process of ``bare``."""

    def __init__(self, files: list[bytes], decoder: str, keep: bool = True) -> None:
        context = get_context("spawn")
        self._turns, other = context.Pipe()
        self._process = context.Process(target=bare, args=(files, decoder, keep, other), daemon=True)
        self._process.start()
        other.close()

    def ask(self) -> None:
        self._turns.send(True)

    def answer(self) -> float:
        return self._turns.recv()

    def rate(self) -> float:
        self.ask()
        return self.answer()

    def end(self) -> None:
        self._turns.send(False)
        self._process.join()


@pytest.mark.parametrize("resize_filter", ["bicubic", "torch-bicubic"])
def test_three_scales_from_one_decode_beside_three_runs(benchmark, dataset, tmp_path, resize_filter):
    """By Pillow a rescaling takes nearly as long as decoding, which is all that three runs do more than one."""
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
    report(benchmark, f"three scales of a small A, {resize_filter}", found)


def report(benchmark, what: str, found: dict[str, float]) -> None:
    benchmark.extra_info.update(found)
    print(f"\n{what}: " + ", ".join(f"{name} {value:.3g}" for name, value in found.items()))
