"""Seconds a call, raw and with the warm-ups, of a session that blocks until its scores are there."""

from __future__ import annotations

import time

import numpy as np

from vggbench.backends import Array, Session
from vggbench.results import Samples

#: trtexec's: 10 iterations and 3 s at least, after 0.2 s of warm-up.
MIN_ITERATIONS, MIN_SECONDS, WARMUP_SECONDS = 10, 3.0, 0.2


def random_input(batch: int, size: tuple[int, int], seed: int = 0) -> Array:
    """(batch, 3, h, w): normal with deviation 64, about that of photographs less their mean; the same for a seed."""
    return np.random.default_rng(seed).normal(0, 64, (batch, 3, *size)).astype(np.float32)


def measure_latency(
    session: Session,
    batch: int,
    size: tuple[int, int],
    min_seconds: float = MIN_SECONDS,
    min_iterations: int = MIN_ITERATIONS,
    warmup_seconds: float = WARMUP_SECONDS,
) -> Samples:
    """Wall-clock seconds of calls made one after the other, host memory to host memory.

    size: (h, w) of an image in pixels. At least one warm-up, at least ``min_iterations`` and ``min_seconds``.
    """
    images = random_input(batch, size)
    warmups = _calls(session, images, warmup_seconds, 1)
    return Samples(unit="seconds", values=_calls(session, images, min_seconds, min_iterations), warmups=warmups)


def _calls(session: Session, images: Array, seconds: float, iterations: int) -> list[float]:
    taken: list[float] = []
    started = time.perf_counter()
    while len(taken) < iterations or time.perf_counter() - started < seconds:
        before = time.perf_counter()
        session(images)
        taken.append(time.perf_counter() - before)
    return taken
