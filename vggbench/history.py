"""Records of many runs -> rows on a time line, each with its changes and what else changed there."""

from __future__ import annotations

import json
import math
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from vggbench import history_changes
from vggbench.results import Record
from vggbench.results_names import precision_names
from vggbench.statistics import mcnemar

Key = tuple[tuple[str, str], ...]

#: Facts of a run that come first where two runs differ; the command says least.
_FIRST, _LAST = ("commit", "vggbench"), ("command",)


@dataclass(frozen=True)
class Run:
    """Records that were measured together. started: ISO 8601; label: commit, else version, else file."""

    name: str
    started: str
    label: str
    environment: dict[str, Any]
    records: tuple[Record, ...]


@dataclass(frozen=True)
class Point:
    """A row's value in one run. values: of each process, seconds, or the one error rate as a fraction."""

    run: Run
    values: tuple[float, ...]
    facts: dict[str, Any]
    ranks: tuple[int, ...] = ()

    @property
    def value(self) -> float:
        return statistics.median(self.values)


@dataclass(frozen=True)
class Change:
    """index: the first point of the new level. before, after: medians of the levels on both sides.

    p: of the test that found it. facts: (name, before, after) of all that differs between the two neighbouring runs.
    """

    index: int
    before: float
    after: float
    p: float
    facts: tuple[tuple[str, Any, Any], ...]

    @property
    def percent(self) -> float:
        """Of the level before; infinite from a level of zero."""
        return 100 * (self.after / self.before - 1) if self.before else math.inf


@dataclass(frozen=True)
class Series:
    """One row over time. unit: "seconds" or "error". drift_percent: a run, where a line says it better than steps.

    why: what kept the row from being judged, "" where it was.
    """

    key: Key
    unit: str
    points: tuple[Point, ...]
    changes: tuple[Change, ...] = ()
    drift_percent: float | None = None
    why: str = ""

    @property
    def name(self) -> str:
        shown = [(name, value) for name, value in self.key if value and name not in _HIDDEN]
        return ", ".join(f"{name} {value}" if name in _NAMED else value for name, value in shown)


@dataclass(frozen=True)
class History:
    """runs in order of time. ignored: kind -> how many records of it have no time line."""

    runs: tuple[Run, ...]
    series: tuple[Series, ...]
    significance: float
    ignored: dict[str, int] = field(default_factory=dict)


#: Parts of a key whose value alone says too little.
_NAMED = {"batch", "threads", "seed", "S", "width"}
#: Parts that keep rows apart but say nothing to people.
_HIDDEN = {"fingerprint", "choices", "skipped"}
#: How a GPU's calls were timed, as its session says.
_MODE = ("runner", "transfers", "cuda_graph", "wait", "in_flight")


def runs_of(sources: Iterable[tuple[str, Sequence[Record]]]) -> list[Run]:
    """(name of a file, its records) -> runs in order of time, each record once.

    A file is a run; one that holds records of several environments (a commit, a version, a machine) is one run for
    each of them.
    """
    seen, runs = set[str](), []
    for name, records in sources:
        groups: dict[str, list[Record]] = {}
        for record in records:
            content = record.model_dump_json()
            if content not in seen:
                seen.add(content)
                groups.setdefault(json.dumps(identity(record), sort_keys=True, default=str), []).append(record)
        runs += [_run(name, group) for group in groups.values()]
    return sorted(runs, key=lambda run: (run.started, run.name))


def history(runs: Sequence[Run], significance: float = history_changes.SIGNIFICANCE) -> History:
    """All rows with their changes. Timings by E-Divisive over the runs' medians, as logarithms; errors by McNemar's
    exact test of each run against the first of its level, on the same images.
    """
    rows: dict[tuple[str, Key], list[Point]] = {}
    ignored: dict[str, int] = {}
    for run in runs:
        parts: dict[tuple[str, Key], list[Record]] = {}
        for record in run.records:
            unit = {"latency": "seconds", "accuracy": "error"}.get(record.kind)
            if unit is None or not record.samples.values:
                ignored[record.kind] = ignored.get(record.kind, 0) + 1
                continue
            parts.setdefault((unit, timing_key(record) if unit == "seconds" else error_key(record)), []).append(record)
        for row, records in parts.items():
            rows.setdefault(row, []).append(_point(run, row[0], records))
    series = [_judged(key, unit, points, significance) for (unit, key), points in rows.items()]
    return History(
        tuple(runs), tuple(sorted(series, key=lambda s: (not s.changes, s.unit, s.key))), significance, ignored
    )


def _judged(key: Key, unit: str, points: Sequence[Point], significance: float) -> Series:
    few = history_changes.FEWEST_RUNS if unit == "seconds" else 2
    if len(points) < few:
        return Series(key, unit, tuple(points), why=f"{len(points)} of the {few} runs that a verdict needs")
    if unit == "error":
        steps, drift = _error_steps(points, significance), None
    else:
        logarithms = [math.log(max(point.value, 1e-12)) for point in points]
        steps = history_changes.change_points(logarithms, significance)
        drift = None
        if history_changes.drifts(logarithms, steps):
            drift = 100 * math.expm1(history_changes.slope(logarithms))
    return Series(key, unit, tuple(points), tuple(_changes(points, steps)), drift)


