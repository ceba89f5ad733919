"""What is shown of timings: a row a variant and batch; the processes are the unit of its statistics."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from vggbench import samples
from vggbench.measure.conditions import remarks
from vggbench.results import Record
from vggbench.results_names import float_layers_of
from vggbench.shares import arithmetic, matching, operations_per_second, share, speed

#: A share of more than this is no rounding.
ABOVE_PEAK = 1.02
#: Conditions shown as their median over the processes.
_MEDIANS = (
    "open_seconds",
    "first_call_seconds",
    "rss_opened_bytes",
    "rss_peak_bytes",
    "gpu_memory_used_bytes",
    "gpu_sm_clock_mhz",
    "gpu_temperature_celsius",
    "gpu_mean_power_watts",
    "gpu_joules_per_image",
)


def rows_of(records: Sequence[Record]) -> list[dict[str, Any]]:
    """Flat rows in the order of the records; the ratio is to the FP32 row of the same workload and run.

    images_per_second and median_seconds: medians over processes, with a bootstrap interval over three or more;
    percentiles over all calls; coefficient_of_variation: within a process, the median of them.
    """
    peaks = [record for record in records if record.kind == "peak"]
    groups: dict[tuple[Any, ...], list[Record]] = {}
    for record in records:
        if record.kind == "latency":
            groups.setdefault(_identity(record), []).append(record)
    rows = [_row(group, peaks) for group in groups.values()]
    for row in rows:
        base = _base(row, rows)
        row["ratio_to_fp32"] = None if base is None else row["images_per_second"] / base["images_per_second"]
    return rows


def _row(records: list[Record], peaks: Sequence[Record]) -> dict[str, Any]:
    first = records[0]
    (run,) = first.networks
    batch = first.workload.batch or 1
    each = [samples.summarize(_seconds(record), batch) for record in records]
    pooled = samples.summarize([value for record in records for value in _seconds(record)], batch)
    speeds = [speed(record) for record in records]
    shares = [found for record in records if (found := share(record, peaks)) is not None]
    fits = matching(first, peaks)
    return {
        "network": run.network,
        "weights": run.weights["name"],
        "backend": run.backend,
        "precision": run.precision,
        "float_layers": float_layers_of(run),
        "arithmetic": run.session.get("arithmetic", run.precision),
        "native": arithmetic(run) == run.precision,
        "device": run.session.get("device"),
        "threads": run.session.get("threads"),
        "form": run.session.get("form"),
        "scenario": first.workload.scenario or "latency",
        "batch": batch,
        "size": first.workload.size,
        "processes": len(records),
        "calls": pooled.calls,
        "images_per_second": samples.median(speeds),
        "images_per_second_interval": samples.bootstrap_median(speeds),
        "images_per_second_by_process": speeds,
        "median_seconds": samples.median([summary.median_seconds for summary in each]),
        "percentile_seconds": pooled.percentile_seconds,
        "coefficient_of_variation": samples.median([summary.coefficient_of_variation for summary in each]),
        "largest_coefficient_of_variation": max(summary.coefficient_of_variation for summary in each),
        "relative_standard_error": max(samples.relative_standard_error(_seconds(record)) for record in records),
        "stable": all(summary.is_stable for summary in each),
        "share_of_peak": samples.median(shares) if shares else None,
        "peak_operations_per_second": max(map(operations_per_second, fits)) if fits else None,
        "peak_library": fits[0].peak.library if fits and fits[0].peak else None,
        "calibration_images": run.calibration.get("images"),
        "mode": mode_of(first),
        **{name: found for name in _MEDIANS if (found := _median_condition(records, name)) is not None},
        "remarks": _remarks(records),
    }


def doubts(row: dict[str, Any], processes: int) -> list[str]:
    """Why a row is to be read with care, and what arithmetic ran, a sentence each."""
    found = []
    if not row["native"]:
        found.append(f"what ran is {row['arithmetic']}")
    if row["float_layers"]:
        found.append(f"{row['float_layers']} stayed in floating point")
    if not row["stable"]:
        percent = 100 * row["largest_coefficient_of_variation"]
        found.append(
            f"unstable, calls of a process vary by {percent:.1f} % (stable: up to {100 * samples.UNSTABLE_CV:g} %)"
        )
    if row["relative_standard_error"] > samples.SMALL_ERROR:
        error = row["relative_standard_error"]
        known = f"known to {100 * error:.1f} % only" if math.isfinite(error) else "of too few calls to say how well"
        found.append(f"the median is {known} (aim: {100 * samples.SMALL_ERROR:g} %)")
    if row["processes"] < processes:
        found.append(f"{row['processes']} of {processes} processes")
    if row["processes"] < samples.INTERVAL_PROCESSES:
        found.append(f"no interval, which takes {samples.INTERVAL_PROCESSES} processes or more")
    if (row["share_of_peak"] or 0.0) > ABOVE_PEAK:
        found.append("faster than its peak, so something held the peak back: measure again on a quiet machine")
    if row["calibration_images"]:
        found.append(f"INT8 ranges of {row['calibration_images']} images, which decide accuracy, hardly speed")
    return [*found, *row["remarks"]]


def _remarks(records: Sequence[Record]) -> list[str]:
    """Of the conditions; the same remark of several processes once, with its largest extent first seen."""
    found: dict[str, str] = {}
    for record in records:
        for text in remarks(record.conditions, record.networks[0].session.get("threads")):
            found.setdefault(text.split()[0], f"{text} (process {record.process})")
    return list(found.values())


def _identity(record: Record) -> tuple[Any, ...]:
    (run,) = record.networks
    work = record.workload
    return (
        run.network,
        run.weights.get("digest"),
        run.precision,
        run.backend,
        run.session.get("device"),
        run.session.get("threads"),
        run.calibration.get("digest"),
        float_layers_of(run),
        work.batch,
        tuple(work.size or ()),
        work.scenario,
        mode_of(record),
        run.session.get("runner"),
    )


def mode_of(record: Record) -> str:
    """What lay within a call's time, in words."""
    session, clock = record.networks[0].session, str(record.conditions.get("clock", ""))
    if "wait" not in session:
        return f"{clock}; transfers: {session.get('transfers', 'host to host')}"
    graph = session.get("cuda_graph", "off")
    waits = f"{session['wait']}, {session['in_flight']} in flight"
    return f"{clock}; transfers: {session['transfers']}; CUDA graph: {graph}; {waits}"


def _base(row: dict[str, Any], rows: Sequence[dict[str, Any]]) -> dict[str, Any] | None:
    """The FP32 row of the same work; of several the one of the same backend."""
    same = ("network", "weights", "device", "threads", "batch", "size", "scenario")
    fits = [each for each in rows if each["precision"] == "fp32" and all(each[key] == row[key] for key in same)]
    return next((each for each in fits if each["backend"] == row["backend"]), fits[0] if fits else None)


def _median_condition(records: Sequence[Record], name: str) -> float | None:
    found = [float(record.conditions[name]) for record in records if record.conditions.get(name) is not None]
    return samples.median(found) if found else None


def _seconds(record: Record) -> list[float]:
    return [float(value) for value in record.samples.values]
