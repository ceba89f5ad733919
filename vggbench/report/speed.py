"""Images a second by precision, the ratio to the main one, and the share of the machine's own peak."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

from vggbench import shares
from vggbench.report.precision import place_of
from vggbench.report.rows import anchor_of
from vggbench.results import Record
from vggbench.results_names import precision_name
from vggbench.samples import UNSTABLE_CV, coefficient_of_variation


@dataclass(frozen=True)
class Speed:
    """Of one network, batch and precision; medians over processes, median_seconds of a call.

    ratio: to the main precision, None without it. share: of the machine's peak at the arithmetic that
    ran, a fraction; None where no peak was measured. variation: coefficient of variation of a process' calls.
    """

    images_per_second: float
    median_seconds: float
    ratio: float | None
    share: float | None
    backend: str
    processes: int
    variation: float
    anchor: str

    @property
    def unstable(self) -> bool:
        return self.variation > UNSTABLE_CV


@dataclass(frozen=True)
class SpeedRow:
    name: str
    batch: int
    size: tuple[int, ...]
    speeds: dict[str, Speed]


@dataclass(frozen=True)
class PeakRow:
    """The fastest matrix product found for a precision."""

    precision: str
    giga_operations_per_second: float
    library: str
    threads: int
    product: str
    anchor: str


def speed_rows(records: Sequence[Record], main: str) -> tuple[list[str], list[SpeedRow]]:
    """Precisions, and a row a network and batch, from this run's latency and peak records.

    Of several backends at one precision the fastest is shown.
    """
    timings = [each for each in records if each.kind == "latency" and each.samples.values and len(each.networks) == 1]
    peaks = [each for each in records if each.kind == "peak"]
    groups: dict[tuple[Any, ...], dict[str, list[list[Record]]]] = {}
    for record in timings:
        run, work = record.networks[0], record.workload
        key = (run.network, run.weights.get("width"), work.batch or 1, tuple(work.size or ()))
        same = groups.setdefault(key, {}).setdefault(precision_name(run), [])
        mine = next((found for found in same if found[0].networks[0].backend == run.backend), None)
        if mine is None:
            same.append([record])
        else:
            mine.append(record)
    rows = [_row(key, group, peaks, main) for key, group in groups.items()]
    present = {name for row in rows for name in row.speeds}
    return sorted(present, key=lambda name: (name != main, place_of(name))), rows


def peak_rows(records: Sequence[Record]) -> list[PeakRow]:
    """One row a peak record, the fastest of each precision and number of threads."""
    best: dict[tuple[str, int], Record] = {}
    for record in records:
        if record.peak is not None and record.peak.precision != shares.COPY and record.samples.values:
            key = (record.peak.precision, record.peak.threads)
            if key not in best or shares.operations_per_second(record) > shares.operations_per_second(best[key]):
                best[key] = record
    return [_peak_row(record) for record in best.values()]


def _row(key: tuple[Any, ...], group: dict[str, list[list[Record]]], peaks: Sequence[Record], main: str) -> SpeedRow:
    network, _, batch, size = key
    fastest = {name: max(found, key=_speed) for name, found in group.items()}
    base = _speed(fastest[main]) if main in fastest else None
    speeds = {}
    for name, found in fastest.items():
        parts = [part for record in found if (part := shares.share(record, peaks)) is not None]
        speed = _speed(found)
        speeds[name] = Speed(
            images_per_second=speed,
            median_seconds=median(median(map(float, record.samples.values)) for record in found),
            ratio=speed / base if base and name != main else None,
            share=median(parts) if parts else None,
            backend=found[0].networks[0].backend,
            processes=len(found),
            variation=median(coefficient_of_variation(list(map(float, record.samples.values))) for record in found),
            anchor=anchor_of(found[0]),
        )
    return SpeedRow(network, batch, size, speeds)


def _speed(records: Sequence[Record]) -> float:
    return median(shares.speed(record) for record in records)


def _peak_row(record: Record) -> PeakRow:
    assert record.peak is not None
    peak = record.peak
    product = f"{peak.m} x {peak.k} by {peak.k} x {peak.n}" + (
        f", {peak.instances} at once" if peak.instances > 1 else ""
    )
    giga = shares.operations_per_second(record) / 1e9
    return PeakRow(peak.precision, giga, peak.library, peak.threads, product, anchor_of(record))
