"""cuda.bindings.runtime on the host: memory is the host's, graphs replay what was put on them, nothing runs too early.

A stream runs when it, or an event on it, is waited for, and then only so far: what relies on an order that no event
makes finds memory that nothing was written to. Names are held against those of the real bindings
(test_engines_buffers.py). What is allocated and not freed is counted.
"""

from __future__ import annotations

import ctypes
import enum
import itertools
import time
import types
from collections import deque
from dataclasses import dataclass, field


class cudaError_t(enum.IntEnum):
    cudaSuccess = 0
    cudaErrorInvalidValue = 1
    cudaErrorMemoryAllocation = 2
    cudaErrorInsufficientDriver = 35
    cudaErrorStreamCaptureUnsupported = 900


class cudaMemcpyKind(enum.IntEnum):
    cudaMemcpyHostToDevice = 1
    cudaMemcpyDeviceToHost = 2


class cudaStreamCaptureMode(enum.IntEnum):
    cudaStreamCaptureModeThreadLocal = 1


OK = cudaError_t.cudaSuccess


@dataclass
class Event:
    """on: the stream of each record of it; reached: how many of them have come to pass, the last one at a time."""

    on: list[int] = field(default_factory=list)
    reached: int = 0
    at: float = 0.0


class Fake:
    """One device. memory_bytes: what it has; fail: name of a function -> the error that it returns."""

    def __init__(self, memory_bytes: int = 1 << 34) -> None:
        self.memory_bytes, self.fail = memory_bytes, {}
        self.live = {kind: {} for kind in ("device", "host", "stream", "event", "graph")}
        self.capturing: dict[int, list] = {}
        self.queues: dict[int, deque] = {}
        self.calls: list[str] = []
        self._handles = itertools.count(1)

    @property
    def used(self) -> int:
        return sum(len(block) for block in self.live["device"].values())

    def enqueue(self, stream: int, work) -> None:
        """Work on a stream, or into the graph that is being captured."""
        assert int(stream) in self.live["stream"], f"{stream} is no stream of ours: stream 0, or one that has ended"
        if int(stream) in self.capturing:
            self.capturing[int(stream)].append(work)
        else:
            self.queues.setdefault(int(stream), deque()).append(work)

    def run(self, stream: int, least=lambda: False) -> None:
        """What is on the stream, until that is so."""
        queue = self.queues.get(stream, deque())
        while queue and not least():
            queue.popleft()()

    def reach(self, event: int, count: int) -> None:
        """So many records of the event, on whichever streams they are."""
        found = self.live["event"][event]
        while found.reached < count:
            self.run(found.on[found.reached], lambda before=found.reached: found.reached > before)

    def module(self) -> types.ModuleType:
        """To stand in sys.modules as cuda.bindings.runtime."""
        made = types.ModuleType("cuda.bindings.runtime")
        made.cudaError_t, made.cudaMemcpyKind, made.cudaStreamCaptureMode = (
            cudaError_t,
            cudaMemcpyKind,
            cudaStreamCaptureMode,
        )
        made.cudaStreamNonBlocking, made.cudaEventBlockingSync = 1, 1
        for name in dir(self):
            if name.startswith("cuda"):
                setattr(made, name, self._counted(name))
        return made

    def _counted(self, name):
        def call(*arguments):
            self.calls.append(name)
            if name in self.fail:
                returned = getattr(self, name)(*arguments) if name == "cudaStreamEndCapture" else (OK, None)
                return (self.fail[name], *(None for _ in returned[1:]))
            return getattr(self, name)(*arguments)

        return call

    def _made(self, kind, value):
        handle = next(self._handles)
        self.live[kind][handle] = value
        return OK, handle

    def cudaGetDeviceCount(self):
        return OK, 1

    def cudaSetDevice(self, device):
        return (OK,)

    def cudaGetLastError(self):
        return (OK,)

    def cudaMemGetInfo(self):
        return OK, (self.memory_bytes - self.used), self.memory_bytes

    def cudaMalloc(self, size):
        if self.used + size > self.memory_bytes:
            return cudaError_t.cudaErrorMemoryAllocation, None
        block = (ctypes.c_uint8 * size)()
        self.live["device"][ctypes.addressof(block)] = block
        return OK, ctypes.addressof(block)

    def cudaFree(self, pointer):
        if pointer:
            del self.live["device"][pointer]
        return (OK,)

    def cudaMallocHost(self, size):
        block = (ctypes.c_uint8 * size)()
        self.live["host"][ctypes.addressof(block)] = block
        return OK, ctypes.addressof(block)

    def cudaFreeHost(self, pointer):
        del self.live["host"][pointer]
        return (OK,)

    def cudaMemcpyAsync(self, target, source, size, kind, stream):
        sides = ("device", "host") if kind == cudaMemcpyKind.cudaMemcpyHostToDevice else ("host", "device")
        for side, pointer in zip(sides, (target, source), strict=True):
            assert len(self.live[side][pointer]) >= size, f"{size} bytes in {side} memory of fewer"

        def copy():
            for side, pointer in zip(sides, (target, source), strict=True):
                assert pointer in self.live[side], f"{side} memory was freed before it was copied"
            ctypes.memmove(target, source, size)

        self.enqueue(stream, copy)
        return (OK,)

    def cudaStreamCreateWithFlags(self, flags):
        return self._made("stream", flags)

    def cudaStreamDestroy(self, stream):
        assert not self.queues.pop(stream, None), "work was left on the stream"
        del self.live["stream"][stream]
        return (OK,)

    def cudaStreamSynchronize(self, stream):
        assert stream in self.live["stream"]
        self.run(stream)
        return (OK,)

    def cudaStreamWaitEvent(self, stream, event, flags):
        """For the records of it so far."""
        count = len(self.live["event"][event].on)
        self.enqueue(stream, lambda: self.reach(event, count))
        return (OK,)

    def cudaEventCreateWithFlags(self, flags):
        return self._made("event", Event())

    def cudaEventDestroy(self, event):
        del self.live["event"][event]
        return (OK,)

    def cudaEventRecord(self, event, stream):
        found = self.live["event"][event]
        found.on.append(stream)

        def passed():
            found.reached, found.at = found.reached + 1, time.perf_counter()

        self.enqueue(stream, passed)
        return (OK,)

    def cudaEventSynchronize(self, event):
        assert self.live["event"][event].on, "an event that was never recorded"
        self.reach(event, len(self.live["event"][event].on))
        return (OK,)

    def cudaEventElapsedTime(self, start, stop):
        first, last = (self.live["event"][event] for event in (start, stop))
        assert all(event.reached == len(event.on) for event in (first, last)), "an event that was not waited for"
        return OK, 1e3 * (last.at - first.at)

    def cudaStreamBeginCapture(self, stream, mode):
        self.capturing[stream] = []
        return (OK,)

    def cudaStreamEndCapture(self, stream):
        return self._made("graph", self.capturing.pop(stream))

    def cudaGraphInstantiate(self, graph, flags):
        return self._made("graph", list(self.live["graph"][graph]))

    def cudaGraphDestroy(self, graph):
        del self.live["graph"][graph]
        return (OK,)

    def cudaGraphExecDestroy(self, graph):
        del self.live["graph"][graph]
        return (OK,)

    def cudaGraphLaunch(self, graph, stream):
        for work in self.live["graph"][graph]:
            self.enqueue(stream, work)
        return (OK,)
