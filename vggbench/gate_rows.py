"""A pair of measurements -> rows with a change, its interval, and a verdict."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from vggbench.gate_pairs import Pair
from vggbench.gate_statistics import (
    MOST_PROCESSES,
    Interval,
    changed_answers,
    mean_change,
    processes_to_decide,
    ratio_in_rounds,
    ratio_of_medians,
)
from vggbench.results import Record
from vggbench.samples import median
from vggbench.statistics import wilson

BETTER, SAME, REGRESSED = "better", "same", "regressed"
INCONCLUSIVE, NOT_COMPARABLE = "inconclusive", "not comparable"
VERDICTS = (REGRESSED, NOT_COMPARABLE, INCONCLUSIVE, BETTER, SAME)


@dataclass(frozen=True)
class Limits:
    """What still counts as the same.

    tolerance: of a time, a fraction. accuracy_points: growth of an error, percentage points. drift: growth of the
    relative L2 distance of the logits from the reference's, a fraction. processes: fresh ones a side, at the least.
    """

    tolerance: float = 0.05
    accuracy_points: float = 0.1
    drift: float = 0.01
    processes: int = 7
    confidence: float = 0.95


@dataclass(frozen=True)
class Row:
    """One number of BASE beside HEAD's.

    metric: "time" (seconds a call, an image where batches differ; change is the ratio less 1), "top-1 error" and
    "top-5 error" (percent; points), "logit drift" (relative L2; their difference). Positive is worse for all.
    low, high: the change's interval, at ``confidence``. counts: processes or images of BASE and HEAD. p: exact
    McNemar. new: only in HEAD, which fails no gate. detail: the values behind it, for JSON and the page.
    """

    name: str
    metric: str
    verdict: str
    reason: str
    base: float | None = None
    head: float | None = None
    change: float | None = None
    low: float | None = None
    high: float | None = None
    tolerance: float | None = None
    confidence: float | None = None
    p: float | None = None
    counts: tuple[int, int] = (0, 0)
    across: tuple[str, ...] = ()
    new: bool = False
    detail: dict[str, Any] = field(default_factory=dict)


METRICS = {"latency": ("time",), "accuracy": ("top-1 error", "top-5 error"), "numerics": ("logit drift",)}


def rows(pairs: Sequence[Pair], limits: Limits) -> list[Row]:
    """All rows. With m comparable rows of a kind each interval has confidence 1 - 0.05 / m, so all hold at once."""
    checked = [(pair, pair.why_not or _why_not(pair)) for pair in pairs]
    found: list[Row] = []
    for pair, why_not in checked:
        if why_not:
            counts = (_count(pair.base), _count(pair.head))
            found.append(
                Row(pair.name, METRICS[pair.kind][0], NOT_COMPARABLE, why_not, counts=counts, new=not pair.base)
            )
            continue
        m = sum(len(METRICS[other.kind]) for other, reason in checked if not reason and other.kind == pair.kind)
        found += _JUDGES[pair.kind](pair, limits, 1 - (1 - limits.confidence) / m)
    return found


def _count(records: Sequence[Record]) -> int:
    if records and records[0].kind == "latency":
        return len(_by_process(records))
    return sum(len(record.samples.values) for record in records)


def _why_not(pair: Pair) -> str:
    """What only the values tell: several results under one name, images that do not pair."""
    sides = (("BASE", pair.base), ("HEAD", pair.head))
    if pair.kind == "latency":
        unclocked = [side for side, records in sides if any(not median(_seconds(record)) for record in records)]
        return f"the clock of {' and '.join(unclocked)} saw no time pass in most calls" if unclocked else ""
    for side, records in sides:
        if len({tuple(record.samples.values) for record in records}) > 1:
            return f"{side} holds {len(records)} different results for this row; keep one"
    base, head = pair.base[0], pair.head[0]
    skipped = [[bad.get("id") for bad in record.workload.data.get("bad", [])] for record in (base, head)]
    if skipped[0] != skipped[1]:
        return f"BASE skipped {len(skipped[0])} bad images and HEAD {len(skipped[1])} others: images do not pair"
    lengths = {len(base.samples.values), len(head.samples.values)}
    if len(lengths) == 1:
        return ""
    if skipped[0]:
        return "BASE and HEAD ran on another number of images, some skipped: images do not pair"
    return "" if pair.kind == "accuracy" else "BASE and HEAD ran on another number of images"


def _latency(pair: Pair, limits: Limits, confidence: float) -> list[Row]:
    per_image = len({record.workload.batch for record in (*pair.base, *pair.head)}) > 1
    base, head, rounds = _process_medians(pair, per_image)
    counts = (len(base), len(head))
    found = (ratio_in_rounds if rounds else ratio_of_medians)(base, head, confidence)
    verdict, reason = _judge_time(found, limits, counts)
    change = (found.value if found else median(head) / median(base)) - 1
    return [
        Row(
            pair.name,
            "time per image" if per_image else "time",
            verdict,
            reason,
            median(base),
            median(head),
            change,
            found.low - 1 if found else None,
            found.high - 1 if found else None,
            limits.tolerance,
            confidence,
            counts=counts,
            across=pair.across,
            detail={
                "base_process_seconds": base,
                "head_process_seconds": head,
                "interleaved": rounds,
                "calls": [sum(len(record.samples.values) for record in side) for side in (pair.base, pair.head)],
            },
        )
    ]


def _process_medians(pair: Pair, per_image: bool) -> tuple[list[float], list[float], bool]:
    """One median a process; in the order of the rounds where both sides were taken in the same ones."""
    sides = [_by_process(side) for side in (pair.base, pair.head)]
    places = [{records[0].conditions.get("ab_round"): records for records in side} for side in sides]
    shared = [place for place in places[0] if place is not None and place in places[1]]
    rounds = all(len(place) == len(side) for place, side in zip(places, sides, strict=True)) and None not in places[0]
    if rounds and len(shared) == len(sides[0]) == len(sides[1]):
        sides = [[place[number] for number in sorted(shared)] for place in places]
    else:
        rounds = False
    base, head = ([_median(records, per_image) for records in side] for side in sides)
    return base, head, rounds


def _by_process(records: Sequence[Record]) -> list[list[Record]]:
    """A process leaves one record of a row; where it left several, they say by "interpreter" that it was the same."""
    found: dict[object, list[Record]] = {}
    for place, record in enumerate(records):
        found.setdefault(record.conditions.get("interpreter", place), []).append(record)
    return list(found.values())


def _median(records: Sequence[Record], per_image: bool) -> float:
    batch = (records[0].workload.batch or 1) if per_image else 1
    return median([value for record in records for value in _seconds(record)]) / batch


def _seconds(record: Record) -> list[float]:
    return [float(value) for value in record.samples.values]


def _judge_time(found: Interval | None, limits: Limits, counts: tuple[int, int]) -> tuple[str, str]:
    upper, lower = 1 + limits.tolerance, 1 / (1 + limits.tolerance)
    few = [
        f"{limits.processes - count} more of {side}"
        for side, count in zip(("BASE", "HEAD"), counts, strict=True)
        if count < limits.processes
    ]
    if few or found is None:
        return (
            INCONCLUSIVE,
            f"{counts[0]} and {counts[1]} processes; needs {limits.processes} a side: {' and '.join(few)}",
        )
    return _verdict(found, lower, upper, lambda: _more(found, upper, min(counts)), lambda x: f"{100 * (x - 1):+.1f} %")


def _more(found: Interval, limit: float, processes: int) -> str:
    needed = processes_to_decide(found, limit, processes)
    if needed > MOST_PROCESSES:
        return f"more than {MOST_PROCESSES} processes a side would be needed: a quieter machine or another --tolerance"
    return f"about {max(needed, processes + 1)} processes a side would decide, with this noise"


def _verdict(
    found: Interval, lower: float, upper: float, how: Callable[[], str], shown: Callable[[float], str]
) -> tuple[str, str]:
    """Regressed only where the whole interval is beyond the tolerance; inconclusive where it straddles it."""
    if found.low > upper:
        return REGRESSED, f"at least {shown(found.low)}, tolerance {shown(upper)}"
    if found.high > upper:
        return INCONCLUSIVE, f"{shown(found.low)} to {shown(found.high)} straddles {shown(upper)}; {how()}"
    if found.high < lower:
        return BETTER, f"at least {shown(found.high)}"
    inside = "within" if found.low >= lower else "no worse than"
    return SAME, f"{inside} the tolerance of {shown(upper)}"


def _accuracy(pair: Pair, limits: Limits, confidence: float) -> list[Row]:
    base, head = pair.base[0].samples.values, pair.head[0].samples.values
    images = min(len(base), len(head))
    answers = sum(one != other for one, other in zip(base[:images], head[:images], strict=True))
    found = []
    for metric, top in zip(METRICS["accuracy"], (1, 5), strict=True):
        wrong = [[rank >= top for rank in side[:images]] for side in (base, head)]
        lost = sum(after and not before for before, after in zip(*wrong, strict=True))
        gained = sum(before and not after for before, after in zip(*wrong, strict=True))
        interval, p = changed_answers(lost, gained, images, confidence)
        points = Interval(100 * interval.value, 100 * interval.low, 100 * interval.high)
        limit = limits.accuracy_points
        verdict, reason = _verdict(
            points, -limit, limit, lambda: "more images would decide", lambda x: f"{x:+.2f} points"
        )
        unpaired = [[100 * bound for bound in wilson(sum(side), images)] for side in wrong]
        found.append(
            Row(
                pair.name,
                metric,
                verdict,
                f"{reason}; {lost} lost, {gained} gained" if lost or gained else "no answer changed",
                100 * sum(wrong[0]) / images,
                100 * sum(wrong[1]) / images,
                points.value,
                points.low,
                points.high,
                limit,
                confidence,
                p,
                (len(base), len(head)),
                pair.across,
                detail={"images": images, "lost": lost, "gained": gained, "ranks_changed": answers,
                        "base_interval_percent": unpaired[0], "head_interval_percent": unpaired[1]},
            )
        )  # fmt: skip
    return found


def _drift(pair: Pair, limits: Limits, confidence: float) -> list[Row]:
    base, head = ([float(value) for value in side[0].samples.values] for side in (pair.base, pair.head))
    found = mean_change(base, head, confidence)
    verdict, reason = _verdict(
        found,
        -limits.drift,
        limits.drift,
        lambda: "more images would decide",
        lambda x: f"{100 * x:+.2f} % of the logits' norm",
    )
    means = [sum(side) / len(side) for side in (base, head)]
    return [
        Row(
            pair.name,
            "logit drift",
            verdict,
            reason,
            means[0],
            means[1],
            found.value,
            found.low,
            found.high,
            limits.drift,
            confidence,
            counts=(len(base), len(head)),
            across=pair.across,
        )
    ]


_JUDGES: dict[str, Callable[[Pair, Limits, float], list[Row]]] = {
    "latency": _latency,
    "accuracy": _accuracy,
    "numerics": _drift,
}
