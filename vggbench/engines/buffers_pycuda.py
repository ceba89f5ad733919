"""Buffers, streams and events of pycuda; see buffers.Buffers. It has no capture of CUDA graphs."""

from __future__ import annotations

import atexit
from collections.abc import Callable
from typing import Any

import numpy as np

from vggbench.engines.buffers import Memory, Pinned, Stream, out_of_memory
from vggbench.engines.buffers_objects import end_event, end_stream, record, wait, wait_event  # noqa: F401  of Buffers

CAPTURES = False
_NON_BLOCKING = 1  # CU_STREAM_NON_BLOCKING: does not wait for stream 0
_contexts: list[Any] = []


def missing() -> str | None:
    try:
        import pycuda.driver  # type: ignore[import-not-found, import-untyped, unused-ignore]  # noqa: F401
    except Exception as error:  # a broken installation raises what it likes
        return f"not installed ({type(error).__name__})"
    return None


def start() -> None:
    """The primary context: pycuda.autoinit would make a second one, whose pointers mean nothing to the CUDA runtime."""
    if _contexts:
        return
    import pycuda.driver as cuda

    cuda.init()
    context = cuda.Device(0).retain_primary_context()
    context.push()
    atexit.register(context.pop)  # pycuda ends the process with an error where one is left on its stack
    _contexts.append(context)


def stream() -> Stream:
    import pycuda.driver as cuda

    made = cuda.Stream(_NON_BLOCKING)
    return Stream(int(made.handle), made)


def allocate(size: int, stream: Stream) -> Memory:
    import pycuda.driver as cuda

    try:
        block = cuda.mem_alloc(max(size, 1))
    except cuda.MemoryError as error:
        raise out_of_memory(size, free_bytes()) from error
    return Memory(int(block), size, block)


def free(memory: Memory) -> None:
    memory.keep.free()


def pin(size: int) -> Pinned:
    import pycuda.driver as cuda

    array = cuda.pagelocked_empty(max(size, 1), np.uint8)
    return Pinned(array, array)


def unpin(pinned: Pinned) -> None:
    """It ends with its last reference."""


def to_device(memory: Memory, pinned: Pinned, size: int, stream: Stream) -> None:
    import pycuda.driver as cuda

    cuda.memcpy_htod_async(memory.pointer, pinned.array[:size], stream.keep)


def to_host(pinned: Pinned, memory: Memory, size: int, stream: Stream) -> None:
    import pycuda.driver as cuda

    cuda.memcpy_dtoh_async(pinned.array[:size], memory.pointer, stream.keep)


def event(blocking: bool = False) -> Any:
    import pycuda.driver as cuda

    return cuda.Event(cuda.event_flags.BLOCKING_SYNC if blocking else 0)


def stream_wait(stream: Stream, event: Any) -> None:
    stream.keep.wait_for_event(event)


def seconds(start: Any, stop: Any) -> float:
    return float(start.time_till(stop)) / 1e3


def capture(stream: Stream, enqueue: Callable[[], None]) -> Any:
    raise NotImplementedError("pycuda captures no CUDA graphs")


def launch(graph: Any, stream: Stream) -> None:
    raise NotImplementedError("pycuda launches no CUDA graphs")


def end_graph(graph: Any) -> None:
    """There is none."""


def free_bytes() -> int:
    import pycuda.driver as cuda

    return int(cuda.mem_get_info()[0])


def release() -> None:
    """The primary context stays: torch and the CUDA runtime share it."""
