"""ONNX Runtime, FP32: the graph of vggbench.graphs on the CPU, or on CUDA where the installed build has it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from vgg_reference.architectures import architecture, count_parameters
from vggbench import cache
from vggbench.backends import Array, check_images, check_scores, default_threads, resolve_device
from vggbench.errors import BackendUnavailable
from vggbench.graphs import INPUT, OUTPUT, export_onnx, graph_path, graph_sha256
from vggbench.variants import Variant

_CUDA = "CUDAExecutionProvider"
_CACHED_BYTES = 64 << 20


def available() -> str | None:
    """None, or one line: what is missing and how to get it."""
    try:
        import onnxruntime  # type: ignore[import-untyped]  # noqa: F401
    except Exception as error:  # a broken installation raises what it likes
        return f"ONNX Runtime does not load ({error}). Install it with: pip install onnxruntime"
    return None


def precisions(device: str) -> dict[str, str | None]:
    """Precision -> None, or why not here."""
    other = "this backend runs fp32 graphs only; use pytorch"
    cuda = None if resolve_device(device, has_cuda()) == "cpu" or has_cuda() else _no_cuda()
    return {"fp32": cuda, "bf16": other, "fp16": other, "int8": "no quantized graphs yet"}


def has_cuda() -> bool:
    """Whether this build of ONNX Runtime has CUDA; that there is a device shows only when a session opens."""
    import onnxruntime

    return _CUDA in onnxruntime.get_available_providers()


def _no_cuda() -> str:
    return "this build of ONNX Runtime has no CUDA; install onnxruntime-gpu in place of onnxruntime"


def open_session(variant: Variant, device: str, threads: int | None) -> OrtSession:
    """Raises BackendUnavailable, WeightsError."""
    return OrtSession(variant, resolve_device(device, has_cuda()), threads or default_threads())


def _graph(variant: Variant) -> bytes | Path:
    """A large graph as a file in the cache, for it takes seconds to write; a small one made anew."""
    weights = variant.weights
    parameters = count_parameters(architecture(weights.network, weights.batch_norm), **weights.size)
    return graph_path(variant, cache.root()) if 4 * parameters >= _CACHED_BYTES else export_onnx(variant)


class OrtSession:
    """One onnxruntime.InferenceSession; see vggbench.backends.Session."""

    def __init__(self, variant: Variant, device: str, threads: int) -> None:
        import onnxruntime

        graph = _graph(variant)
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL
        options.log_severity_level = 3  # errors only: warnings would go to the user's terminal
        # Waiting threads must not burn the cores on which images are decoded at the same time.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        # Dense images come in many sizes, and a memory pattern is kept for each that was seen.
        options.enable_mem_pattern = variant.form == "crop"
        wanted = ["CPUExecutionProvider"] if device == "cpu" else [(_CUDA, {"use_tf32": "0"}), "CPUExecutionProvider"]
        self._session: Any = onnxruntime.InferenceSession(
            graph if isinstance(graph, bytes) else str(graph), options, providers=wanted
        )
        if device != "cpu" and _CUDA not in self._session.get_providers():
            raise BackendUnavailable("ONNX Runtime could not start CUDA. Use --device cpu, or see: vggbench doctor")
        self.device = device
        self._variant = variant
        self.info: dict[str, Any] = {
            "backend": "onnxruntime",
            "device": device,
            "precision": variant.precision,
            "threads": threads,
            "onnxruntime": onnxruntime.__version__,
            "providers": ",".join(self._session.get_providers()),
            "graph_sha256": graph_sha256(graph),
            "graph_optimization": "all",
            "spinning": False,
            "arithmetic": "fp32",
        }

    def __call__(self, images: Array) -> Array:
        check_images(images, self._variant)
        if self._session is None:
            raise ValueError("This session is closed.")
        scores: Array = self._session.run([OUTPUT], {INPUT: images})[0]
        return check_scores(scores, self._variant)

    def close(self) -> None:
        """Free the session's memory; a second close does nothing."""
        self._session = None
