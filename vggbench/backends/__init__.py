"""The one seam: a backend opens a session, a session turns images into class scores."""

from __future__ import annotations

import importlib
import os
from pathlib import Path
from types import ModuleType
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import psutil  # type: ignore[import-untyped]

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
    """onnxruntime where it works (faster on a CPU), else pytorch; where torch has a CUDA device pytorch."""
    from vggbench.environment import has_cuda

    # The driver is asked first: it answers without importing torch. A CPU build of torch cannot use what it finds.
    if has_cuda():
        import torch

        if torch.cuda.is_available():
            return "pytorch"
    return "onnxruntime" if module("onnxruntime").available() is None else "pytorch"


def open_session(variant: Variant, device: str = "auto", threads: int | None = None) -> Session:
    """A session for the variant. threads: of a CPU backend; None takes default_threads(), the same for every backend.

    Raises UsageError for an unknown backend, precision or device, BackendUnavailable for one that does not work here.
    """
    backend = module(variant.backend)
    if variant.precision not in PRECISIONS:
        raise UsageError(f"No precision {variant.precision!r}. Known: {', '.join(PRECISIONS)}.")
    if device not in DEVICES:
        raise UsageError(f"No device {device!r}. Known: {', '.join(DEVICES)}.")
    if threads is not None and threads < 1:
        raise UsageError(f"Cannot run on {threads} threads. Give 1 or more, or leave it out.")
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


def resolve_device(device: str, has_cuda: bool) -> str:
    """ "auto" -> "cuda:0" where the library has CUDA, else "cpu"."""
    if device == "auto":
        device = "cuda" if has_cuda else "cpu"
    return "cuda:0" if device == "cuda" else device


def default_threads() -> int:
    """Physical cores, or fewer where the process may use fewer: its affinity, its container's quota."""
    counts = [psutil.cpu_count(logical=False) or os.cpu_count() or 1]
    if hasattr(os, "sched_getaffinity"):
        counts.append(len(os.sched_getaffinity(0)))
    try:
        quota, period = Path("/sys/fs/cgroup/cpu.max").read_text(encoding="ascii").split()
        counts.append(int(quota) // int(period))
    except (OSError, ValueError):
        pass  # no cgroup, or "max": no quota
    return max(1, min(counts))


def check_images(images: Array, variant: Variant) -> None:
    """Raises UsageError for images that the variant cannot take."""
    crop, dense = variant.weights.crop_size, variant.form == "dense"
    accepted = (
        f"(n, 3, {'h, w) with h, w >= ' if dense else f'{crop}, '}{crop}{'' if dense else ')'}, float32, C-contiguous"
    )
    if not isinstance(images, np.ndarray):
        raise UsageError(f"Images are {type(images).__name__}; accepted are arrays {accepted}.")
    sides = images.shape[2:]
    fits = images.ndim == 4 and images.shape[0] > 0 and images.shape[1] == 3
    fits = fits and (min(sides) >= crop if dense else sides == (crop, crop))
    if not fits or images.dtype != np.float32 or not images.flags.c_contiguous:
        order = "" if images.flags.c_contiguous else ", not C-contiguous"
        raise UsageError(f"Images are {images.shape} {images.dtype}{order}; accepted are {accepted}.")


def check_scores(scores: Array, variant: Variant) -> Array:
    """The scores, owned, float32, C-contiguous. Raises BackendUnavailable if a value overflowed."""
    if not np.isfinite(scores).all():
        raise BackendUnavailable(
            f"{variant.backend} {variant.precision} gave scores that are not finite: {variant.weights.name} overflows "
            "the range of this precision, or an input was not finite. Use fp32 or bf16."
        )
    if scores.dtype != np.float32 or not scores.flags.c_contiguous or not scores.flags.owndata:
        return np.array(scores, np.float32, order="C")
    return scores
