"""What went on around a timing: memory, clocks, temperature, power, and who else used the machine; flagged, never
dropped. A look before and one after; what lies between them is a flat dict of raw numbers for Record.conditions."""

from __future__ import annotations

import contextlib
import os
import re
import resource
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil  # type: ignore[import-untyped]

from vggbench import environment

#: Foreign load is flagged from this many cores on, and only where it leaves fewer idle cores than there are threads.
FOREIGN_CORES = 0.1
#: NVML's reasons for a clock below the highest, by bit.
_REASONS = {
    0x2: "application clocks",
    0x4: "power cap",
    0x8: "hardware slowdown",
    0x10: "sync boost",
    0x20: "software thermal",
    0x40: "hardware thermal",
    0x80: "power brake",
    0x100: "display clocks",
}


@dataclass(frozen=True)
class Look:
    """One look at the process and the machine. gpu: flat, empty on a CPU."""

    wall_seconds: float
    own_cpu_seconds: float
    busy_seconds: float
    stolen_seconds: float
    throttled_seconds: float
    switches: int
    gpu: Mapping[str, Any]


def look(device: str = "cpu") -> Look:
    """Now. device: of the session, "cpu" or "cuda:0"."""
    times = psutil.Process().cpu_times()
    busy, stolen = _busy()
    return Look(
        wall_seconds=time.perf_counter(),
        own_cpu_seconds=times.user + times.system,
        busy_seconds=busy,
        stolen_seconds=stolen,
        throttled_seconds=_throttled(),
        switches=resource.getrusage(resource.RUSAGE_SELF).ru_nivcsw,
        gpu=_nvml(device) if device.startswith("cuda") else {},
    )


def between(before: Look, after: Look, images: int, waits: Sequence[tuple[Look, Look]] = ()) -> dict[str, Any]:
    """Flat: averages between two looks, and the last state of what has no average. images: run through in between.

    waits: looks about the times in which another process had its turn; they are no part of it. A GPU's energy is not
    told then, for the other's is in it.
    """

    def spent(what: str) -> float:
        pauses = sum(getattr(end, what) - getattr(start, what) for start, end in waits)
        return float(getattr(after, what) - getattr(before, what) - pauses)

    wall = max(spent("wall_seconds"), 1e-9)
    own = spent("own_cpu_seconds") / wall
    found: dict[str, Any] = {
        "wall_seconds": wall,
        "own_cores": own,
        "foreign_cores": max(0.0, spent("busy_seconds") / wall - own),
        "stolen_cores": max(0.0, spent("stolen_seconds") / wall),
        "throttled_seconds": spent("throttled_seconds"),
        "involuntary_switches": int(spent("switches")),
        "load_average": os.getloadavg()[0],
        "usable_cores": len(_usable()),
        **memory(),
        **{key: value for key, value in after.gpu.items() if key != "gpu_energy_joules"},
    }
    with contextlib.suppress(Exception):  # not on every system
        found["cpu_mhz"] = psutil.cpu_freq().current
    if waits:
        found["turns"] = len(waits)
    elif "gpu_energy_joules" in before.gpu and "gpu_energy_joules" in after.gpu:
        energy = after.gpu["gpu_energy_joules"] - before.gpu["gpu_energy_joules"]
        found |= {"gpu_mean_power_watts": energy / wall, "gpu_joules_per_image": energy / max(images, 1)}
    return found


def memory() -> dict[str, int]:
    """Resident bytes of this process: now, and at most since its start."""
    # Not ru_maxrss: a process inherits its parent's.
    found = re.search(r"VmHWM:\s+(\d+) kB", _text("/proc/self/status"))
    now = int(psutil.Process().memory_info().rss)
    return {"rss_bytes": now, "rss_peak_bytes": max(now, int(found[1]) * 1024 if found else 0)}


