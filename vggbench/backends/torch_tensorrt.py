"""torch-tensorrt, dynamo: the network as one TensorRT engine inside a torch module, on NVIDIA GPUs.

The precision is the network's own type (TF32 on or off for FP32), INT8 and FP8 are Q/DQ nodes from nvidia-modelopt with
the project's ranges. An engine is built at the first call, for its shape and smaller batches; a shape beyond it builds
another. What TensorRT does not take is refused and named, never run in torch beside it.
"""

from __future__ import annotations

import contextlib
import importlib
import time
from typing import Any

import torch
from torch import Tensor, nn

from vgg_reference.architectures import architecture
from vggbench import cache, environment, quantize_modelopt
from vggbench import precisions as table
from vggbench.backends import Array, check_images, check_scores, default_threads, describe, offered
from vggbench.backends.plain_network import Profile, exported, plain_network, profile_for
from vggbench.backends.torch_clock import TorchClock
from vggbench.errors import BackendUnavailable
from vggbench.modes import Mode
from vggbench.ranges import quantized_inputs
from vggbench.variants import Variant

_DTYPES = {"fp16": torch.float16}
_INSTALL = "Install it, with torch for CUDA: pip install torch-tensorrt"
#: Versions whose interface the calls below were checked against: the first and the last.
CHECKED = ("2.11", "2.14")


def available() -> str | None:
    """None, or one line: what is missing and how to get it. On a CPU build of torch its import is an AssertionError."""
    if not environment.has_cuda():
        return f"torch-tensorrt needs an NVIDIA driver with a device, and there is none here. {_INSTALL}"
    try:
        importlib.import_module("torch_tensorrt")
    except Exception as error:
        why = (str(error).strip().splitlines() or [""])[0][:160]
        return f"torch-tensorrt does not load ({type(error).__name__}{': ' if why else ''}{why}). {_INSTALL}"
    return None


def precisions(device: str) -> dict[str, str | None]:
    """Precision -> None, or why not here."""
    if device == "cpu" or (device == "auto" and not torch.cuda.is_available()):
        return offered("torch-tensorrt", "cpu")
    found = offered("torch-tensorrt", "cuda")
    if not torch.cuda.is_available():
        return {name: why or "torch sees no CUDA device" for name, why in found.items()}
    major, minor = torch.cuda.get_device_capability()
    modelopt = quantize_modelopt.available()
    for name in found:
        row = table.find(name, "torch-tensorrt", "cuda")
        if isinstance(row, table.Row) and 10 * major + minor < row.capability:
            found[name] = f"the GPU has compute capability {major}.{minor}, {name} needs {row.capability / 10:.1f}"
        elif name in table.QUANTIZED and modelopt is not None:
            found[name] = modelopt.rstrip(".")
    return found


def open_session(variant: Variant, device: str, threads: int | None) -> TrtTorchSession:
    """Nothing is built before the first call. Raises WeightsError, CalibrationError, BackendUnavailable."""
    return TrtTorchSession(variant, "cuda:0", threads or default_threads())


