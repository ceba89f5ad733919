"""Where the time of an evaluation goes: seconds by stage, over all threads, and what limits."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable, Mapping

#: Of any thread: a file's bytes and their digest; bytes to pixels; pixels to views. Of the thread that calls the
#: session: views to input and to the device; the network; posteriors to the disk; nothing to do but wait for views.
#: helped: of that thread's time, what it spent on reading, decoding and resizing because nothing was ready.
#: idle: of the other threads, waiting because enough lies ready, or nothing is left. total: the wall time, summed over
#: processes. threads: that prepare, summed over processes.
NAMES = ("read", "decode", "resize", "upload", "compute", "store", "wait", "helped", "idle", "total", "threads")

#: What to do about each part that may limit.
ADVICE = {
    "read": "reading the files; put them on a faster disk",
    "decode": "decoding; give it more cores",
    "resize": "rescaling and cutting; give it more cores, or the extra numba",
    "upload": "making inputs and copying them to the device",
    "compute": "the network itself",
    "store": "writing posteriors; put the cache on a faster disk",
}


class Stages:
    """Seconds by stage; any thread may add."""

    def __init__(self) -> None:
        self._seconds: dict[str, float] = {}
        self._lock = threading.Lock()

    def add(self, name: str, seconds: float) -> None:
        with self._lock:
            self._seconds[name] = self._seconds.get(name, 0.0) + seconds

    def timed(self, name: str) -> _Timed:
        """A context whose seconds are added when it ends, by an error too."""
        return _Timed(self, name)

    def seconds(self) -> dict[str, float]:
        """What was added so far, in the order of NAMES."""
        with self._lock:
            return {name: self._seconds[name] for name in NAMES if name in self._seconds}


class _Timed:
    """Quicker than a generator's context: every image passes several, with the interpreter held."""

    __slots__ = ("_name", "_stages", "_started")

    def __init__(self, stages: Stages, name: str) -> None:
        self._stages, self._name = stages, name

    def __enter__(self) -> None:
        self._started = time.perf_counter()

    def __exit__(self, *error: object) -> None:
        self._stages.add(self._name, time.perf_counter() - self._started)


def total(parts: Iterable[Mapping[str, float]], in_turn: bool = False) -> dict[str, float]:
    """The sum over processes; in_turn: over runs one after the other, whose threads were the same ones."""
    found: dict[str, float] = {}
    for part in parts:
        for name, seconds in part.items():
            before = found.get(name, 0.0)
            found[name] = max(before, seconds) if in_turn and name == "threads" else before + seconds
    return {name: found[name] for name in NAMES if name in found}


def limiting(seconds: Mapping[str, float]) -> str:
    """The stage that the rest waits for: of preparing if the session waits longer than it works, else the session's.

    "" where nothing ran.
    """
    starved = seconds.get("wait", 0.0) + seconds.get("helped", 0.0)
    session = {name: seconds.get(name, 0.0) for name in ("compute", "upload", "store")}
    preparing = {name: seconds.get(name, 0.0) for name in ("decode", "resize", "read")}
    among = preparing if starved > sum(session.values()) else session
    return max(among, key=lambda name: among[name]) if any(among.values()) else ""
