"""Buffers, streams and events of cuda-python's runtime bindings, in both spellings; see buffers.Buffers."""

from __future__ import annotations

import ctypes
import functools
import importlib
from collections.abc import Callable
from typing import Any

import numpy as np

from vggbench.engines.buffers import NO_START, Memory, Pinned, Stream, out_of_memory
from vggbench.errors import BackendUnavailable

CAPTURES = True
#: From 12.6 on, and before.
_SPELLINGS = ("cuda.bindings.runtime", "cuda.cudart")


@functools.cache
def _cuda() -> Any:
    for name in _SPELLINGS:
        try:
            return importlib.import_module(name)
        except ImportError:
            continue
    return None


def _call(name: str, *arguments: Any) -> Any:
    """A function's results without its status: None, one, or a tuple. Raises BackendUnavailable for an error."""
    cuda = _cuda()
    status, *found = getattr(cuda, name)(*arguments)
    if status != cuda.cudaError_t.cudaSuccess:
        cuda.cudaGetLastError()  # or the next call would report it again
        raise BackendUnavailable(f"CUDA's {name} failed ({status.name}). See: vggbench doctor")
    return None if not found else found[0] if len(found) == 1 else tuple(found)


def missing() -> str | None:
    cuda = _cuda()
    if cuda is None:
        return "not installed"
    status, devices = cuda.cudaGetDeviceCount()  # a driver that answers is not yet one that this runtime starts on
    if status != cuda.cudaError_t.cudaSuccess:
        cuda.cudaGetLastError()
        return f"{NO_START} ({status.name})"
    return None if devices else "it sees no CUDA device"


def start() -> None:
    _call("cudaSetDevice", 0)
    _call("cudaFree", 0)  # makes the context


def stream() -> Stream:
    made = _call("cudaStreamCreateWithFlags", _cuda().cudaStreamNonBlocking)
    return Stream(int(made), made)


def end_stream(stream: Stream) -> None:
    _call("cudaStreamDestroy", stream.keep)


def allocate(size: int, stream: Stream) -> Memory:
    cuda = _cuda()
    status, pointer = cuda.cudaMalloc(max(size, 1))
    if status == cuda.cudaError_t.cudaErrorMemoryAllocation:
        cuda.cudaGetLastError()
        raise out_of_memory(size, free_bytes())
    if status != cuda.cudaError_t.cudaSuccess:
        raise BackendUnavailable(f"CUDA's cudaMalloc failed ({status.name}). See: vggbench doctor")
    return Memory(int(pointer), size, pointer)


def free(memory: Memory) -> None:
    _call("cudaFree", memory.keep)


def pin(size: int) -> Pinned:
    pointer = int(_call("cudaMallocHost", max(size, 1)))
    view = np.ctypeslib.as_array((ctypes.c_uint8 * max(size, 1)).from_address(pointer))
    return Pinned(view, pointer)


def unpin(pinned: Pinned) -> None:
    _call("cudaFreeHost", pinned.keep)


def to_device(memory: Memory, pinned: Pinned, size: int, stream: Stream) -> None:
    kind = _cuda().cudaMemcpyKind.cudaMemcpyHostToDevice
    _call("cudaMemcpyAsync", memory.pointer, pinned.keep, size, kind, stream.keep)


def to_host(pinned: Pinned, memory: Memory, size: int, stream: Stream) -> None:
    kind = _cuda().cudaMemcpyKind.cudaMemcpyDeviceToHost
    _call("cudaMemcpyAsync", pinned.keep, memory.pointer, size, kind, stream.keep)


def wait(stream: Stream) -> None:
    _call("cudaStreamSynchronize", stream.keep)


def event(blocking: bool = False) -> Any:
    return _call("cudaEventCreateWithFlags", _cuda().cudaEventBlockingSync if blocking else 0)


def end_event(event: Any) -> None:
    _call("cudaEventDestroy", event)


def record(event: Any, stream: Stream) -> None:
    _call("cudaEventRecord", event, stream.keep)


def wait_event(event: Any) -> None:
    _call("cudaEventSynchronize", event)


def stream_wait(stream: Stream, event: Any) -> None:
    _call("cudaStreamWaitEvent", stream.keep, event, 0)


def seconds(start: Any, stop: Any) -> float:
    return float(_call("cudaEventElapsedTime", start, stop)) / 1e3


def capture(stream: Stream, enqueue: Callable[[], None]) -> Any:
    mode = _cuda().cudaStreamCaptureMode.cudaStreamCaptureModeThreadLocal
    _call("cudaStreamBeginCapture", stream.keep, mode)
    try:
        enqueue()
    except BaseException:
        _cuda().cudaStreamEndCapture(stream.keep)  # a stream left in capture could do nothing else
        raise
    graph = _call("cudaStreamEndCapture", stream.keep)
    try:
        return _call("cudaGraphInstantiate", graph, 0)
    finally:
        _call("cudaGraphDestroy", graph)


def launch(graph: Any, stream: Stream) -> None:
    _call("cudaGraphLaunch", graph, stream.keep)


def end_graph(graph: Any) -> None:
    _call("cudaGraphExecDestroy", graph)


def free_bytes() -> int:
    free, _ = _call("cudaMemGetInfo")
    return int(free)


def release() -> None:
    """It keeps nothing."""
