"""PyTorch, eager: FP32 everywhere, BF16 and FP16 where the device computes in them; CPU and CUDA."""

from __future__ import annotations

import contextlib
import ctypes
import functools
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from vgg_reference.model import VGG, average_score_map
from vgg_reference.weights import BadWeights, load
from vggbench import precisions as table
from vggbench.backends import Array, check_images, check_scores, default_threads, describe, offered, resolve_device
from vggbench.backends.torch_clock import TorchClock
from vggbench.backends.uploads import PixelQueue
from vggbench.errors import WeightsError
from vggbench.variants import Variant

#: Images on the device -> class scores.
Forward = Callable[[Tensor], Tensor]
_DTYPES = {"fp32": torch.float32, "tf32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


def available() -> str | None:
    """None: torch is a dependency of the package itself."""
    return None


def precisions(device: str) -> dict[str, str | None]:
    """Precision -> None, or why not here."""
    return offered_by_torch("pytorch", device)


def offered_by_torch(name: str, device: str) -> dict[str, str | None]:
    """The table's rows of a backend that runs on torch, as far as this build and the device have them."""
    if resolve_device(device, torch.cuda.is_available()) == "cpu":
        found = offered(name, "cpu")
        if not torch.backends.mkldnn.is_available():  # type: ignore[no-untyped-call]
            why = "this build of torch has no oneDNN, without which it is slower than fp32"
            found |= {key: found[key] or why for key in ("bf16", "fp16")}
        return found
    found = offered(name, "cuda")
    if not torch.cuda.is_available():
        build = "torch sees no CUDA device" if torch.version.cuda else "this is a CPU build of torch"
        return {
            key: why or f"{build}; install torch for CUDA on a machine with an NVIDIA driver"
            for key, why in found.items()
        }
    major, minor = torch.cuda.get_device_capability()
    for key in found:
        row = table.find(key, name, "cuda")
        if isinstance(row, table.Row) and 10 * major + minor < row.capability:
            needed = f"{row.capability // 10}.{row.capability % 10}"
            found[key] = f"the GPU has compute capability {major}.{minor}, {key} needs {needed} (Ampere or later)"
    return found


def open_session(variant: Variant, device: str, threads: int | None) -> TorchSession:
    """Raises WeightsError."""
    return TorchSession(variant, resolve_device(device, torch.cuda.is_available()), threads or default_threads())


class TorchSession:
    """One network in torch; see vggbench.backends.Session. On a GPU also time_calls and use, see TorchClock, and
    submit, see uploads.PixelSession.

    compile: makes the function that runs, of the network and the one that gives its scores (None: as it is); own_graph:
    what to say where that function brings CUDA graphs of its own.
    """

    def __init__(
        self,
        variant: Variant,
        device: str,
        threads: int,
        compile: Callable[[VGG, Forward], Forward] | None = None,
        own_graph: str = "",
    ) -> None:
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
            **describe(variant, device, threads),
            "torch": torch.__version__,
            "memory_format": "channels_last",
        }
        self._settle: Callable[[], None] = lambda: None
        if cuda:
            self._settle = functools.partial(settle, variant.precision == "tf32", not dense)
            self.info |= {
                "gpu": torch.cuda.get_device_name(device),
                "cuda": torch.version.cuda,
                "cudnn": torch.backends.cudnn.version(),  # type: ignore[no-untyped-call]
                "cudnn_benchmark": not dense,
                "tf32": variant.precision == "tf32",
            }
        else:
            self.info |= {"cpu_capability": torch.backends.cpu.get_cpu_capability(), "allocator": keep_memory()}
        placed: VGG = model.to(device, self._dtype).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        if self._dtype is not torch.float32:
            _logits_in_fp32(placed)
        forward = functools.partial(_scores, placed, variant.score_pool if dense else None)
        self._forward: Forward | None = compile(placed, forward) if compile else forward
        if cuda:
            self._clock = TorchClock(self._on_device, device, self.info, own_graph)
            self.time_calls, self.use = self._time_calls, self._clock.use
            check = functools.partial(check_scores, variant=variant)
            self.submit = PixelQueue(self._settled, variant.weights.preprocess, device, check)

    def __call__(self, images: Array) -> Array:
        check_images(images, self._variant)
        if self._forward is None:
            raise ValueError("This session is closed.")
        with torch.inference_mode():
            result: Array = self._settled(self._upload(images)).cpu().contiguous().numpy()
        return check_scores(result, self._variant)

    def _time_calls(self, images: Array, calls: int, back_to_back: bool) -> list[float]:
        self._settle()  # once: what it costs the host must not stand between two events
        return self._clock.time_calls(images, calls, back_to_back)

    def _settled(self, images: Tensor) -> Tensor:
        self._settle()
        return self._on_device(images)

    def _on_device(self, images: Tensor) -> Tensor:
        """float32 images on the device -> their scores there."""
        assert self._forward is not None
        return self._forward(images.to(self._dtype, memory_format=torch.channels_last))

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
        if self._forward is None:
            return
        self._forward = self._staging = None
        if hasattr(self, "submit"):
            del self.submit  # its pinned buffers
            self._clock.forget()
        torch.set_num_threads(self._threads_before)
        if self.device != "cpu":
            torch.cuda.empty_cache()


def settle(tf32: bool, benchmark: bool) -> None:
    """torch's switches for CUDA, which are the whole process': a session opened since may have turned them.

    benchmark: crops are of one size, worth a search for the fastest kernel; dense images are of many.
    """
    # Otherwise "fp32" convolutions run in TF32, with 10 bits of mantissa.
    torch.backends.cudnn.allow_tf32 = tf32
    torch.backends.cuda.matmul.allow_tf32 = tf32
    torch.backends.cudnn.benchmark = benchmark


def _scores(model: VGG, score_pool: str | None, x: Tensor) -> Tensor:
    """Class scores (n, classes), FP32. score_pool: of the dense form; None in crop form."""
    if score_pool is None:
        return model(x).float()  # type: ignore[no-any-return]
    return average_score_map(_score_map(model, x).float(), score_pool)


def _logits_in_fp32(model: VGG) -> None:
    """Let the last layer, its weights rounded like the others, compute and give FP32.

    BF16 has 8 bits: the two best logits often round to the same number, and a tie counts against the network.
    """
    last = model.classifier[-1].float()
    last.register_forward_pre_hook(lambda module, given: (given[0].float(),))


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
        if isinstance(layer, nn.Linear):
            windows = functional.linear(windows.to(layer.weight.dtype), layer.weight, layer.bias)
        else:
            windows = layer(windows)
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
