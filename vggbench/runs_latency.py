"""Latency: fresh processes, each opening the network anew, because calls of one process resemble each other."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from datetime import datetime, timezone
from multiprocessing import get_context
from typing import Any

from vgg_reference.weights import Weights
from vggbench import environment, runs_inputs
from vggbench.errors import BackendUnavailable
from vggbench.progress import Report, silent
from vggbench.results import Record
from vggbench.runs_inputs import Setting
from vggbench.samples import summarize


def latency(
    *,
    setting: Setting,
    network: str = "D",
    weights: str = "random:0",
    batch: int = 1,
    processes: int = 3,
    min_seconds: float = 3.0,
    progress: Report = silent,
) -> list[Record]:
    """One record a process: seconds a call on center crops, raw. Raises any VggbenchError."""
    found = runs_inputs.weights_of(weights, network, None, None)
    here = environment.environment()
    records = []
    for number in range(processes):
        progress("Timing in fresh processes", number, processes, "")
        with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
            try:
                records.append(pool.submit(_time_once, found, setting, batch, min_seconds, here).result())
            except BrokenProcessPool:
                raise BackendUnavailable(
                    f"The process that timed {network} on {setting.backend} died, for want of memory as a rule. "
                    "Try a smaller --batch."
                ) from None
        progress("Timing in fresh processes", number + 1, processes, "")
    return records


def _time_once(weights: Weights, setting: Setting, batch: int, min_seconds: float, here: dict[str, Any]) -> Record:
    """In the fresh process."""
    from vggbench.backends import open_session
    from vggbench.measure.latency import measure_latency
    from vggbench.measure.records import latency_record
    from vggbench.variants import Variant

    started = datetime.now(timezone.utc).isoformat(timespec="seconds")
    variant = Variant(weights, "crop", setting.backend, setting.precision)
    session = open_session(variant, setting.device, setting.threads)
    size = (weights.crop_size, weights.crop_size)
    try:
        samples = measure_latency(session, batch, size, min_seconds)
        return latency_record(session, variant, samples, batch, size, environment=here, started=started)
    finally:
        session.close()


def summary_of(records: Sequence[Record]) -> dict[str, Any]:
    """Over processes: medians of each one's throughput and median call; tails and stability over all calls."""
    first = records[0]
    batch = first.workload.batch or 1
    each = [summarize([float(value) for value in record.samples.values], batch) for record in records]
    pooled = summarize([float(value) for record in records for value in record.samples.values], batch)
    return {
        "network": first.networks[0].network,
        "weights": first.networks[0].weights["name"],
        "backend": first.networks[0].backend,
        "precision": first.networks[0].precision,
        "device": first.networks[0].session.get("device"),
        "batch": batch,
        "size": first.workload.size,
        "processes": len(records),
        "images_per_second": statistics.median(summary.images_per_second for summary in each),
        "images_per_second_by_process": [summary.images_per_second for summary in each],
        "median_seconds": statistics.median(summary.median_seconds for summary in each),
        "percentile_seconds": pooled.percentile_seconds,
        "coefficient_of_variation": pooled.coefficient_of_variation,
        "stable": all(summary.is_stable for summary in each),
        "calls": pooled.calls,
    }
