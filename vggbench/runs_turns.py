"""Two commands at once on one machine, each going on only while the other waits.

A command has the turn from its start on and gives it up where vggbench.measure.turns asks to: between slices of timed
calls. One that never asks, of an older version or another program, runs to its end while the other waits.
"""

from __future__ import annotations

import contextlib
import os
import queue
import signal
import socket
import subprocess
import tempfile
import threading
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import FrameType

from vggbench.errors import StorageError, UsageError
from vggbench.interrupts import sigint_held
from vggbench.measure.turns import TURNS
from vggbench.runs_fresh import cause

#: A command that is asked to stop gets so long before it is killed; what it left behind gets so long to end.
STOP_SECONDS, LEFT_SECONDS = 10.0, 1.0
#: Lines of a command's error output that are kept.
KEPT_LINES = 20


def run_in_turn(
    commands: Mapping[str, Sequence[str]], variables: Mapping[str, str] | None = None
) -> Iterator[tuple[str, str]]:
    """Runs all to their ends; a side as soon as it ended, with "" or what went wrong, in words.

    variables: added to the environment of each.
    Closed, interrupted or told to end (SIGTERM, then KeyboardInterrupt too) it stops what still runs, and a second
    Ctrl-C changes nothing. Raises UsageError where a command cannot be started, StorageError where there is no room for
    a socket.
    """
    try:
        folder = tempfile.TemporaryDirectory(prefix="vggbench-")
    except OSError as error:
        raise StorageError(f"No temporary folder ({error.strerror}). Name one that can be written: TMPDIR.") from error
    sides: dict[str, _Side] = {}
    with folder as place, _sigterm_interrupts():
        try:
            for name, command in commands.items():
                with sigint_held():  # or one that was just started would be nobody's
                    sides[name] = _Side(command, Path(place) / name if len(commands) > 1 else None, variables or {})
                yield from _until_it_rests(name, sides[name])
            while any(side.why is None for side in sides.values()):
                for name, side in sides.items():
                    if side.why is None:
                        side.go_on()
                        yield from _until_it_rests(name, side)
        finally:
            with sigint_held():
                for side in sides.values():
                    side.close()


@contextlib.contextmanager
def _sigterm_interrupts() -> Iterator[None]:
    """The commands are of sessions of their own: were this process just ended, they would go on, both at once."""

    def interrupt(number: int, frame: FrameType | None) -> None:
        handler = signal.getsignal(signal.SIGINT)  # which may hold it back
        (handler if callable(handler) else signal.default_int_handler)(number, frame)

    if threading.current_thread() is not threading.main_thread():  # where no handler may be set
        yield
        return
    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _until_it_rests(name: str, side: _Side) -> Iterator[tuple[str, str]]:
    side.rest()
    if side.why is not None:
        yield name, side.why


class _Side:
    """A command that runs. why: None while it does, then "" or what went wrong."""

    def __init__(self, command: Sequence[str], place: Path | None, variables: Mapping[str, str]) -> None:
        self.why: str | None = None
        self._events: queue.SimpleQueue[socket.socket | str] = queue.SimpleQueue()
        self._asking: list[socket.socket] = []
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) if place is not None else None
        environment = {**{name: value for name, value in os.environ.items() if name != TURNS}, **variables}
        if self._listener is not None:
            try:
                self._listener.bind(str(place))
            except OSError as error:
                self._listener.close()
                raise StorageError(
                    f"{place}: no place for a socket ({error}). Name a shorter folder: TMPDIR."
                ) from error
            self._listener.listen()
            environment[TURNS] = str(place)
            threading.Thread(target=self._listen, args=(self._listener,), daemon=True).start()
        try:
            # Of its own session: the terminal's Ctrl-C reaches only us, and all its workers end with it.
            self._process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
                errors="replace", start_new_session=True, env=environment,
            )  # fmt: skip
        except OSError as error:
            self._stop_listening()
            raise UsageError(
                f"{command[0]} cannot be started ({error.strerror}). Name the command of an environment."
            ) from error
        threading.Thread(target=self._watch, daemon=True).start()

    def rest(self) -> None:
        """Waits until it gives way or ends."""
        event = self._events.get()
        if isinstance(event, str):
            self.why = event
        else:
            self._asking.append(event)

    def go_on(self) -> None:
        while self._asking:
            with contextlib.suppress(OSError):  # killed while it waited; its command goes on without it
                self._asking.pop().sendall(b"!")

    def close(self) -> None:
        """Stops it if it still runs, with all that it started."""
        if self.why is None:
            _stop(self._process)
        self._stop_listening()

    def _stop_listening(self) -> None:
        if self._listener is not None:
            with contextlib.suppress(OSError):  # wakes the thread that accepts
                self._listener.shutdown(socket.SHUT_RDWR)
            self._listener.close()

    def _listen(self, listener: socket.socket) -> None:
        while True:
            try:
                channel, _ = listener.accept()
            except OSError:
                return
            threading.Thread(target=self._hear, args=(channel,), daemon=True).start()

    def _hear(self, channel: socket.socket) -> None:
        with channel, contextlib.suppress(OSError):
            while channel.recv(1):
                self._events.put(channel)

    def _watch(self) -> None:
        complaints: deque[str] = deque(maxlen=KEPT_LINES)
        reading = threading.Thread(target=self._read, args=(complaints,), daemon=True)
        reading.start()
        status = self._process.wait()
        reading.join(LEFT_SECONDS)
        if reading.is_alive():  # a worker of one that was killed holds it open, and works on beside the other side
            _send(self._process, signal.SIGKILL)
            reading.join(LEFT_SECONDS)
        self._events.put(_words(status, list(complaints)))

    def _read(self, complaints: deque[str]) -> None:
        assert self._process.stderr is not None
        with self._process.stderr as lines:
            complaints.extend(lines)


def _words(status: int, complaints: Sequence[str]) -> str:
    if status == 0:
        return ""
    if status < 0:
        return cause(status)
    last = next((line.strip() for line in reversed(complaints) if line.strip()), "")
    return f"exit status {status}" + (f": {last[:300]}" if last else "")


def _stop(process: subprocess.Popen[str]) -> None:
    for how in (signal.SIGINT, signal.SIGKILL):
        _send(process, how)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(STOP_SECONDS)
            break
    _send(process, signal.SIGKILL)  # workers that outlived it


def _send(process: subprocess.Popen[str], how: signal.Signals) -> None:
    """To the process and all that it started."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, how)
