import measuring
import numpy as np
import pytest

from vggbench import samples
from vggbench.backends.fake import FakeSession
from vggbench.measure.latency import measure_latency, random_input
from vggbench.measure.records import latency_record
from vggbench.results import Record
from vggbench.variants import Variant

VARIANT = Variant(measuring.WEIGHTS, "crop", "fake")


def test_every_call_and_every_warm_up_is_kept():
    session = FakeSession(VARIANT, seconds_per_image=0.001)
    measured = measure_latency(session, 2, (32, 32), min_seconds=0.0, min_iterations=7, warmup_seconds=0.0)
    assert (len(measured.warmups), len(measured.values)) == (1, 7)
    assert session.calls == 8
    assert session.images == 16
    assert measured.unit == "seconds"
    assert min(measured.values) >= 0.002


def test_calls_go_on_until_the_time_is_up():
    session = FakeSession(VARIANT, seconds_per_image=0.01)
    measured = measure_latency(session, 1, (32, 32), min_seconds=0.1, min_iterations=1, warmup_seconds=0.05)
    assert sum(measured.values) > 0.08
    assert 1 <= len(measured.values) <= 10
    assert 1 <= len(measured.warmups) <= 5


def test_the_input_is_random_and_always_the_same():
    images = random_input(2, (32, 40))
    assert images.shape == (2, 3, 32, 40)
    assert images.dtype == np.float32
    assert images.flags.c_contiguous
    assert images.std() == pytest.approx(64, rel=0.05)
    np.testing.assert_array_equal(images, random_input(2, (32, 40)))


def test_percentiles_are_observed_values_by_trtexecs_rule():
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
    assert set(samples.summarize([1.0] * 10, 1).percentile_seconds) == set()
    assert set(samples.summarize([1.0] * 200, 1).percentile_seconds) == {"p90", "p95"}
    assert set(samples.summarize([1.0] * 1000, 1).percentile_seconds) == {"p90", "p95", "p99"}


def test_scattered_times_are_called_unstable():
    assert samples.summarize([1.0, 1.01, 1.0], 1).is_stable
    assert not samples.summarize([1.0, 1.2, 1.0], 1).is_stable


def test_a_latency_record_says_what_ran():
    session = FakeSession(VARIANT)
    measured = measure_latency(session, 2, (32, 32), min_seconds=0.0, min_iterations=3, warmup_seconds=0.0)
    record = latency_record(session, VARIANT, measured, 2, (32, 32), environment={"cpu": "x"})
    assert record.kind == "latency"
    assert (record.workload.batch, record.workload.size) == (2, [32, 32])
    assert record.networks[0].session["form"] == "crop"
    assert Record.model_validate_json(record.model_dump_json()) == record
