"""What a measurement ran on, as one flat dict; no name of a host or of a person.

Imports nothing heavy: libraries are asked for their versions through their metadata, the GPU through its driver.
"""

from __future__ import annotations

import ctypes
import functools
import importlib.metadata
import os
import platform
import re
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import vggbench

#: Instruction sets that decide which kernels a library picks.
_CPU_FLAGS = (
    "avx2",
    "avx512f",
    "avx512_vnni",
    "avx_vnni",
    "avx512_bf16",
    "avx512_fp16",
    "amx_tile",
    "amx_int8",
    "amx_bf16",
    "asimddp",
    "bf16",
    "i8mm",
    "sve",
)
_LIBRARIES = (
    "torch",
    "onnxruntime",
    "onnxruntime-gpu",
    "onnx",
    "tensorrt",
    "torch-tensorrt",
    "numpy",
    "pillow",
    "scipy",
    "safetensors",
    "altair",
)
#: Variables that change how fast or how exactly a library computes.
VARIABLES = (
    "OMP_NUM_THREADS",
    "MKL_NUM_THREADS",
    "OMP_WAIT_POLICY",
    "OMP_PROC_BIND",
    "KMP_AFFINITY",
    "KMP_BLOCKTIME",
    "ONEDNN_MAX_CPU_ISA",
    "DNNL_MAX_CPU_ISA",
    "NVIDIA_TF32_OVERRIDE",
    "MALLOC_CONF",
    "GLIBC_TUNABLES",
    "LD_PRELOAD",
)
#: Recorded beside them; which GPU was used stands in the record by its name.
_SHOWN = "CUDA_VISIBLE_DEVICES"
_TRANSPARENT = Path("/sys/kernel/mm/transparent_hugepage/enabled")


def environment(command: list[str] | None = None) -> dict[str, Any]:
    """CPU, memory, system, library versions, GPU, commit, command: flat, values are str, int, float or None.

    command: the command line, sys.argv if None. Sizes in bytes, clocks in MHz as the driver gives them.
    """
    return {
        "vggbench": vggbench.__version__,
        "commit": commit(),
        "command": command_line(sys.argv if command is None else command),
        "python": platform.python_version(),
        "system": _system(),
        "kernel": f"{platform.system()} {platform.release()}",
        "machine": platform.machine(),
        **_cpu(),
        "memory_bytes": _memory_bytes(),
        **_gpu(),
        **{name: version for name in _LIBRARIES if (version := installed(name)) is not None},
        **{name: _without_home(os.environ[name]) for name in (*VARIABLES, _SHOWN) if name in os.environ},
    }


def installed(distribution: str) -> str | None:
    """Version of an installed distribution, None if it is not there; nothing is imported."""
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return None


def command_line(arguments: list[str]) -> str:
    """The command as typed, home folders as "~" so that no user's name is recorded."""
    program, *rest = arguments or ["vggbench"]
    name = Path(program).name
    words = ["vggbench" if name in ("__main__.py", "-m", "-c", "") else name, *rest]
    return " ".join(_quoted(_without_home(word)) for word in words)


