"""The intervals that a gate decides by: of a ratio of medians over processes, of a paired change of answers."""

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


def ratio_of_medians(
    base: Sequence[float], head: Sequence[float], confidence: float, rounds: bool = False
) -> Interval | None:
    """The median of ``head`` over that of ``base``, one value a process, with a bootstrap interval over processes.

    Percentile bounds: over 7 processes they miss the true ratio in 2 to 3 % of cases on either side, under normal
    noise, outliers and two-state noise alike; BCa has no sound acceleration for a median, and Student's interval is
    wide where one process is disturbed (tests/bench/gate_power.py shows all of them).
    rounds: value i of both was taken side by side; they are drawn together, so that a drift of the machine cancels.
    None for under two processes a side.
    """
    a, b = np.log(np.asarray(base, np.float64)), np.log(np.asarray(head, np.float64))
    if len(a) < 2 or len(b) < 2:
        return None
    random = np.random.default_rng(SEED)
    drawn_a = random.integers(0, len(a), (RESAMPLES, len(a)))
    drawn_b = drawn_a if rounds and len(a) == len(b) else random.integers(0, len(b), (RESAMPLES, len(b)))
    ratios = np.median(b[drawn_b], axis=1) - np.median(a[drawn_a], axis=1)
    low, high = np.quantile(ratios, [(1 - confidence) / 2, (1 + confidence) / 2])
    return Interval(math.exp(np.median(b) - np.median(a)), math.exp(low), math.exp(high))


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
