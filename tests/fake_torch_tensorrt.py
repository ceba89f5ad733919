"""torch-tensorrt and nvidia-modelopt on the CPU: the real names, as recorded from the wheels of 2.11 to 2.14.

What dynamo's functions and classes take was recorded by tests/torch_tensorrt_surface.py. A plan is the exported program
in a file's bytes, so that an engine made of a plan alone gives the network's scores or none.
"""

import functools
import importlib.machinery
import io
import json
import sys
import types
from pathlib import Path

import pytest
import torch
from backend_inputs import make
from fake_torch_cuda import Cuda
from torch import nn

from vggbench.backends import torch_tensorrt, torch_tensorrt_compile, torch_tensorrt_engines
from vggbench.backends.torch_clock import TorchClock
from vggbench.engines.device import Device

SURFACE = json.loads((Path(__file__).parent / "data" / "torch_tensorrt_surface.json").read_text())
#: The GPU that the CPU is.
DEVICE = Device("A GPU", 90, "580.65.06 (CUDA 13.0)")


class Quantizer(nn.Module):
    """What modelopt's TensorQuantizer is to us: amax, enable, disable; it rounds."""

    def __init__(self, kind):
        super().__init__()
        self.kind, self.amax, self.on = kind, None, True

    def disable(self):
        self.on = False

    def forward(self, x):
        if not self.on:
            return x
        assert self.amax is not None, "a quantizer that was left without a range"
        if self.kind == "fp8":
            scale = self.amax / 448
            return (x / scale).clamp(-448, 448).to(torch.float8_e4m3fn).float() * scale
        scale = self.amax / 127
        return torch.clamp(torch.round(x / scale), -128, 127) * scale


def rounded(layer, x):
    x, weight = layer.input_quantizer(x), layer.weight_quantizer(layer.weight)
    if isinstance(layer, nn.Linear):
        return nn.functional.linear(x, weight, layer.bias)
    return layer._conv_forward(x, weight, layer.bias)


def fake_modelopt(seen):
    def quantize(model, config, forward_loop=None):
        assert forward_loop is None
        seen.append(config)
        for layer in model.modules():
            if isinstance(layer, (nn.Conv2d, nn.Linear)):
                for name in ("input_quantizer", "weight_quantizer", "output_quantizer"):
                    setattr(layer, name, Quantizer(config["kind"]))

                layer.forward = functools.partial(rounded, layer)
        return model

    module = types.ModuleType("modelopt.torch.quantization")
    module.quantize = quantize
    module.INT8_DEFAULT_CFG = {"kind": "int8", "algorithm": "max"}
    module.FP8_DEFAULT_CFG = {"kind": "fp8", "algorithm": "max"}
    return module


def install_modelopt(monkeypatch):
    """nvidia-modelopt on this machine; what it was asked for is in the list."""
    seen = []
    for name in ("modelopt", "modelopt.torch"):
        monkeypatch.setitem(sys.modules, name, types.ModuleType(name))
    monkeypatch.setitem(sys.modules, "modelopt.torch.quantization", fake_modelopt(seen))
    utils = types.ModuleType("modelopt.torch.quantization.utils")
    utils.export_torch_mode = lambda: pytest.MonkeyPatch.context()
    monkeypatch.setitem(sys.modules, "modelopt.torch.quantization.utils", utils)
    return seen


@functools.cache
def program(variant, shapes, device):
    """Tracing is most of these tests' time; a network is traced once for all of them."""
    return torch_tensorrt_compile.program(variant, shapes, device)


@functools.cache
def serialized(program):
    plan = io.BytesIO()
    torch.export.save(program, plan)
    return plan.getvalue()


@functools.cache
def deserialized(plan):
    if not plan.startswith(b"PK"):
        raise RuntimeError("Unable to deserialize the TensorRT engine")
    return torch.export.load(io.BytesIO(plan)).module()


