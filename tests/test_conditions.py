"""What goes on around a timing: load of others, the hypervisor, quotas, the GPU's driver."""

from types import SimpleNamespace

import measuring
import pytest

from vggbench.backends.fake import FakeSession
from vggbench.measure import conditions
from vggbench.results import Record
from vggbench.runs_timing import Task, time_session
from vggbench.variants import Variant

VARIANT = Variant(measuring.WEIGHTS, "crop", "fake")
SIZE = (32, 32)


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
