"""Ctrl-C: raised once however often it is pressed, and kept from what must not be broken off halfway."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

#: Presses within so long are one, for a second exception would break off what cleans up after the first. A later one
#: is raised again: for a clean-up that hangs, or a library that lost the first.
ONCE_SECONDS = 5.0
#: An exception that a destructor has lost is raised again so long after it, when that has ended.
_AGAIN_SECONDS = 0.05
#: When it was raised (monotonic seconds), as a rule once.
_raised: list[float] = []


def raise_once(number: int, frame: FrameType | None) -> None:
    """A handler of signals that raises KeyboardInterrupt, but not again within ONCE_SECONDS."""
    now = time.monotonic()
    if not _raised or now - _raised[-1] > ONCE_SECONDS:
        _raised.append(now)
        raise KeyboardInterrupt


def heard() -> bool:
    """Whether it was raised since ``raising_once`` began. What fails afterwards fails for that: a library that is
    broken off while it is imported says that it is not there."""
    return bool(_raised)


def ignore() -> None:
    """To the end of the process: nothing is left that a Ctrl-C may break off."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def ignored() -> bool:
    """Whether ``ignore`` was called, or the process was started so."""
    return signal.getsignal(signal.SIGINT) is signal.SIG_IGN


@contextmanager
def raising_once() -> Iterator[None]:
    """Around all that a process does. Behind it Ctrl-C is ignored, for how the process ends is decided: in the end of
    the interpreter it would be a traceback, or death by the signal.

    A process that was started deaf to it, as ``command &`` of a script is, stays so.
    """
    _raised.clear()
    before = sys.unraisablehook

    def hook(lost: Any) -> None:
        if not issubclass(lost.exc_type, KeyboardInterrupt):
            before(lost)
            return
        _raised.clear()
        threading.Timer(_AGAIN_SECONDS, os.kill, (os.getpid(), signal.SIGINT)).start()

    sys.unraisablehook = hook
    try:
        if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
            signal.signal(signal.SIGINT, raise_once)
        yield
    finally:
        ignore()
        sys.unraisablehook = before
        _raised.clear()


@contextmanager
def sigint_blocked() -> Iterator[None]:
    """Ctrl-C waits until the end of the block; a process started inside never gets it."""
    from multiprocessing import resource_tracker

    resource_tracker.ensure_running()  # the first process would start it, and that unblocks the signal (before 3.12)
    with sigint_held():
        mask = signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT])
        try:
            yield
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, mask)


@contextmanager
def sigint_held() -> Iterator[None]:
    """Ctrl-C waits until the end of the block; a process started inside gets it like any other."""
    if (
        threading.current_thread() is not threading.main_thread()
    ):  # where no handler may be set, and Ctrl-C never raises
        yield
        return
    held: list[int] = []
    # A mask alone holds back nothing: the kernel gives the signal to any other thread, and Python raises it here.
    handler = signal.signal(signal.SIGINT, lambda number, frame: held.append(number))
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, handler)
        if held and callable(handler):
            handler(signal.SIGINT, None)
