"""Memory of pieces of a batch, on the device and on the host, and where each piece is on its way."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from vggbench.engines.buffers import Buffers, Memory, Pinned, Stream

AnyArray = npt.NDArray[Any]


@dataclass(frozen=True)
class Tensor:
    """An input or output of an engine. shape: -1 where sizes are dynamic."""

    name: str
    dtype: Any
    shape: tuple[int, ...]


@dataclass(eq=False)
class Slot:
    """Memory of one piece of a batch, by tensor; grown where a piece needs more. count: images in it.

    sent, done: events that its images are on the device, and its results on the host.
    """

    sent: Any
    done: Any
    device: dict[str, Memory] = field(default_factory=dict)
    host: dict[str, Pinned] = field(default_factory=dict)
    shapes: dict[str, tuple[int, ...]] = field(default_factory=dict)
    count: int = 0


@dataclass(eq=False)
class Call:
    """A batch under way. found: the results of its pieces so far; failed: what kept one from being read."""

    pieces: int
    found: list[dict[str, AnyArray]] = field(default_factory=list)
    failed: BaseException | None = None

    @property
    def ended(self) -> bool:
        return self.failed is not None or len(self.found) == self.pieces

    def results(self) -> dict[str, AnyArray]:
        """Of the whole batch. Raises what kept one of its pieces from being read."""
        if self.failed is not None:
            raise self.failed
        if not self.ended:
            raise ValueError("This session was closed while the call was under way.")
        first, *more = self.found
        return {name: np.concatenate([first[name], *(one[name] for one in more)]) for name in first} if more else first


def new_slot(buffers: Buffers) -> Slot:
    # Whoever waits sleeps: the threads that make the next images ready need the core.
    return Slot(buffers.event(blocking=True), buffers.event(blocking=True))


def reserve(slot: Slot, tensor: Tensor, buffers: Buffers, stream: Stream) -> bool:
    """Room for the tensor in its shape; whether it is new, in the order of the stream."""
    size, name = bytes_of(slot, tensor), tensor.name
    if name in slot.host and slot.device[name].size >= size:
        return False
    if name in slot.host:
        buffers.unpin(slot.host.pop(name))
    if name in slot.device:
        buffers.free(slot.device.pop(name))
    slot.device[name] = buffers.allocate(size, stream)
    slot.host[name] = buffers.pin(size)
    return True


def fill(slot: Slot, tensor: Tensor, piece: AnyArray) -> None:
    """Images into the host's memory, once the device has read what was there."""
    target = slot.host[tensor.name].array[: piece.nbytes].view(piece.dtype).reshape(piece.shape)
    np.copyto(target, piece, casting="no")
    slot.count = len(piece)


def read(slot: Slot, tensors: Sequence[Tensor], buffers: Buffers) -> dict[str, AnyArray]:
    """Results by name, copied out of the slot, once they are there."""
    buffers.wait_event(slot.done)
    found = {}
    for tensor in tensors:
        memory = slot.host[tensor.name].array[: bytes_of(slot, tensor)]
        found[tensor.name] = np.array(memory.view(tensor.dtype).reshape(slot.shapes[tensor.name])[: slot.count])
    return found


def end_slot(slot: Slot, buffers: Buffers) -> None:
    buffers.end_event(slot.sent)
    buffers.end_event(slot.done)
    for memory in slot.device.values():
        buffers.free(memory)
    for pinned in slot.host.values():
        buffers.unpin(pinned)


def bytes_of(slot: Slot, tensor: Tensor) -> int:
    return math.prod(slot.shapes[tensor.name]) * int(np.dtype(tensor.dtype).itemsize)
