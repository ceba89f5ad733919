"""The timing loop: what it keeps, when it stops, which clock it reads."""

import itertools
import time

import measuring
import numpy as np
import pytest

from vggbench import samples
from vggbench.backends.fake import FakeSession
from vggbench.measure import latency
from vggbench.measure.latency import clock_of, measure_latency, random_input
from vggbench.measure.records import latency_record
from vggbench.results import Record
from vggbench.variants import Variant

VARIANT = Variant(measuring.WEIGHTS, "crop", "fake")
SIZE = (32, 32)


class Clock:
    """A clock that sessions move on; counts how often it is read."""

    def __init__(self):
        self.now, self.readings = 0.0, 0

    def perf_counter(self):
        self.readings += 1
        return self.now


class Scripted:
    """A session whose calls take what a list says, over and over, by a clock of its own."""

    device = "cpu"

    def __init__(self, clock, seconds):
        self.clock, self.seconds, self.calls, self.info = clock, itertools.cycle(seconds), 0, {}

    def __call__(self, images):
        self.calls += 1
        self.clock.now += next(self.seconds)

    def close(self):
        pass


@pytest.fixture
def clock(monkeypatch):
    clock = Clock()
    monkeypatch.setattr(latency, "time", clock)
    return clock


def test_every_call_and_every_warm_up_is_kept():
    session = FakeSession(VARIANT, seconds_per_image=0.001)
    measured = measure_latency(session, 2, SIZE, min_seconds=0.0, min_iterations=7, warmup_seconds=0.0)
    assert (len(measured.warmups), len(measured.values)) == (1, 7)
    assert session.calls == 8
    assert session.images == 16
    assert measured.unit == "seconds"
    assert min(measured.values) >= 0.002


def test_the_first_warm_up_is_the_sessions_first_call(clock):
    session = Scripted(clock, [5.0, *[1.0] * 1000])
    assert measure_latency(session, 1, SIZE, 1.0, warmup_seconds=0.0).warmups == [5.0]


def test_equal_calls_stop_at_the_least_time_and_count(clock):
    measured = measure_latency(Scripted(clock, [0.125]), 1, SIZE, min_seconds=3.0, max_seconds=60.0)
    assert 3.0 <= sum(measured.values) <= 3.0 * 1.1**2 + 2 * 0.125
    measured = measure_latency(Scripted(clock, [0.5]), 1, SIZE, min_seconds=3.0, max_seconds=60.0)
    assert len(measured.values) == 11, "ten, and a second look"


def test_scattered_calls_go_on_until_the_time_is_up(clock):
    scattered = np.random.default_rng(0).uniform(0.01, 1.0, 997).tolist()
    measured = measure_latency(Scripted(clock, scattered), 1, SIZE, min_seconds=1.0, max_seconds=20.0)
    assert 20.0 <= sum(measured.values) <= 20.0 * 1.1 + 1.0
    assert samples.relative_standard_error(measured.values) > samples.SMALL_ERROR


def test_the_most_time_is_twice_the_least_unless_it_is_said(clock):
    scattered = np.random.default_rng(0).uniform(0.01, 0.1, 997).tolist()
    measured = measure_latency(Scripted(clock, scattered), 1, SIZE, min_seconds=2.0)
    assert 4.0 <= sum(measured.values) <= 4.0 * 1.1 + 0.1


def autocorrelated(seed, count=20000):
    """Calls of 50 ms with a deviation of 4 %, neighbours correlated by 0.9."""
    value, series = 0.0, []
    for step in np.random.default_rng(seed).normal(0, 0.002 * np.sqrt(1 - 0.9**2), count):
        value = 0.9 * value + step
        series.append(0.05 + value)
    return series


def deviation(runs):
    """Of the medians of runs from the true 50 ms, relative."""
    return np.sqrt(np.mean([(samples.median(values) / 0.05 - 1) ** 2 for values in runs]))


def test_measuring_stops_early_and_the_medians_are_as_good_as_the_rule_says(clock, monkeypatch):
    def runs():
        return [
            measure_latency(Scripted(clock, autocorrelated(seed)), 1, SIZE, min_seconds=3.0, max_seconds=900.0).values
            for seed in range(60)
        ]

    found = runs()
    assert max(map(len, found)) < 15000, "each stops before its time is up"
    assert deviation(found) < 1.3 * samples.SMALL_ERROR
    monkeypatch.setattr(samples, "_error_by_batches", lambda values, batches: 0.0)
    assert deviation(runs()) > 2 * samples.SMALL_ERROR, "order statistics alone stop too soon"


