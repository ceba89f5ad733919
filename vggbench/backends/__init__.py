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

from vggbench import environment
from vggbench import precisions as table
from vggbench.engines.device import first_device
from vggbench.errors import BackendUnavailable, UsageError
from vggbench.sizes import Sizes
from vggbench.variants import Variant

Array = npt.NDArray[np.float32]

#: Name -> module. A module has ``available() -> str | None`` (None, or one line: what is missing and how to get it),
#: ``precisions(device) -> dict[str, str | None]`` (precision -> None, or why not here) and
#: ``open_session(variant, device, threads) -> Session``. One whose engines are built for sizes also has
#: ``profile_of(variant) -> Profile`` and ``identity(variant) -> dict``, see ``identity``; one that makes an engine for
#: a single batch and size has ``open_for``, one whose engines may take pixels has ``INPUTS``, see
#: ``uploads.for_passes``. Modules are imported on opening, so absent libraries cost nothing.
BACKENDS: dict[str, str] = {
    "pytorch": "vggbench.backends.pytorch",
    "onnxruntime": "vggbench.backends.ort",
    "openvino": "vggbench.backends.openvino",
    "torch-compile": "vggbench.backends.torch_compile",
    "torch-tensorrt": "vggbench.backends.torch_tensorrt",
    "tensorrt": "vggbench.backends.tensorrt",
}

#: Precisions any backend may offer; which ones it does here is its own ``precisions``.
PRECISIONS = tuple(table.PRECISIONS)
DEVICES = ("auto", *table.DEVICES)
#: Instead of a backend's name: choice.choose() takes the fastest one.
AUTO = "auto"


class Session(Protocol):
    """An opened variant on a device.

    Calling it takes preprocessed images (n, 3, h, w), float32, C-contiguous, and gives (n, classes) float32 logits of
    the posterior: a soft-max over classes is the image's posterior. In crop form h = w = crop size; in dense form any
    h, w >= crop size, the score map already averaged. It blocks until the scores are there. Of pixels: see uploads.
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


def missing(name: str, precision: str, device: str) -> str | None:
    """None if the backend runs the precision on the device here, else why not, in a few words."""
    backend = module(name)
    absent: str | None = backend.available()
    if absent is not None:
        return absent.rstrip(".")
    why: str | None = backend.precisions(device).get(precision, f"not offered by {name}")
    return why


def check_runs(name: str, precision: str, device: str) -> None:
    """Raises UsageError for a name that nothing has, BackendUnavailable for what does not work here."""
    backend = module(name)
    check_names(precision, device)
    absent = backend.available()
    offered = backend.precisions(device) if absent is None else {}
    why_not = offered.get(precision, f"not offered by {name}")
    if why_not is not None and device == "cuda" and not environment.has_cuda():
        raise BackendUnavailable(without_gpu(precision))
    if absent is not None:
        raise BackendUnavailable(absent)
    if why_not is not None:
        here = ", ".join(key for key, reason in offered.items() if reason is None) or "nothing"
        raise BackendUnavailable(f"Backend {name} cannot run {precision} on {device}: {why_not}. It runs here: {here}.")


def without_gpu(precision: str) -> str:
    """Where a GPU was asked for and none is here; what a backend's library lacks besides is then not the matter."""
    return (
        f"Asked was {precision} on cuda, and no NVIDIA GPU with its driver is here. Take --device cpu, or a machine "
        "with a GPU."
    )


def offered(name: str, kind: str) -> dict[str, str | None]:
    """What the table says of a backend on "cpu" or "cuda": precision -> None, or why not on this machine's CPU."""
    found: dict[str, str | None] = {}
    for precision in PRECISIONS:
        entry = table.find(precision, name, kind)
        if not isinstance(entry, table.Row):
            found[precision] = entry.why if entry else f"not offered by {name}"
        elif table.arithmetic(entry):
            found[precision] = None
        else:
            found[precision] = f"{table.lacks(precision)}; {table.would_do_more(precision)} would do it"
    return found


def check_names(precision: str, device: str) -> None:
    """Raises UsageError for an unknown precision or device."""
    if precision not in PRECISIONS:
        raise UsageError(f"No precision {precision!r}. Known: {', '.join(PRECISIONS)}.")
    if device not in DEVICES:
        raise UsageError(f"No device {device!r}. Known: {', '.join(DEVICES)}.")


def open_session(variant: Variant, device: str = "auto", threads: int | None = None) -> Session:
    """A session for the variant. threads: of a CPU backend; None takes default_threads(), the same for every backend.

    Raises UsageError for an unknown backend, precision or device, for int8 or fp8 without ranges and for sizes of a
    backend without a profile, BackendUnavailable for one that does not work here, CalibrationError for ranges of other
    weights.
    """
    _check(variant, device, threads)
    session: Session = module(variant.backend).open_session(variant, device, threads)
    return session


