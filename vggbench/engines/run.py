"""One engine with its context, stream and memory: host arrays in, host arrays out; TensorRT from 8.6 on."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from vggbench.engines import adapter
from vggbench.engines.buffers import Buffers, Memory, Pinned, Stream, out_of_memory
from vggbench.engines.logs import collected, create, first_error, logger
from vggbench.engines.profile import Profile, is_channels_last
from vggbench.errors import BackendUnavailable
from vggbench.sizes import Range

AnyArray = npt.NDArray[Any]
#: By the names of trt.DataType's members; trt.nptype of 8.6 does not work with a numpy from 1.24 on.
_TYPES = {"FLOAT": np.float32, "HALF": np.float16, "INT8": np.int8, "INT32": np.int32, "UINT8": np.uint8}
#: Pieces of a batch under way at a time: one is copied by the host while the device computes the other.
_SLOTS = 2


class PlanRefused(BackendUnavailable):
    """TensorRT does not take a plan: of another version or GPU, or damaged. It can be built anew."""


@dataclass(frozen=True)
class Tensor:
    """An input or output of an engine. shape: -1 where sizes are dynamic."""

    name: str
    dtype: Any
    shape: tuple[int, ...]


@dataclass
class Slot:
    """Memory of one piece of a batch, by tensor; grown where a piece needs more. count: images in it, 0 for free."""

    device: dict[str, Memory]
    host: dict[str, Pinned]
    shapes: dict[str, tuple[int, ...]]
    done: Any
    count: int = 0


class Runner:
    """A plan, ready to run. Not for several threads at once.

    channels_last: whether the input is (n, h, w, 3). changes: of the context's shape or addresses so far; what was
    captured before one is stale. Raises PlanRefused, BackendUnavailable where memory is full.
    """

    def __init__(self, trt: Any, plan: bytes, buffers: Buffers) -> None:
        self.buffers = buffers
        self._open = True
        self._slots: list[Slot] = []
        self._runtime: Any = None
        self.engine: Any = None
        self.context: Any = None
        self._set: Any = None
        self.changes = 0
        self.stream: Stream = buffers.stream()
        try:
            self._load(trt, plan)
        except BaseException:
            self.close()
            raise

    def _load(self, trt: Any, plan: bytes) -> None:
        self._runtime = create(trt, trt.Runtime, logger(trt))
        with collected() as errors:
            self.engine = self._runtime.deserialize_cuda_engine(plan)
            if self.engine is None:
                raise _refused(trt, first_error(errors))
            try:
                self.context = self.engine.create_execution_context()
            except MemoryError:
                self.context = None
            if self.context is None:
                raise out_of_memory(adapter.context_bytes(self.engine), self.buffers.free_bytes())
        names = [self.engine.get_tensor_name(index) for index in range(self.engine.num_io_tensors)]
        inputs = [name for name in names if self.engine.get_tensor_mode(name) == trt.TensorIOMode.INPUT]
        if len(inputs) != 1:
            raise _refused(trt, f"it has {len(inputs)} inputs, accepted is one, of images")
        self.input = self._tensor(inputs[0])
        self.outputs = [self._tensor(name) for name in names if name not in inputs]
        self.channels_last = is_channels_last(self.input.shape)
        self.profile = self._profile()
        self.context_bytes = adapter.context_bytes(self.engine)

    def _tensor(self, name: str) -> Tensor:
        kind = self.engine.get_tensor_dtype(name).name
        if kind not in _TYPES:
            raise BackendUnavailable(f"The engine's tensor {name} is {kind}; accepted are {', '.join(_TYPES)}.")
        return Tensor(name, _TYPES[kind], tuple(self.engine.get_tensor_shape(name)))

    def _profile(self) -> Profile:
        """The sizes that the plan itself says it was built for."""
        shapes = [tuple(shape) for shape in self.engine.get_tensor_profile_shape(self.input.name, 0)]
        sides = (1, 2) if self.channels_last else (2, 3)
        batch, height, width = (_range([shape[axis] for shape in shapes]) for axis in (0, *sides))
        return Profile(batch, height, width)

    def __call__(self, images: AnyArray) -> dict[str, AnyArray]:
        """Every output by name, for any number of images: what exceeds the profile's batch runs in pieces.

        images: of the input's type and order, C-contiguous. Raises UsageError for a size outside the profile.
        """
        if not self._open:
            raise ValueError("This session is closed.")
        self.profile.check(*self._sides(images))
        found: dict[str, list[AnyArray]] = {output.name: [] for output in self.outputs}
        for results in self._pieces(images):
            for name, values in results.items():
                found[name].append(values)
        return {name: parts[0] if len(parts) == 1 else np.concatenate(parts) for name, parts in found.items()}

    def _sides(self, images: AnyArray) -> tuple[int, int]:
        height, width = images.shape[1:3] if self.channels_last else images.shape[2:4]
        return int(height), int(width)

    def _pieces(self, images: AnyArray) -> Iterator[dict[str, AnyArray]]:
        """Results in the images' order; the next piece is on its way before one is read."""
        greatest = self.profile.batch[2]
        waiting: list[Slot] = []
        try:
            for number, start in enumerate(range(0, len(images), greatest)):
                if len(waiting) == _SLOTS:
                    yield self._read(waiting.pop(0))
                waiting.append(self._send(images[start : start + greatest], number % _SLOTS))
            while waiting:
                yield self._read(waiting.pop(0))
        finally:
            if waiting:
                self.buffers.wait(self.stream)  # after an error nothing may still be written
                for slot in waiting:
                    slot.count = 0

    def _send(self, piece: AnyArray, number: int) -> Slot:
        slot = self._prepared(piece.shape, number)
        sent = slot.host[self.input.name].array[: piece.nbytes].view(piece.dtype).reshape(piece.shape)
        np.copyto(sent, piece, casting="no")
        self.copy_in(slot)
        self.enqueue()
        self.copy_out(slot)
        self.buffers.record(slot.done, self.stream)
        slot.count = len(piece)
        return slot

    def _prepared(self, shape: tuple[int, ...], number: int) -> Slot:
        """The slot with memory for images of that shape, and the context set to it."""
        while len(self._slots) <= number:
            self._slots.append(Slot({}, {}, {}, self.buffers.event()))
        slot = self._slots[number]
        # A rest smaller than the profile's least batch is filled up with what lies in memory; its rows are dropped.
        whole = (max(shape[0], self.profile.batch[0]), *shape[1:])
        if self._set == (number, whole):
            return slot
        self.reshape(whole)
        self.changes += 1
        for tensor in (self.input, *self.outputs):
            slot.shapes[tensor.name] = tuple(self.context.get_tensor_shape(tensor.name))
            self._reserve(slot, tensor)
            self.context.set_tensor_address(tensor.name, slot.device[tensor.name].pointer)
        self._set = number, whole
        return slot

    def reshape(self, shape: tuple[int, ...]) -> None:
        """Set the context to images of that shape; nothing runs."""
        self._set = None
        if not self.context.set_input_shape(self.input.name, shape):
            raise BackendUnavailable(f"TensorRT refused images of {shape}; the engine takes {self.profile}.")
        unknown = self.context.infer_shapes()
        if unknown:
            raise BackendUnavailable(f"The engine's tensors {', '.join(unknown)} have no size from the images alone.")

    def _reserve(self, slot: Slot, tensor: Tensor) -> None:
        size, name = _bytes(slot.shapes[tensor.name], tensor), tensor.name
        if name in slot.device and slot.device[name].size >= size:
            return
        if name in slot.device:
            self.buffers.free(slot.device.pop(name))
        if name in slot.host:
            self.buffers.unpin(slot.host.pop(name))
        slot.device[name] = self.buffers.allocate(size, self.stream)
        slot.host[name] = self.buffers.pin(size)

    def copy_in(self, slot: Slot) -> None:
        """Enqueue the images' way to the device."""
        name = self.input.name
        self.buffers.to_device(slot.device[name], slot.host[name], _bytes(slot.shapes[name], self.input), self.stream)

    def enqueue(self) -> None:
        """Enqueue the engine alone. Raises BackendUnavailable where TensorRT refuses."""
        with collected() as errors:
            if not self.context.execute_async_v3(self.stream.handle):
                raise BackendUnavailable(f"TensorRT could not run the engine: {first_error(errors)}.")

    def copy_out(self, slot: Slot) -> None:
        """Enqueue the results' way to the host."""
        for tensor in self.outputs:
            size = _bytes(slot.shapes[tensor.name], tensor)
            self.buffers.to_host(slot.host[tensor.name], slot.device[tensor.name], size, self.stream)

    def _read(self, slot: Slot) -> dict[str, AnyArray]:
        self.buffers.wait_event(slot.done)
        found = {}
        for tensor in self.outputs:
            shape = slot.shapes[tensor.name]
            data = slot.host[tensor.name].array[: _bytes(shape, tensor)].view(tensor.dtype).reshape(shape)
            found[tensor.name] = np.array(data[: slot.count])
        slot.count = 0
        return found

    def loaded(self, images: AnyArray) -> Slot:
        """A slot with these images on the device, for calls to be timed. Raises UsageError for what is not one call."""
        if not self._open:
            raise ValueError("This session is closed.")
        self.profile.check(*self._sides(images))
        self.profile.check_batch(len(images))
        slot = self._send(images, 0)
        self._read(slot)
        return slot

    def close(self) -> None:
        """Free everything; a second close does nothing."""
        if not self._open:
            return
        self._open = False
        buffers = self.buffers
        buffers.wait(self.stream)
        for slot in self._slots:
            buffers.end_event(slot.done)
            for memory in slot.device.values():
                buffers.free(memory)
            for pinned in slot.host.values():
                buffers.unpin(pinned)
        self._slots.clear()
        # In this order: a context must not outlive its engine, nor that its runtime.
        self.context = self.engine = self._runtime = None
        buffers.end_stream(self.stream)
        buffers.release()


def _range(values: list[int]) -> Range:
    return (int(values[0]), int(values[1]), int(values[2]))


def _bytes(shape: tuple[int, ...], tensor: Tensor) -> int:
    return math.prod(shape) * int(np.dtype(tensor.dtype).itemsize)


def _refused(trt: Any, why: str) -> PlanRefused:
    return PlanRefused(f"TensorRT {trt.__version__} does not take this plan: {why}. Build it anew, on this GPU.")
