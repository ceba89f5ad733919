"""Derived statistics: percentiles, the median's standard error, intervals over processes."""

import math

import numpy as np
import pytest

from vggbench import samples


def autocorrelated(count, correlation, seed, scale=0.02):
    """Times around 1 s whose neighbours are alike: an autoregressive series of order 1 with deviation ``scale``."""
    generator = np.random.default_rng(seed)
    steps = generator.normal(0, scale * math.sqrt(1 - correlation**2), count)
    values = np.empty(count)
    values[0] = generator.normal(0, scale)
    for index in range(1, count):
        values[index] = correlation * values[index - 1] + steps[index]
    return (1 + values).tolist()


def trtexec_percentile(values, percent):
    """As in TensorRT's samples/common/sampleReporting.cpp, in exact arithmetic."""
    ordered = sorted(values)
    excluded = (100 - percent) * len(ordered) // 100
    return ordered[max(len(ordered) - 1 - excluded, 0)]


@pytest.mark.parametrize("count", [1, 2, 9, 10, 11, 99, 100, 101, 999, 1000, 1001])
def test_percentiles_equal_trtexecs_on_fixed_data(count):
    values = np.random.default_rng(count).gamma(2.0, 0.01, count).tolist()
    for percent in (0, 50, 90, 95, 99, 100):
        assert samples.percentile(values, percent) == trtexec_percentile(values, percent)


def test_percentiles_of_known_data_are_those_written_down_from_trtexecs_rule():
    values = [float(value) for value in range(1, 101)][::-1]
    assert [samples.percentile(values, p) for p in (0, 50, 90, 95, 99)] == [1, 50, 90, 95, 99]
    assert samples.percentile([3.0, 1.0, 2.0], 99) == 3.0
    assert samples.percentile([5.0], 50) == 5.0
    with pytest.raises(ValueError, match="at least one"):
        samples.percentile([], 50)


def test_statistics_of_known_values():
    values = [1.0, 2.0, 3.0, 4.0, 10.0]
    assert samples.median(values) == 3.0
    assert samples.median([1.0, 2.0]) == 1.5
    assert samples.mad(values) == 1.0
    assert samples.coefficient_of_variation(values) == pytest.approx(np.std(values, ddof=1) / 4)
    assert samples.coefficient_of_variation([2.0]) == 0.0
    assert samples.images_per_second(values, 4) == 1.0


def test_a_percentile_is_shown_only_where_ten_values_lie_beyond_it():
    assert [samples.tail_is_supported(n, 99) for n in (999, 1000)] == [False, True]
    assert [samples.tail_is_supported(n, 95) for n in (199, 200)] == [False, True]
    assert [samples.tail_is_supported(n, 90) for n in (99, 100)] == [False, True]
    assert set(samples.summarize([1.0] * 10, 1).percentile_seconds) == set()
    assert set(samples.summarize([1.0] * 200, 1).percentile_seconds) == {"p90", "p95"}
    assert set(samples.summarize([1.0] * 1000, 1).percentile_seconds) == {"p90", "p95", "p99"}


def test_scattered_times_are_called_unstable():
    assert samples.summarize([1.0, 1.01, 1.0], 1).is_stable
    assert not samples.summarize([1.0, 1.2, 1.0], 1).is_stable


@pytest.mark.parametrize("count", [30, 100, 1000])
def test_the_medians_standard_error_is_that_of_repeated_independent_runs(count):
    runs = [autocorrelated(count, 0.0, seed) for seed in range(300)]
    true = np.std([samples.median(run) for run in runs])
    stated = np.mean([samples.median_standard_error(run) for run in runs])
    assert 0.95 * true < stated < 1.5 * true, "it may err on the safe side only"


def test_calls_that_resemble_their_neighbours_do_not_fool_the_standard_error():
    runs = [autocorrelated(1000, 0.9, seed) for seed in range(200)]
    true = np.std([samples.median(run) for run in runs])
    stated = np.mean([samples.median_standard_error(run) for run in runs])
    ordered = [np.sort(run) for run in runs]
    naive = np.mean([(run[516] - run[483]) / 2 for run in ordered])
    assert naive < 0.4 * true, "order statistics alone would have been fooled"
    assert stated > 0.8 * true


def test_the_standard_error_of_few_calls_is_unknown():
    assert samples.median_standard_error([1.0] * 9) == math.inf
    assert samples.relative_standard_error([1.0] * 9) == math.inf
    assert samples.relative_standard_error([1.0] * 10) == 0.0


def test_times_too_short_for_the_clock_are_no_division_by_zero():
    assert samples.relative_standard_error([0.0] * 20) == math.inf
    assert samples.coefficient_of_variation([0.0] * 20) == 0.0


def test_the_interval_over_processes_covers_them_and_needs_three():
    assert samples.bootstrap_median([1.0, 2.0]) is None
    low, high = samples.bootstrap_median([10.0, 11.0, 12.0])
    assert (low, high) == (10.0, 12.0)
    many = np.random.default_rng(0).normal(100, 1, 40).tolist()
    low, high = samples.bootstrap_median(many)
    assert min(many) < low < samples.median(many) < high < max(many)
    assert samples.bootstrap_median(many) == (low, high), "the same for the same values"
    assert samples.bootstrap_median([5.0] * 4) == (5.0, 5.0)


def test_the_interval_over_processes_covers_the_truth_in_about_95_of_100():
    generator = np.random.default_rng(1)
    intervals = [samples.bootstrap_median(generator.normal(100, 1, 15).tolist()) for _ in range(30)]
    assert sum(low <= 100 <= high for low, high in intervals) >= 25
