"""Engines of torch-tensorrt: compiled, and kept in the cache as the native backend's plans are.

Not in torch-tensorrt's own cache: it takes only engines whose weights can be exchanged (they may be slower), and names
them by graph and options alone, not by weights, GPU, driver or version. A kept plan goes into the module that compiling
puts it into. That module alone is run, a new engine's too, so that the first and every later opening run the same.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import importlib
import json
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

import vgg_reference.architectures
import vgg_reference.model
import vgg_reference.weights
from vggbench import cache, environment, qdq_parts, quantize_modelopt, ranges
from vggbench import precisions as table
from vggbench.backends import plain_network, torch_tensorrt_compile
from vggbench.backends.plain_network import Shapes
from vggbench.backends.torch_tensorrt_compile import compiled, library, line, options, program, settings
from vggbench.engines import plans
from vggbench.engines.device import Device, first_device
from vggbench.engines.logs import LOG
from vggbench.variants import Variant

#: The module that holds an engine, and what of it would need more than its plan and names to be made again.
_MODULE, _MORE = "TorchTensorRTModule", ("requires_output_allocator", "requires_native_multidevice", "aliased_io")
#: Of what decides an engine, what decides how long its kernels take.
_TIMINGS = ("tensorrt", "torch_tensorrt", "gpu", "sm", "driver")


@dataclass(frozen=True)
class Engine:
    """module: images on the device -> scores there. plan: None where the module does not show it.

    key, source, kept: as of engines.plans.Plan. build_seconds: 0 from the cache.
    """

    module: Any
    plan: bytes | None
    key: str = ""
    source: str = "built"
    kept: bool = False
    build_seconds: float = 0.0

    @property
    def info(self) -> dict[str, Any]:
        """For a record, flat."""
        return {
            "engine_key": self.key,
            "engine_source": self.source,
            "engine_kept": self.kept,
            "engine_bytes": len(self.plan) if self.plan is not None else None,
            "engine_module": type(self.module).__name__,
        }


def opened(variant: Variant, shapes: Shapes, device: str) -> Engine:
    """The kept engine, or one compiled now and kept. Raises BackendUnavailable, WeightsError, CalibrationError.

    What the cache cannot do is said in one line and done without.
    """
    gpu = first_device()
    fields = key_fields(variant, shapes, gpu) if gpu is not None else {}
    key = plans.digest(fields) if fields else ""
    path = plans.plan_path(cache.root(), key) if fields else None
    data, wrong = plans.kept(path, fields)
    if data is not None:
        try:
            module = _restored(data, variant)
        except Exception as error:  # its own kinds, TensorRT's and torch's
            wrong = f"torch-tensorrt does not take it: {line(error)}"
        else:
            return Engine(module, module.serialized_engine, key, "cache", True)
    source = plans.built_because(wrong)
    return dataclasses.replace(_built(variant, shapes, device, path, fields), key=key, source=source)


def key_fields(variant: Variant, shapes: Shapes, gpu: Device) -> dict[str, Any]:
    """Everything that decides an engine, the code that draws its network included."""
    drawn = {"variant": variant.identity, "shapes": dataclasses.asdict(shapes), "sources": _sources()}
    return {**decisive(variant, gpu), **drawn}


def decisive(variant: Variant, gpu: Device) -> dict[str, Any]:
    """Of that all but the network and its shapes."""
    return {
        **plans.machine(importlib.import_module("tensorrt"), gpu),
        "torch": torch.__version__,
        "cuda": torch.version.cuda,
        "torch_tensorrt": library().__version__,
        "modelopt": environment.installed("nvidia-modelopt") if variant.precision in table.QUANTIZED else None,
        **settings(variant),
    }


def the_engine(module: Any) -> Any:
    """The one submodule that is all of a compiled graph, None where the graph is anything else."""
    calls = [node for node in module.graph.nodes if node.op not in ("placeholder", "output")]
    if len(calls) != 1 or calls[0].op != "call_module":
        return None
    found = module.get_submodule(str(calls[0].target))
    return found if isinstance(getattr(found, "serialized_engine", None), (bytes, bytearray)) else None


def _built(variant: Variant, shapes: Shapes, device: str, path: Path | None, fields: dict[str, Any]) -> Engine:
    """A new engine, kept where the cache takes it, with the timings of its build for the next one."""
    here = {name: fields[name] for name in _TIMINGS if name in fields}
    timings = plans.timings_path(cache.root(), here) if path is not None else None
    started = time.perf_counter()
    # torch-tensorrt writes its timings in place, whoever reads or writes them: it gets a file of its own.
    with tempfile.TemporaryDirectory(prefix="vggbench-") as folder:
        lent = Path(folder, "timings")
        with cache.storage_errors(lent):
            lent.write_bytes(plans.kept(timings, here)[0] or b"")
        graph = compiled(program(variant, shapes, device), options(variant, shapes, device, lent))
        learnt = lent.read_bytes()
    seconds = time.perf_counter() - started
    module = the_engine(graph)
    if module is None:
        return Engine(graph, None, build_seconds=seconds)
    plan, body = bytes(module.serialized_engine), _body(module)
    kept = body is not None and plans.keep(path, fields, body)
    if kept:
        plans.keep(timings, here, learnt)
    return Engine(module, plan, kept=kept, build_seconds=seconds)


def _body(module: Any) -> bytes | None:
    """What is kept of an engine: a line of JSON, then its plan. None, said in one line, for what this does not hold."""
    if type(module).__name__ != _MODULE or any(getattr(module, name, None) for name in _MORE):
        LOG.warning("torch-tensorrt's engine is a %s of a kind that is not kept.", type(module).__name__)
        return None
    said = {
        "name": module.name,
        "inputs": list(module.input_binding_names),
        "outputs": list(module.output_binding_names),
    }
    return json.dumps(said).encode() + b"\n" + bytes(module.serialized_engine)


def _restored(data: bytes, variant: Variant) -> Any:
    """The module as compiling leaves it. Raises what torch-tensorrt, TensorRT and torch raise."""
    head, _, plan = data.partition(b"\n")
    said, trt = json.loads(head), library()
    module = getattr(trt.runtime, _MODULE)(
        plan,
        said["inputs"],
        said["outputs"],
        name=said["name"],
        settings=trt.dynamo.CompilationSettings(device=trt.Device(gpu_id=0), **settings(variant)),
    )
    module.set_output_tensors_as_unowned(True)  # as compiling does: results are not overwritten by later calls
    return module


@functools.cache
def _sources() -> str:
    """Digest of the code that draws the network and asks for the engine: who changes it gets other engines."""
    reference = (vgg_reference.architectures, vgg_reference.model, vgg_reference.weights)
    drawing = (*reference, plain_network, quantize_modelopt, qdq_parts, ranges)
    paths = [Path(str(module.__file__)) for module in (*drawing, torch_tensorrt_compile)]
    return hashlib.sha256(b"\0".join(path.read_bytes() for path in paths)).hexdigest()
