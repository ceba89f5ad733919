"""The intervals that a gate decides by: of medians over processes or rounds, of paired changes of answers."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats  # type: ignore[import-untyped]

from vggbench.statistics import mcnemar

#: Resamples of the bootstrap, and the seed that makes a verdict the same every time.
RESAMPLES, SEED = 9999, 0
#: Above this the answer to "how many processes?" is no advice any more.
MOST_PROCESSES = 200


@dataclass(frozen=True)
class Interval:
    """An estimate and the bounds that hold it with the asked confidence."""

    value: float
    low: float
    high: float


def ratio_of_medians(base: Sequence[float], head: Sequence[float], confidence: float) -> Interval | None:
    """The median of ``head`` over that of ``base``, one value a process, with a bootstrap interval over processes.

    Percentile bounds: over 7 processes they miss the true ratio in 2 to 3 % of cases on either side, under normal
    noise, outliers and two-state noise alike; BCa has no sound acceleration for a median, and Student's interval is
    wide where one process is disturbed (tests/bench/gate_power.py shows all of them).
    None for under two processes a side.
    """
    a, b = np.log(np.asarray(base, np.float64)), np.log(np.asarray(head, np.float64))
    if len(a) < 2 or len(b) < 2:
        return None
    random = np.random.default_rng(SEED)
    drawn_a = random.integers(0, len(a), (RESAMPLES, len(a)))
    drawn_b = random.integers(0, len(b), (RESAMPLES, len(b)))
    ratios = np.median(b[drawn_b], axis=1) - np.median(a[drawn_a], axis=1)
    low, high = np.quantile(ratios, [(1 - confidence) / 2, (1 + confidence) / 2])
    return Interval(math.exp(np.median(b) - np.median(a)), math.exp(low), math.exp(high))


def ratio_in_rounds(base: Sequence[float], head: Sequence[float], confidence: float) -> Interval | None:
    """The median over rounds of ``head[i] / base[i]``, two processes measured side by side, with its interval.

    A round's ratio is free of what the machine did to both. The interval lies between order statistics of the ratios,
    interpolated (Hettmansperger and Sheather 1986), so that it assumes nothing of their distribution and one disturbed
    round hardly moves it; the bootstrap's would hold the median of 7 in 87 of 100 cases, not 95. Where so few rounds
    cannot bear the confidence, Student's interval, and no less than all of them. None for under two.
    """
    moved = np.sort(np.log(np.asarray(head, np.float64)) - np.log(np.asarray(base, np.float64)))
    count = len(moved)
    if count < 2:
        return None
    middle = float(np.median(moved))
    # held[k - 1]: how surely the k-th ratio from either end bound the median.
    held = [1 - 2 * float(stats.binom.cdf(k - 1, count, 0.5)) for k in range(1, count // 2 + 1)]
    inner = sum(1 for each in held if each >= confidence)
    if inner == 0:
        half = float(stats.t.ppf((1 + confidence) / 2, count - 1)) * float(moved.std(ddof=1)) / math.sqrt(count)
        mean = float(moved.mean())
        low, high = min(moved[0], mean - half), max(moved[-1], mean + half)
    elif inner == len(held):
        low, high = moved[inner - 1], moved[count - inner]
    else:
        share = (held[inner - 1] - confidence) / (held[inner - 1] - held[inner])
        weight = (count - inner) * share / (inner + (count - 2 * inner) * share)
        low = (1 - weight) * moved[inner - 1] + weight * moved[inner]
        high = (1 - weight) * moved[count - inner] + weight * moved[count - inner - 1]
    return Interval(math.exp(middle), math.exp(low), math.exp(high))


def processes_to_decide(found: Interval, limit: float, processes: int) -> int:
    """Processes a side at which an interval about this ratio would leave the limit, were the noise the same."""
    half = (math.log(found.high) - math.log(found.low)) / 2
    away = abs(math.log(found.value) - math.log(limit))
    return MOST_PROCESSES + 1 if away <= 0 else min(MOST_PROCESSES + 1, math.ceil(processes * (half / away) ** 2))


def changed_answers(lost: int, gained: int, images: int, confidence: float) -> tuple[Interval, float]:
    """Growth of the error (fraction of ``images``) between two runs on the same images, and McNemar's exact p.

    lost, gained: images that only the first, only the second got right. The interval is Clopper and Pearson's for the
    share of lost ones, given how many changed: it leaves 0 exactly where the test rejects, and is 0 to 0 where no
    answer changed, because then nothing is left to chance.
    """
    changed = lost + gained
    if changed == 0:
        return Interval(0.0, 0.0, 0.0), 1.0
    share = stats.binomtest(lost, changed).proportion_ci(confidence, method="exact")
    low, high = ((2 * float(bound) - 1) * changed / images for bound in (share.low, share.high))
    return Interval((lost - gained) / images, low, high), mcnemar(lost, gained)


def mean_change(base: Sequence[float], head: Sequence[float], confidence: float) -> Interval:
    """The mean of head[i] - base[i] over images with Student's interval; both ends at the mean where all are equal."""
    moved = np.asarray(head, np.float64) - np.asarray(base, np.float64)
    mean = float(moved.mean())
    if len(moved) < 2:
        return Interval(mean, mean, mean)
    half = float(stats.t.ppf((1 + confidence) / 2, len(moved) - 1)) * float(moved.std(ddof=1)) / math.sqrt(len(moved))
    return Interval(mean, mean - half, mean + half)
