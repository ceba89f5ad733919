"""cuda.bindings.runtime on the host: memory is the host's, streams run at once, graphs replay what was enqueued.

Names are held against those of the real bindings (test_engines_buffers.py). What is allocated and not freed is counted.
"""

from __future__ import annotations

import ctypes
import enum
import itertools
import time
import types


class cudaError_t(enum.IntEnum):
    cudaSuccess = 0
    cudaErrorInvalidValue = 1
    cudaErrorMemoryAllocation = 2
    cudaErrorStreamCaptureUnsupported = 900


class cudaMemcpyKind(enum.IntEnum):
    cudaMemcpyHostToDevice = 1
    cudaMemcpyDeviceToHost = 2


class cudaStreamCaptureMode(enum.IntEnum):
    cudaStreamCaptureModeThreadLocal = 1


OK = cudaError_t.cudaSuccess


class Fake:
    """One device. memory_bytes: what it has; fail: name of a function -> the error that it returns."""

    def __init__(self, memory_bytes: int = 1 << 34) -> None:
        self.memory_bytes, self.fail = memory_bytes, {}
        self.live = {kind: {} for kind in ("device", "host", "stream", "event", "graph")}
        self.capturing: dict[int, list] = {}
        self.calls: list[str] = []
        self._handles = itertools.count(1)

    @property
    def used(self) -> int:
        return sum(len(block) for block in self.live["device"].values())

    def enqueue(self, stream: int, work) -> None:
        """Work on a stream: at once, or into the graph that is being captured."""
        assert int(stream) in self.live["stream"], f"{stream} is no stream of ours: stream 0, or one that has ended"
        if int(stream) in self.capturing:
            self.capturing[int(stream)].append(work)
        else:
            work()

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
        self.enqueue(stream, lambda: ctypes.memmove(target, source, size))
        return (OK,)

    def cudaStreamCreateWithFlags(self, flags):
        return self._made("stream", flags)

    def cudaStreamDestroy(self, stream):
        del self.live["stream"][stream]
        return (OK,)

    def cudaStreamSynchronize(self, stream):
        assert stream in self.live["stream"]
        return (OK,)

    def cudaEventCreateWithFlags(self, flags):
        return self._made("event", None)

    def cudaEventDestroy(self, event):
        del self.live["event"][event]
        return (OK,)

    def cudaEventRecord(self, event, stream):
        assert stream in self.live["stream"]
        self.live["event"][event] = time.perf_counter()
        return (OK,)

    def cudaEventSynchronize(self, event):
        assert self.live["event"][event] is not None, "an event that was never recorded"
        return (OK,)

    def cudaEventElapsedTime(self, start, stop):
        return OK, 1e3 * (self.live["event"][stop] - self.live["event"][start])

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