def module_class(version, opened):
    """The class that holds an engine: it takes and has what this version's has. opened: a list of what was made."""
    known, there = SURFACE[version]["TorchTensorRTModule"], SURFACE[version]["TorchTensorRTModule."]

    class TorchTensorRTModule(nn.Module):
        def __init__(self, *given, **more):
            super().__init__()
            taken = {**dict(zip(known, given, strict=False)), **more}
            assert set(taken) <= set(known), "an argument that this version does not take"
            for name in ("serialized_engine", "input_binding_names", "output_binding_names", "name"):
                assert name in there
                setattr(self, name, taken[name])
            self.requires_output_allocator = taken.get("requires_output_allocator", False)
            for name in ("requires_native_multidevice", "aliased_io"):
                if name in there:
                    setattr(self, name, None)
            self.settings, self.unowned = taken["settings"], False
            self.program = deserialized(self.serialized_engine)
            opened.append(self)

        def set_output_tensors_as_unowned(self, enabled):
            assert "set_output_tensors_as_unowned" in there
            self.unowned = enabled

        def forward(self, x):
            with torch.no_grad():
                return self.program(x)

    return TorchTensorRTModule


class Library:
    """calls: the options of every compile. opened: the engines' modules. left: functions that stay in torch."""

    def __init__(self, version, left=()):
        self.version, self.left, self.calls, self.opened = version, left, [], []

    def taken(self, name, options):
        assert set(options) <= set(SURFACE[self.version][name]), "an argument that this version does not take"
        return types.SimpleNamespace(**options)

    def compile(self, program, **options):
        self.taken("compile", options)
        self.calls.append(options)
        if self.left and options["require_full_compilation"]:
            raise AssertionError("require_full_compilation=True was specified, but model is not fully supported")
        path = Path(options["timing_cache_path"])
        path.write_bytes(path.read_bytes() + b"timed ")
        graph, root = torch.fx.Graph(), nn.Module()
        settings = self.taken("CompilationSettings", {k: v for k, v in options.items() if k != "arg_inputs"})
        names = {"input_binding_names": ["images"], "output_binding_names": ["output0"], "name": "_run_on_acc_0"}
        root._run_on_acc_0 = self.module.runtime.TorchTensorRTModule(serialized(program), **names, settings=settings)
        root._run_on_acc_0.set_output_tensors_as_unowned(True)
        y = graph.call_module("_run_on_acc_0", (graph.placeholder("images"),))
        for number, function in enumerate(self.left):
            inner = torch.fx.Graph()
            z = inner.placeholder("z")
            inner.output(inner.call_function(function, (z,)))
            setattr(root, f"_run_on_gpu_{number}", torch.fx.GraphModule(nn.Module(), inner))
            y = graph.call_module(f"_run_on_gpu_{number}", (y,))
        graph.output(y)
        return torch.fx.GraphModule(root, graph)

    @functools.cached_property
    def module(self):
        """To stand in sys.modules as torch_tensorrt."""
        found = types.ModuleType("torch_tensorrt")
        found.__version__ = self.version
        found.Input = lambda **options: vars(self.taken("Input", options))
        found.Device = lambda **options: self.taken("Device", options)
        settings = lambda **options: self.taken("CompilationSettings", options)  # noqa: E731
        found.dynamo = types.SimpleNamespace(compile=self.compile, CompilationSettings=settings)
        found.runtime = types.SimpleNamespace(TorchTensorRTModule=module_class(self.version, self.opened))
        return found


def install(monkeypatch, folder):
    """A machine whose GPU is this CPU and whose cache is the folder; returns what opens a session on it."""
    monkeypatch.setenv("VGGBENCH_CACHE", str(folder))
    tensorrt = types.ModuleType("tensorrt")
    tensorrt.__spec__ = importlib.machinery.ModuleSpec("tensorrt", None)  # torch asks whether it is there
    tensorrt.__version__ = "11.0.0"
    monkeypatch.setitem(sys.modules, "tensorrt", tensorrt)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "A GPU")
    monkeypatch.setattr(torch.cuda, "empty_cache", lambda: None)
    monkeypatch.setattr(torch_tensorrt, "TorchClock", functools.partial(TorchClock, cuda=Cuda(tick=0.001)))
    monkeypatch.setattr(torch_tensorrt_engines, "program", program)
    for module in (torch_tensorrt, torch_tensorrt_engines):
        monkeypatch.setattr(module, "first_device", lambda: DEVICE)

    def open_(version="2.13.0", left=(), profile=None, **more):
        library, variant = Library(version, left), make("torch-tensorrt", **more)
        monkeypatch.setitem(sys.modules, "torch_tensorrt", library.module)
        asked = profile or torch_tensorrt.profile_of(variant)
        return torch_tensorrt.TrtTorchSession(variant, "cpu", 1, asked), library

    return open_
