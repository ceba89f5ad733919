"""Work in a fresh process that Ctrl-C does not reach and whose death is told, not shared."""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from multiprocessing import get_context, resource_tracker
from multiprocessing.connection import Connection
from typing import Any, TypeVar

from vggbench.errors import BackendUnavailable

R = TypeVar("R")
#: Set where networks are refused; fresh processes inherit it.
NO_NETWORK = "VGGBENCH_NO_NETWORK"


class WorkerDied(Exception):
    """The process ended without an answer; the message says how, in words."""


def in_fresh_process(work: Callable[..., R], *arguments: Any) -> R:
    """``work(*arguments)``, a function of a module, in a new interpreter; what it raises is raised here.

    Raises WorkerDied if the process is killed or runs out of memory. On Ctrl-C the process is ended.
    """
    resource_tracker.ensure_running()  # the first process would start it, and that unblocks the signal (before 3.12)
    context = get_context("spawn")
    receiver, sender = context.Pipe(duplex=False)
    # The process inherits the blocked signal: a terminal sends Ctrl-C to all, and only this process is to decide.
    with sigint_blocked():
        process = context.Process(target=_answer, args=(sender, work, arguments), daemon=True)
        process.start()
        sender.close()
    try:
        kind, answer = receiver.recv()
    except (EOFError, OSError):
        process.join()
        raise WorkerDied(cause(process.exitcode)) from None
    finally:
        with sigint_blocked():  # a second Ctrl-C waits until nothing is left running
            if process.is_alive():
                process.join(0.2)
                process.kill()
            process.join()
            receiver.close()
    if kind == "error":
        raise answer
    if kind == "memory":
        raise WorkerDied("out of memory")
    found: R = answer
    return found


@contextmanager
def sigint_blocked() -> Iterator[None]:
    """Ctrl-C waits until the end of the block; a process started inside never gets it."""
    if (
        threading.current_thread() is not threading.main_thread()
    ):  # where no handler may be set, and Ctrl-C never raises
        yield
        return
    heard: list[int] = []
    # A mask alone holds back nothing: the kernel gives the signal to any other thread, and Python raises it here.
    handler = signal.signal(signal.SIGINT, lambda number, frame: heard.append(number))
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT])
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        signal.signal(signal.SIGINT, handler)
        if heard and callable(handler):
            handler(signal.SIGINT, None)


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
    except MemoryError:
        answer = ("memory", None)
    except Exception as error:
        answer = ("error", error)
    sender.send(answer)
    sender.close()


def cause(exit_code: int | None) -> str:
    """How a process ended that did not do its work, in words; negative: by that signal."""
    if exit_code is not None and exit_code < 0:
        name = signal.Signals(-exit_code).name
        return f"killed by {name}" + (", for want of memory as a rule" if name == "SIGKILL" else "")
    return f"ended with status {exit_code} and no answer"