@functools.cache
def commit() -> str | None:
    """`git describe` of the source tree this runs from; None outside one, as in an installed wheel."""
    tree = Path(vggbench.__file__).resolve().parents[1]
    if not (tree / ".git").exists():
        return None
    try:
        found = subprocess.run(
            ["git", "-C", str(tree), "describe", "--always", "--dirty", "--tags"],
            capture_output=True,
            text=True,
            timeout=10,
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return found.stdout.strip() or None if found.returncode == 0 else None


def usable_cores() -> int:
    """Cores this process may run on; a container may have fewer than the machine."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def huge_pages(variables: Mapping[str, str]) -> dict[str, str]:
    """What to add to a new process' variables so that its memory comes in pages of 2 MiB where the system has them.

    Where pages of 4 KiB come to lie differs from process to process, and with it the speed of a network by some
    percent; with huge pages that goes, and the network is faster. Empty where it cannot be: another C library than
    glibc from 2.35 on, a kernel that has none, or a choice that the user made.
    """
    library, version = platform.libc_ver()
    given = variables.get("GLIBC_TUNABLES", "")
    try:
        refused = "[never]" in _TRANSPARENT.read_text()
    except OSError:
        refused = True
    if library != "glibc" or _numbers(version) < (2, 35) or refused or "hugetlb" in given:
        return {}
    return {"GLIBC_TUNABLES": ":".join(filter(None, (given, "glibc.malloc.hugetlb=1")))}


@contextmanager
def variables(added: Mapping[str, str]) -> Iterator[None]:
    """Processes started inside have these environment variables too."""
    before = {name: os.environ.get(name) for name in added}
    os.environ.update(added)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in re.findall(r"\d+", version))


def has_cuda() -> bool:
    """Whether the NVIDIA driver is here and shows a device; asks the driver itself, so no CUDA library is needed."""
    return bool(_cuda_devices())


@functools.cache
def _cuda_devices() -> tuple[str, ...]:
    """Names of the devices the driver shows. TensorRT and others crash without one, so this is asked first."""
    try:
        driver = ctypes.CDLL("libcuda.so.1")
    except OSError:
        return ()
    count = ctypes.c_int(0)
    if driver.cuInit(0) != 0 or driver.cuDeviceGetCount(ctypes.byref(count)) != 0:
        return ()
    names = []
    for index in range(count.value):
        device, name = ctypes.c_int(0), ctypes.create_string_buffer(128)
        driver.cuDeviceGet(ctypes.byref(device), index)
        driver.cuDeviceGetName(name, len(name), device)
        names.append(name.value.decode(errors="replace"))
    return tuple(names)


def nvml_handle(nvml: Any, index: int) -> Any:
    """NVML's handle of the driver's device with this number. nvml: the module pynvml, initialized.

    By its UUID, for NVML counts all GPUs in the order of their slots, and CUDA those it is shown, the fastest first.
    Raises OSError, AttributeError, NVML's errors.
    """
    driver = ctypes.CDLL("libcuda.so.1")
    device, uuid = ctypes.c_int(0), (ctypes.c_ubyte * 16)()
    if driver.cuInit(0) or driver.cuDeviceGet(ctypes.byref(device), index) or driver.cuDeviceGetUuid_v2(uuid, device):
        raise OSError(f"The driver does not tell the UUID of device {index}.")
    digits = bytes(uuid).hex()
    name = "-".join((digits[:8], digits[8:12], digits[12:16], digits[16:20], digits[20:]))
    try:
        return nvml.nvmlDeviceGetHandleByUUID(f"GPU-{name}".encode())
    except Exception:  # it does not know that one: a slice of a GPU has its own, by another prefix
        return nvml.nvmlDeviceGetHandleByUUID(f"MIG-{name}".encode())


def _gpu() -> dict[str, Any]:
    """GPU name and count from the driver; its version, clocks and memory where NVML's Python package is there."""
    devices = _cuda_devices()
    if not devices:
        return {"gpu": None}
    found: dict[str, Any] = {"gpu": devices[0], "gpu_count": len(devices)}
    try:
        import pynvml  # type: ignore[import-not-found, import-untyped, unused-ignore]

        pynvml.nvmlInit()
        try:
            found |= _nvml_facts(pynvml, nvml_handle(pynvml, 0))
        finally:
            pynvml.nvmlShutdown()
    except Exception as error:  # the package is absent, or NVML does not start
        found["gpu_details"] = f"not available: {type(error).__name__}"
    return found


def _nvml_facts(nvml: Any, handle: Any) -> dict[str, Any]:
    """What NVML answers; what it refuses on this machine (clocks of a slice of a GPU, say) is left out alone."""
    questions: dict[str, Callable[[], Any]] = {
        "gpu_driver": lambda: _text(nvml.nvmlSystemGetDriverVersion()),
        "gpu_memory_bytes": lambda: int(nvml.nvmlDeviceGetMemoryInfo(handle).total),
        "gpu_sm_clock_mhz": lambda: nvml.nvmlDeviceGetClockInfo(handle, nvml.NVML_CLOCK_SM),
        "gpu_max_sm_clock_mhz": lambda: nvml.nvmlDeviceGetMaxClockInfo(handle, nvml.NVML_CLOCK_SM),
        "gpu_memory_clock_mhz": lambda: nvml.nvmlDeviceGetClockInfo(handle, nvml.NVML_CLOCK_MEM),
    }
    found = {}
    for name, ask in questions.items():
        with suppress(Exception):
            found[name] = ask()
    return found


def _cpu() -> dict[str, Any]:
    name, flags = platform.processor() or platform.machine(), ""
    try:
        text = Path("/proc/cpuinfo").read_text(errors="replace")
    except OSError:
        text = ""
    for key, value in re.findall(r"^([^\t:]+?)\s*:\s*(.*)$", text, flags=re.MULTILINE):
        if key == "model name":
            name = value.strip()
        if key in ("flags", "Features"):
            flags = value
            break
    present = set(flags.split())
    return {
        "cpu": name,
        "cpu_flags": " ".join(flag for flag in _CPU_FLAGS if flag in present),
        "cores": usable_cores(),
        "logical_cpus": os.cpu_count(),
    }


def _memory_bytes() -> int | None:
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (ValueError, OSError, AttributeError):
        return None


def _system() -> str:
    try:
        return platform.freedesktop_os_release()["PRETTY_NAME"]
    except (OSError, KeyError):
        return platform.system()


def _without_home(text: str) -> str:
    """The text with this user's home, and any folder under /home or /Users, as "~"."""
    home = str(Path.home())
    if len(home) > 1:
        text = re.sub(rf"{re.escape(home)}(?=/|$)", "~", text)
    return re.sub(r"/(?:home|Users)/[^/\s]+", "~", text)


def _quoted(word: str) -> str:
    """As shlex.quote, but "~" stays as it is."""
    return word if re.fullmatch(r"~?[\w@%+=:,./-]+", word) else "'" + word.replace("'", "'\\''") + "'"


def _text(value: str | bytes) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)
