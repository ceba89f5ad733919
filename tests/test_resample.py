"""What numba compiles gives Pillow's pixels, is taken only where it pays, and is never missed."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from measuring import WEIGHTS
from PIL import Image

from vggbench import resample
from vggbench.measure.accuracy import run_passes
from vggbench.protocols import Choices, Pass
from vggbench.views import rescale_all

SIDE = st.integers(1, 150)
FILTER = st.sampled_from(sorted(resample.FILTERS))


@pytest.fixture(scope="module")
def compiled():
    assert resample.load(), resample.why()
    return resample._found


@pytest.fixture
def nothing_found(monkeypatch):
    """As in a process that has not compiled yet."""
    monkeypatch.setattr(resample, "_found", None)


def noise(height: int, width: int, seed: int = 0) -> np.ndarray:
    """Pixels of which many are black or white, so that sums are clipped at both ends."""
    random = np.random.default_rng(seed)
    pixels = random.integers(0, 256, (height, width, 3), dtype=np.uint8)
    return np.where(random.random(pixels.shape) < 0.5, pixels, np.where(pixels > 127, 255, 0)).astype(np.uint8)


def by_pillow(pixels: np.ndarray, height: int, width: int, name: str) -> np.ndarray:
    return np.asarray(Image.fromarray(pixels).resize((width, height), resample.FILTERS[name]))


@settings(max_examples=400, deadline=None)
@given(SIDE, SIDE, SIDE, SIDE, FILTER, st.booleans())
def test_pixels_are_pillows(compiled, height, width, tall, wide, name, own):
    pixels = noise(height, width)
    resize = resample.resizer(Image.fromarray(pixels) if own else pixels, name)
    assert np.array_equal(resize(tall, wide), by_pillow(pixels, tall, wide, name))


@settings(max_examples=200, deadline=None)
@given(st.integers(20, 120), st.integers(20, 120), st.integers(1, 19), st.integers(-1, 1), FILTER)
def test_the_passes_are_in_pillows_order_where_it_changes(compiled, height, width, narrower, more, name):
    """Rows are taken away as often as twice the columns, and once more or less."""
    tall = max(1, height - 2 * narrower - more)
    pixels = noise(height, width)
    found = resample.resizer(pixels, name)(tall, width - narrower)
    assert np.array_equal(found, by_pillow(pixels, tall, width - narrower, name))


@pytest.mark.parametrize("name", sorted(resample.FILTERS))
@pytest.mark.parametrize("size", [(317, 448), (448, 317), (1200, 900), (600, 150), (64, 6400)])
def test_photographs_sizes_at_the_papers_scales(compiled, size, name):
    pixels = noise(*size)
    choices = Choices(resize_filter=name)
    for scale, found in rescale_all(Image.fromarray(pixels), [224, 256, 384, 512], choices).items():
        assert min(found.shape[:2]) == scale
        assert np.array_equal(found, by_pillow(pixels, *found.shape[:2], name)), scale


def test_an_image_in_several_pieces_of_memory(compiled):
    """Over 16 MB, Pillow's rows are not all beside each other."""
    pixels = noise(2200, 2300)
    picture = Image.fromarray(pixels)
    with pytest.raises((TypeError, ValueError), match=r"contiguous|multiple|Image"):
        compiled._arrow(picture)
    assert np.array_equal(resample.resizer(picture, "bicubic")(70, 80), by_pillow(pixels, 70, 80, "bicubic"))


def test_arrays_that_are_read_only_or_strided(compiled):
    pixels = noise(50, 90)
    pixels.setflags(write=False)
    for of in (pixels, pixels[:, ::-1], pixels[::2]):
        assert np.array_equal(resample.resizer(of, "bicubic")(30, 70), by_pillow(np.array(of), 30, 70, "bicubic"))


def test_threads_do_not_disturb_each_other(compiled):
    pictures = [noise(60 + i, 90 + i, i) for i in range(40)]
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda pixels: resample.resizer(pixels, "bicubic")(40, 61), pictures))
    assert all(np.array_equal(a, by_pillow(b, 40, 61, "bicubic")) for a, b in zip(found, pictures, strict=True))


def test_pillow_keeps_what_is_not_compiled(compiled):
    assert resample.resizer(noise(9, 9), "lanczos") is None
    assert rescale_all(noise(9, 9), [5], Choices(resize_filter="lanczos"))[5].shape == (5, 5, 3)


def test_nothing_is_compiled_without_being_asked(nothing_found):
    assert resample.resizer(noise(9, 9), "bicubic") is None


