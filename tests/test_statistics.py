"""Intervals and tests against arithmetic done another way, and their error rates by simulation."""

from __future__ import annotations

import math

import numpy as np
import pytest

from vggbench.statistics import crossed_effect, holm, mcnemar, paired_effect, wilson


def test_wilson_is_its_formula():
    errors, n, z = 37, 240, 1.959963984540054
    rate = errors / n
    middle = (rate + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * math.sqrt(rate * (1 - rate) / n + z * z / (4 * n * n))
    assert wilson(errors, n) == pytest.approx((middle - half, middle + half), abs=1e-12)


@pytest.mark.parametrize(("percent", "half_points"), [(24, 0.37), (7, 0.22)])
def test_wilson_at_the_size_of_imagenets_validation_set(percent, half_points):
    low, high = wilson(500 * percent, 50_000)
    assert 50 * (high - low) == pytest.approx(half_points, abs=0.006)


def test_wilson_stays_between_0_and_1_and_narrows_with_less_confidence():
    assert wilson(0, 20)[0] == 0
    assert wilson(20, 20)[1] == 1
    assert 0 < wilson(0, 20)[1] < 0.2
    assert wilson(5, 20, 0.5)[1] < wilson(5, 20)[1]


@pytest.mark.parametrize(("errors", "n"), [(-1, 5), (6, 5), (0, 0)])
def test_wilson_refuses_impossible_counts(errors, n):
    with pytest.raises(ValueError, match=r".+"):
        wilson(errors, n)


@pytest.mark.parametrize(("a", "b"), [(3, 9), (100, 60), (0, 7), (5, 5)])
def test_mcnemar_is_the_exact_binomial_sum(a, b):
    n, least = a + b, min(a, b)
    tail = sum(math.comb(n, k) for k in range(least + 1)) / 2**n
    assert mcnemar(a, b) == pytest.approx(min(1.0, 2 * tail), rel=1e-9)
    assert mcnemar(a, b) == mcnemar(b, a)


def test_mcnemar_without_discordant_images_says_nothing():
    assert mcnemar(0, 0) == 1


def test_holm_steps_down_in_the_order_given():
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.9, 0.8]) == [1.0, 1.0]
    assert holm([]) == []


def _anova(values):
    """Mean squares of seeds, images and the rest, by loops."""
    seeds, images = len(values), len(values[0])
    grand = sum(map(sum, values)) / (seeds * images)
    rows = [sum(row) / images for row in values]
    columns = [sum(row[i] for row in values) / seeds for i in range(images)]
    ms_rows = images * sum((row - grand) ** 2 for row in rows) / (seeds - 1)
    ms_columns = seeds * sum((column - grand) ** 2 for column in columns) / (images - 1)
    rest = sum((values[s][i] - rows[s] - columns[i] + grand) ** 2 for s in range(seeds) for i in range(images)) / (
        (seeds - 1) * (images - 1)
    )
    return grand, ms_rows, ms_columns, rest


def test_crossed_effect_is_the_quasi_f_of_the_textbook():
    values = np.random.default_rng(3).normal(size=(4, 9)) + np.arange(4)[:, None] + np.arange(9) / 2
    grand, ms_seeds, ms_images, ms_error = _anova(values.tolist())
    assert ms_error < min(ms_seeds, ms_images)
    total = ms_seeds + ms_images - ms_error
    freedom = total**2 / (ms_seeds**2 / 3 + ms_images**2 / 8 + ms_error**2 / 24)
    effect = crossed_effect(values)
    assert effect.mean == pytest.approx(grand)
    assert effect.degrees_of_freedom == pytest.approx(freedom)
    assert (effect.low + effect.high) / 2 == pytest.approx(grand)
    at_the_bound = crossed_effect(values, null=effect.low)
    assert at_the_bound.p == pytest.approx(0.05)
    assert at_the_bound.mean == effect.mean


def test_negative_variance_components_count_as_zero():
    values = np.random.default_rng(5).normal(size=(3, 50))
    values -= values.mean(axis=1, keepdims=True)  # seeds that agree more than chance allows
    _, ms_seeds, ms_images, ms_error = _anova(values.tolist())
    assert ms_seeds < ms_error
    effect = crossed_effect(values + 0.1)
    naive = math.sqrt((ms_seeds + ms_images - ms_error) / 150)
    assert effect.high - effect.low > 2 * 1.96 * naive


def test_a_seed_that_disagrees_widens_the_interval():
    rng = np.random.default_rng(1)
    same = rng.normal(0.05, 0.3, (3, 500))
    apart = same + np.array([[-0.05], [0.0], [0.05]])
    assert crossed_effect(same).p < 0.05 < crossed_effect(apart).p
    assert crossed_effect(apart).degrees_of_freedom < 4


