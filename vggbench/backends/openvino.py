"""OpenVINO on the CPU: FP32, BF16, FP16 and INT8 from the graphs of vggbench.graphs.

What computes is asked for by name, for by itself OpenVINO takes BF16 wherever the CPU has it, and is read back from
the compiled model.
"""

from __future__ import annotations

import dataclasses
import importlib
import sys
from collections import Counter
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from vgg_reference.architectures import architecture
from vggbench import precisions as table
from vggbench.backends import Array, check_images, check_scores, default_threads, describe, offered
from vggbench.backends.ort import graph_of
from vggbench.errors import BackendUnavailable
from vggbench.graphs import INPUT, OUTPUT, graph_sha256
from vggbench.ranges import quantized_inputs
from vggbench.variants import Variant

_TELEMETRY = "openvino_telemetry"
_LARGEST, _LARGEST_FP16 = "largest", 65504
_LAYERS = ("Convolution", "FullyConnected", "MatMul")
_HINTS = {"fp32": "f32", "bf16": "bf16", "fp16": "f16", "int8": "f32"}
#: What the compiled model calls the type that its layers compute in.
_TYPES = {"fp32": {"f32"}, "bf16": {"bf16"}, "fp16": {"f16"}, "int8": {"i8", "u8"}}


def load() -> ModuleType:
    """The openvino module, imported so that it reports nothing: on import it would send an event of its use.

    Without the package openvino_telemetry it has a stand-in that sends nothing; so that package is hidden meanwhile.
    """
    if "openvino" not in sys.modules:
        before = sys.modules.get(_TELEMETRY)
        sys.modules[_TELEMETRY] = None  # type: ignore[assignment]
        try:
            importlib.import_module("openvino")
        finally:
            del sys.modules[_TELEMETRY]
            if before is not None:
                sys.modules[_TELEMETRY] = before
    return importlib.import_module("openvino")


def available() -> str | None:
    """None, or one line: what is missing and how to get it."""
    try:
        load()
    except Exception as error:  # a broken installation raises what it likes
        return f"OpenVINO does not load ({error}). Install it with: pip install openvino"
    return None


def has_cuda() -> bool:
    """It has no CUDA device."""
    return False


def precisions(device: str) -> dict[str, str | None]:
    """Precision -> None, or why not here."""
    return offered("openvino", "cuda" if device == "cuda" else "cpu")


def open_session(variant: Variant, device: str, threads: int | None) -> OpenVinoSession:
    """Raises BackendUnavailable, CalibrationError, WeightsError."""
    return OpenVinoSession(variant, threads or default_threads())


def drawn_as(variant: Variant) -> tuple[Variant, bool]:
    """The variant whose graph OpenVINO is given, and whether FP16 is in its weights alone.

    It makes BF16 and FP16 of an FP32 graph by itself; Q/DQ pairs and weights kept in FP16 it must be given.
    """
    stored = variant.precision == "fp16" and not _in_fp16(variant)
    return variant if stored or variant.precision == "int8" else dataclasses.replace(variant, precision="fp32"), stored


def hint_of(variant: Variant) -> str:
    """What computes, by OpenVINO's name: the value of INFERENCE_PRECISION_HINT."""
    return "f32" if drawn_as(variant)[1] else _HINTS[variant.precision]


def read(core: Any, graph: bytes | Path, variant: Variant) -> Any:
    """The graph as a model to be compiled with the variant's hint."""
    model = core.read_model(graph if isinstance(graph, bytes) else str(graph))
    if _in_fp16(variant):
        _scale_squares(load(), model)
    return model