class TrtTorchSession:
    """See vggbench.backends.Session and vggbench.measure.latency.Timed.

    info["compilations"] and info["compile_seconds"]: engines built so far, and the seconds that it took.
    """

    def __init__(self, variant: Variant, device: str, threads: int) -> None:
        self._variant, self.device = variant, device
        plain, layers = plain_network(variant, _DTYPES.get(variant.precision, torch.float32))
        plain = plain.to(device)
        if variant.precision in table.QUANTIZED:
            assert variant.quantization is not None
            weights = variant.weights
            tensors = quantized_inputs(architecture(weights.network, weights.batch_norm))
            quantize_modelopt.quantize(plain, layers, tensors, variant.quantization, variant.precision)
        self._plain: nn.Module | None = plain
        self._profile: Profile | None = None
        self._module: Any = None
        self._staging: Tensor | None = None
        self.info: dict[str, Any] = {
            **describe(variant, device, threads),
            "gpu": torch.cuda.get_device_name(device),
            "torch": torch.__version__,
            "torch-tensorrt": environment.installed("torch-tensorrt"),
            "tensorrt": getattr(importlib.import_module("tensorrt"), "__version__", None),
            "tf32": variant.precision == "tf32",
            "io": "fp32 in, fp32 out",
            "compilations": 0,
            "compile_seconds": 0.0,
        }
        self._clock = TorchClock(self._forward, device, self.info)

    def __call__(self, images: Array) -> Array:
        check_images(images, self._variant)
        self._prepare(images.shape)
        with torch.inference_mode():
            scores: Array = self._forward(self._upload(images)).float().cpu().contiguous().numpy()
        return check_scores(scores, self._variant)

    def use(self, mode: Mode) -> None:
        """How time_calls times."""
        self._clock.use(mode)

    def time_calls(self, images: Array, calls: int, back_to_back: bool) -> list[float]:
        """See vggbench.measure.latency.Timed."""
        check_images(images, self._variant)
        self._prepare(images.shape)
        return self._clock.time_calls(images, calls, back_to_back)

    def plan(self, images: Array) -> bytes:
        """The serialized engine for these images' shape, for the project's own runner: fp32 in, fp32 out."""
        self._prepare(images.shape)
        for module in self._module.modules():
            found = getattr(module, "serialized_engine", None)
            if isinstance(found, (bytes, bytearray)):
                return bytes(found)
        assert self._profile is not None
        dynamo: Any = importlib.import_module("torch_tensorrt").dynamo
        program, options = self._program(self._profile), self._options(self._profile)
        return bytes(dynamo.convert_exported_program_to_serialized_trt_engine(program, **options))

    def close(self) -> None:
        """Free the device's memory; a second close does nothing."""
        if self._plain is None:
            return
        self._plain = self._module = self._staging = self._profile = None
        self._clock.use(Mode())
        torch.cuda.empty_cache()

    def _forward(self, x: Tensor) -> Tensor:
        scores: Tensor = self._module(x)
        return scores

    def _prepare(self, shape: tuple[int, ...]) -> None:
        """An engine that takes this shape. Raises BackendUnavailable."""
        if self._plain is None:
            raise ValueError("This session is closed.")
        if self._profile is not None and self._profile.covers(shape):
            return
        before = time.perf_counter()
        n, c, h, w = shape
        profile = profile_for((n, c, h, w), self._variant)
        self._module = _compiled(self._program(profile), self._options(profile))
        self._profile = profile
        self._clock.use(self._clock.mode)  # what was captured belongs to the engine before
        self.info["compilations"] += 1
        self.info["compile_seconds"] = round(self.info["compile_seconds"] + time.perf_counter() - before, 3)

    def _program(self, profile: Profile) -> torch.export.ExportedProgram:
        assert self._plain is not None
        quantized = self._variant.precision in table.QUANTIZED
        with quantize_modelopt.exporting() if quantized else contextlib.nullcontext():
            return exported(self._plain, profile)

    def _options(self, profile: Profile) -> dict[str, Any]:
        """Arguments that torch-tensorrt 2.11 to 2.14 share; enabled_precisions is not one: types are explicit."""
        library: Any = importlib.import_module("torch_tensorrt")
        shapes = {"min_shape": profile.least, "opt_shape": profile.best, "max_shape": profile.most}
        given = library.Input(**shapes, dtype=torch.float32)
        if profile.least == profile.most:
            given = library.Input(shape=profile.best, dtype=torch.float32)
        name = f"{environment.installed('torch-tensorrt')}-{self.info['gpu']}.timing".replace(" ", "-")
        folder = cache.root() / "engines" / "torch-tensorrt"
        with cache.storage_errors(folder):
            folder.mkdir(parents=True, exist_ok=True)
        return {
            "arg_inputs": [given],
            "require_full_compilation": True,
            "min_block_size": 1,
            "disable_tf32": self._variant.precision != "tf32",
            "immutable_weights": True,
            "timing_cache_path": str(folder / name),
            "device": torch.device(self.device),
        }

    def _upload(self, images: Array) -> Tensor:
        """Images on the device through one pinned buffer, free again when __call__ returns."""
        host = torch.from_numpy(images)
        if self._staging is None or self._staging.numel() < host.numel():
            self._staging = torch.empty(host.numel(), pin_memory=self.device != "cpu")
        pinned = self._staging[: host.numel()].view(host.shape).copy_(host)
        return pinned.to(self.device, non_blocking=True)


def _compiled(program: torch.export.ExportedProgram, options: dict[str, Any]) -> Any:
    """The compiled module, all of it in one engine. Raises BackendUnavailable naming what stayed in torch, or why."""
    dynamo: Any = importlib.import_module("torch_tensorrt").dynamo
    try:
        module = dynamo.compile(program, **options)
    except Exception as error:  # its own kinds, TensorRT's, and a bare AssertionError for a partial compilation
        left = _left_in_torch(dynamo, program, options)
        why = (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
        raise BackendUnavailable(_refused(left) if left else f"torch-tensorrt failed: {why}") from error
    left = left_in_torch(module)
    if left:
        raise BackendUnavailable(_refused(left))
    return module


def _left_in_torch(dynamo: Any, program: torch.export.ExportedProgram, options: dict[str, Any]) -> list[str]:
    """The same once more as a dry run that may leave nodes in torch, only to name them."""
    with contextlib.suppress(Exception):
        return left_in_torch(dynamo.compile(program, **{**options, "require_full_compilation": False, "dryrun": True}))
    return []


def left_in_torch(module: Any) -> list[str]:
    """Nodes of a compiled graph that are not in an engine: of its own, and of submodules that run in torch."""
    found = []
    for node in module.graph.nodes:
        if node.op == "call_module" and "_run_on_acc" not in str(node.target):
            inner = module.get_submodule(str(node.target))
            graph = getattr(inner, "graph", None)
            found += (
                [str(each.target) for each in graph.nodes if each.op == "call_function"]
                if graph
                else [str(node.target)]
            )
        elif node.op == "call_function" and "getitem" not in str(node.target):
            found.append(str(node.target))
    return list(dict.fromkeys(found))


def _refused(nodes: list[str]) -> str:
    shown = ", ".join(nodes[:8]) + (f" and {len(nodes) - 8} more" if len(nodes) > 8 else "")
    return f"torch-tensorrt would leave a part of the network in torch ({shown}); such a mixture is not measured."
