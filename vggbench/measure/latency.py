"""Seconds a call, raw and with the warm-ups; the clock is the session's own where it has one."""

from __future__ import annotations

import itertools
import sys
import time
from collections.abc import Callable
from typing import Protocol, runtime_checkable

import numpy as np

from vggbench.backends import Array, Session
from vggbench.measure.turns import Slices, Turns
from vggbench.modes import Mode
from vggbench.results import Samples
from vggbench.samples import SMALL_ERROR, relative_standard_error

#: trtexec's: 10 iterations and 3 s at least, after 0.2 s of warm-up.
MIN_ITERATIONS, MIN_SECONDS, WARMUP_SECONDS = 10, 3.0, 0.2
#: "latency": one call at a time. "throughput": batches back to back, so that the calls' seconds sum to the wall clock.
SCENARIOS = ("latency", "throughput")

#: Takes that many calls and returns the seconds of each.
Take = Callable[[int], list[float]]


@runtime_checkable
class Timed(Protocol):
    """What a session may offer beside vggbench.backends.Session: seconds by the device's own clock.

    time_calls runs ``calls`` calls and returns the seconds of each, from events on the session's stream: each waited
    for before the next, or with ``back_to_back`` enqueued without waiting, from one end to the next.
    """

    def time_calls(self, images: Array, calls: int, back_to_back: bool) -> list[float]: ...


@runtime_checkable
class Moded(Protocol):
    """What a session that times itself may offer too: a choice of what lies within a call's time, said in its info."""

    def use(self, mode: Mode) -> None: ...


def random_input(batch: int, size: tuple[int, int], seed: int = 0) -> Array:
    """(batch, 3, h, w): normal with deviation 64, about that of photographs less their mean; the same for a seed.

    Raises MemoryError, also where NumPy says ValueError because no address reaches so far.
    """
    if batch * 3 * size[0] * size[1] * np.dtype(np.float64).itemsize > sys.maxsize:
        raise MemoryError
    return np.random.default_rng(seed).normal(0, 64, (batch, 3, *size)).astype(np.float32)


def measure_latency(
    session: Session,
    batch: int,
    size: tuple[int, int],
    min_seconds: float = MIN_SECONDS,
    min_iterations: int = MIN_ITERATIONS,
    warmup_seconds: float = WARMUP_SECONDS,
    max_seconds: float | None = None,
    scenario: str = "latency",
    turns: Turns | None = None,
) -> Samples:
    """Seconds of calls on one input, host memory to host memory unless the session times itself.

    size: (h, w) of an image in pixels. At least one warm-up, at least ``min_iterations`` and ``min_seconds``; after
    that it stops as soon as the median's relative standard error is SMALL_ERROR or less at two looks in a row, a tenth
    more calls apart, for one look can be lucky; and in any case after ``max_seconds`` (None: twice min_seconds).
    turns: the calls are taken in slices, another process' between them. Its waits count for none of these seconds, and
    each slice's first call is kept as a warm-up.
    """
    take: Take = _taker(session, random_input(batch, size), scenario == "throughput")
    most = 2 * min_seconds if max_seconds is None else max(max_seconds, min_seconds)
    warmups = _until(take, lambda taken, seconds: seconds >= warmup_seconds)

    settled = 0

    def enough(taken: list[float], seconds: float) -> bool:
        nonlocal settled
        if len(taken) < min_iterations or seconds < min_seconds:
            return False
        settled = settled + 1 if relative_standard_error(taken) <= SMALL_ERROR else 0
        return seconds >= most or settled == 2

    if turns is None:
        return Samples(unit="seconds", values=_until(take, enough, min_iterations), warmups=warmups)
    slices = Slices(take, turns)
    values = _until(slices, enough, min_iterations, lambda: turns.waited_seconds)
    return Samples(unit="seconds", values=values, warmups=[*warmups, *slices.firsts])


def clock_of(session: Session) -> str:
    """Which clock the seconds come from, for records."""
    if isinstance(session, Timed):
        return str(session.info.get("clock", "the session's own, on the device"))
    return "perf_counter around a call that waits for the scores"


def _until(
    take: Take,
    enough: Callable[[list[float], float], bool],
    first: int = 1,
    waited: Callable[[], float] = lambda: 0.0,
) -> list[float]:
    """Calls until it is enough; asked after every tenth more of them, so that asking costs next to nothing a call."""
    started = time.perf_counter()
    taken = take(1)
    while not enough(taken, time.perf_counter() - started - waited()):
        more = max(1, len(taken) // 10)
        taken += take(min(more, first - len(taken)) if len(taken) < first else more)
    return taken


def _taker(session: Session, images: Array, back_to_back: bool) -> Take:
    if isinstance(session, Timed):
        timed = session
        return lambda calls: timed.time_calls(images, calls, back_to_back)
    return lambda calls: (_end_to_end if back_to_back else _one_at_a_time)(session, images, calls)


def _one_at_a_time(session: Session, images: Array, calls: int) -> list[float]:
    clock, taken = time.perf_counter, []
    for _ in range(calls):
        before = clock()
        session(images)
        taken.append(clock() - before)
    return taken


def _end_to_end(session: Session, images: Array, calls: int) -> list[float]:
    """One reading a call: what lies between two calls belongs to the later one."""
    clock = time.perf_counter
    ends = [clock()]
    for _ in range(calls):
        session(images)
        ends.append(clock())
    return [after - before for before, after in itertools.pairwise(ends)]
