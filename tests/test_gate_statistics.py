"""The intervals of times: of processes apart, and of rounds taken in turn, which hold the truth as they say."""

from __future__ import annotations

import math

import numpy as np
import pytest

from vggbench.gate_statistics import ratio_in_rounds, ratio_of_medians


def test_the_interval_is_the_same_every_time_and_wider_for_more_confidence():
    base, head = [1.0, 1.1, 0.9, 1.02, 0.97, 1.05, 1.0], [1.1, 1.2, 1.0, 1.12, 1.05, 1.15, 1.1]
    once, again, surer = (ratio_of_medians(base, head, confidence) for confidence in (0.95, 0.95, 0.999))
    assert once == again
    assert once.value == pytest.approx(1.1)
    assert surer.low < once.low < 1.1 < once.high < surer.high


def test_the_interval_in_rounds_lies_between_order_statistics_of_the_ratios():
    # Hettmansperger and Sheather's for n = 7: .2667 of the way to the outermost ratio, which alone bears 98.4 %.
    logs = [0.0, 0.01, 0.02, 0.03, 0.04, 0.05, 0.5]
    found = ratio_in_rounds([1.0] * 7, [math.exp(each) for each in logs], 0.95)
    low, high = (math.log(each) for each in (found.low, found.high))
    assert math.log(found.value) == pytest.approx(0.03)
    assert low == pytest.approx(0.01 * 0.7333, rel=1e-3)
    assert high == pytest.approx(0.05 * 0.7333 + 0.5 * 0.2667, rel=1e-3)


def test_the_interval_in_rounds_holds_the_truth_as_often_as_it_says():
    random = np.random.default_rng(0)
    heavy = random.standard_t(2, (2000, 15)) / 100
    for moved in (random.normal(0, 0.01, (2000, 7)), random.uniform(-0.02, 0.02, (2000, 8)), heavy[:, :7], heavy):
        found = [ratio_in_rounds(np.ones(len(row)), np.exp(row), 0.95) for row in moved]
        assert np.mean([each.low <= 1 <= each.high for each in found]) == pytest.approx(0.95, abs=0.015)


def test_rounds_too_few_for_the_confidence_get_an_interval_no_narrower_than_all_of_them():
    ratios = [1.0, 1.02, 0.99]
    found = ratio_in_rounds([1.0] * 3, ratios, 0.95)
    assert found.low < 0.99 < 1.02 < found.high
    many = ratio_in_rounds([1.0] * 7, [1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.5], 0.999)
    assert many.high >= 1.5
    assert ratio_in_rounds([1.0], [1.0], 0.95) is None
