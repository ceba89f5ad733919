"""ONNX Runtime: the graphs of vggbench.graphs on the CPU, or on CUDA where the installed build has it.

FP32; INT8 in either layout; FP16 as FP16-typed layers on CUDA, and on a CPU, for which it has no such kernels, as
weights kept in FP16 and computed with in FP32. FP8 is simulated on a CPU: TensorRT's graph, whose values are rounded to
E4M3 and computed with in FP32, foretells the scores, not the speed.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from vgg_reference.architectures import architecture, count_parameters
from vggbench import cache
from vggbench.backends import (
    Array,
    check_images,
    check_scores,
    default_threads,
    describe,
    offered,
    resolve_device,
)
from vggbench.errors import BackendUnavailable
from vggbench.graphs import INPUT, OUTPUT, export_onnx, graph_path, graph_sha256
from vggbench.qdq_fp8 import fp16_layers
from vggbench.variants import Variant

_CUDA = "CUDAExecutionProvider"
_CACHED_BYTES = 64 << 20
#: It makes integer kernels of a Q/DQ graph only from unsigned activations, with nothing left between the pairs.
_EMULATED = "fp32 between values rounded to int8 (this layout has no integer kernels here)"


def available() -> str | None:
    """None, or one line: what is missing and how to get it."""
    try:
        import onnxruntime  # type: ignore[import-untyped]  # noqa: F401
    except Exception as error:  # a broken installation raises what it likes
        return f"ONNX Runtime does not load ({error}). Install it with: pip install onnxruntime"
    return None


def precisions(device: str) -> dict[str, str | None]:
    """Precision -> None, or why not here."""
    if resolve_device(device, has_cuda()) == "cpu":
        return offered("onnxruntime", "cpu")
    found = offered("onnxruntime", "cuda")
    return found if has_cuda() else {name: why or _NO_CUDA for name, why in found.items()}


def has_cuda() -> bool:
    """Whether this build of ONNX Runtime has CUDA; that there is a device shows only when a session opens."""
    import onnxruntime

    return _CUDA in onnxruntime.get_available_providers()


_NO_CUDA = "this build of ONNX Runtime has no CUDA; install onnxruntime-gpu in place of onnxruntime"


def open_session(variant: Variant, device: str, threads: int | None) -> OrtSession:
    """Raises BackendUnavailable, CalibrationError, WeightsError."""
    return OrtSession(variant, resolve_device(device, has_cuda()), threads or default_threads())


def graph_of(variant: Variant, *, storage_only: bool = False) -> bytes | Path:
    """A large graph as a file in the cache, for it takes seconds to write; a small one made anew."""
    weights = variant.weights
    parameters = count_parameters(architecture(weights.network, weights.batch_norm), **weights.size)
    if 4 * parameters >= _CACHED_BYTES:
        return graph_path(variant, cache.root(), storage_only=storage_only)
    return export_onnx(variant, storage_only=storage_only)


def inference_session(
    graph: bytes | Path,
    device: str = "cpu",
    threads: int | None = None,
    *,
    dense: bool = False,
    pairs_as_they_stand: bool = False,
    **options: Any,
) -> Any:
    """An onnxruntime.InferenceSession with our options. dense: inputs come in many sizes.

    pairs_as_they_stand: Q/DQ nodes are not rearranged for integer kernels, and those of weights are computed once; what
    it makes of FP8's was seen to move the sample networks' scores by 1.2 %, and to take twice the time.
    options: further attributes of onnxruntime.SessionOptions. Raises BackendUnavailable where CUDA does not start.
    """
    import onnxruntime

    chosen = onnxruntime.SessionOptions()
    chosen.intra_op_num_threads = threads or default_threads()
    chosen.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL
    chosen.log_severity_level = 4  # what it logs goes to the user's terminal, and its errors are raised beside
    # Waiting threads must not burn the cores on which images are decoded at the same time.
    chosen.add_session_config_entry("session.intra_op.allow_spinning", "0")
    if pairs_as_they_stand:
        chosen.add_session_config_entry("session.disable_quant_qdq", "1")
    # Dense images come in many sizes, and a memory pattern is kept for each that was seen.
    chosen.enable_mem_pattern = not dense
    for name, value in options.items():
        setattr(chosen, name, value)
    providers = ["CPUExecutionProvider"] if device == "cpu" else [(_CUDA, {"use_tf32": "0"}), "CPUExecutionProvider"]
    session = onnxruntime.InferenceSession(
        graph if isinstance(graph, bytes) else str(graph), chosen, providers=providers
    )
    if device != "cpu" and _CUDA not in session.get_providers():
        raise BackendUnavailable("ONNX Runtime could not start CUDA. Use --device cpu, or see: vggbench doctor")
    return session


class OrtSession:
    """One onnxruntime.InferenceSession; see vggbench.backends.Session."""

    def __init__(self, variant: Variant, device: str, threads: int) -> None:
        import onnxruntime

        graph = graph_of(variant, storage_only=variant.precision == "fp16" and device == "cpu")
        fp8 = variant.precision == "fp8"
        self._session: Any = inference_session(
            graph, device, threads, dense=variant.form == "dense", pairs_as_they_stand=fp8
        )
        self.device = device
        self._variant = variant
        self.info: dict[str, Any] = {
            **describe(variant, device, threads),
            "onnxruntime": onnxruntime.__version__,
            "providers": ",".join(self._session.get_providers()),
            "graph_sha256": graph_sha256(graph),
            "graph_optimization": "all",
            "spinning": False,
        }
        if fp8:
            self.info["fp16_layers"] = " ".join(fp16_layers(variant))
        elif variant.quantization is not None and variant.quantization.layout == "tensorrt":
            self.info["arithmetic"] = _EMULATED

    def __call__(self, images: Array) -> Array:
        check_images(images, self._variant)
        if self._session is None:
            raise ValueError("This session is closed.")
        scores: Array = self._session.run([OUTPUT], {INPUT: images})[0]
        return check_scores(scores, self._variant)

    def close(self) -> None:
        """Free the session's memory; a second close does nothing."""
        self._session = None