def remarks(conditions: Mapping[str, Any], threads: int | None) -> list[str]:
    """What should make a reader doubt a timing, a phrase each."""
    found = []
    foreign, cores = float(conditions.get("foreign_cores", 0.0)), int(conditions.get("usable_cores", 1))
    if foreign > FOREIGN_CORES and cores - foreign < (threads or cores):
        found.append(f"foreign load on {foreign:.1f} of {cores} cores")
    if float(conditions.get("stolen_cores", 0.0)) > FOREIGN_CORES:
        found.append(f"{conditions['stolen_cores']:.1f} cores taken by the hypervisor")
    if float(conditions.get("throttled_seconds", 0.0)) > 0.01 * float(conditions.get("wall_seconds", 1.0)):
        found.append(f"held back by the container's CPU quota for {conditions['throttled_seconds']:.1f} s")
    if conditions.get("gpu_foreign_processes"):
        found.append(f"{conditions['gpu_foreign_processes']} other processes on the GPU")
    if conditions.get("gpu_throttle_reasons"):
        found.append(f"GPU clock limited by {conditions['gpu_throttle_reasons']}")
    return found


def gpu(nvml: Any, handle: Any) -> dict[str, Any]:
    """A GPU's state through NVML (the module pynvml, initialized); what it does not answer is left out."""
    reasons = getattr(nvml, "nvmlDeviceGetCurrentClocksEventReasons", None) or getattr(
        nvml, "nvmlDeviceGetCurrentClocksThrottleReasons", None
    )
    questions: dict[str, Callable[[], Any]] = {
        "gpu_sm_clock_mhz": lambda: nvml.nvmlDeviceGetClockInfo(handle, nvml.NVML_CLOCK_SM),
        "gpu_memory_clock_mhz": lambda: nvml.nvmlDeviceGetClockInfo(handle, nvml.NVML_CLOCK_MEM),
        "gpu_temperature_celsius": lambda: nvml.nvmlDeviceGetTemperature(handle, nvml.NVML_TEMPERATURE_GPU),
        "gpu_power_watts": lambda: nvml.nvmlDeviceGetPowerUsage(handle) / 1e3,
        "gpu_energy_joules": lambda: nvml.nvmlDeviceGetTotalEnergyConsumption(handle) / 1e3,
        "gpu_memory_used_bytes": lambda: int(nvml.nvmlDeviceGetMemoryInfo(handle).used),
        "gpu_throttle_reasons": lambda: _reasons(int(reasons(handle))) if reasons else "",
        "gpu_foreign_processes": lambda: _foreign(nvml.nvmlDeviceGetComputeRunningProcesses(handle)),
    }
    found = {}
    for name, ask in questions.items():
        with contextlib.suppress(Exception):  # each GPU and driver refuses others of them
            found[name] = ask()
    return found


def _nvml(device: str) -> dict[str, Any]:
    try:
        import pynvml  # type: ignore[import-not-found, import-untyped, unused-ignore]

        pynvml.nvmlInit()
        try:
            return gpu(pynvml, environment.nvml_handle(pynvml, int(device.partition(":")[2] or 0)))
        finally:
            pynvml.nvmlShutdown()
    except Exception as error:  # the package is absent, or the driver does not answer
        return {"gpu_details": f"not available: {type(error).__name__}"}


def _reasons(bits: int) -> str:
    return ", ".join(name for bit, name in _REASONS.items() if bits & bit)


def _foreign(processes: list[Any]) -> int:
    """Others than this one; in a container, whose process numbers differ, one of them is this one."""
    pids = [each.pid for each in processes]
    return len(pids) - 1 if pids else 0


def _usable() -> list[int]:
    return sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else list(range(os.cpu_count() or 1))


def _busy() -> tuple[float, float]:
    """CPU seconds that all processes took on the CPUs this one may use, and those a hypervisor took away."""
    each = psutil.cpu_times(percpu=True)
    mine = [each[cpu] for cpu in _usable() if cpu < len(each)]
    busy = sum(one.user + one.nice + one.system + getattr(one, "irq", 0) + getattr(one, "softirq", 0) for one in mine)
    return float(busy), float(sum(getattr(one, "steal", 0.0) for one in mine))


def _throttled() -> float:
    """Seconds that the container's CPU quota held this group back."""
    found = re.search(r"throttled_usec (\d+)", _text("/sys/fs/cgroup/cpu.stat"))
    return int(found[1]) / 1e6 if found else 0.0


def _text(path: str) -> str:
    try:
        return Path(path).read_text(encoding="ascii", errors="replace")
    except OSError:
        return ""
