"""Work in a fresh process that Ctrl-C does not reach and whose death is told, not shared."""

from __future__ import annotations

import os
import pickle
import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from multiprocessing import get_context
from multiprocessing.connection import Connection
from typing import Any, TypeVar

from vggbench.errors import BackendUnavailable, OutOfMemory, is_out_of_memory
from vggbench.interrupts import sigint_blocked

R = TypeVar("R")
#: Set where networks are refused; fresh processes inherit it.
NO_NETWORK = "VGGBENCH_NO_NETWORK"
#: When fresh processes are ended, by time.monotonic(); None for never.
_end: ContextVar[float | None] = ContextVar("end", default=None)


class WorkerDied(Exception):
    """The process ended without an answer; the message says how, in words."""


class TimeIsOver(WorkerDied):
    """It was ended, because the time had come that ``ending_at`` was given."""


def in_fresh_process(work: Callable[..., R], *arguments: Any) -> R:
    """``work(*arguments)``, a function of a module, in a new interpreter; what it raises is raised here.

    Raises WorkerDied if the process is killed, runs out of memory or fails with what only words can tell. On Ctrl-C the
    process is ended, and in the time that ``ending_at`` gave, with TimeIsOver.
    """
    context = get_context("spawn")
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=_answer, args=(sender, work, arguments), daemon=True)
    try:
        # The process inherits the blocked signal: a terminal sends Ctrl-C to all, and only this process is to decide.
        with sigint_blocked():
            process.start()
            sender.close()
        if not receiver.poll(seconds_left()):
            raise TimeIsOver("ended, for its time was over")
        kind, answer = receiver.recv()
    except (EOFError, OSError) as error:
        if process.pid is None:
            raise WorkerDied(f"it cannot be started ({error})") from error
        process.join()
        raise WorkerDied(cause(process.exitcode)) from None
    finally:
        with sigint_blocked():  # a second Ctrl-C waits until nothing is left running
            if process.is_alive():
                process.join(0.2)
                process.kill()
            if process.pid is not None:
                process.join()
            receiver.close()
    if kind == "error":
        raise answer
    if kind == "died":
        raise WorkerDied(answer)
    found: R = answer
    return found


@contextmanager
def ending_at(moment: float) -> Iterator[None]:
    """Fresh processes are ended when time.monotonic() says so."""
    before = _end.set(moment)
    try:
        yield
    finally:
        _end.reset(before)


def seconds_left() -> float | None:
    """Until fresh processes are ended; None where nothing ends them."""
    end = _end.get()
    return None if end is None else max(0.0, end - time.monotonic())


def refuse_networks() -> None:
    """From now on an attempt of this process, or of a fresh one, to reach a network raises BackendUnavailable."""

    def refuse(event: str, arguments: tuple[Any, ...]) -> None:
        if event == "socket.getaddrinfo" or (event == "socket.connect" and isinstance(arguments[1], tuple)):
            where = arguments[1] if event == "socket.connect" else arguments[0]
            raise BackendUnavailable(f"--no-network: something tried to reach {where}.")

    os.environ[NO_NETWORK] = "1"
    sys.addaudithook(refuse)


def _answer(sender: Connection, work: Callable[..., Any], arguments: tuple[Any, ...]) -> None:
    """In the fresh process."""
    if os.environ.get(NO_NETWORK):
        refuse_networks()
    try:
        answer = ("done", work(*arguments))
    except Exception as error:
        answer = _answer_of(error)
    sender.send(answer)
    sender.close()


def _answer_of(error: Exception) -> tuple[str, Any]:
    """The error itself; in words where memory was full (torch has a kind of its own), or it cannot be sent."""
    if type(error).__name__ == "OutOfMemoryError":
        return "died", "out of the GPU's memory"
    if is_out_of_memory(error) and not isinstance(error, OutOfMemory):  # which says more
        return "died", "out of memory"
    try:
        pickle.loads(
            pickle.dumps(error)
        )  # a compiler's error holds frames, another's takes other arguments than its own
    except Exception:
        return "died", f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"
    return "error", error


def cause(exit_code: int | None) -> str:
    """How a process ended that did not do its work, in words; negative: by that signal."""
    if exit_code is not None and exit_code < 0:
        name = signal.Signals(-exit_code).name
        return f"killed by {name}" + (", for want of memory as a rule" if name == "SIGKILL" else "")
    return f"ended with status {exit_code} and no answer"
