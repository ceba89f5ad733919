"""Two processes that time on one machine at once, a slice each in turn, so that its moods meet both alike.

Who conducts them (vggbench.runs_turns) names a socket in the environment. A process has the turn from its start on, so
it opens and warms up alone; it gives way between slices and waits until it has the turn again. The waits lie between
timed calls, never inside one.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Callable

from vggbench.measure.conditions import Look, look

#: The environment variable that names the side's socket.
TURNS = "VGGBENCH_TURNS"
#: A slice lasts so long, and CALLS counted calls at least. A shared host's speed was seen to change by 10 % within
#: seconds: fresh processes lay 0.8 % apart in turn that lay 3 % apart when each ran to its end (reports/, gates.md).
SLICE_SECONDS, CALLS = 0.1, 2


class Turns:
    """One side's end. waits: looks at the machine before and after each wait since the last ``fresh``."""

    def __init__(self, channel: socket.socket) -> None:
        self._channel: socket.socket | None = channel
        self.waits: list[tuple[Look, Look]] = []

    def fresh(self) -> None:
        """A new timing begins: its waits are counted anew."""
        self.waits = []

    @property
    def waited_seconds(self) -> float:
        return sum(after.wall_seconds - before.wall_seconds for before, after in self.waits)

    def give_way(self) -> None:
        """Returns when it is this side's turn again; at once, from then on, where nobody conducts any more."""
        if self._channel is None:
            return
        before = look()
        try:
            self._channel.sendall(b"?")
            alone = not self._channel.recv(1)
        except OSError:
            alone = True
        if alone:
            self.close()
        self.waits.append((before, look()))

    def close(self) -> None:
        if self._channel is not None:
            self._channel.close()
            self._channel = None


def joined() -> Turns | None:
    """This process' end, or None where nobody takes it in turn with another."""
    path = os.environ.get(TURNS)
    if not path:
        return None
    channel = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        channel.connect(path)
    except OSError:  # left over from a conductor that has ended
        channel.close()
        return None
    return Turns(channel)


class Slices:
    """Takes calls as ``take`` does, in slices. firsts: seconds of each slice's first call, which is not counted: it
    finds the caches as the other side left them."""

    def __init__(self, take: Callable[[int], list[float]], turns: Turns) -> None:
        self._take, self._turns = take, turns
        self._left = 0  # calls of this slice that are still to come
        self.firsts: list[float] = []

    def __call__(self, calls: int) -> list[float]:
        taken: list[float] = []
        while len(taken) < calls:
            if self._left == 0:
                self._turns.give_way()
                (first,) = self._take(1)
                self.firsts.append(first)
                self._left = max(CALLS, round(SLICE_SECONDS / max(first, 1e-9)))
            more = min(calls - len(taken), self._left)
            taken += self._take(more)
            self._left -= more
        return taken
