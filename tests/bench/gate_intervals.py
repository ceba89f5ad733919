"""Lower bounds of log ratios by methods that the gate does not take; gate_power.py --methods sets its own beside them.

All are the lower ends of intervals of 95 %. base, head: medians of processes.
"""

from __future__ import annotations

import math

import numpy as np
from scipy import stats


def other_intervals(base: np.ndarray, head: np.ndarray) -> dict[str, float]:
    """Lower 97.5 % bounds of log ratios by methods that were not taken for processes apart."""
    a, b = np.log(base), np.log(head)
    differences = np.sort((b[:, None] - a[None, :]).ravel())
    n = len(a)
    # The place of the bound among the differences, counted from 1: at most so many may lie on the wrong side, less one.
    place = int(stats.norm.ppf(0.025) * math.sqrt(n * n * (2 * n + 1) / 12) + n * n / 2)
    welch = stats.ttest_ind(b, a, equal_var=False).confidence_interval(0.95)
    resampled = stats.bootstrap(
        (a, b), lambda x, y, axis: np.median(y, axis=axis) - np.median(x, axis=axis), method="BCa",
        n_resamples=1999, vectorized=True, random_state=0,
    )  # fmt: skip
    return {
        "Welch's t of means": welch.low,
        "Hodges and Lehmann": float(differences[max(place - 1, 0)]),
        "BCa bootstrap of medians": float(resampled.confidence_interval.low),
    }


def other_intervals_in_rounds(base: np.ndarray, head: np.ndarray) -> dict[str, float]:
    """The same of rounds: intervals of the mean, the median and the pseudo-median of the rounds' log ratios."""
    moved = np.log(head) - np.log(base)
    count = len(moved)
    first, second = np.triu_indices(count)
    walsh = np.sort((moved[first] + moved[second]) / 2)
    signed_ranks = np.array([1.0])
    for rank in range(1, count + 1):  # how often each sum of signed ranks comes, over all 2^count signs
        signed_ranks = np.concatenate([signed_ranks, np.zeros(rank)]) + np.concatenate([np.zeros(rank), signed_ranks])
    place = int(np.searchsorted(np.cumsum(signed_ranks) / 2**count, 0.025, side="right"))
    drawn = np.median(moved[np.random.default_rng(0).integers(0, count, (1999, count))], axis=1)
    return {
        "Student's t of the mean": stats.ttest_1samp(moved, 0.0).confidence_interval(0.95).low,
        "Wilcoxon's signed ranks": float(walsh[max(place - 1, 0)]),
        "percentile bootstrap of the median": float(np.quantile(drawn, 0.025)),
    }
