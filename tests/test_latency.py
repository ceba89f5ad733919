"""The timing loop, what goes on around it, and what is shown of it."""

import itertools
import time
from types import SimpleNamespace

import measuring
import numpy as np
import pytest

from vggbench import samples
from vggbench.backends.fake import FakeSession
from vggbench.measure import conditions, latency
from vggbench.measure.latency import clock_of, measure_latency, random_input
from vggbench.measure.records import latency_record
from vggbench.results import Record, Samples
from vggbench.runs_latency_rows import doubts, rows_of
from vggbench.runs_timing import Task, time_session
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
        session = Inside(VARIANT, seconds_per_image=0.002)
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


def test_a_latency_record_says_what_ran():
    session = FakeSession(VARIANT)
    measured = measure_latency(session, 2, SIZE, min_seconds=0.0, min_iterations=3, warmup_seconds=0.0)
    record = latency_record(session, VARIANT, measured, 2, SIZE, environment={"cpu": "x"}, process=4)
    assert record.kind == "latency"
    assert (record.workload.batch, record.workload.size, record.workload.scenario) == (2, [32, 32], "latency")
    assert record.process == 4
    assert record.networks[0].session["form"] == "crop"
    assert Record.model_validate_json(record.model_dump_json()) == record


# Around a timing


def test_what_goes_on_around_a_timing_stands_in_the_record():
    task = Task(VARIANT, (1, 2), SIZE, min_seconds=0.0, process=3, environment={"cpu": "x"})
    records = time_session(FakeSession(VARIANT, seconds_per_image=0.001), task, 0.25)
    assert [record.workload.batch for record in records] == [1, 2]
    for record in records:
        found = record.conditions
        assert found["open_seconds"] == 0.25
        assert found["first_call_seconds"] == record.samples.warmups[0]
        assert 0 < found["rss_bytes"] <= found["rss_peak_bytes"]
        assert {"own_cores", "foreign_cores", "stolen_cores", "throttled_seconds", "load_average"} <= set(found)
        assert all(isinstance(value, str | int | float | None) for value in found.values()), "flat"
        assert Record.model_validate_json(record.model_dump_json()) == record


def look(**more):
    zero = dict.fromkeys(
        ("wall_seconds", "own_cpu_seconds", "busy_seconds", "stolen_seconds", "throttled_seconds", "switches"), 0
    )
    return conditions.Look(**{**zero, "gpu": {}, **more})


def test_foreign_load_is_what_others_took_of_the_cores():
    after = look(wall_seconds=10.0, own_cpu_seconds=15.0, busy_seconds=19.0, throttled_seconds=2.0, stolen_seconds=3.0)
    found = conditions.between(look(), after, 10)
    assert (found["own_cores"], found["foreign_cores"], found["stolen_cores"]) == (1.5, pytest.approx(0.4), 0.3)
    found["usable_cores"] = 2
    assert conditions.remarks(found, threads=2) == [
        "foreign load on 0.4 of 2 cores",
        "0.3 cores taken by the hypervisor",
        "held back by the container's CPU quota for 2.0 s",
    ]


def test_foreign_load_that_leaves_idle_cores_enough_is_no_remark():
    assert conditions.remarks({"foreign_cores": 8.0, "usable_cores": 64}, threads=16) == []
    assert conditions.remarks({"foreign_cores": 50.0, "usable_cores": 64}, threads=16)
    assert conditions.remarks({"foreign_cores": 0.05, "usable_cores": 2}, threads=2) == []


class Nvml:
    """A driver that answers all but the memory clock and the energy of old GPUs."""

    NVML_CLOCK_SM, NVML_CLOCK_MEM, NVML_TEMPERATURE_GPU = 1, 2, 0

    def __init__(self, processes):
        self.processes = processes

    def nvmlDeviceGetHandleByIndex(self, index):
        return index

    def nvmlDeviceGetClockInfo(self, handle, which):
        if which == self.NVML_CLOCK_MEM:
            raise RuntimeError("not supported")
        return 1755

    def nvmlDeviceGetTemperature(self, handle, sensor):
        return 61

    def nvmlDeviceGetPowerUsage(self, handle):
        return 350_500

    def nvmlDeviceGetTotalEnergyConsumption(self, handle):
        return 1_000_000

    def nvmlDeviceGetMemoryInfo(self, handle):
        return SimpleNamespace(used=5 << 30)

    def nvmlDeviceGetCurrentClocksThrottleReasons(self, handle):
        return 0x4 | 0x40 | 0x1

    def nvmlDeviceGetComputeRunningProcesses(self, handle):
        return [SimpleNamespace(pid=pid) for pid in range(self.processes)]