def test_one_seed_falls_back_to_mcnemar_over_images():
    differences = np.array([1] * 30 + [-1] * 10 + [0] * 160)
    effect = crossed_effect(differences[None])
    assert effect == paired_effect(differences)
    assert effect.p == mcnemar(30, 10)
    assert effect.low < effect.mean == 0.1 < effect.high
    assert effect.degrees_of_freedom == 199
    assert paired_effect(differences / 2).p != effect.p  # averaged over comparisons: no counts, so a t test


def test_two_systems_that_never_differ_are_equal_only_as_far_as_the_images_reach():
    few, many = crossed_effect(np.zeros((3, 20))), crossed_effect(np.zeros((3, 2000)))
    assert few.p == many.p == 1
    assert many.high == pytest.approx(3 / 2000, rel=0.01)
    assert few.high > 0.1
    assert crossed_effect(np.zeros((3, 20)), null=0.01).p > 0.05 > crossed_effect(np.zeros((3, 2000)), null=0.01).p


@pytest.mark.parametrize("shape", [(5,), (2, 1), (0, 4), (2, 3, 4)])
def test_differences_of_another_shape_are_refused(shape):
    with pytest.raises(ValueError, match="accepted is"):
        crossed_effect(np.zeros(shape))


# ---- error rates: no recipe is better, the seeds' luck is as large as the paper's effects (1 to 2 points) ------------

SEEDS, IMAGES, RUNS = 3, 400, 2000


def _null(rng, seed_points):
    """Differences of two equal recipes: luck of each seed, images that favour one side, and chance.

    The means over 400 images vary as those of 2,400 with standard deviations of .15 and .3 would.
    """
    luck = rng.normal(0, seed_points / 100, (SEEDS, 1))
    return luck + rng.normal(0, 0.06, IMAGES) + rng.normal(0, 0.12, (SEEDS, IMAGES))


def _null_of_right_and_wrong(rng, seed_logits):
    """The same with networks that are right or wrong on images of very different difficulty."""
    images = rng.normal(-2, 2, IMAGES)
    taste = rng.normal(0, 0.5, IMAGES)
    wrong = [
        rng.random((SEEDS, IMAGES))
        < 1 / (1 + np.exp(-(images + side * taste + rng.normal(0, seed_logits, (SEEDS, 1)))))
        for side in (-0.5, 0.5)
    ]
    return wrong[0].astype(float) - wrong[1]


@pytest.mark.parametrize("seed_points", [0.0, 1.0, 2.0, 5.0])
def test_false_positives_over_three_seeds_stay_near_5_percent(seed_points):
    rng = np.random.default_rng(20150410)
    found = sum(crossed_effect(_null(rng, seed_points)).p < 0.05 for _ in range(RUNS))
    assert found / RUNS <= 0.07


@pytest.mark.parametrize("seed_logits", [0.1, 0.3, 0.6])
def test_false_positives_of_right_and_wrong_answers_stay_near_5_percent(seed_logits):
    rng = np.random.default_rng(1409)
    found = sum(crossed_effect(_null_of_right_and_wrong(rng, seed_logits)).p < 0.05 for _ in range(RUNS))
    assert found / RUNS <= 0.07


def test_the_bootstrap_over_three_seeds_and_images_finds_effects_that_are_not_there():
    """Why it is not used: three seeds, drawn with replacement, are too few to say how much seeds vary."""
    rng = np.random.default_rng(6)
    runs, draws, found, crossed = 200, 200, 0, 0
    for _ in range(runs):
        differences = _null(rng, 2.0)
        seeds = rng.multinomial(SEEDS, [1 / SEEDS] * SEEDS, draws) / SEEDS
        images = rng.multinomial(IMAGES, [1 / IMAGES] * IMAGES, draws) / IMAGES
        means = ((seeds @ differences) * images).sum(axis=1)
        low, high = np.percentile(means, [2.5, 97.5])
        found += not low <= 0 <= high
        crossed += crossed_effect(differences).p < 0.05
    assert found / runs > 0.10
    assert crossed / runs < 0.07


def test_an_effect_of_two_points_is_found_when_seeds_agree():
    rng = np.random.default_rng(8)
    found = 0
    for _ in range(200):
        differences = 0.02 + rng.normal(0, 0.002, (3, 1)) + rng.normal(0, 0.1, 2400) + rng.normal(0, 0.2, (3, 2400))
        found += crossed_effect(differences).p < 0.05
    assert found / 200 > 0.8


def test_intervals_cover_the_true_effect():
    rng = np.random.default_rng(9)
    covered = 0
    for _ in range(RUNS):
        effect = crossed_effect(_null(rng, 2.0) + 0.03)
        covered += effect.low <= 0.03 <= effect.high
    assert covered / RUNS >= 0.93
