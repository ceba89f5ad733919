"""Timings to and from the JSON of pytest-benchmark (version 4 and 5), raw values included."""

from __future__ import annotations

import json
import math
import statistics
from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from vggbench.errors import RecordError, first_problem
from vggbench.history import identity, timing_key
from vggbench.results import NetworkRun, Record, Samples, Workload

#: Where an exported file keeps what pytest-benchmark has no place for; reading it back gives the same records.
_OURS = "vggbench"
#: Parts of a row's key that its machine_info says already.
_ELSEWHERE = {"machine"}


def export(records: Sequence[Record]) -> tuple[bytes, int]:
    """The JSON, and how many benchmarks it holds: one a row, with the calls of its processes one after the other.

    Raises RecordError where there is no timing, or timings of several environments, which one file cannot tell apart.
    """
    timings = [record for record in records if record.kind == "latency" and record.samples.values]
    if not timings:
        raise RecordError("No timings among these records. Export what vggbench latency wrote with --out.")
    if len({json.dumps(identity(record), sort_keys=True, default=str) for record in timings}) > 1:
        raise RecordError(
            "Timings of several commits, versions or machines cannot share one of pytest-benchmark's files. Export "
            "each run's records by themselves."
        )
    rows: dict[str, list[Record]] = {}
    for record in timings:
        parts = [f"{name} {value}" if name in ("batch", "threads") else value for name, value in _shown(record)]
        rows.setdefault(", ".join(parts), []).append(record)
    environment = timings[0].environment
    document = {
        "machine_info": _machine_info(environment),
        "commit_info": _commit_info(environment),
        "benchmarks": [_benchmark(name, row) for name, row in rows.items()],
        "datetime": min((record.started for record in timings if record.started), default=""),
        "version": "5.0.0",
    }
    return json.dumps(document, indent=1, ensure_ascii=False, default=str).encode(), len(rows)


def read(path: Path) -> list[Record]:
    """Records of a file that pytest-benchmark wrote with its raw data, or of one made by ``export``.

    Raises RecordError where it is no such file or holds summaries only.
    """
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
        benchmarks = document["benchmarks"]
        stats = [(str(each.get("fullname") or each["name"]), each["stats"], each) for each in benchmarks]
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise RecordError(
            f"{path}: not pytest-benchmark's JSON ({type(error).__name__}: {error}). Accepted is what its "
            "--benchmark-json or --benchmark-save writes."
        ) from error
    without = [name for name, each, _ in stats if not (isinstance(each, dict) and each.get("data"))]
    if without or not stats:
        what = f"{len(without)} of {len(stats)} benchmarks have no raw data, the first: {without[0]}" if without else ""
        raise RecordError(
            f"{path}: {what or 'no benchmark in it'}. Run pytest with --benchmark-save-data, or with --benchmark-json."
        )
    try:
        return [record for name, _, each in stats for record in _records(name, each, document)]
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise RecordError(
            f"{path}: a benchmark cannot be read ({first_problem(error)}). Accepted is what pytest-benchmark wrote."
        ) from error


def stats(seconds: Sequence[float]) -> dict[str, Any]:
    """pytest-benchmark's summary of its rounds, by its own definitions of quartiles and outliers."""
    data, mean = sorted(seconds), statistics.mean(seconds)
    deviation = statistics.stdev(data) if len(data) > 1 else 0
    q1, q3 = _quartiles(data)
    low, high = q1 - 1.5 * (q3 - q1), q3 + 1.5 * (q3 - q1)
    beyond = sum(1 for value in data if not mean - deviation <= value <= mean + deviation)
    far = sum(1 for value in data if not low <= value <= high)
    total = sum(seconds)
    return {
        "min": data[0],
        "max": data[-1],
        "mean": mean,
        "stddev": deviation,
        "rounds": len(data),
        "median": statistics.median(data),
        "iqr": q3 - q1,
        "q1": q1,
        "q3": q3,
        "iqr_outliers": far,
        "stddev_outliers": beyond,
        "outliers": f"{beyond};{far}",
        "ld15iqr": data[bisect_left(data, low)],
        "hd15iqr": data[bisect_right(data, high) - 1],
        "ops": len(data) / total if total else 0,
        "total": total,
        "data": list(seconds),
        "iterations": 1,
    }


