"""Pixels to a GPU as bytes, a quarter of what floats take, and normalized there while the next are on their way."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from itertools import cycle
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from vgg_reference.weights import Preprocess
from vggbench import backends
from vggbench.backends import Array
from vggbench.errors import UsageError
from vggbench.sizes import Sizes

Pixels = npt.NDArray[np.uint8]

#: Pinned buffers: one being filled, one being copied, one whose copy may still be awaited.
BUFFERS = 3


class PixelSession(Protocol):
    """A session that also takes views as they are; the evaluation asks for the attribute and uses it where it is.

    submit takes (n, h, w, 3) uint8, RGB, C-contiguous, as views.make_views gives them, and returns before the scores
    are there; what it returns waits for them and gives what the network gives for views.to_input of them, to the
    session's own rounding. Several may be under way; they end in the order in which they began.
    """

    def submit(self, pixels: Pixels) -> Callable[[], Array]: ...


def for_passes(name: str, sizes: Sizes | None) -> Sizes | None:
    """The same with the input that serves an evaluation best, if none was asked for and the backend has a choice."""
    inputs = getattr(backends.module(name), "INPUTS", None)
    if inputs is None or (sizes is not None and sizes.input):
        return sizes
    return dataclasses.replace(sizes or Sizes(), input=inputs[0])


def check_pixels(pixels: Pixels) -> None:
    """Raises UsageError for views of another kind than views.make_views gives."""
    fits = pixels.dtype == np.uint8 and pixels.ndim == 4 and pixels.shape[0] > 0 and pixels.shape[3] == 3
    if not fits or not pixels.flags.c_contiguous:
        raise UsageError(f"Pixels are {pixels.shape} {pixels.dtype}; accepted are (n, h, w, 3) uint8, C-contiguous.")


def normalized(pixels: Tensor, preprocess: Preprocess) -> Tensor:
    """(n, h, w, 3) uint8, RGB -> (n, 3, h, w) float32 in channels_last: bit for bit what views.to_input gives."""
    order = ["RGB".index(colour) for colour in preprocess.order]
    images = pixels.permute(0, 3, 1, 2)
    if order != [0, 1, 2]:
        images = images[:, order]
    mean, scale = (
        torch.tensor(values, dtype=torch.float32, device=pixels.device).view(3, 1, 1)
        for values in (preprocess.mean, preprocess.scale)
    )
    # Two operations, each rounded, as on the CPU.
    return (images.to(torch.float32, memory_format=torch.channels_last) - mean) * scale


class _Buffer:
    """Pinned memory, and the event that its last copy has ended."""

    def __init__(self, cuda: Any) -> None:
        self.memory: Tensor = torch.empty(0, dtype=torch.uint8)
        self.copied = cuda.Event()


class PixelQueue:
    """PixelSession.submit for what runs through torch.

    run: float32 images on the device -> scores there, enqueued on the current stream. check: of the scores on the host.
    cuda is torch.cuda, or what stands for it in a test.
    """

    def __init__(
        self,
        run: Callable[[Tensor], Tensor],
        preprocess: Preprocess,
        device: str,
        check: Callable[[Array], Array],
        cuda: Any = torch.cuda,
    ) -> None:
        self._run, self._preprocess, self._device, self._check, self._cuda = run, preprocess, device, check, cuda
        self._copies: Any = cuda.Stream(device)
        self._buffers = cycle([_Buffer(cuda) for _ in range(BUFFERS)])

    def __call__(self, pixels: Pixels) -> Callable[[], Array]:
        check_pixels(pixels)
        with torch.inference_mode():
            scores = self._run(normalized(self._upload(pixels), self._preprocess))
            answer = torch.empty(scores.shape, dtype=torch.float32, pin_memory=self._cuda.is_available())
            answer.copy_(scores, non_blocking=True)
            done = self._cuda.Event()
            done.record(self._cuda.current_stream(self._device))

        def wait() -> Array:
            done.synchronize()
            return self._check(answer.numpy())

        return wait

    def _upload(self, pixels: Pixels) -> Tensor:
        buffer = next(self._buffers)
        buffer.copied.synchronize()
        if buffer.memory.numel() < pixels.size:
            buffer.memory = torch.empty(pixels.size, dtype=torch.uint8, pin_memory=self._cuda.is_available())
        host = buffer.memory[: pixels.size].view(pixels.shape)
        host.numpy()[...] = pixels
        with self._cuda.stream(self._copies):
            there = host.to(self._device, non_blocking=True, copy=True)
            buffer.copied.record(self._copies)
        stream = self._cuda.current_stream(self._device)
        stream.wait_event(buffer.copied)
        if there.is_cuda:
            there.record_stream(stream)
        return there
