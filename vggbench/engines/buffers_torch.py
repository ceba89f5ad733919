"""Buffers, streams and events of torch; see buffers.Buffers. Its allocator keeps memory, which release() gives back."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from vggbench.engines.buffers import Memory, Pinned, Stream, out_of_memory
from vggbench.engines.buffers_objects import end_event, end_stream, record, wait, wait_event  # noqa: F401  of Buffers

CAPTURES = True
_DEVICE = "cuda:0"


def missing() -> str | None:
    try:
        import torch
    except Exception as error:  # a broken installation raises what it likes
        return f"not installed ({type(error).__name__})"
    return None if torch.cuda.is_available() else "it sees no CUDA device"


def start() -> None:
    import torch

    torch.cuda.set_device(0)
    torch.cuda.init()  # type: ignore[no-untyped-call]


def stream() -> Stream:
    import torch

    made: Any = torch.cuda.Stream(_DEVICE)  # type: ignore[no-untyped-call]
    return Stream(int(made.cuda_stream), made)


def allocate(size: int, stream: Stream) -> Memory:
    import torch

    try:
        # On this stream, or the allocator could hand out memory that work on torch's own stream still uses.
        with torch.cuda.stream(stream.keep):
            tensor = torch.empty(max(size, 1), dtype=torch.uint8, device=_DEVICE)
    except torch.cuda.OutOfMemoryError as error:
        raise out_of_memory(size, free_bytes()) from error
    return Memory(tensor.data_ptr(), size, [tensor])


def free(memory: Memory) -> None:
    memory.keep.clear()


def pin(size: int) -> Pinned:
    import torch

    tensor = torch.empty(max(size, 1), dtype=torch.uint8, pin_memory=True)
    return Pinned(tensor.numpy(), [tensor])


def unpin(pinned: Pinned) -> None:
    pinned.keep.clear()


def to_device(memory: Memory, pinned: Pinned, size: int, stream: Stream) -> None:
    import torch

    with torch.cuda.stream(stream.keep):
        memory.keep[0][:size].copy_(pinned.keep[0][:size], non_blocking=True)


def to_host(pinned: Pinned, memory: Memory, size: int, stream: Stream) -> None:
    import torch

    with torch.cuda.stream(stream.keep):
        pinned.keep[0][:size].copy_(memory.keep[0][:size], non_blocking=True)


def event(blocking: bool = False) -> Any:
    import torch

    return torch.cuda.Event(enable_timing=True, blocking=blocking)  # type: ignore[no-untyped-call]


def stream_wait(stream: Stream, event: Any) -> None:
    stream.keep.wait_event(event)


def seconds(start: Any, stop: Any) -> float:
    return float(start.elapsed_time(stop)) / 1e3


def capture(stream: Stream, enqueue: Callable[[], None]) -> Any:
    import torch

    graph: Any = torch.cuda.CUDAGraph()
    with torch.cuda.stream(stream.keep):
        graph.capture_begin(capture_error_mode="thread_local")
        try:
            enqueue()
        finally:
            graph.capture_end()
    return graph


def launch(graph: Any, stream: Stream) -> None:
    import torch

    with torch.cuda.stream(stream.keep):
        graph.replay()


def end_graph(graph: Any) -> None:
    graph.reset()


def free_bytes() -> int:
    import torch

    return int(torch.cuda.mem_get_info(_DEVICE)[0])


def release() -> None:
    import torch

    torch.cuda.empty_cache()
