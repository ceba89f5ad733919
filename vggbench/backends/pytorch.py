"""PyTorch, eager: FP32 everywhere, BF16 and FP16 where the device computes in them; CPU and CUDA."""

from __future__ import annotations

import contextlib
import ctypes
import functools
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from vgg_reference.model import VGG, average_score_map
from vgg_reference.weights import BadWeights, load
from vggbench.backends import Array, check_images, check_scores, default_threads, resolve_device
from vggbench.errors import WeightsError
from vggbench.variants import Variant

_DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
#: Flags in /proc/cpuinfo of cores that compute in a type; without one, torch emulates it more slowly than FP32.
_CPU_FLAGS = {"bf16": ("avx512_bf16", "amx_bf16", "bf16"), "fp16": ("avx512_fp16", "amx_fp16", "asimdhp")}


def available() -> str | None:
    """None: torch is a dependency of the package itself."""
    return None


def precisions(device: str) -> dict[str, str | None]:
    """Precision -> None, or why not here."""
    int8 = "eager PyTorch has no int8 convolutions that keep these weights' accuracy without calibration"
    if resolve_device(device, torch.cuda.is_available()) == "cpu":
        return {"fp32": None, "bf16": _cpu_lacks("bf16"), "fp16": _cpu_lacks("fp16"), "int8": int8}
    if not torch.cuda.is_available():
        build = "torch sees no CUDA device" if torch.version.cuda else "this is a CPU build of torch"
        why = f"{build}; install torch for CUDA on a machine with an NVIDIA driver"
        return {"fp32": why, "bf16": why, "fp16": why, "int8": int8}
    bf16 = None if torch.cuda.is_bf16_supported(including_emulation=False) else "the GPU is older than Ampere"
    return {"fp32": None, "bf16": bf16, "fp16": None, "int8": int8}


def open_session(variant: Variant, device: str, threads: int | None) -> TorchSession:
    """Raises WeightsError."""
    return TorchSession(variant, resolve_device(device, torch.cuda.is_available()), threads or default_threads())


class TorchSession:
    """One network in eager mode; see vggbench.backends.Session."""

    def __init__(self, variant: Variant, device: str, threads: int) -> None:
        dense = variant.form == "dense"
        cuda = device != "cpu"
        try:
            model = load(variant.weights, dense=dense, pool_ceil=dense and variant.pool_rounding == "ceil")
        except BadWeights as error:
            raise WeightsError(str(error)) from error
        self._dtype = _DTYPES[variant.precision]
        self._variant = variant
        self._staging: Tensor | None = None
        self._threads_before = torch.get_num_threads()
        torch.set_num_threads(threads)
        self.device = device
        self.info: dict[str, Any] = {
            "backend": "pytorch",
            "device": device,
            "precision": variant.precision,
            "threads": threads,
            "torch": torch.__version__,
            "memory_format": "channels_last",
            "arithmetic": variant.precision,
        }
        if cuda:
            # Otherwise "fp32" convolutions run in TF32, with 10 bits of mantissa.
            torch.backends.cudnn.allow_tf32 = False
            torch.backends.cuda.matmul.allow_tf32 = False
            # Crops are of one size, worth a search for the fastest kernel; dense images are of many.
            torch.backends.cudnn.benchmark = not dense
            self.info |= {
                "gpu": torch.cuda.get_device_name(device),
                "cuda": torch.version.cuda,
                "cudnn": torch.backends.cudnn.version(),  # type: ignore[no-untyped-call]
                "cudnn_benchmark": not dense,
                "tf32": False,
            }
        else:
            self.info |= {"cpu_capability": torch.backends.cpu.get_cpu_capability(), "allocator": keep_memory()}
        self._model: VGG | None = model.to(device, self._dtype).to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def __call__(self, images: Array) -> Array:
        check_images(images, self._variant)
        if self._model is None:
            raise ValueError("This session is closed.")
        with torch.inference_mode():
            x = self._upload(images).to(self._dtype, memory_format=torch.channels_last)
            if self._variant.form == "dense":
                scores = average_score_map(_score_map(self._model, x).float(), self._variant.score_pool)
            else:
                scores = self._model(x).float()
            result: Array = scores.cpu().contiguous().numpy()
        return check_scores(result, self._variant)

    def _upload(self, images: Array) -> Tensor:
        """Images on the device; to a GPU through one pinned buffer, so that the copy runs at full speed."""
        host = torch.from_numpy(images)
        if self.device == "cpu":
            return host
        if self._staging is None or self._staging.numel() < host.numel():
            self._staging = torch.empty(host.numel(), pin_memory=True)
        pinned = self._staging[: host.numel()].view(host.shape).copy_(host)
        # The buffer is free again when __call__ returns, for it waits for the scores.
        return pinned.to(self.device, non_blocking=True)

    def close(self) -> None:
        """Free the device's memory; a second close does nothing."""
        if self._model is None:
            return
        self._model = self._staging = None
        torch.set_num_threads(self._threads_before)
        if self.device != "cpu":
            torch.cuda.empty_cache()


def _score_map(model: VGG, x: Tensor) -> Tensor:
    """The dense form with its fully-connected layers as matrix products over positions.

    A convolution whose kernel is the size of the map makes oneDNN rearrange fc6's 411 MB of weights in every call.
    x: (n, 3, h, w). Returns (n, classes, rows, columns), equal to ``model(x)``.
    """
    x = model.features(x)
    side = model.fully_connected()[0].kernel[1]
    rows, columns = x.shape[2] - side + 1, x.shape[3] - side + 1
    windows: Tensor = functional.unfold(x.contiguous(), side).transpose(1, 2)
    for layer in model.classifier:
        windows = (
            functional.linear(windows, layer.weight, layer.bias) if isinstance(layer, nn.Linear) else layer(windows)
        )
    return windows.transpose(1, 2).reshape(len(x), -1, rows, columns)


@functools.cache
def keep_memory() -> str:
    """Tell glibc to keep freed memory for the next call, once in a process; says what was done.

    By default it gives every large tensor back to the system, which then zeroes the pages again, layer by layer.
    """
    m_trim_threshold, m_top_pad, m_mmap_max = -1, -2, -4
    with contextlib.suppress(OSError, AttributeError):
        mallopt = ctypes.CDLL(None).mallopt
        settings = ((m_mmap_max, 0), (m_trim_threshold, 2**31 - 1), (m_top_pad, 64 << 20))
        if all(mallopt(name, value) == 1 for name, value in settings):
            return "glibc, keeping freed memory"
    return "default"


def _cpu_lacks(precision: str) -> str | None:
    """None if this CPU computes in the type, else one line."""
    if not torch.backends.mkldnn.is_available():  # type: ignore[no-untyped-call]
        return "this build of torch has no oneDNN, without which it is slower than fp32"
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="ascii", errors="replace")
    except OSError:
        return "cannot tell whether this CPU computes in it (no /proc/cpuinfo)"
    words = {
        word for line in text.splitlines() if line.lower().startswith(("flags", "features")) for word in line.split()
    }
    if words.intersection(_CPU_FLAGS[precision]):
        return None
    return f"this CPU has none of {', '.join(_CPU_FLAGS[precision])} and would only emulate it"