def _quartiles(data: Sequence[float]) -> tuple[float, float]:
    """Of sorted values: medians of the halves for an even count, else weighted by the count's remainder by four."""
    count = len(data)
    if count == 1:
        return data[0], data[0]
    if count % 2 == 0:
        return statistics.median(data[: count // 2]), statistics.median(data[count // 2 :])
    n, near = count // 4, (0.25, 0.75)
    if count % 4 == 1:
        return near[0] * data[n - 1] + near[1] * data[n], near[1] * data[3 * n] + near[0] * data[3 * n + 1]
    return near[1] * data[n] + near[0] * data[n + 1], near[0] * data[3 * n + 1] + near[1] * data[3 * n + 2]


def _shown(record: Record) -> list[tuple[str, str]]:
    return [(name, value) for name, value in timing_key(record) if value and name not in _ELSEWHERE]


def _benchmark(name: str, records: Sequence[Record]) -> dict[str, Any]:
    seconds = [float(value) for record in records for value in record.samples.values]
    bare = [
        {
            **record.model_dump(mode="json", exclude={"samples"}),
            "warmups": record.samples.warmups,
            "calls": len(record.samples.values),
        }
        for record in records
    ]
    return {
        "group": None,
        "name": name,
        "fullname": f"vggbench::{name}",
        "params": dict(_shown(records[0])),
        "param": None,
        "extra_info": {"processes": len(records), _OURS: bare},
        "options": {"disable_gc": False, "timer": "perf_counter", "warmup": True},
        "stats": stats(seconds),
    }


def _machine_info(environment: dict[str, Any]) -> dict[str, Any]:
    """No node: a host's name is not recorded."""
    system, _, release = str(environment.get("kernel", "")).partition(" ")
    return {
        "node": "",
        "processor": str(environment.get("machine", "")),
        "machine": str(environment.get("machine", "")),
        "python_implementation": "CPython",
        "python_version": str(environment.get("python", "")),
        "release": release,
        "system": system,
        "cpu": {"brand_raw": environment.get("cpu"), "count": environment.get("logical_cpus")},
        "gpu": environment.get("gpu"),
    }


def _commit_info(environment: dict[str, Any]) -> dict[str, Any]:
    commit = str(environment.get("commit") or "unversioned")
    clean = commit.removesuffix("-dirty")
    return {
        "id": clean,
        "time": None,
        "author_time": None,
        "dirty": clean != commit,
        "project": "vggbench",
        "branch": "(unknown)",
    }


def _records(name: str, benchmark: dict[str, Any], document: dict[str, Any]) -> list[Record]:
    values = [float(value) for value in benchmark["stats"]["data"]]
    if not all(math.isfinite(value) and value >= 0 for value in values):
        raise ValueError(f"{name} has times that are no seconds")
    extra = benchmark.get("extra_info") or {}
    if isinstance(extra.get(_OURS), list):
        return _restored(extra[_OURS], values)
    run = NetworkRun(
        network=name,
        weights={"name": ""},
        passes=[],
        backend="pytest-benchmark",
        precision="",
        session={"device": "cpu", "timer": str((benchmark.get("options") or {}).get("timer", ""))},
    )
    conditions = {key: value for key, value in extra.items() if isinstance(value, str | int | float)}
    return [
        Record(
            kind="latency",
            networks=[run],
            workload=Workload(),
            samples=Samples(unit="seconds", values=values),
            environment=_environment(document),
            started=str(document.get("datetime") or ""),
            elapsed_seconds=sum(values),
            conditions={**conditions, "iterations": benchmark["stats"].get("iterations")},
        )
    ]


def _restored(bare: Sequence[dict[str, Any]], values: Sequence[float]) -> list[Record]:
    """The records that were exported. Raises ValueError where the calls were changed since."""
    if sum(each["calls"] for each in bare) != len(values):
        raise ValueError("the raw data does not fit the records that it was exported from")
    records, start = [], 0
    for each in bare:
        fields = dict(each)
        end = start + fields.pop("calls")
        samples = {"unit": "seconds", "values": list(values[start:end]), "warmups": fields.pop("warmups")}
        records.append(Record.model_validate({**fields, "samples": samples}))
        start = end
    return records


def _environment(document: dict[str, Any]) -> dict[str, Any]:
    """Flat, as vggbench.environment has it; the host's name is left out."""
    machine, commit = document.get("machine_info") or {}, document.get("commit_info") or {}
    cpu = machine.get("cpu") or {}
    found = commit.get("id")
    return {
        "commit": None
        if found in (None, "unversioned", "unknown")
        else f"{found}{'-dirty' if commit.get('dirty') else ''}",
        "branch": commit.get("branch"),
        "pytest-benchmark": document.get("version"),
        "python": machine.get("python_version"),
        "kernel": f"{machine.get('system', '')} {machine.get('release', '')}".strip(),
        "machine": machine.get("machine"),
        "cpu": cpu.get("brand_raw") or cpu.get("brand") or machine.get("processor"),
        "cores": cpu.get("count"),
    }
