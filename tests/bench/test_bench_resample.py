"""Rescaling by compiled code beside Pillow: python -m pytest tests/bench/test_bench_resample.py --benchmark-only -s

Both take turns on one photograph-sized picture of the decoder's; milliseconds are medians. Compiling is told apart.
"""

import statistics
import time
from collections.abc import Callable

import numpy as np
import pytest
from PIL import Image

from vggbench import resample
from vggbench.measure.heaps import Trimmer
from vggbench.protocols import Choices
from vggbench.views import rescaled_size

SIZE, SCALES, TURNS = (375, 500), (64, 224, 256, 384, 512), 60


@pytest.mark.parametrize("name", sorted(resample.FILTERS))
def test_rescaling_beside_pillow(benchmark, name):
    Trimmer()  # keeps memory from one image to the next, as in the pipeline
    started = time.perf_counter()
    assert resample.load(), resample.why()
    print(f"\ncompiling and trying: {time.perf_counter() - started:.1f} s (the first time in a process)")
    pixels = np.random.default_rng(0).integers(0, 256, (*SIZE, 3), dtype=np.uint8)
    picture = Image.fromarray(pixels)
    for scale in SCALES:
        height, width = rescaled_size(*SIZE, scale, Choices())
        turns: dict[str, Callable[[], object]] = {
            "Pillow": lambda: np.asarray(picture.resize((width, height), resample.FILTERS[name])),  # noqa: B023
            "compiled": lambda: resample.resizer(picture, name)(height, width),  # noqa: B023
        }
        seconds: dict[str, list[float]] = {who: [] for who in turns}

        def once() -> None:
            for who, turn in turns.items():  # noqa: B023
                started = time.perf_counter()
                turn()
                seconds[who].append(time.perf_counter() - started)  # noqa: B023

        for _ in range(TURNS):
            once()
        found = {who: 1e3 * statistics.median(each) for who, each in seconds.items()}
        found["Pillow / compiled"] = found["Pillow"] / found["compiled"]
        benchmark.extra_info[str(scale)] = found
        print(f"{name} at scale {scale}: " + ", ".join(f"{who} {value:.3g}" for who, value in found.items()))
    benchmark.pedantic(lambda: resample.resizer(picture, name)(*rescaled_size(*SIZE, 256, Choices())), rounds=9)
