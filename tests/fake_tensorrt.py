"""TensorRT 8.6, 10 or 11 on the CPU: the real names of each version, scores computed by onnxruntime.

A class has here only what the recorded surface of the version (tests/data) has, and nothing is set that cannot be set
there. Rules that differ between versions are held as TensorRT's documentation gives them: what 8.6 must be allowed by
flags, 10 refuses and 11 has no names for.
"""

from __future__ import annotations

import enum
import importlib.machinery
import json
import sys
import types
from dataclasses import dataclass, field
from pathlib import Path

from fake_cuda import Fake
from fake_tensorrt_build import build_classes
from fake_tensorrt_run import run_classes

from vggbench import environment
from vggbench.backends import tensorrt as backend
from vggbench.engines import buffers, buffers_cuda, logs, opening
from vggbench.engines.device import Device

DATA = Path(__file__).parent / "data"
SURFACES = {
    path.stem.rpartition("_")[2]: json.loads(path.read_text(encoding="utf-8"))
    for path in sorted(DATA.glob("tensorrt_surface_*.json"))
}
#: One of each of 8.6, 10 and 11; the other recorded ones are held by their names alone.
MAJORS = ("8.6.0", "10.16.1", "11.0.0")


@dataclass
class Faults:
    """What goes wrong, in TensorRT's words. fall_back: layers that run in FP32 whatever the graph says."""

    parse: str = ""
    build: str = ""
    deserialize: str = ""
    context: bool = False
    enqueue: bool = False
    refuse_timings: bool = False
    fall_back: set[str] = field(default_factory=set)


def strict(name, base, surface):
    """The class without what the version lacks; attributes can be set only where the version lets them be."""
    known = surface["classes"].get(name)
    if known is None:
        return None
    offered = {*known.get("methods", {}), *known.get("properties", {})}
    body = {
        key: value for key, value in vars(base).items() if key.startswith("_") or key in offered or key in ("__doc__",)
    }

    def __setattr__(self, key, value):
        if not key.startswith("_") and known["properties"].get(key) != "read and write":
            raise AttributeError(f"{name}.{key} cannot be set in TensorRT {surface['version']}")
        object.__setattr__(self, key, value)

    body["__setattr__"] = __setattr__
    body.pop("__dict__", None)
    body.pop("__weakref__", None)
    return type(name, (), body)


def make(version: str, cuda, faults: Faults | None = None) -> types.ModuleType:
    """A module to stand in sys.modules as tensorrt. cuda: the fake_cuda.Fake that the engine's memory lies in."""
    surface = SURFACES[version]
    trt = types.ModuleType("tensorrt")
    trt.__version__ = surface["version"]
    trt.__spec__ = importlib.machinery.ModuleSpec("tensorrt", None)  # torch looks for one
    faults = faults or Faults()
    for name, known in surface["classes"].items():
        if "members" in known and "." not in name:
            setattr(trt, name, enum.IntEnum(name, known["members"]))
    severity = enum.IntEnum("Severity", surface["classes"]["ILogger.Severity"]["members"])

    def error(logger, text):
        logger.log(severity.ERROR, text)

    built = build_classes(trt, surface, faults, error)
    for name, base in {**built, **run_classes(trt, surface, cuda, faults, error)}.items():
        found = strict(name, base, surface)
        if found is not None:
            setattr(trt, name, found)
    for name in ("ILogger", "IProgressMonitor"):  # subclassed, so plain
        if name in surface["classes"]:
            setattr(trt, name, type(name, (), {"__init__": lambda self: None}))
    trt.ILogger.Severity = severity
    return trt


#: The GPU that the fakes are.
DEVICE = Device("NVIDIA Fake", 90, "580.65.06 (CUDA 13.0)")


def install(monkeypatch, version, memory_bytes=1 << 34, **faults):
    """A machine with this version of TensorRT, an NVIDIA GPU and cuda-python. Returns TensorRT, CUDA, the faults."""
    cuda, wrong = Fake(memory_bytes), Faults(**faults)
    trt = make(version, cuda, wrong)
    monkeypatch.setitem(sys.modules, "tensorrt", trt)
    monkeypatch.setitem(sys.modules, "cuda.bindings.runtime", cuda.module())
    monkeypatch.setattr(buffers, "PROVIDERS", {"cuda-python": "vggbench.engines.buffers_cuda"})
    monkeypatch.setattr(environment, "has_cuda", lambda: True)
    for module in (backend, logs, opening):
        monkeypatch.setattr(module, "first_device", lambda: DEVICE)
    buffers_cuda._cuda.cache_clear()
    logs.logger.cache_clear()
    return trt, cuda, wrong
