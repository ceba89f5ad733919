"""Intervals and tests, as thin calls to scipy.stats; errors and effects are fractions, not percent."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import stats  # type: ignore[import-untyped]

Array = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Effect:
    """A mean difference, its confidence interval, and the two-sided p-value against the null it was tested on."""

    mean: float
    low: float
    high: float
    p: float
    degrees_of_freedom: float


def wilson(errors: int, n: int, confidence: float = 0.95) -> tuple[float, float]:
    """Wilson's interval (low, high) of an error rate. Raises ValueError unless 0 <= errors <= n and n > 0."""
    interval = stats.binomtest(errors, n).proportion_ci(confidence, method="wilson")
    return float(interval.low), float(interval.high)


def mcnemar(only_a_wrong: int, only_b_wrong: int) -> float:
    """Exact two-sided McNemar test on the images that only one of two systems gets wrong; 1 where there are none."""
    discordant = only_a_wrong + only_b_wrong
    return float(stats.binomtest(only_a_wrong, discordant).pvalue) if discordant else 1.0


def holm(ps: Sequence[float]) -> list[float]:
    """p-values adjusted for their number by Holm's step-down method, in the order given."""
    adjusted = [1.0] * len(ps)
    running = 0.0
    for rank, index in enumerate(sorted(range(len(ps)), key=lambda i: ps[i])):
        running = max(running, min(1.0, (len(ps) - rank) * ps[index]))
        adjusted[index] = running
    return adjusted


def paired_effect(differences: npt.ArrayLike, null: float = 0.0, confidence: float = 0.95) -> Effect:
    """The mean of per-image differences (images,) with Student's interval over images.

    p: exact McNemar where every difference is -1, 0 or 1 and the null is 0, else the t test. It is a statement about
    these weights on images like these, not about another training of them. Raises ValueError under two images.
    """
    values = np.asarray(differences, dtype=np.float64)
    if values.ndim != 1 or len(values) < 2:
        raise ValueError(f"Differences of shape {values.shape}: accepted is (images,) with two images or more.")
    mean, variance = float(values.mean()), float(values.var(ddof=1)) / len(values)
    effect = _effect(mean, variance, len(values) - 1, len(values), null, confidence)
    if null == 0.0 and np.isin(values, (-1.0, 0.0, 1.0)).all():
        p = mcnemar(int((values > 0).sum()), int((values < 0).sum()))
        return Effect(effect.mean, effect.low, effect.high, p, effect.degrees_of_freedom)
    return effect


def crossed_effect(differences: npt.ArrayLike, null: float = 0.0, confidence: float = 0.95) -> Effect:
    """The effect of a recipe, judged over training seeds and images at once.

    differences: (seeds, images), error of one side minus error of the other. Both factors are random and crossed,
    one observation a cell: Var(mean) = (MS_seeds + MS_images - MS_error) / (seeds * images), with Satterthwaite's
    degrees of freedom (Cornfield and Tukey 1956; the quasi-F of Clark 1973). A negative variance component counts as
    zero, which widens the interval. A bootstrap over a handful of seeds is far too narrow, so it is not used.
    With one seed it is paired_effect: a statement about these weights only. Raises ValueError under two images.
    """
    values = np.asarray(differences, dtype=np.float64)
    if values.ndim != 2 or values.shape[0] < 1 or values.shape[1] < 2:
        raise ValueError(f"Differences of shape {values.shape}: accepted is (seeds, images) with two images or more.")
    seeds, images = values.shape
    if seeds == 1:
        return paired_effect(values[0], null, confidence)
    mean, by_seed, by_image = values.mean(), values.mean(axis=1), values.mean(axis=0)
    error = values - by_seed[:, None] - by_image[None, :] + mean
    ms_error = float((error**2).sum()) / ((seeds - 1) * (images - 1))
    ms_seeds = max(images * float(by_seed.var(ddof=1)), ms_error)
    ms_images = max(seeds * float(by_image.var(ddof=1)), ms_error)
    total = ms_seeds + ms_images - ms_error
    spread = ms_seeds**2 / (seeds - 1) + ms_images**2 / (images - 1) + ms_error**2 / ((seeds - 1) * (images - 1))
    freedom = total**2 / spread if spread > 0 else float(seeds - 1)
    return _effect(float(mean), total / (seeds * images), freedom, images, null, confidence)


def _effect(mean: float, variance: float, freedom: float, images: int, null: float, confidence: float) -> Effect:
    """Student's interval and test; where nothing varies, the exact bound that ``images`` equal outcomes allow."""
    if variance <= 1e-24:
        half = 1.0 - (1.0 - confidence) ** (1.0 / images)
        p = (1.0 - min(1.0, abs(mean - null))) ** images
        return Effect(mean, mean - half, mean + half, p, freedom)
    error = math.sqrt(variance)
    half = error * float(stats.t.ppf((1 + confidence) / 2, freedom))
    p = 2 * float(stats.t.sf(abs(mean - null) / error, freedom))
    return Effect(mean, mean - half, mean + half, p, freedom)
