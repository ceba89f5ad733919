"""One engine with its context, streams and memory: host arrays in, host arrays out; TensorRT from 8.6 on.

Calls overlap. The host copies a piece into pinned memory, from where one stream carries it to the device while the
engine works on the piece before, on another; its results, few beside the images, follow it on the engine's own.
"""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Callable
from typing import Any

import numpy as np

from vggbench.engines import adapter, slots
from vggbench.engines.buffers import Buffers, Stream, out_of_memory
from vggbench.engines.logs import collected, create, first_error, logger
from vggbench.engines.profile import Profile, is_channels_last
from vggbench.engines.slots import AnyArray, Call, Slot, Tensor
from vggbench.errors import BackendUnavailable
from vggbench.sizes import Range

#: By the names of trt.DataType's members; trt.nptype of 8.6 does not work with a numpy from 1.24 on.
_TYPES = {"FLOAT": np.float32, "HALF": np.float16, "INT8": np.int8, "INT32": np.int32, "UINT8": np.uint8}
#: Pieces under way at a time: one is filled by the host or read, one is on its way to the device, one is computed.
SLOTS = 3


class PlanRefused(BackendUnavailable):
    """TensorRT does not take a plan: of another version or GPU, or damaged. It can be built anew."""


class Runner:
    """A plan, ready to run. Not for several threads at once.

    channels_last: whether the input is (n, h, w, 3). changes: of the context's shape or addresses so far; what was
    captured before one is stale. pieces: sent so far. Raises PlanRefused, BackendUnavailable where memory is full.
    """

    def __init__(self, trt: Any, plan: bytes, buffers: Buffers) -> None:
        self.buffers = buffers
        self._open = True
        self._slots: list[Slot] = []
        self._flying: deque[tuple[Call, Slot]] = deque()
        self._runtime: Any = None
        self.engine: Any = None
        self.context: Any = None
        self._shape: tuple[int, ...] | None = None
        self._bound: tuple[Slot, tuple[int, ...]] | None = None
        self.changes = self.pieces = 0
        self._streams: list[Stream] = []
        try:
            for _ in range(2):
                self._streams.append(buffers.stream())
            self.stream, self._uploads = self._streams
            self._load(trt, plan)
        except BaseException:
            self.close()
            raise

    def _load(self, trt: Any, plan: bytes) -> None:
        self._runtime = create(trt, trt.Runtime, logger(trt))
        with collected() as errors:
            self.engine = self._runtime.deserialize_cuda_engine(plan)
            if self.engine is None:
                if re.search(r"out ?of ?memory|could not be allocated", " ".join(errors), re.IGNORECASE):
                    raise out_of_memory(len(plan), self.buffers.free_bytes())  # and not a plan to be built anew
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
        return self.submit(images)()

    def submit(self, images: AnyArray) -> Callable[[], dict[str, AnyArray]]:
        """Begins a call and returns what waits for its results; the images may be changed at once.

        Any number may be under way. Beyond SLOTS pieces the oldest is waited for here, and its results are kept for
        the call that it is of, as is its error. Raises as the call does.
        """
        self._check(images)
        greatest = self.profile.batch[2]
        starts = range(0, len(images), greatest)
        call = Call(len(starts))
        for start in starts:
            self._begin(call, images[start : start + greatest])
        return lambda: self._results(call)

    def _check(self, images: AnyArray) -> None:
        if not self._open:
            raise ValueError("This session is closed.")
        height, width = images.shape[1:3] if self.channels_last else images.shape[2:4]
        self.profile.check(int(height), int(width))

    def _begin(self, call: Call, piece: AnyArray) -> Slot:
        while len(self._flying) >= SLOTS:
            self._read_oldest()
        slot = self._free_slot()
        self.pieces += 1
        try:
            self._send(slot, piece)
        except BaseException:
            self._wait()  # nothing may still read or write the slot when it is used again
            raise
        self._flying.append((call, slot))
        return slot

    def _free_slot(self) -> Slot:
        """The first that is free: calls that are waited for one by one all have the same addresses."""
        taken = [slot for _, slot in self._flying]
        free = next((slot for slot in self._slots if slot not in taken), None)
        if free is None:
            free = slots.new_slot(self.buffers)
            self._slots.append(free)
        return free

    def _results(self, call: Call) -> dict[str, AnyArray]:
        while not call.ended and self._flying:
            self._read_oldest()
        return call.results()

    def _read_oldest(self) -> None:
        """An error is its call's, which may not be the one that waits."""
        call, slot = self._flying.popleft()
        try:
            call.found.append(slots.read(slot, self.outputs, self.buffers))
        except BaseException as error:
            call.failed = error
            self._wait()
            if not isinstance(error, Exception):
                raise

    def _send(self, slot: Slot, piece: AnyArray) -> None:
        self._prepare(slot, piece.shape)
        slots.fill(slot, self.input, piece)
        self.copy_in(slot, self._uploads)
        self.buffers.record(slot.sent, self._uploads)
        self.buffers.stream_wait(self.stream, slot.sent)
        self.enqueue()
        self.copy_out(slot)
        self.buffers.record(slot.done, self.stream)

    def _prepare(self, slot: Slot, shape: tuple[int, ...]) -> None:
        """Memory in the slot for images of that shape, and the context set to both."""
        # A rest smaller than the profile's least batch is filled up with what lies in memory; its rows are dropped.
        whole = (max(shape[0], self.profile.batch[0]), *shape[1:])
        if self._bound == (slot, whole):
            return
        if self._shape != whole:
            self.reshape(whole)
        self._bound = None
        self.changes += 1
        for tensor in (self.input, *self.outputs):
            slot.shapes[tensor.name] = tuple(self.context.get_tensor_shape(tensor.name))
            if slots.reserve(slot, tensor, self.buffers, self.stream):
                # What was freed before in the order of one stream is now written from the other.
                self.buffers.record(slot.done, self.stream)
                self.buffers.stream_wait(self._uploads, slot.done)
            self.context.set_tensor_address(tensor.name, slot.device[tensor.name].pointer)
        self._bound = slot, whole

    def reshape(self, shape: tuple[int, ...]) -> None:
        """Set the context to images of that shape; nothing runs."""
        self._shape = self._bound = None
        self.changes += 1
        if not self.context.set_input_shape(self.input.name, shape):
            raise BackendUnavailable(f"TensorRT refused images of {shape}; the engine takes {self.profile}.")
        unknown = self.context.infer_shapes()
        if unknown:
            raise BackendUnavailable(f"The engine's tensors {', '.join(unknown)} have no size from the images alone.")
        self._shape = shape

    def copy_in(self, slot: Slot, stream: Stream | None = None) -> None:
        """Enqueue the images' way to the device, on the engine's stream if no other is given."""
        name, size = self.input.name, slots.bytes_of(slot, self.input)
        self.buffers.to_device(slot.device[name], slot.host[name], size, stream or self.stream)

    def enqueue(self) -> None:
        """Enqueue the engine alone. Raises BackendUnavailable where TensorRT refuses."""
        with collected() as errors:
            if not self.context.execute_async_v3(self.stream.handle):
                raise BackendUnavailable(f"TensorRT could not run the engine: {first_error(errors)}.")

    def copy_out(self, slot: Slot) -> None:
        """Enqueue the results' way to the host."""
        for tensor in self.outputs:
            size = slots.bytes_of(slot, tensor)
            self.buffers.to_host(slot.host[tensor.name], slot.device[tensor.name], size, self.stream)

    def loaded(self, images: AnyArray) -> Slot:
        """A slot with these images on the device, for calls to be timed. Raises UsageError for what is not one call."""
        self._check(images)
        self.profile.check_batch(len(images))
        call = Call(1)
        slot = self._begin(call, images)
        self._results(call)
        return slot

    def _wait(self) -> None:
        for stream in self._streams:
            self.buffers.wait(stream)

    def close(self) -> None:
        """Free everything; calls under way have no results any more. A second close does nothing."""
        if not self._open:
            return
        self._open = False
        self._wait()
        self._flying.clear()
        buffers = self.buffers
        for slot in self._slots:
            slots.end_slot(slot, buffers)
        self._slots.clear()
        # In this order: a context must not outlive its engine, nor that its runtime.
        self.context = self.engine = self._runtime = None
        for stream in self._streams:
            buffers.end_stream(stream)
        buffers.release()


def _range(values: list[int]) -> Range:
    return (int(values[0]), int(values[1]), int(values[2]))


def _refused(trt: Any, why: str) -> PlanRefused:
    return PlanRefused(f"TensorRT {trt.__version__} does not take this plan: {why}. Build it anew, on this GPU.")