class OpenVinoSession:
    """One compiled model and one request; see vggbench.backends.Session.

    A call is one request on one stream with all threads, which is what a batch one at a time needs ("latency"); many
    streams ("throughput") would pay only with several calls under way. Dense images of any size run in one model,
    without another compilation. In FP32 and BF16 overflow (beyond 3e38) is not seen: see _add_largest.
    """

    def __init__(self, variant: Variant, threads: int) -> None:
        openvino = load()
        drawn, stored = drawn_as(variant)
        graph = graph_of(drawn, storage_only=stored)
        core = openvino.Core()
        try:
            model = read(core, graph, variant)
            self._guarded = _in_fp16(variant)
            if self._guarded:
                _add_largest(openvino, model)
            options = {
                "INFERENCE_PRECISION_HINT": hint_of(variant),
                "INFERENCE_NUM_THREADS": threads,
                "PERFORMANCE_HINT": "LATENCY",
                "CACHE_DIR": "",
            }
            compiled = core.compile_model(model, "CPU", options)
        except RuntimeError as error:
            raise BackendUnavailable(
                f"OpenVINO could not compile {variant.weights.name} at {variant.precision} ({_first_line(error)}). "
                "Use --backend onnxruntime."
            ) from error
        self._request: Any = compiled.create_infer_request()
        self._variant = variant
        self.device = "cpu"
        ran = _layer_types(compiled)
        self.info: dict[str, Any] = {
            **describe(variant, "cpu", threads),
            "openvino": openvino.__version__,
            "graph_sha256": graph_sha256(graph),
            "performance_hint": "latency",
            "streams": int(compiled.get_property("NUM_STREAMS")),
            "precision_hint": options["INFERENCE_PRECISION_HINT"],
            "layers_computed_in": ", ".join(f"{kind} x{count}" for kind, count in sorted(ran.items())),
        }
        wanted = {"f32"} if stored else _TYPES[variant.precision]
        if sum(ran[kind] for kind in wanted) < _layers(variant):
            self.info["arithmetic"] = f"mixed: layers in {self.info['layers_computed_in']}"

    def __call__(self, images: Array) -> Array:
        check_images(images, self._variant)
        if self._request is None:
            raise ValueError("This session is closed.")
        # Shared: the request reads the caller's array and its output is copied by check_scores, before the next call.
        results = self._request.infer({INPUT: images}, share_inputs=True, share_outputs=True)
        scores = results[OUTPUT]
        if self._guarded and not (np.isfinite(results[_LARGEST]).all() and np.abs(images).max() <= _LARGEST_FP16):
            scores = np.full_like(scores, np.nan)
        return check_scores(np.array(scores, np.float32, order="C"), self._variant)

    def close(self) -> None:
        """Free the model's memory; a second close does nothing."""
        self._request = None


def _in_fp16(variant: Variant) -> bool:
    """Whether its layers compute in FP16 on this CPU."""
    return variant.precision == "fp16" and table.best_unit("fp16") is not None


def _scale_squares(openvino: ModuleType, model: Any) -> None:
    """Local response normalization with its squares a 4096th as large, which in FP16 would exceed 65504.

    OpenVINO keeps no layer in FP32 beside others in FP16. The weights of the sum take the factor back: the product is
    the same, for both are powers of two.
    """
    ops = openvino.opset13
    for op in model.get_ordered_ops():
        if op.get_friendly_name() == "block1.lrn.squares":
            small = ops.multiply(op.input_value(0), ops.constant(np.float32(1 / 64)))
            for port in (0, 1):
                op.input(port).replace_source_output(small.output(0))
            (following,) = op.output(0).get_target_inputs()
            band = following.get_node().input(1)
            band.replace_source_output(ops.multiply(band.get_source_output(), ops.constant(np.float32(4096))).output(0))


def _add_largest(openvino: ModuleType, model: Any) -> None:
    """Give the model an output with the largest value after each layer: overflow in FP16 is seen nowhere else.

    The layer after an infinite value gives NaN, of which oneDNN's ReLU makes 0, and the scores are finite and wrong.
    """
    ops = openvino.opset13
    axes = ops.constant(np.array([0], np.int64))
    flat = ops.constant(np.array([-1], np.int64))
    layers = [op for op in model.get_ordered_ops() if op.get_type_name() in ("Relu", "Multiply")]
    largest = [ops.reduce_max(ops.reshape(op.output(0), flat, False), axes, keep_dims=True) for op in layers]
    model.add_outputs([ops.concat(largest, axis=0).output(0)])
    model.outputs[-1].get_tensor().set_names({_LARGEST})


def _layer_types(compiled: Any) -> Counter[str]:
    """Type that the layers with weights compute in -> how many of them, from the compiled model itself."""
    found: Counter[str] = Counter()
    for op in compiled.get_runtime_model().get_ops():
        info = op.get_rt_info()
        if "layerType" in info and info["layerType"].astype(str) in _LAYERS:
            found[info["runtimePrecision"].astype(str).lower()] += 1
    return found


def _layers(variant: Variant) -> int:
    """Layers with weights that are to compute in the variant's precision."""
    weights, how = variant.weights, variant.quantization
    return len(quantized_inputs(architecture(weights.network))) - (len(how.float_layers) if how else 0)


def _first_line(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1] if lines else type(error).__name__
