"""glibc's heaps among images of all sizes, which fragment them: free memory goes back. Elsewhere nothing happens."""

from __future__ import annotations

import ctypes
import threading
import time
from collections.abc import Callable
from contextlib import suppress

#: Free memory is given back so seldom that it takes no more than this share of the time; within these seconds, though.
SHARE = 0.01
USUALLY = (0.5, 1.0)
#: The same where an image of so many bytes of pixels was there: to decode it takes several times as much memory.
LARGE_BYTES, AFTER_LARGE = 1 << 20, (0.0, 0.25)

#: Of malloc.h. glibc raises both by itself when large buffers come and go, up to these values, but only as far as the
#: largest yet: until then, often to the end, it may take memory from the system for every photograph and give it back.
#: What that costs depends on the sizes: nothing was seen of it over files of many. Once one is set, both stay alone.
_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3
_TRIM_BYTES, _MMAP_BYTES = 64 << 20, 32 << 20
#: A buffer that is freed has the end of its heap looked at from 64 KB on.
_LOOKED_AT = 128 << 10


class Trimmer:
    """Gives free memory back now and then, of the whole process and of the thread that asks; any number may.

    The first one sets glibc's thresholds for the whole process, for good.

    ``malloc_trim`` leaves the free end of the heap alone that each thread has of its own: after one large image up to
    64 MB would stay on every thread that decodes. (One heap for all of them would be simpler, and decoding slower: a
    buffer that one core has freed, and has in its cache, is then another's next one.)
    """

    def __init__(self) -> None:
        self._process = _Rest()
        self._thread = threading.local()
        with suppress(OSError, AttributeError):
            _keep(_TRIM_BYTES)

    def look(self, used: int) -> None:
        """After so many bytes of pixels were used and freed: does what it is time for."""
        mine: _Rest | None = getattr(self._thread, "rest", None)
        if mine is None:
            mine = self._thread.rest = _Rest()
        if mine.is_over(used):
            with suppress(OSError, AttributeError):
                mine.taken(_trim_thread)
        if self._process.is_over(used):
            with suppress(OSError, AttributeError):
                self._process.taken(lambda: ctypes.CDLL(None).malloc_trim(0))


class _Rest:
    """The time until something is done again."""

    def __init__(self) -> None:
        self._ended, self._took, self._large = time.monotonic(), 0.0, False
        self._until = self._end()

    def is_over(self, used: int) -> bool:
        if used >= LARGE_BYTES and not self._large:
            self._large = True
            self._until = self._end()
        return time.monotonic() >= self._until

    def _end(self) -> float:
        least, most = AFTER_LARGE if self._large else USUALLY
        return self._ended + min(max(least, self._took / SHARE), most)

    def taken(self, action: Callable[[], None]) -> None:
        started, self._large = time.monotonic(), False
        self._until = started + USUALLY[1]  # no other thread begins the same meanwhile
        action()
        self._ended = time.monotonic()
        self._took = self._ended - started
        self._until = self._end()


def _trim_thread() -> None:
    """Gives back the free end of this thread's heap."""
    libc = ctypes.CDLL(None)
    libc.malloc.restype, libc.malloc.argtypes = ctypes.c_void_p, [ctypes.c_size_t]
    libc.free.restype, libc.free.argtypes = None, [ctypes.c_void_p]
    _keep(_LOOKED_AT)
    libc.free(libc.malloc(_LOOKED_AT))
    _keep(_TRIM_BYTES)


def _keep(most: int) -> None:
    """Of a heap's free end so many bytes may stay."""
    libc = ctypes.CDLL(None)
    libc.mallopt(_MMAP_THRESHOLD, _MMAP_BYTES)
    libc.mallopt(_TRIM_THRESHOLD, most)