def test_a_pillow_of_another_kind_is_left_alone(nothing_found, monkeypatch, caplog):
    """One that always takes the vertical pass first, say."""
    monkeypatch.setattr(resample, "_ORDERS", (lambda source, target: True,))
    with caplog.at_level(logging.INFO):
        assert not resample.load()
    assert "rescales in a way that the compiled code does not know" in caplog.text
    assert resample.resizer(noise(9, 9), "bicubic") is None


def test_each_planted_fault_is_found(compiled):
    """A weight, a sum or a pass that is off by the least amount is seen in the images that are tried."""

    class Wrong:
        def __init__(self, name: str) -> None:
            self._name = name

        def __getattr__(self, name: str):
            right = getattr(compiled._kernels, name)
            if name != self._name:
                return right

            def wrong(*arguments):
                right(*arguments)
                target = arguments[{"mix": -2, "taps": -3}.get(name, -1)]
                target.reshape(-1)[len(target) // 3] += 1

            return wrong

    assert resample._same(resample._Compiled(Wrong(""), compiled._arrow, compiled._vertical_first))
    for name in ("taps", "mix", "horizontal", "narrow", "widen"):
        assert not resample._same(resample._Compiled(Wrong(name), compiled._arrow, compiled._vertical_first)), name


@pytest.mark.parametrize("missing", ["numba", "nanoarrow"])
def test_without_the_extra_there_is_the_command(nothing_found, monkeypatch, missing):
    monkeypatch.setitem(sys.modules, missing, None)
    assert not resample.load()
    assert "pip install 'vggbench[numba]'" in resample.why()


def test_another_processor_is_pillows(nothing_found, monkeypatch):
    monkeypatch.setattr(resample.platform, "machine", lambda: "aarch64")
    assert not resample.load()
    assert "aarch64" in resample.why()


def test_a_compiler_that_fails_is_no_error(nothing_found, monkeypatch):
    def fails(compiled):
        raise RuntimeError("LLVM ERROR\nmore")

    monkeypatch.setattr(resample, "_same", fails)
    assert not resample.load()
    assert resample.why() == "compiling failed (RuntimeError: LLVM ERROR)."


def test_compiling_can_be_switched_off():
    script = "from vggbench import resample; print(resample.load(), resample.why())"
    variables = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "NUMBA_DISABLE_JIT": "1"}
    run = subprocess.run([sys.executable, "-c", script], env=variables, capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "False NUMBA_DISABLE_JIT is set."


@pytest.fixture
def loads(monkeypatch, nothing_found):
    """How often compiling was asked for."""
    asked = []
    monkeypatch.setattr(resample, "load", lambda: asked.append(True))
    return asked


def test_compiling_waits_until_it_pays(loads):
    worth = resample.Worth(1000, "bicubic")
    for _ in range(resample.SEEN - 1):
        worth.took(1.0)  # one image says too little, whatever it took
    assert not loads
    for _ in range(500):
        worth.took(1.0)
    assert len(loads) == 1


@pytest.mark.parametrize(
    ("images", "name", "seconds"), [(1000, "bicubic", 0.005), (20, "bicubic", 0.5), (10**6, "lanczos", 1.0)]
)
def test_little_work_and_other_filters_are_not_worth_it(loads, images, name, seconds):
    worth = resample.Worth(images, name)
    for _ in range(min(images, 2000)):
        worth.took(seconds)
    assert not loads


def test_what_is_compiled_already_is_not_asked_for_again(monkeypatch, compiled):
    monkeypatch.setattr(resample, "load", lambda: pytest.fail("asked for again"))
    worth = resample.Worth(1000, "bicubic")
    for _ in range(1000):
        worth.took(1.0)


@pytest.mark.parametrize("workers", [1, 3])
def test_an_evaluation_compiles_on_its_way_and_its_posteriors_stay_the_same(
    tmp_path, monkeypatch, nothing_found, dataset, workers
):
    passes = [Pass("crop", scale, "center", False) for scale in (32, 37)]
    options = {"backend": "onnxruntime", "device": "cpu", "threads": 1, "workers": workers}

    def run(name: str):
        return run_passes(dataset, WEIGHTS, passes, cache_root=tmp_path / name, **options).posteriors

    before = run("pillow")
    assert resample._found is None
    monkeypatch.setattr(resample, "WORTH_SECONDS", 0.0)
    monkeypatch.setattr(resample, "SEEN", 2)
    after = run("compiled")
    assert isinstance(resample._found, resample._Compiled)
    for step in passes:
        assert np.array_equal(before[step], after[step])
