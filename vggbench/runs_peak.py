"""The machine's own peak: the fastest matrix product of each precision, each in a fresh process."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timezone
from typing import Any

from vggbench import environment
from vggbench.errors import BackendUnavailable, UsageError
from vggbench.progress import Report, silent
from vggbench.results import Record
from vggbench.runs_fresh import WorkerDied, in_fresh_process

#: Measured so long unless said otherwise.
SECONDS = 3.0
PRECISIONS = ("fp32", "bf16", "int8")


def peak(
    precisions: Sequence[str] = PRECISIONS,
    threads: int | None = None,
    seconds: float = SECONDS,
    device: str = "auto",
    progress: Report = silent,
) -> tuple[list[Record], list[str]]:
    """A record a precision, and in words what could not be measured. Raises UsageError, BackendUnavailable."""
    from vggbench.backends import DEVICES, default_threads, without_gpu
    from vggbench.measure.peak import PRECISIONS as KNOWN

    for precision in precisions:
        if precision not in KNOWN:
            raise UsageError(f"No peak of {precision!r}. Known: {', '.join(KNOWN)}.")
    if device not in DEVICES:
        raise UsageError(f"No device {device!r}. Known: {', '.join(DEVICES)}.")
    if device == "cuda" and not environment.has_cuda():
        raise BackendUnavailable(without_gpu(", ".join(precisions)))
    here, count = environment.environment(), threads or default_threads()
    records: list[Record] = []
    missed: list[str] = []
    for number, precision in enumerate(precisions):
        progress("Measuring peaks", number, len(precisions), precision)
        try:
            records += in_fresh_process(time_peak, precision, count, seconds, device, here, 1)
        except WorkerDied as death:
            missed.append(f"the process of {precision} died: {death}")
        except BackendUnavailable as error:
            missed.append(str(error).rstrip("."))
    progress("Measuring peaks", len(precisions), len(precisions), "")
    if not records:
        raise BackendUnavailable(f"No peak was measured: {'; '.join(missed)}.")
    return records, missed


def time_peak(
    precision: str,
    threads: int,
    seconds: float,
    device: str,
    here: dict[str, Any],
    process: int,
    before: Sequence[Record] = (),
) -> list[Record]:
    """In the fresh process: the best product searched, or the one of an earlier record taken again, and timed."""
    from vggbench.backends import resolve_device
    from vggbench.measure import conditions
    from vggbench.measure.peak import Found, best_product, peak_record, time_product
    from vggbench.measure.products import CLOCK

    started = datetime.now(timezone.utc).isoformat(timespec="seconds")
    place = resolve_device(device, has_cuda())
    first = before[0].peak if before else None
    if first is None:
        found = best_product(precision, threads, place)
    else:
        found = Found(precision, before[0].conditions["product"], (first.m, first.k, first.n), {})
    look = conditions.look(place)
    samples = time_product(found, threads, seconds, place)
    around = {"product": found.library, **conditions.between(look, conditions.look(place), 0)}
    if place != "cpu":
        around["clock"] = CLOCK
    return [
        peak_record(
            found,
            samples,
            threads,
            place,
            environment=here,
            conditions=around,
            started=started,
            process=process,
        )
    ]


def time_copy(
    threads: int, seconds: float, device: str, here: dict[str, Any], process: int, size: int | None = None
) -> list[Record]:
    """In the fresh process: the bandwidth of a copy within the device's memory. size: bytes, None for the device's."""
    from vggbench.backends import resolve_device
    from vggbench.measure.bandwidth import copy_record, time_copies

    place = resolve_device(device, has_cuda())
    samples, library, copied = time_copies(place, threads, seconds, size)
    return [copy_record(samples, library, copied, threads, place, environment=here, process=process)]


def has_cuda() -> bool:
    """Whether torch can use a CUDA device; the driver is asked first, for it answers without importing torch."""
    if not environment.has_cuda():
        return False
    import torch

    return torch.cuda.is_available()