def _changes(points: Sequence[Point], steps: Sequence[history_changes.Step]) -> Iterable[Change]:
    bounds = [0, *(step.index for step in steps), len(points)]
    for number, step in enumerate(steps, start=1):
        before, after = (
            statistics.median(point.value for point in points[low:high])
            for low, high in ((bounds[number - 1], step.index), (step.index, bounds[number + 1]))
        )
        yield Change(
            step.index, before, after, step.p, differing(points[step.index - 1].facts, points[step.index].facts)
        )


def _error_steps(points: Sequence[Point], significance: float) -> list[history_changes.Step]:
    """Runs whose answers differ from those of their level's first run; Bonferroni's bound over the comparisons."""
    steps, first = list[history_changes.Step](), 0
    for index in range(1, len(points)):
        pairs = list(zip(points[first].ranks, points[index].ranks, strict=True))
        only_first = sum(1 for a, b in pairs if a >= 1 and b < 1)
        p = min(1.0, mcnemar(only_first, sum(1 for a, b in pairs if b >= 1 and a < 1)) * (len(points) - 1))
        if p <= significance:
            steps.append(history_changes.Step(index, p))
            first = index
    return steps


def differing(before: Mapping[str, Any], after: Mapping[str, Any]) -> tuple[tuple[str, Any, Any], ...]:
    """(name, before, after) of every fact that is not the same, the commit first, the command last."""
    names = [name for name in dict.fromkeys([*before, *after]) if before.get(name) != after.get(name)]
    order = {name: -2 + i for i, name in enumerate(_FIRST)} | dict.fromkeys(_LAST, 1)
    return tuple((name, before.get(name), after.get(name)) for name in sorted(names, key=lambda n: order.get(n, 0)))


def _point(run: Run, unit: str, records: Sequence[Record]) -> Point:
    first = records[0]
    facts = {**first.environment, **network_facts(first)}
    if unit == "seconds":
        return Point(run, tuple(statistics.median(record.samples.values) for record in records), facts)
    ranks = tuple(int(rank) for rank in first.samples.values)
    facts["decoder"] = first.workload.data.get("decoder")
    return Point(run, (sum(1 for rank in ranks if rank >= 1) / len(ranks),), facts, ranks)


def network_facts(record: Record) -> dict[str, Any]:
    """What is known of the networks beyond the key: digests, and what the session says of itself."""
    found: dict[str, Any] = {}
    for number, run in enumerate(record.networks):
        prefix = f"{number}." if len(record.networks) > 1 else ""
        found[f"{prefix}weights digest"] = run.weights.get("digest")
        found[f"{prefix}calibration"] = run.calibration.get("digest")
        # Numbers with a fraction are measurements of the session, not what it is.
        found |= {f"{prefix}session {k}": v for k, v in run.session.items() if isinstance(v, str | int | bool)}
    return found


def timing_key(record: Record) -> Key:
    work, first = record.workload, record.networks[0]
    return (
        *_what_ran(record),
        ("form", "dense" if first.session.get("form") == "dense" else ""),
        ("batch", str(work.batch or "")),
        ("size", "x".join(map(str, work.size)) if work.size else ""),
        ("scenario", work.scenario or ""),
        ("threads", str(first.session.get("threads", ""))),
        ("mode", ", ".join(f"{key} {first.session[key]}" for key in _MODE if _on_gpu(record) and key in first.session)),
        ("machine", _machine(record)),
    )


def error_key(record: Record) -> Key:
    data = record.workload.data
    place = " ".join(str(data[name]) for name in ("name", "split") if data.get(name))
    return (
        ("claim", record.claim or record.workload.protocol or ""),
        *_what_ran(record),
        ("seed", "" if record.seed is None else str(record.seed)),
        ("data", f"{place}, {len(record.samples.values)} images"),
        # Of the images' content: runs are paired image by image.
        ("fingerprint", str(data.get("fingerprint", ""))[:8]),
        ("skipped", ", ".join(str(bad.get("id")) for bad in data.get("bad", []))),
        ("choices", ", ".join(f"{k} {v}" for k, v in sorted(record.workload.choices.items()))),
    )


def _what_ran(record: Record) -> Key:
    runs = record.networks
    scales = [str(run.weights.get("train_scale") or "") for run in runs]
    widths = {float(run.weights.get("width") or 1) for run in runs}
    return (
        ("network", " + ".join(run.network for run in runs)),
        ("S", " + ".join(scales) if any(scales) else ""),
        ("width", "" if widths == {1.0} else " + ".join(f"{width:g}" for width in sorted(widths))),
        ("weights", " + ".join(dict.fromkeys(str(run.weights.get("name", "")) for run in runs))),
        ("precision", precision_names(record)),
        ("backend", " + ".join(dict.fromkeys(run.backend for run in runs))),
    )


def _on_gpu(record: Record) -> bool:
    return str(record.networks[0].session.get("device", "cpu")).startswith("cuda")


def _machine(record: Record) -> str:
    here = record.environment
    if _on_gpu(record):
        return str(here.get("gpu") or "GPU not recorded")
    return f"{here.get('cpu') or 'CPU not recorded'}, {here.get('cores', '?')} cores"


def identity(record: Record) -> dict[str, Any]:
    """What a run's records have in common; clocks vary within one, and so may commands."""
    volatile = ("command",)
    return {k: v for k, v in record.environment.items() if k not in volatile and not k.endswith("_mhz")}


def _run(name: str, records: Sequence[Record]) -> Run:
    environment = records[0].environment
    started = min((record.started for record in records if record.started), default="")
    label = str(environment.get("commit") or environment.get("vggbench") or name)
    return Run(name, started, label, environment, tuple(records))
