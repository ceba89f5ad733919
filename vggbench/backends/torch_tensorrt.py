"""torch-tensorrt, dynamo: the network as one TensorRT engine inside a torch module, on NVIDIA GPUs.

The precision is the network's own type (TF32 on or off for FP32), INT8 and FP8 are Q/DQ nodes from nvidia-modelopt with
the project's ranges. An engine is built at the first call that needs it, for the sizes asked for or the form's default,
and kept in the cache. What TensorRT does not take is refused and named, never run in torch beside it.
"""

from __future__ import annotations

import importlib
from typing import Any

import numpy as np
import torch
from torch import Tensor

from vggbench import environment, quantize_modelopt
from vggbench import precisions as table
from vggbench.backends import (
    Array,
    check_images,
    check_scores,
    default_threads,
    describe,
    offered,
    torch_tensorrt_engines,
)
from vggbench.backends.plain_network import Shapes, shapes_for
from vggbench.backends.torch_clock import TorchClock
from vggbench.backends.torch_tensorrt_compile import converted
from vggbench.backends.torch_tensorrt_engines import Engine, opened
from vggbench.engines.device import NO_DRIVER, first_device
from vggbench.engines.profile import Profile, profile_for
from vggbench.errors import BackendUnavailable
from vggbench.modes import Mode
from vggbench.variants import Variant

_INSTALL = "Install torch-tensorrt, with torch for CUDA: pip install torch-tensorrt"
#: Versions whose interface the calls below were checked against: the first and the last.
CHECKED = ("2.11", "2.14")


def available() -> str | None:
    """None, or one line: what is missing and how to get it. On a CPU build of torch its import is an AssertionError."""
    if not environment.has_cuda():
        return (
            "torch-tensorrt needs an NVIDIA GPU and its driver, and no driver with a device is here. On a machine with "
            f"a GPU install NVIDIA's driver. {_INSTALL}"
        )
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


def profile_of(variant: Variant) -> Profile:
    """What its engines take together. Raises UsageError."""
    return profile_for(variant.weights.crop_size, variant.form == "dense", variant.sizes)


def identity(variant: Variant) -> dict[str, Any]:
    """All that names engines of open_session's but their network, which the variant decides. See backends.identity."""
    gpu = first_device()
    if gpu is None:
        raise BackendUnavailable(NO_DRIVER)
    return {**torch_tensorrt_engines.decisive(variant, gpu), "profile": str(profile_of(variant))}


def open_session(variant: Variant, device: str, threads: int | None) -> TrtTorchSession:
    """Nothing is built before the first call, which raises WeightsError, CalibrationError. Raises UsageError."""
    return TrtTorchSession(variant, "cuda:0", threads or default_threads(), profile_of(variant))


def open_for(variant: Variant, device: str, threads: int | None, batch: int, size: tuple[int, int]) -> TrtTorchSession:
    """An engine for one batch and size (h, w) alone, there when this returns; see backends.open_for."""
    height, width = size
    exact = Profile((batch, batch, batch), (height, height, height), (width, width, width))
    session = TrtTorchSession(variant, "cuda:0", threads or default_threads(), exact)
    try:
        session.prepare(height, width)
    except BaseException:
        session.close()
        raise
    return session


class TrtTorchSession:
    """See vggbench.backends.Session and vggbench.measure.latency.Timed.

    asked: what its engines take together; which of them an image gets depends on its size alone.
    info["compilations"] and info["compile_seconds"]: engines built so far, and the seconds that it took. What info says
    of an engine (engine_key, engine_source ...) is of the one that was opened last.
    """

    def __init__(self, variant: Variant, device: str, threads: int, asked: Profile) -> None:
        self._variant, self.device, self.profile = variant, device, asked
        self._engines: dict[Shapes, Engine] | None = {}
        self._engine: Engine | None = None
        self._staging: Tensor | None = None
        self.info: dict[str, Any] = {
            **describe(variant, device, threads),
            "gpu": torch.cuda.get_device_name(device),
            "torch": torch.__version__,
            "torch-tensorrt": environment.installed("torch-tensorrt"),
            "tensorrt": getattr(importlib.import_module("tensorrt"), "__version__", None),
            "tf32": variant.precision == "tf32",
            "io": "fp32 in, fp32 out",
            "profile": str(asked),
            "compilations": 0,
            "compile_seconds": 0.0,
        }
        self._clock = TorchClock(self._forward, device, self.info)

    def __call__(self, images: Array) -> Array:
        """Scores of any number of images: what exceeds the profile's batch runs in pieces."""
        check_images(images, self._variant)
        self.prepare(*images.shape[2:])
        most = self.profile.batch[2]
        parts = [self._scores(images[start : start + most]) for start in range(0, len(images), most)]
        return check_scores(np.concatenate(parts) if len(parts) > 1 else parts[0], self._variant)

    def _scores(self, images: Array) -> Array:
        """Of one call; a piece smaller than the least batch is filled up."""
        count, least = len(images), self.profile.batch[0]
        if count < least:
            images = np.concatenate([images, np.zeros((least - count, *images.shape[1:]), np.float32)])
        with torch.inference_mode():
            scores: Array = self._forward(self._upload(images))[:count].float().cpu().contiguous().numpy()
        return scores

    def use(self, mode: Mode) -> None:
        """How time_calls times."""
        self._clock.use(mode)

    def time_calls(self, images: Array, calls: int, back_to_back: bool) -> list[float]:
        """See vggbench.measure.latency.Timed. Raises UsageError outside the profile."""
        check_images(images, self._variant)
        self.profile.check_batch(len(images))
        self.prepare(*images.shape[2:])
        return self._clock.time_calls(images, calls, back_to_back)

    def plan(self, height: int, width: int) -> bytes:
        """The serialized engine for images of this size, for the project's own runner: fp32 in, fp32 out."""
        plan = self.prepare(height, width).plan
        return converted(self._variant, self._shapes(height, width), self.device) if plan is None else plan

    def close(self) -> None:
        """Free the device's memory; a second close does nothing."""
        if self._engines is None:
            return
        self._engines = self._engine = self._staging = None
        self._clock.forget()
        torch.cuda.empty_cache()

    def prepare(self, height: int, width: int) -> Engine:
        """The engine for images of this size, from now on the session's: open, kept or built.

        Raises UsageError for a size outside the profile, and what torch_tensorrt_engines.opened raises.
        """
        if self._engines is None:
            raise ValueError("This session is closed.")
        shapes = self._shapes(height, width)
        if shapes not in self._engines:
            engine = self._engines[shapes] = opened(self._variant, shapes, self.device)
            self.info |= engine.info
            self.info["compilations"] += engine.source != "cache"
            self.info["compile_seconds"] = round(self.info["compile_seconds"] + engine.build_seconds, 3)
        if self._engine is not self._engines[shapes]:
            self._engine = self._engines[shapes]
            self._clock.use(self._clock.mode)  # what was captured belongs to the engine before
        return self._engine

    def _shapes(self, height: int, width: int) -> Shapes:
        return shapes_for(height, width, self._variant, self.profile)

    def _forward(self, x: Tensor) -> Tensor:
        assert self._engine is not None
        scores: Tensor = self._engine.module(x)
        return scores

    def _upload(self, images: Array) -> Tensor:
        """Images on the device through one pinned buffer, free again when __call__ returns."""
        host = torch.from_numpy(images)
        if self._staging is None or self._staging.numel() < host.numel():
            self._staging = torch.empty(host.numel(), pin_memory=self.device != "cpu")
        pinned = self._staging[: host.numel()].view(host.shape).copy_(host)
        return pinned.to(self.device, non_blocking=True)