def test_the_clock_is_read_twice_a_call_and_the_median_judged_ever_more_seldom(clock, monkeypatch):
    judged = []
    monkeypatch.setattr(latency, "relative_standard_error", lambda values: judged.append(len(values)) or 1.0)
    session = Scripted(clock, [0.001])
    measured = measure_latency(session, 1, SIZE, min_seconds=0.0, max_seconds=20.0, warmup_seconds=0.0)
    assert len(measured.values) >= 20000
    assert clock.readings < 2.02 * session.calls + 10
    assert len(judged) < 120
    assert sum(judged) < 12 * len(measured.values)


def test_throughput_counts_what_lies_between_calls(clock):
    def reading():  # every look at the clock takes as long as a call
        clock.now += 0.25
        return clock.now

    clock.perf_counter = reading
    take = {name: latency._taker(Scripted(clock, [0.25]), None, name == "throughput") for name in latency.SCENARIOS}
    assert take["latency"](4) == [0.5] * 4
    before = clock.now
    assert sum(take["throughput"](4)) == pytest.approx(clock.now - before - 0.25)


def test_throughput_reads_the_clock_once_a_call_so_that_nothing_falls_between(clock):
    session = Scripted(clock, [0.001])
    measure_latency(session, 1, SIZE, 0.0, max_seconds=5.0, min_iterations=5000, scenario="throughput")
    assert clock.readings < 2.1 * session.calls


def test_a_session_with_a_clock_of_its_own_is_timed_by_it():
    class OnDevice(FakeSession):
        asked: list = []  # noqa: RUF012

        def time_calls(self, images, calls, back_to_back):
            self.asked.append((images.shape, back_to_back))
            return [0.125] * calls

    session = OnDevice(VARIANT)
    session.info["clock"] = "CUDA events"
    measured = measure_latency(session, 2, SIZE, 0.0, 10, scenario="throughput")
    assert set(measured.values) == {0.125}
    assert session.calls == 0
    assert set(session.asked) == {((2, 3, 32, 32), True)}
    assert clock_of(session) == "CUDA events"
    assert "perf_counter" in clock_of(FakeSession(VARIANT))


def test_the_median_is_that_of_a_clock_inside_the_same_calls():
    """Both clocks see the same calls, so that no other work on the machine comes between them."""

    class Inside(FakeSession):
        def __call__(self, images):
            before = time.perf_counter()
            scores = super().__call__(images)
            seconds.append(time.perf_counter() - before)
            return scores

    for scenario in latency.SCENARIOS:
        seconds: list = []
        session = Inside(VARIANT, seconds_per_image=0.005)
        measured = measure_latency(session, 1, SIZE, 0.0, 60, 0.0, scenario=scenario)
        assert len(measured.warmups) + len(measured.values) == len(seconds)
        inside = samples.median(seconds[len(measured.warmups) :])
        assert inside <= samples.median(measured.values) < 1.03 * inside


def test_the_input_is_random_and_always_the_same():
    images = random_input(2, (32, 40))
    assert images.shape == (2, 3, 32, 40)
    assert images.dtype == np.float32
    assert images.flags.c_contiguous
    assert images.std() == pytest.approx(64, rel=0.05)
    np.testing.assert_array_equal(images, random_input(2, (32, 40)))


@pytest.mark.parametrize("size", [(1 << 40, 32), (1 << 15, 1 << 15)])
def test_an_input_that_no_memory_holds_is_a_want_of_memory(size):
    with pytest.raises(MemoryError):
        random_input(1 << 40, size)


def test_a_latency_record_says_what_ran():
    session = FakeSession(VARIANT)
    measured = measure_latency(session, 2, SIZE, min_seconds=0.0, min_iterations=3, warmup_seconds=0.0)
    record = latency_record(session, VARIANT, measured, 2, SIZE, environment={"cpu": "x"}, process=4)
    assert record.kind == "latency"
    assert (record.workload.batch, record.workload.size, record.workload.scenario) == (2, [32, 32], "latency")
    assert record.process == 4
    assert record.networks[0].session["form"] == "crop"
    assert Record.model_validate_json(record.model_dump_json()) == record
