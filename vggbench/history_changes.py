"""Where a series of numbers changes: E-Divisive, and whether a steady drift says it better."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]

#: Probability of a false alarm in a series without a change, and the random orders that its test draws.
SIGNIFICANCE, PERMUTATIONS = 0.01, 499
#: A level needs two runs at least: one run alone is an outlier until the next confirms it.
MIN_RUNS = 2
#: With fewer, random order alone reaches the significance too often: 10 runs have 252 splits in half, 11 have 462.
FEWEST_RUNS = 11
_CHUNK_NUMBERS = 2_000_000


@dataclass(frozen=True)
class Step:
    """index: the first value of the new level. p: of the permutation test that found it."""

    index: int
    p: float


def change_points(
    values: Sequence[float], significance: float = SIGNIFICANCE, permutations: int = PERMUTATIONS, seed: int = 0
) -> list[Step]:
    """Changes of distribution in a series, in its order, by E-Divisive.

    Matteson and James, "A nonparametric approach for multiple change point analysis of multivariate data", JASA 109
    (2014) 334-345: split where the energy distance between the two sides is largest; test it by permuting the values
    inside the levels found so far; go on inside the parts until a test is not significant. Chosen over PELT (Killick
    et al. 2012), whose penalty needs the noise's size or a guess at it: a permutation test holds the rate of false
    alarms whatever the distribution, as long as runs are exchangeable. Performance histories are judged with it at
    MongoDB (Daly et al., ICPE 2020) and in Hunter, now Apache Otava (Fleming et al., ICPE 2023).
    The same values give the same answer: the orders are drawn with ``seed``.
    """
    series = np.asarray(values, np.float64)
    generator = np.random.default_rng(seed)
    bounds, found = [0, len(series)], list[Step]()
    while True:
        parts = [series[low:high] for low, high in itertools.pairwise(bounds)]
        splits = [_best_split(part[None]) for part in parts]
        strongest = max(range(len(parts)), key=lambda i: float(splits[i][1][0]))
        at, observed = int(splits[strongest][0][0]), float(splits[strongest][1][0])
        if observed <= 0:
            break
        p = _permutation_p(parts, observed, significance, permutations, generator)
        if p > significance:
            break
        found.append(Step(bounds[strongest] + at, p))
        bounds = sorted([*bounds, found[-1].index])
    return sorted(found, key=lambda step: step.index)


def drifts(values: Sequence[float], steps: Sequence[Step]) -> bool:
    """Whether one straight line describes the series better than its steps do, by Schwarz's criterion (BIC)."""
    series = np.asarray(values, np.float64)
    if not steps:
        return False
    bounds = [0, *(step.index for step in steps), len(series)]
    levels = np.concatenate([np.full(high - low, series[low:high].mean()) for low, high in itertools.pairwise(bounds)])
    place = np.arange(len(series), dtype=np.float64)
    line = np.polyval(np.polyfit(place, series, 1), place)
    return _bic(series - line, 2) < _bic(series - levels, 2 * len(steps) + 1)


def slope(values: Sequence[float]) -> float:
    """Least squares, a step of the series."""
    return float(np.polyfit(np.arange(len(values)), np.asarray(values, np.float64), 1)[0])


def _bic(rest: Array, parameters: int) -> float:
    count = len(rest)
    return count * float(np.log(max(float((rest**2).mean()), 1e-300))) + parameters * float(np.log(count))


def _permutation_p(
    parts: Sequence[Array], observed: float, significance: float, permutations: int, generator: np.random.Generator
) -> float:
    """p of the largest split over all parts. Stops as soon as it cannot be significant any more."""
    at_least, drawn = 0, 0
    chunk = max(1, _CHUNK_NUMBERS // max(len(part) ** 2 for part in parts))
    while drawn < permutations and (at_least + 1) / (permutations + 1) <= significance:
        count = min(chunk, 50, permutations - drawn)
        strengths = [_best_split(generator.permuted(np.tile(part, (count, 1)), axis=1))[1] for part in parts]
        # Sums in another order differ in their last bits: what equals the observed one counts as reaching it.
        at_least += int((np.max(strengths, axis=0) >= observed * (1 - 1e-9)).sum())
        drawn += count
    return (at_least + 1) / (drawn + 1)


def _best_split(series: Array) -> tuple[npt.NDArray[np.int64], Array]:
    """Per row of (rows, n): first index of the right side, and the scaled energy distance of the sides there.

    Q = ab / (a + b) * (2 mean|x - y| - mean|x - x'| - mean|y - y'|) for the a values before the split and the b values
    from it to some end (equations 5 to 8 of the paper, exponent 1). The end is free, so that a second change does not
    hide the first. Rows too short for a split have distance 0.
    """
    rows, n = series.shape
    if n < 2 * MIN_RUNS:
        return np.zeros(rows, np.int64), np.zeros(rows)
    sums = np.abs(series[:, :, None] - series[:, None, :]).cumsum(axis=1).cumsum(axis=2)
    split, end = np.array(
        [(t, k) for t in range(MIN_RUNS, n - MIN_RUNS + 1) for k in range(t + MIN_RUNS, n + 1)], np.int64
    ).T
    a, b = split.astype(np.float64), (end - split).astype(np.float64)
    left, both = sums[:, split - 1, split - 1], sums[:, split - 1, end - 1]
    right = sums[:, end - 1, end - 1] - 2 * both + left
    within = left / (a * (a - 1)) + right / (b * (b - 1))
    strength = a * b / (a + b) * (2 * (both - left) / (a * b) - within)
    best = strength.argmax(axis=1)
    return split[best], strength[np.arange(rows), best]
