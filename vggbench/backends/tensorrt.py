"""TensorRT 8.6 to 11 on the first GPU: engines of the graphs of vggbench.graphs, run by vggbench.engines.

FP32 with and without TF32, FP16 of an FP16-typed graph, INT8 and FP8 of explicit Q/DQ pairs. An engine is built once
for a GPU, graph and profile and kept in the cache; images of other sizes than its profile's are refused. It takes
floats, or pixels: uint8, normalized in the engine, which ranks as floats do within the roundings that
vggbench.graph_pixels states.
"""

from __future__ import annotations

import dataclasses
import importlib
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy.typing as npt

from vgg_reference.architectures import architecture
from vggbench import cache, environment
from vggbench import precisions as table
from vggbench.backends import Array, check_images, check_scores, default_threads, describe, offered
from vggbench.backends.uploads import check_pixels
from vggbench.engines import adapter, buffers, layers, plans
from vggbench.engines.device import NO_DRIVER, first_device
from vggbench.engines.logs import LOG
from vggbench.engines.opening import Settings, opened
from vggbench.engines.profile import Profile, profile_for
from vggbench.engines.run import Runner
from vggbench.engines.timing import Timer
from vggbench.errors import BackendUnavailable, StorageError
from vggbench.graphs import OUTPUT, export_onnx, graph_path
from vggbench.modes import Mode
from vggbench.qdq_fp8 import fp16_layers
from vggbench.ranges import quantized_inputs
from vggbench.variants import Variant

#: (n, 3, h, w) float32, or (n, h, w, 3) uint8 of an engine that takes pixels.
Input = npt.NDArray[Any]
#: The first is for evaluations, see uploads.for_passes; floats for timing, and numerics, where all get the same.
INPUTS = ("pixels", "floats")
_NO_CPU = "TensorRT has no CPU device"


def load() -> ModuleType:
    """The tensorrt module."""
    return importlib.import_module("tensorrt")


def available() -> str | None:
    """None, or one line: what is missing and how to get it.

    The driver is asked before TensorRT is touched: without one, 8.6 ends the process.
    """
    try:
        load()
    except ImportError as error:
        if isinstance(error, ModuleNotFoundError) and error.name == "tensorrt":
            return "TensorRT is not installed. Install it with: pip install 'vggbench[tensorrt]'"
        return f"TensorRT does not load ({_line(error)}). Install it with: pip install 'vggbench[tensorrt]'"
    except Exception as error:  # a broken installation raises what it likes
        return f"TensorRT does not load ({_line(error)}). Install it with: pip install 'vggbench[tensorrt]'"
    if not environment.has_cuda():
        return NO_DRIVER
    why = buffers.missing()
    return buffers.unavailable(why) if why else None


def has_cuda() -> bool:
    """Whether there is a device for it; it has no other."""
    return environment.has_cuda()


def precisions(device: str) -> dict[str, str | None]:
    """Precision -> None, or why not here."""
    if device == "cpu" or not environment.has_cuda():
        found = offered("tensorrt", "cpu")
        return found if device == "cpu" else dict.fromkeys(found, NO_DRIVER)
    trt, gpu = load(), first_device()
    found = {name: why or adapter.why_not(trt, name) for name, why in offered("tensorrt", "cuda").items()}
    for name in found:
        row = table.find(name, "tensorrt", "cuda")
        if gpu is not None and isinstance(row, table.Row) and gpu.sm < row.capability:
            found[name] = f"{gpu.name} has compute capability {gpu.sm / 10}, {name} needs {row.capability / 10}"
    return found


def profile_of(variant: Variant) -> Profile:
    """What its engine takes unless a caller of Python's says otherwise. Raises UsageError."""
    return profile_for(variant.weights.crop_size, variant.form == "dense", variant.sizes)


def identity(variant: Variant) -> dict[str, Any]:
    """All that names an engine of open_session's but its graph, which the variant decides. See backends.identity."""
    device = first_device()
    if device is None:
        raise BackendUnavailable(NO_DRIVER)
    found = plans.decisive(load(), variant.precision, profile_of(variant), Settings().options, device)
    return {**found, "engine_input": engine_input(variant)}


def engine_input(variant: Variant) -> str:
    """Of sizes.INPUTS."""
    return "pixels" if variant.takes_pixels else "floats"


def open_session(
    variant: Variant, device: str, threads: int | None, settings: Settings | None = None
) -> TensorRtSession:
    """Builds the engine if none is kept. Raises BackendUnavailable, UsageError, CalibrationError, WeightsError."""
    if device == "cpu":
        raise BackendUnavailable(f"{_NO_CPU}. Use --device cuda, or another backend: --backend onnxruntime.")
    absent = available()
    if absent is not None:
        raise BackendUnavailable(absent)
    return TensorRtSession(variant, threads or default_threads(), settings or Settings())


