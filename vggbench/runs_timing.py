"""What one fresh process does: open a session, time every batch on it, and say what went on meanwhile."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass, field, replace
from datetime import datetime, timezone
from typing import Any

from vggbench.backends import Session, made_for_a_batch, open_for, open_session
from vggbench.errors import memory_errors
from vggbench.measure import conditions
from vggbench.measure.latency import MIN_ITERATIONS, MIN_SECONDS, WARMUP_SECONDS, Moded, clock_of, measure_latency
from vggbench.measure.records import latency_record
from vggbench.measure.turns import Turns, joined
from vggbench.modes import Mode
from vggbench.results import Record
from vggbench.samples import relative_standard_error
from vggbench.variants import Variant


@dataclass(frozen=True)
class Task:
    """A variant and how it is timed. size: (h, w) in pixels; process: its number, from 1.

    mode: None leaves it to the session; one without a choice (on a CPU) is timed from host memory to host memory.
    """

    variant: Variant
    batches: tuple[int, ...]
    size: tuple[int, int]
    device: str = "auto"
    threads: int | None = None
    scenario: str = "latency"
    min_seconds: float = MIN_SECONDS
    max_seconds: float | None = None
    min_iterations: int = MIN_ITERATIONS
    process: int = 1
    environment: dict[str, Any] = field(default_factory=dict)
    mode: Mode | None = None


def time_variant(task: Task) -> list[Record]:
    """A record a batch, on a session of its own, or on one each where engines are made for a batch.

    Raises WeightsError, BackendUnavailable.
    """
    if made_for_a_batch(task.variant.backend):
        return [record for batch in task.batches for record in _time_engine(task, batch)]
    before = time.perf_counter()
    with memory_errors(_of(task, task.batches)):
        session = open_session(task.variant, task.device, task.threads)
    try:
        return time_session(session, task, time.perf_counter() - before)
    finally:
        session.close()


def _time_engine(task: Task, batch: int) -> list[Record]:
    before = time.perf_counter()
    with memory_errors(_of(task, (batch,))):
        session = open_for(task.variant, task.device, task.threads, batch, task.size)
    try:
        return time_session(session, replace(task, batches=(batch,)), time.perf_counter() - before)
    finally:
        session.close()


def time_session(session: Session, task: Task, open_seconds: float) -> list[Record]:
    """A record a batch, on an open session; the first call of the first batch is the session's first."""
    if task.mode is not None and isinstance(session, Moded):
        session.use(task.mode)
    around = {
        "clock": clock_of(session),
        "open_seconds": open_seconds,
        "rss_opened_bytes": conditions.memory()["rss_bytes"],
    }
    turns = joined()
    try:
        return [_time_batch(session, task, batch, around, turns) for batch in task.batches]
    finally:
        if turns is not None:
            turns.close()


def _of(task: Task, batches: tuple[int, ...]) -> str:
    """What is timed, for an error."""
    batch, variant = ", ".join(map(str, batches)), task.variant
    return f"{variant.precision} on {variant.backend}, batch {batch} of {task.size[0]} x {task.size[1]} pixels"


def _time_batch(session: Session, task: Task, batch: int, around: dict[str, Any], turns: Turns | None) -> Record:
    started = datetime.now(timezone.utc).isoformat(timespec="seconds")
    if turns is not None:
        turns.fresh()
    before = conditions.look(session.device)
    with memory_errors(_of(task, (batch,))):
        samples = measure_latency(
            session,
            batch,
            task.size,
            task.min_seconds,
            task.min_iterations,
            WARMUP_SECONDS,
            task.max_seconds,
            task.scenario,
            turns,
        )
    after = conditions.look(session.device)
    error = relative_standard_error([float(value) for value in samples.values])
    images = batch * (len(samples.values) + len(samples.warmups))
    return latency_record(
        session,
        task.variant,
        samples,
        batch,
        task.size,
        environment=task.environment,
        started=started,
        scenario=task.scenario,
        process=task.process,
        conditions={
            **around,
            "first_call_seconds": samples.warmups[0],
            **conditions.between(before, after, images, turns.waits if turns is not None else ()),
            "relative_standard_error": error if math.isfinite(error) else None,
        },
    )
