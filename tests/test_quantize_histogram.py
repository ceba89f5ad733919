"""The histogram of a tensor is a function of its values as a set, and a method's range follows from it."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnxruntime.quantization.calibrate import HistogramCollector
from quantize_cases import one_line

from vggbench.errors import CalibrationError
from vggbench.quantize_histogram import Histogram
from vggbench.quantize_methods import ENTROPY_BINS, new_histogram, range_of
from vggbench.ranges import METHODS

FLOATS = st.floats(width=32, allow_nan=False, allow_infinity=False)


@settings(deadline=None, max_examples=100)
@given(st.lists(FLOATS, min_size=1, max_size=40), st.integers(1, 39), st.randoms(use_true_random=False))
def test_a_histogram_is_a_function_of_the_values_as_a_set(values, cut, shuffle):
    whole, parts = Histogram(bins=16), Histogram(bins=16)
    whole.add(np.array(values, np.float32))
    shuffle.shuffle(values)
    for part in (values[:cut], values[cut:]):
        if part:
            parts.add(np.array(part, np.float32))
    assert np.array_equal(whole.counts, parts.counts)
    assert (whole.low, whole.high, whole.step) == (parts.low, parts.high, parts.step)
    assert whole.counts.sum() == len(values)


@pytest.mark.parametrize("low", [0, -np.inf], ids=["relu", "signed"])
def test_a_histogram_is_numpys_on_the_same_bins(low):
    generator = np.random.default_rng(0)
    values = np.maximum(generator.standard_normal((7, 30_011)).astype(np.float32), np.float32(low))
    values *= np.float32([[1], [2], [0.5], [40], [3], [1e-3], [8]])
    seen = Histogram()
    for row in values:
        seen.add(row)
    for bins in (8192, 1024, 100):
        counts, edges = seen.trimmed(bins)
        assert len(counts) == len(edges) - 1 <= 2 * bins
        assert np.array_equal(counts, np.histogram(values.astype(np.float64), edges)[0])
        assert edges[-2] <= np.abs(values).max() < edges[-1]
    assert (seen.low, seen.high) == (values.min(), values.max())


def test_zeros_before_the_first_value_count_as_zeros():
    seen = Histogram(bins=8)
    seen.add(np.zeros(5, np.float32))
    seen.add(np.float32([0.25, 0, 3]))
    counts, edges = seen.trimmed()
    assert counts[len(counts) // 2] == 7
    assert counts.sum() == 8
    assert counts[-1] == 1
    assert edges[-2] <= 3 < edges[-1]


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_a_value_that_is_not_finite_is_refused(bad):
    with pytest.raises(ValueError, match=r"NaN|infinite"):
        Histogram().add(np.float32([1, bad, 2]))


def filled(method, values):
    seen = new_histogram(method)
    seen.add(values)
    return seen


def test_entropy_and_percentile_are_onnx_runtimes_decision_on_the_same_histogram(capsys):
    values = np.maximum(np.random.default_rng(1).standard_normal(50_000).astype(np.float32), 0) ** 3
    for method, bins in (("entropy", ENTROPY_BINS), ("percentile", 8192)):
        seen = filled(method, values)
        found = range_of("t", seen, method, 99.0)
        assert capsys.readouterr().out == ""
        counts, edges = seen.trimmed(bins)
        if method == "entropy":  # exact zeros cost nothing in any range
            counts[len(counts) // 2] = counts[len(counts) // 2 + 1]
        theirs = HistogramCollector(method, False, len(counts), 128, 99.0, "same")
        theirs.histogram_dict = {"t": (counts, edges, seen.low, seen.high)}
        low, high = theirs.compute_collection_result()["t"][:2]
        capsys.readouterr()
        assert (found.low, found.high) == (float(low), float(high))
        assert found.high < values.max()


def test_a_percentile_cuts_half_of_the_rest_at_each_end():
    values = np.arange(-50_000, 50_000, dtype=np.float32)
    found = range_of("t", filled("percentile", values), "percentile", 98.0)
    assert (found.low, found.high) == (pytest.approx(-49_000, abs=16), pytest.approx(49_000, abs=16))


def test_entropy_is_not_drawn_to_a_relus_zeros():
    values = np.maximum(np.random.default_rng(3).standard_normal(100_000).astype(np.float32), 0)
    few = range_of("t", filled("entropy", values), "entropy", 0)
    many = range_of("t", filled("entropy", np.append(values, np.zeros(900_000, np.float32))), "entropy", 0)
    assert few == many
    assert few.high > 0.5 * values.max()


def test_entropy_cuts_a_single_far_value():
    values = np.random.default_rng(2).standard_normal(100_000).astype(np.float32)
    values[7] = 60
    assert range_of("t", filled("entropy", values), "entropy", 0).high < 30
    assert range_of("t", filled("minmax", values), "minmax", 0).high == 60


@pytest.mark.parametrize("method", METHODS)
def test_a_tensor_of_zeros_is_named(method):
    with pytest.raises(CalibrationError) as error:
        range_of("block3.relu2", filled(method, np.zeros(9, np.float32)), method, 99.99)
    one_line(error, "block3.relu2", "0 on all calibration images")


def test_a_tensor_that_a_percentile_empties_is_named():
    values = np.zeros(100_000, np.float32)
    values[0] = 5
    with pytest.raises(CalibrationError) as error:
        range_of("fc6.relu", filled("percentile", values), "percentile", 99.0)
    one_line(error, "fc6.relu", "nearly all are 0", "minmax")
