"""Memory, streams and events for an engine, which needs of them only integers: from torch, cuda-python or pycuda.

A provider is a module with the functions of Buffers. Streams never are stream 0, which waits for all others.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from vggbench.errors import BackendUnavailable, UsageError

#: Name -> module, in the order in which they are tried.
PROVIDERS = {
    "torch": "vggbench.engines.buffers_torch",
    "cuda-python": "vggbench.engines.buffers_cuda",
    "pycuda": "vggbench.engines.buffers_pycuda",
}
#: Of a provider that is there, where the driver is and its runtime fails all the same.
NO_START = "CUDA does not start"


@dataclass(frozen=True)
class Memory:
    """Bytes on the device. keep: what the provider frees."""

    pointer: int
    size: int
    keep: Any


@dataclass(frozen=True)
class Pinned:
    """Bytes of the host that the device reads and writes by itself. array: uint8, a view of them."""

    array: npt.NDArray[np.uint8]
    keep: Any


@dataclass(frozen=True)
class Stream:
    """handle: the cudaStream_t as an integer, never 0."""

    handle: int
    keep: Any


class Buffers(Protocol):
    """What a provider offers. Copies and events are enqueued on the stream and return at once."""

    #: Whether calls can be captured as a CUDA graph.
    CAPTURES: bool

    def missing(self) -> str | None:
        """None, or what is missing in a few words."""

    def start(self) -> None:
        """Make the first device's primary context the current one, as the CUDA runtime and torch do."""

    def stream(self) -> Stream: ...

    def end_stream(self, stream: Stream) -> None: ...

    def allocate(self, size: int, stream: Stream) -> Memory:
        """Raises BackendUnavailable where the device is full."""

    def free(self, memory: Memory) -> None: ...

    def pin(self, size: int) -> Pinned: ...

    def unpin(self, pinned: Pinned) -> None: ...

    def to_device(self, memory: Memory, pinned: Pinned, size: int, stream: Stream) -> None: ...

    def to_host(self, pinned: Pinned, memory: Memory, size: int, stream: Stream) -> None: ...

    def wait(self, stream: Stream) -> None: ...

    def event(self, blocking: bool = False) -> Any:
        """blocking: whoever waits for it sleeps, and does not spin."""

    def end_event(self, event: Any) -> None: ...

    def record(self, event: Any, stream: Stream) -> None: ...

    def wait_event(self, event: Any) -> None: ...

    def stream_wait(self, stream: Stream, event: Any) -> None:
        """What is put on the stream from now on begins after the event; the host goes on."""

    def seconds(self, start: Any, stop: Any) -> float:
        """Between two events that have come to pass."""

    def capture(self, stream: Stream, enqueue: Callable[[], None]) -> Any:
        """What ``enqueue`` puts on the stream as a graph, ready to launch; other threads may go on meanwhile."""

    def launch(self, graph: Any, stream: Stream) -> None: ...

    def end_graph(self, graph: Any) -> None: ...

    def free_bytes(self) -> int:
        """Of the device's memory."""

    def release(self) -> None:
        """Give what the provider holds back to the device."""


def provider(name: str | None = None) -> tuple[str, Buffers]:
    """The named provider, started, or the first that works here. Raises UsageError, BackendUnavailable."""
    if name is not None and name not in PROVIDERS:
        raise UsageError(f"No provider of buffers {name!r}. Known: {', '.join(PROVIDERS)}.")
    reasons = []
    for each in [name] if name else PROVIDERS:
        found: Any = importlib.import_module(PROVIDERS[each])
        why = found.missing()
        if why is None:
            found.start()
            return each, found
        reasons.append(f"{each}: {why}")
    raise BackendUnavailable(unavailable("; ".join(reasons)))


def missing() -> str | None:
    """None where a provider is there, else why each is not; nothing is started."""
    reasons = {name: importlib.import_module(module).missing() for name, module in PROVIDERS.items()}
    return None if None in reasons.values() else "; ".join(f"{name}: {why}" for name, why in reasons.items())


def unavailable(reasons: str) -> str:
    """The one line where no provider works. reasons: as missing() gives them."""
    fix = "Look at GPU and driver: nvidia-smi" if NO_START in reasons else "Install it with: pip install cuda-python"
    return f"TensorRT needs one of torch, cuda-python or pycuda to hold its buffers ({reasons}). {fix}"


def out_of_memory(size: int, free: int) -> BackendUnavailable:
    """The one line for a device that is full."""
    return BackendUnavailable(
        f"The GPU has no room for {size / 2**20:.0f} MiB ({free / 2**20:.0f} MiB are free). End what else runs on it, "
        "or take fewer or smaller images: --batch, --sizes (of latency: --size)."
    )
