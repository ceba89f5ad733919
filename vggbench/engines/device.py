"""The GPU as its driver describes it, asked by ctypes: no library of CUDA's needs to be installed."""

from __future__ import annotations

import ctypes
import functools
import re
from dataclasses import dataclass
from pathlib import Path

_MAJOR, _MINOR = 75, 76  # CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR and _MINOR

NO_DRIVER = (
    "TensorRT needs an NVIDIA GPU and its driver, and no driver with a device is here. On a machine with a GPU install "
    "NVIDIA's driver and look: nvidia-smi"
)


@dataclass(frozen=True)
class Device:
    """name: as the driver gives it. sm: compute capability, ten times major plus minor. driver: the kernel module's
    version and the newest CUDA that it runs, "580.65.06 (CUDA 13.0)".
    """

    name: str
    sm: int
    driver: str


@functools.cache
def first_device() -> Device | None:
    """The first device that the driver shows, None without one."""
    try:
        driver = ctypes.CDLL("libcuda.so.1")
    except OSError:
        return None
    handle, cuda = ctypes.c_int(0), ctypes.c_int(0)
    if driver.cuInit(0) != 0 or driver.cuDeviceGet(ctypes.byref(handle), 0) != 0:
        return None
    name, parts = ctypes.create_string_buffer(128), [ctypes.c_int(0), ctypes.c_int(0)]
    driver.cuDeviceGetName(name, len(name), handle)
    for part, attribute in zip(parts, (_MAJOR, _MINOR), strict=True):
        driver.cuDeviceGetAttribute(ctypes.byref(part), attribute, handle)
    driver.cuDriverGetVersion(ctypes.byref(cuda))
    version = f"CUDA {cuda.value // 1000}.{cuda.value % 1000 // 10}"
    return Device(name.value.decode(errors="replace"), 10 * parts[0].value + parts[1].value, _kernel_module(version))


def _kernel_module(cuda: str) -> str:
    try:
        text = Path("/proc/driver/nvidia/version").read_text(encoding="ascii", errors="replace")
    except OSError:
        return cuda
    found = re.search(r"\b\d+\.\d+(\.\d+)?\b", text)
    return f"{found[0]} ({cuda})" if found else cuda