def test_a_gpus_state_is_what_its_driver_answers_and_no_more():
    assert conditions.gpu(Nvml(3), 0) == {
        "gpu_sm_clock_mhz": 1755,
        "gpu_temperature_celsius": 61,
        "gpu_power_watts": 350.5,
        "gpu_energy_joules": 1000.0,
        "gpu_memory_used_bytes": 5 << 30,
        "gpu_throttle_reasons": "power cap, hardware thermal",
        "gpu_foreign_processes": 2,
    }
    assert conditions.gpu(Nvml(1), 0)["gpu_foreign_processes"] == 0


def test_energy_an_image_is_the_counters_difference():
    before, after = look(gpu={"gpu_energy_joules": 100.0}), look(wall_seconds=2.0, gpu={"gpu_energy_joules": 700.0})
    found = conditions.between(before, after, 1200)
    assert (found["gpu_mean_power_watts"], found["gpu_joules_per_image"]) == (300.0, 0.5)
    assert "gpu_energy_joules" not in found
    assert conditions.remarks({"gpu_throttle_reasons": "power cap", "gpu_foreign_processes": 1}, None) == [
        "1 other processes on the GPU",
        "GPU clock limited by power cap",
    ]


# Rows


def timed(values, process=1, batch=1, precision="fp32", **more):
    variant = Variant(measuring.WEIGHTS, "crop", more.pop("backend", "fake"), precision)
    session = FakeSession(variant)
    session.info |= {"arithmetic": precision, **more}
    record = latency_record(
        session, variant, Samples(unit="seconds", values=values), batch, SIZE, environment={}, process=process
    )
    return record


def test_processes_are_the_unit_of_a_rows_statistics():
    records = [timed([speed] * 10, number, batch=2) for number, speed in enumerate((0.1, 0.2, 0.4), start=1)]
    (row,) = rows_of(records)
    assert (row["processes"], row["calls"]) == (3, 30)
    assert row["images_per_second"] == pytest.approx(10.0)
    assert row["images_per_second_by_process"] == pytest.approx([20.0, 10.0, 5.0])
    assert row["images_per_second_interval"] == pytest.approx((5.0, 20.0))
    assert row["coefficient_of_variation"] == 0.0, "within a process; between them nothing is hidden by it"
    assert row["median_seconds"] == pytest.approx(0.2)


def test_the_ratio_is_to_the_fp32_row_of_the_same_batch_and_backend():
    records = [
        timed([0.3] * 10, batch=1),
        timed([0.4] * 10, batch=8),
        timed([0.1] * 10, batch=1, precision="int8"),
        timed([0.1] * 10, batch=8, precision="int8"),
        timed([0.2] * 10, batch=1, backend="other"),
        timed([0.1] * 10, batch=1, backend="other", precision="bf16"),
    ]
    assert [row["ratio_to_fp32"] for row in rows_of(records)] == pytest.approx([1, 1, 3, 4, 1, 2])
    assert rows_of(records[2:3])[0]["ratio_to_fp32"] is None


def test_doubts_name_what_ran_what_varies_and_what_is_missing():
    (row,) = rows_of([timed([0.1, 0.2] * 10, precision="fp16", arithmetic="fp32 on weights stored as fp16")])
    found = doubts(row, processes=3)
    assert found[0] == "what ran is fp32 on weights stored as fp16"
    assert any(text.startswith("unstable, calls vary by 34.") for text in found)
    assert any("median is known to" in text for text in found)
    assert "1 of 3 processes" in found
    (row,) = rows_of([timed([0.1] * 20, number) for number in (1, 2, 3)])
    assert doubts(row, processes=3) == []
    assert "faster than its peak" in doubts({**row, "share_of_peak": 1.1}, processes=3)[0]
    assert doubts({**row, "share_of_peak": 1.01}, processes=3) == []
