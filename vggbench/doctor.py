"""What works on this machine, and the command that would fix the rest."""

from __future__ import annotations

import os
import platform
import shutil
import tempfile
from dataclasses import dataclass

from vggbench import backends, cache, environment, precisions, resample
from vggbench.backends.choice import choose
from vggbench.errors import BackendUnavailable, StorageError, VggbenchError
from vggbench.weights import SAMPLE_FAMILY

#: The sample set, its posteriors and graphs take less than this.
WANTED_FREE_BYTES = 1 << 30


@dataclass(frozen=True)
class Check:
    """One thing looked at. state: "ok", "absent" (works without it) or "broken" (reproduce cannot run).

    fix: a command or a sentence that says what to do; empty when there is nothing to do.
    """

    name: str
    state: str
    detail: str
    fix: str = ""


def examine() -> list[Check]:
    """Every check, the machine first."""
    return [
        _python(),
        _machine(),
        _gpu(),
        *_arithmetic(),
        *_backends(),
        _rescaling(),
        _cache(),
        _sample_set(),
        _family(),
    ]


def _python() -> Check:
    libraries = ", ".join(
        f"{name} {version}"
        for name in ("torch", "onnxruntime", "onnx", "numpy", "pillow")
        if (version := environment.installed(name)) is not None
    )
    return Check("python", "ok", f"Python {platform.python_version()}, {libraries}")


def _machine() -> Check:
    found = environment.environment([])
    memory = (found["memory_bytes"] or 0) / 2**30
    return Check("machine", "ok", f"{found['cpu']}, {found['cores']} cores, {memory:.0f} GiB, {found['system']}")


def _gpu() -> Check:
    found = environment.environment([])
    if found["gpu"] is None:
        return Check("gpu", "absent", "no NVIDIA driver with a device; everything runs on the CPU")
    driver = f", driver {found['gpu_driver']}" if "gpu_driver" in found else ""
    import torch

    if not torch.cuda.is_available():
        build = "a CPU build" if torch.version.cuda is None else f"a build for CUDA {torch.version.cuda}"
        fix = "pip install --force-reinstall torch  (or delete .nox and run nox again)"
        return Check("gpu", "absent", f"{found['gpu']}{driver} is here, but torch is {build} and cannot use it", fix)
    return Check("gpu", "ok", f"{found['gpu']}{driver}")


def _backends() -> list[Check]:
    devices = ("cpu", "cuda") if environment.has_cuda() else ("cpu",)
    return [check for name in backends.BACKENDS for check in _backend(name, devices)]


def _backend(name: str, devices: tuple[str, ...]) -> list[Check]:
    try:
        module = backends.module(name)
        missing = module.available()
    except (VggbenchError, ImportError, OSError) as error:
        missing = f"{type(error).__name__}: {error}"
    if missing is not None:
        return [Check(f"backend {name}", "absent", missing, _command_in(missing))]
    checks = []
    for device in devices:
        offered = module.precisions(device)
        works = [_computes(precision, name, device) for precision, why in offered.items() if why is None]
        lacks = "; ".join(f"no {precision}: {why}" for precision, why in offered.items() if why is not None)
        detail = ", ".join(works) + (f" ({lacks})" if lacks else "") if works else lacks
        checks.append(Check(f"backend {name} on {device}", "ok" if works else "absent", detail))
    return checks


def _computes(precision: str, name: str, device: str) -> str:
    """ "fp16 = fp32 on weights stored as fp16", or the precision alone where that says it."""
    row = precisions.find(precision, name, device)
    how = precisions.arithmetic(row) if isinstance(row, precisions.Row) else precision
    return precision if how == precision else f"{precision} = {how}"


def _arithmetic() -> list[Check]:
    """What the CPU computes in beyond fp32, what it lacks for more, and what --backend auto takes."""
    found = []
    for precision in backends.PRECISIONS:
        unit, lacks = precisions.best_unit(precision), precisions.lacks(precision)
        has = f"by {unit.name}" if unit else lacks or "always"
        more = precisions.would_do_more(precision) if precision != "fp32" else ""
        try:
            chosen = f"auto takes {_taken(precision, choose(precision, 'auto').backend)}"
        except BackendUnavailable:
            chosen = _simulated_by(precision) or "no backend runs it here"
        detail = f"{has}{f' ({more} would do more)' if more else ''}; {chosen}"
        found.append(Check(f"{precision} on the CPU", "absent" if lacks else "ok", detail))
    return found


def _taken(precision: str, backend: str) -> str:
    """The backend, and what it computes in where that is another type than the precision's."""
    row = precisions.find(precision, backend, "cpu")
    how = precisions.arithmetic(row) if isinstance(row, precisions.Row) else precision
    return backend if how.startswith(precision) else f"{backend} ({how})"


def _simulated_by(precision: str) -> str:
    """Who rounds as the precision does on the CPU, which no choice of the fastest takes; empty where nobody does."""
    rows = [row for row in precisions.TABLE if row.simulated and (row.precision, row.device) == (precision, "cpu")]
    return f"{' and '.join(row.backend for row in rows)} simulates it, if asked by name" if rows else ""


def _command_in(text: str) -> str:
    """The command that a backend's own message ends in."""
    _, found, command = text.rpartition(": pip install ")
    return f"pip install {command.rstrip('.')}" if found else ""


def _rescaling() -> Check:
    """Compiled and tried, which takes some seconds: nothing less says that it gives this Pillow's pixels."""
    if resample.load():
        names = " and ".join(sorted(resample.FILTERS))
        return Check("rescaling", "ok", f"{names} by compiled code where much is to be done, with Pillow's pixels")
    why = resample.why()
    return Check("rescaling", "absent", f"by Pillow itself: {why}", _command_in(why))


def _cache() -> Check:
    place = cache.root()
    other = "VGGBENCH_CACHE=/another/folder before the command"
    try:
        place.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=place, prefix=".doctor.", suffix=".tmp"):
            pass
        size = sum(entry.bytes for entry in cache.entries(place))
        free = shutil.disk_usage(place).free
    except (OSError, StorageError) as error:
        reason = error.strerror if isinstance(error, OSError) else str(error)
        return Check("cache", "broken", f"{place} cannot be written to ({reason})", other)
    detail = f"{place}, {mib(size)} in use, {mib(free)} free"
    if free < WANTED_FREE_BYTES:
        return Check("cache", "absent", f"{detail}: little space", f"vggbench cache prune --all, or {other}")
    return Check("cache", "ok", detail)


def _sample_set() -> Check:
    folder = cache.root() / "sample" / "test"
    drawn = sum(1 for entry in os.scandir(folder) if entry.name.endswith(".jpg")) if folder.is_dir() else 0
    if not drawn:
        return Check("sample set", "absent", "not drawn yet; the first run draws it", "vggbench data prepare")
    return Check("sample set", "ok", f"{drawn:,} images of the reported split are drawn")


def _family() -> Check:
    count = len(list(SAMPLE_FAMILY.glob("*.safetensors")))
    if not count:
        return Check("sample family", "broken", "no shipped weights", "reinstall vggbench, or: nox -s family")
    return Check("sample family", "ok", f"{count} networks trained on the sample set are shipped")


def mib(size: float) -> str:
    """Bytes for people: "12.3 MiB", "4.5 GiB"."""
    return f"{size / 2**30:.1f} GiB" if size >= 2**30 else f"{size / 2**20:.1f} MiB"
