"""What streams and events of torch and of pycuda do by the same names; see buffers.Buffers."""

from __future__ import annotations

from typing import Any

from vggbench.engines.buffers import Stream


def end_stream(stream: Stream) -> None:
    """It ends with its last reference; torch keeps it in a pool."""


def end_event(event: Any) -> None:
    """It ends with its last reference."""


def wait(stream: Stream) -> None:
    stream.keep.synchronize()


def wait_event(event: Any) -> None:
    event.synchronize()


def record(event: Any, stream: Stream) -> None:
    event.record(stream.keep)