def open_for(variant: Variant, device: str, threads: int | None, batch: int, size: tuple[int, int]) -> TensorRtSession:
    """An engine for one batch and size (h, w) alone, the fastest there is for them; see backends.open_for."""
    height, width = size
    profile = Profile((batch, batch, batch), (height, height, height), (width, width, width))
    return open_session(variant, device, threads, Settings(profile))


class TensorRtSession:
    """One engine; see vggbench.backends.Session and vggbench.measure.latency.Timed.

    Where it takes pixels, so does every call, and there is submit, see vggbench.backends.uploads.PixelSession.
    """

    def __init__(self, variant: Variant, threads: int, settings: Settings) -> None:
        trt = load()
        self._variant = variant
        self.device = "cuda:0"
        self.profile = settings.profile or profile_of(variant)
        self._runner: Runner | None
        with graph_file(variant) as graph:
            self._runner, self.info = opened(trt, graph, variant.precision, self.profile, settings)
        with ExitStack() as failing:
            failing.callback(self._runner.close)
            self._timer = Timer(self._runner)
            failing.callback(self._timer.close)
            self.info = {**describe(variant, self.device, threads), **self.info, **self._timer.info}
            self.info["engine_input"] = engine_input(variant)
            self._look_at_layers(trt)
            failing.pop_all()
        if variant.takes_pixels:
            self.submit = self._submit

    def _look_at_layers(self, trt: Any) -> None:
        """What the layers run in, for the record; a warning where one fell back."""
        assert self._runner is not None
        names, how = list(quantized_inputs(architecture(self._variant.weights.network))), self._variant.quantization
        self._runner.reshape(self.profile.shapes(self._runner.channels_last)[1])
        found = layers.layers_of(trt, self._runner.engine, self._runner.context, names)
        kept = how.float_layers if how is not None else ()
        if self._variant.precision == "fp8":
            kept = fp16_layers(self._variant)
            self.info["fp16_layers"] = " ".join(kept)
        wanted = [name for name in names if name not in kept]
        key, profile = str(self.info["engine_key"])[:12], str(self.info["profile"])
        self.info |= layers.described(found, wanted, self._variant.precision, key, profile)
        layers.warn(self.info, wanted, self._variant.precision)

    def __call__(self, images: Input) -> Array:
        return self._submit(images)()

    def _submit(self, images: Input) -> Callable[[], Array]:
        finish = self._checked(images).submit(images)
        return lambda: check_scores(finish()[OUTPUT], self._variant)

    def _checked(self, images: Input) -> Runner:
        if self._variant.takes_pixels:
            check_pixels(images)
        else:
            check_images(images, self._variant)
        if self._runner is None:
            raise ValueError("This session is closed.")
        return self._runner

    def use(self, mode: Mode) -> None:
        """How time_calls times."""
        self._timer.use(mode)
        self.info |= self._timer.info

    def time_calls(self, images: Input, calls: int, back_to_back: bool) -> list[float]:
        """Seconds of each call; see vggbench.measure.latency.Timed. Raises UsageError outside the profile."""
        self._checked(images)
        taken = self._timer.time_calls(images, calls, back_to_back)
        self.info |= self._timer.info
        return taken

    def close(self) -> None:
        """Free the device's memory; a second close does nothing."""
        if self._runner is not None:
            self._timer.close()
            self._runner.close()
            self._runner = None


@contextmanager
def running(variant: Variant, graph: bytes) -> Iterator[Runner]:
    """The engine of a graph made of the variant's, with every layer's output: for at most eight images a call, and not
    kept.
    """
    default = profile_of(variant)
    profile = dataclasses.replace(default, batch=(1, min(8, default.batch[1]), min(8, default.batch[2])))
    with tempfile.TemporaryDirectory(prefix="vggbench-") as folder:
        path = Path(folder, "graph.onnx")
        with cache.storage_errors(path):
            path.write_bytes(graph)
        runner, _ = opened(load(), path, variant.precision, profile, Settings(cached=False))
    try:
        yield runner
    finally:
        runner.close()


@contextmanager
def graph_file(variant: Variant) -> Iterator[Path]:
    """The variant's graph as a file: in the cache, or where it takes nothing, in a temporary folder."""
    # The builder, not the graph, says whether FP32 may be TF32.
    drawn = dataclasses.replace(variant, precision="fp32") if variant.precision == "tf32" else variant
    try:
        path = graph_path(drawn, cache.root())
    except StorageError as error:
        LOG.warning("%s The graph is written to a temporary folder.", error)
    else:
        yield path
        return
    with tempfile.TemporaryDirectory(prefix="vggbench-") as folder:
        path = Path(folder, "graph.onnx")
        with cache.storage_errors(path):
            path.write_bytes(export_onnx(drawn))
        yield path


def _line(error: Exception) -> str:
    return " ".join(str(error).split())[:200] or type(error).__name__
