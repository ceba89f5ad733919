"""The one seam: a backend opens a session, a session turns images into class scores."""

from __future__ import annotations

import importlib
from types import ModuleType
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from vggbench.errors import BackendUnavailable, UsageError
from vggbench.variants import Variant

Array = npt.NDArray[np.float32]

#: Name -> module. A module has ``available() -> str | None`` (None, or one line: what is missing and how to get it),
#: ``precisions(device) -> dict[str, str | None]`` (precision -> None, or why not here) and
#: ``open_session(variant, device, threads) -> Session``. Modules are imported on opening, so absent libraries cost
#: nothing.
BACKENDS: dict[str, str] = {
    "pytorch": "vggbench.backends.pytorch",
    "onnxruntime": "vggbench.backends.ort",
}

#: Precisions any backend may offer; which ones it does here is its own ``precisions``.
PRECISIONS = ("fp32", "bf16", "fp16", "int8")
DEVICES = ("auto", "cpu", "cuda")


class Session(Protocol):
    """An opened variant on a device.

    Calling it takes preprocessed images (n, 3, h, w), float32, C-contiguous, and gives (n, classes) float32 logits of
    the posterior: a soft-max over classes is the image's posterior. In crop form h = w = crop size; in dense form any
    h, w >= crop size, the score map already averaged. It blocks until the scores are there.
    """

    #: "cpu" or "cuda:0".
    device: str
    #: What really ran: library versions, threads, layout, arithmetic, allocator; flat, for records.
    info: dict[str, Any]

    def __call__(self, images: Array) -> Array: ...

    def close(self) -> None:
        """Free the device's memory; a second close does nothing."""


def module(name: str) -> ModuleType:
    """The backend's module. Raises UsageError for an unknown name."""
    if name not in BACKENDS:
        raise UsageError(f"No backend {name!r}. Known: {', '.join(BACKENDS)}.")
    return importlib.import_module(BACKENDS[name])


def default_backend() -> str:
    """onnxruntime where it works (faster on a CPU), else pytorch; on a CUDA device pytorch."""
    from vggbench.environment import has_cuda

    if has_cuda():
        return "pytorch"
    return "onnxruntime" if module("onnxruntime").available() is None else "pytorch"


def open_session(variant: Variant, device: str = "auto", threads: int | None = None) -> Session:
    """A session for the variant. threads: of the CPU backend; None leaves the library's default.

    Raises UsageError for an unknown backend, precision or device, BackendUnavailable for one that does not work here.
    """
    backend = module(variant.backend)
    if variant.precision not in PRECISIONS:
        raise UsageError(f"No precision {variant.precision!r}. Known: {', '.join(PRECISIONS)}.")
    if device not in DEVICES:
        raise UsageError(f"No device {device!r}. Known: {', '.join(DEVICES)}.")
    missing = backend.available()
    if missing is not None:
        raise BackendUnavailable(missing)
    offered = backend.precisions(device)
    why_not = offered.get(variant.precision, f"not offered by {variant.backend}")
    if why_not is not None:
        here = ", ".join(name for name, reason in offered.items() if reason is None)
        raise BackendUnavailable(
            f"Backend {variant.backend} cannot run {variant.precision} on {device}: {why_not}. It runs here: {here}."
        )
    session: Session = backend.open_session(variant, device, threads)
    return session