def _check(variant: Variant, device: str, threads: int | None) -> None:
    module(variant.backend)
    check_names(variant.precision, device)
    if threads is not None and threads < 1:
        raise UsageError(f"Cannot run on {threads} threads. Give 1 or more, or leave it out.")
    check_sizes(variant.backend, variant.sizes)
    check_runs(variant.backend, variant.precision, device)
    if variant.precision in table.QUANTIZED:
        network = variant.weights.network
        if variant.quantization is None:
            raise UsageError(
                f"{variant.precision} needs calibration ranges, and none were given for {network}. Make them with "
                f"vggbench calibrate --network {network}, and give them: --calibration FILE."
            )
        variant.quantization.ranges.check(network, variant.weights.digest)


def has_profile(name: str) -> bool:
    """Whether the backend's engines are built for sizes, and may be asked to be built for others."""
    return hasattr(module(name), "profile_of")


def check_sizes(name: str, sizes: Sizes | None) -> None:
    """Raises UsageError for sizes of a backend that has no profile, an input of one without a choice, or no backend."""
    sizes = sizes or Sizes()
    if sizes.input and sizes.input not in getattr(module(name), "INPUTS", ()):
        raise UsageError(
            f"Asked was engine input {sizes.input}: accepted by backends whose engines may take either, and {name} has "
            "no choice. Leave out --engine-input, or name such a backend: --backend tensorrt."
        )
    if not (sizes.batch or sizes.sides) or has_profile(name):
        return
    raise UsageError(
        f"Asked was {sizes}: accepted by backends that build an engine for a profile, and {name} takes any images. "
        "Leave out --batch and --sizes, or name such a backend: --backend tensorrt or torch-tensorrt."
    )


def identity(variant: Variant, device: str) -> dict[str, Any]:
    """What decides the last bits of scores beside the variant and its library: on "cuda" the GPU, as the driver names
    it, and what the backend adds of its engines: profile, build options, versions. Nothing on "cpu".

    Raises UsageError for sizes that the variant's network cannot have, BackendUnavailable.
    """
    if device == "cpu":
        return {}
    backend = module(variant.backend)
    if hasattr(backend, "identity"):
        found: dict[str, Any] = backend.identity(variant)
        return found
    gpu = first_device()
    return {"gpu": gpu.name, "sm": gpu.sm} if gpu else {}


def made_for_a_batch(name: str) -> bool:
    """Whether the backend can make a session for one batch and size, which is then the fastest it has for them."""
    return hasattr(module(name), "open_for")


def open_for(variant: Variant, device: str, threads: int | None, batch: int, size: tuple[int, int]) -> Session:
    """A session made for one batch and size (h, w), of a backend that can. Raises as open_session does."""
    _check(variant, device, threads)
    session: Session = module(variant.backend).open_for(variant, device, threads, batch, size)
    return session


def describe(variant: Variant, device: str, threads: int) -> dict[str, Any]:
    """What every session's info says: the arithmetic and weights of the table, the hardware that would do more.

    device: "cpu" or "cuda:0".
    """
    row = table.find(variant.precision, variant.backend, device.split(":")[0])
    found: dict[str, Any] = {
        "backend": variant.backend,
        "device": device,
        "precision": variant.precision,
        "threads": threads,
    }
    if isinstance(row, table.Row):
        found |= {"arithmetic": table.arithmetic(row), "weights_stored": row.weights}
        if device == "cpu" and variant.precision != "fp32":
            unit = table.best_unit(variant.precision) if table.arithmetic(row) != row.otherwise else None
            found |= {"cpu_unit": unit.name if unit else "none", "faster_hardware": table.would_do_more(row.precision)}
    if variant.quantization is not None:
        found |= {key: variant.identity[key] for key in ("ranges", "layout", "float_layers")}
    return found


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
    # Not left to the scores: a ReLU of oneDNN turns NaN into 0, and integers have none. Both extremes carry a NaN.
    if not (np.isfinite(images.max()) and np.isfinite(images.min())):
        raise UsageError("Images hold values that are not finite; accepted are finite pixels. Look at their source.")


def check_scores(scores: Array, variant: Variant) -> Array:
    """The scores, owned, float32, C-contiguous. Raises BackendUnavailable if a value overflowed."""
    if not np.isfinite(scores).all():
        raise BackendUnavailable(
            f"{variant.backend} {variant.precision} gave scores that are not finite: {variant.weights.name} overflows "
            "the range of this precision. Use fp32 or bf16."
        )
    if scores.dtype != np.float32 or not scores.flags.c_contiguous or not scores.flags.owndata:
        return np.array(scores, np.float32, order="C")
    return scores
