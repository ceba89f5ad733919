"""How fast the networks of `reproduce` are at each precision, and the machine's own peaks beside them.

One fresh process a network and precision: enough for a column of a page, not for a gate (see `vggbench latency`). What
was measured on this machine with these versions is kept and not measured again.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from vgg_reference.weights import Weights
from vggbench import backends, cache, environment, plan
from vggbench.errors import BackendUnavailable
from vggbench.progress import Report
from vggbench.results import Record, read_records, write_records
from vggbench.runs_fresh import WorkerDied, in_fresh_process
from vggbench.runs_inputs import Setting
from vggbench.runs_peak import time_peak
from vggbench.runs_precision import Quantizations
from vggbench.runs_timing import Task, time_variant
from vggbench.variants import Variant, digest_of

#: Images a call; fewer where one image is a lot of work already.
BATCH, LARGE_BATCH, LARGE_MACS = 32, 8, 1e9
#: Least time a variant is measured for, and a peak's product; a short look, repeated nowhere.
SECONDS, PEAK_SECONDS = 0.5, 1.0
#: To be raised when kept timings would be taken in another way today.
VERSION = 1

#: A setting with how each set of weights is made INT8 in it.
How = tuple[Setting, Quantizations]


def speeds(networks: Sequence[plan.NetworkPlan], hows: Sequence[How], progress: Report) -> list[Record]:
    """A latency record for each network of Table 1 and precision, and a peak record a precision.

    What cannot be measured is left out: the page shows a dash. Raises StorageError.
    """
    here = environment.environment()
    chosen = _one_each([network.weights for network in networks])
    total = len(hows) * (len(chosen) + 1)
    done = 0
    records: list[Record] = []

    def take(name: str, key: dict[str, Any], measure: Callable[[], list[Record]]) -> None:
        nonlocal done
        progress("Timing networks and peaks", done, total, name)
        records.extend(_kept(key, here, measure))
        done += 1

    for setting, quantizations in hows:
        threads = setting.threads or backends.default_threads()
        precision, device = setting.precision, setting.device
        take(
            f"{precision} peak",
            {"peak": precision, "device": device, "threads": threads},
            partial(in_fresh_process, time_peak, precision, threads, PEAK_SECONDS, device, here, 1),
        )
        for weights in chosen:
            if precision == "int8" and weights.digest not in quantizations:
                continue  # none of its rows ran at this precision
            variant = Variant(
                weights, "crop", setting.backend, precision, quantization=quantizations.get(weights.digest)
            )
            batch = LARGE_BATCH if plan.crop_macs(weights) > LARGE_MACS else BATCH
            size = (weights.crop_size, weights.crop_size)
            task = Task(variant, (batch,), size, device, threads, "throughput", SECONDS, environment=here)
            key = {"variant": variant.digest, "batch": batch, "device": device, "threads": threads}
            take(f"{weights.network} {precision}", key, partial(in_fresh_process, time_variant, task))
    progress("Timing networks and peaks", total, total, "")
    return records


def _one_each(found: Sequence[Weights]) -> list[Weights]:
    """One set of weights a network: speed does not depend on how it was trained."""
    chosen: dict[str, Weights] = {}
    for weights in found:
        chosen.setdefault(weights.network, weights)
    return list(chosen.values())


def _kept(key: dict[str, Any], here: dict[str, Any], measure: Callable[[], list[Record]]) -> list[Record]:
    """As measured before on this machine with these versions, or now. Nothing where the process died."""
    changing = ("command", "commit", "clock")
    there = {name: str(value) for name, value in here.items() if not any(word in name for word in changing)}
    path = _path(digest_of({**key, "environment": there, "version": VERSION, "seconds": SECONDS}))
    with cache.storage_errors(path):
        present = path.is_file()
    if present:
        cache.touch(path)
        return read_records(path)
    try:
        records = measure()
    except (WorkerDied, BackendUnavailable):
        return []
    write_records(path, records)
    return records


def _path(key: str) -> Path:
    return cache.root() / "timings" / f"{key}.jsonl"
