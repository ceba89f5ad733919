"""torch-tensorrt without a GPU: the network as it is exported, Q/DQ from our ranges, and what is asked of its library.

The library and modelopt are fakes with the real names; what dynamo's functions take was recorded from the wheels of
2.11 to 2.14 by tests/torch_tensorrt_surface.py. No engine was built or run here.
"""

import functools
import importlib.machinery
import json
import sys
import types
from pathlib import Path

import numpy as np
import pytest
import torch
from backend_inputs import TOLERANCE, images, make, reference, relative
from fake_torch_cuda import Cuda
from torch import nn

from vggbench import backends, environment, quantize_modelopt
from vggbench.backends import open_session, plain_network, torch_tensorrt
from vggbench.backends.plain_network import exported, profile_for
from vggbench.backends.torch_clock import TorchClock
from vggbench.errors import BackendUnavailable
from vggbench.measure.latency import Moded, Timed, measure_latency
from vggbench.modes import LIKE

SURFACE = json.loads((Path(__file__).parent / "data" / "torch_tensorrt_surface.json").read_text())


# The network as it is exported

FORMS = [
    ("A-LRN", "crop", {}),
    ("B", "crop", {"batch_norm": True}),
    ("C", "dense", {"pool_rounding": "ceil"}),
    ("C", "dense", {"pool_rounding": "floor", "score_pool": "mean_probs"}),
]


@pytest.mark.parametrize(("network", "form", "more"), FORMS)
def test_the_exported_network_gives_the_references_scores_at_every_shape_of_its_profile(network, form, more):
    variant = make("torch-tensorrt", network, form, **more)
    plain, _ = plain_network.plain_network(variant, torch.float32)
    batch = images(3, *((75, 133) if form == "dense" else (64, 64)))
    profile = profile_for(batch.shape, variant)
    program = exported(plain, profile).module()
    inside = [(3, *batch.shape[2:]), (1, *batch.shape[2:])]
    if form == "dense":
        inside += [(1, max(99, profile.least[2]), 200)] if profile.least[2] < profile.most[2] else [(1, 75, 200)]
    for shape in inside:
        assert profile.covers((shape[0], 3, *shape[1:]))
        some = images(*shape)
        with torch.inference_mode():
            assert relative(program(torch.from_numpy(some)).numpy(), reference(variant, some)) <= TOLERANCE["fp32"]


def test_a_batch_of_one_is_an_engine_of_its_own_and_a_larger_one_takes_smaller():
    variant = make("torch-tensorrt")
    assert profile_for((1, 3, 64, 64), variant).most == (1, 3, 64, 64)
    profile = profile_for((8, 3, 64, 64), variant)
    assert profile.covers((1, 3, 64, 64))
    assert not profile.covers((9, 3, 64, 64))


# Q/DQ


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


@pytest.fixture
def modelopt(monkeypatch):
    seen = []
    for name in ("modelopt", "modelopt.torch"):
        monkeypatch.setitem(sys.modules, name, types.ModuleType(name))
    monkeypatch.setitem(sys.modules, "modelopt.torch.quantization", fake_modelopt(seen))
    utils = types.ModuleType("modelopt.torch.quantization.utils")
    utils.export_torch_mode = lambda: pytest.MonkeyPatch.context()
    monkeypatch.setitem(sys.modules, "modelopt.torch.quantization.utils", utils)
    return seen


def quantized(variant):
    plain, layers = plain_network.plain_network(variant, torch.float32)
    from vgg_reference.architectures import architecture
    from vggbench.ranges import quantized_inputs

    tensors = quantized_inputs(architecture(variant.weights.network, variant.weights.batch_norm))
    return quantize_modelopt.quantize(plain, layers, tensors, variant.quantization, variant.precision), layers


@pytest.mark.parametrize(("network", "form", "more"), FORMS[:3])
def test_int8_on_the_torch_path_is_the_onnx_graphs_int8(network, form, more, modelopt):
    variant = make("onnxruntime", network, form, "int8", layout="tensorrt", **more)
    batch = images(4, *((75, 133) if form == "dense" else (64, 64)))
    model, _ = quantized(variant)
    with torch.inference_mode():
        scores = model(torch.from_numpy(batch)).numpy()
    expected = open_session(variant, "cpu", 2)(batch)
    assert relative(scores, expected) <= 5e-2
    assert np.array_equal(scores.argmax(axis=1), expected.argmax(axis=1))


def test_modelopts_own_calibration_never_runs_and_its_defaults_stay_as_they_are(modelopt):
    quantized(make("onnxruntime", precision="int8", layout="tensorrt"))
    assert [config["algorithm"] for config in modelopt] == [None]
    assert sys.modules["modelopt.torch.quantization"].INT8_DEFAULT_CFG["algorithm"] == "max"


def test_layers_that_stay_in_float_have_no_quantizer_on(modelopt):
    variant = make("onnxruntime", precision="int8", layout="tensorrt")
    how = variant.quantization.keeping("fc8")
    import dataclasses

    model, layers = quantized(dataclasses.replace(variant, quantization=how))
    states = {name: layer.input_quantizer.on for name, layer in layers.items()}
    assert [name for name, on in states.items() if not on] == ["fc8"]
    assert model(torch.from_numpy(images(1))).isfinite().all()


def test_fp8_is_per_tensor_and_close_to_fp32(modelopt):
    variant = make("torch-tensorrt", precision="fp8")
    model, layers = quantized(variant)
    assert all(layer.weight_quantizer.amax.numel() == 1 for layer in layers.values())
    batch = images(4)
    with torch.inference_mode():
        assert relative(model(torch.from_numpy(batch)).numpy(), reference(variant, batch)) <= 0.3


def test_a_modelopt_that_quantizes_nothing_is_named(modelopt):
    sys.modules["modelopt.torch.quantization"].quantize = lambda model, config, forward_loop=None: model
    with pytest.raises(BackendUnavailable, match=r"put no quantizer into block1\.conv1"):
        quantized(make("onnxruntime", precision="int8", layout="tensorrt"))


def test_without_modelopt_it_is_one_line_that_says_how_to_get_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "modelopt", None)
    assert "pip install nvidia-modelopt" in quantize_modelopt.available()
    with pytest.raises(BackendUnavailable, match="nvidia-modelopt does not load"):
        quantized(make("onnxruntime", precision="int8", layout="tensorrt"))


# The session against the recorded interface


class Engine(nn.Module):
    """What runs in place of TensorRT: the exported network, with the plan as the real module has it."""

    def __init__(self, program):
        super().__init__()
        self.program, self.serialized_engine = program.module(), b"plan"

    def forward(self, x):
        with torch.no_grad():
            return self.program(x)


def fake_library(version, calls, left=()):
    def compile(program, **options):
        assert set(options) <= set(SURFACE[version]["compile"]), "an argument that this version does not take"
        calls.append(options)
        if left and options["require_full_compilation"]:
            raise AssertionError("require_full_compilation=True was specified, but model is not fully supported")
        graph = torch.fx.Graph()
        x = graph.placeholder("images")
        root = nn.Module()
        root._run_on_acc_0 = Engine(program)
        y = graph.call_module("_run_on_acc_0", (x,))
        for number, function in enumerate(left):
            inner = torch.fx.Graph()
            z = inner.placeholder("z")
            inner.output(inner.call_function(function, (z,)))
            setattr(root, f"_run_on_gpu_{number}", torch.fx.GraphModule(nn.Module(), inner))
            y = graph.call_module(f"_run_on_gpu_{number}", (y,))
        graph.output(y)
        return torch.fx.GraphModule(root, graph)

    def given(**options):
        assert set(options) <= set(SURFACE[version]["Input"])
        return options

    library = types.ModuleType("torch_tensorrt")
    library.dynamo, library.Input = types.SimpleNamespace(compile=compile), given
    return library


@pytest.fixture
def session(monkeypatch, tmp_path):
    """Makes a session on a machine whose GPU is this CPU."""
    monkeypatch.setenv("VGGBENCH_CACHE", str(tmp_path))
    tensorrt = types.ModuleType("tensorrt")
    tensorrt.__spec__ = importlib.machinery.ModuleSpec("tensorrt", None)  # torch asks whether it is there
    monkeypatch.setitem(sys.modules, "tensorrt", tensorrt)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "A GPU")
    monkeypatch.setattr(torch.cuda, "empty_cache", lambda: None)
    monkeypatch.setattr(torch_tensorrt, "TorchClock", functools.partial(TorchClock, cuda=Cuda(tick=0.001)))

    def open_(version="2.13.0", left=(), **more):
        calls = []
        monkeypatch.setitem(sys.modules, "torch_tensorrt", fake_library(version, calls, left))
        return torch_tensorrt.TrtTorchSession(make("torch-tensorrt", **more), "cpu", 1), calls

    return open_


@pytest.mark.parametrize("version", sorted(SURFACE))
def test_every_version_takes_what_is_asked_of_it_and_the_scores_are_the_references(session, version):
    opened, calls = session(version)
    batch = images(3)
    assert relative(opened(batch), reference(make("torch-tensorrt"), batch)) <= TOLERANCE["fp32"]
    (options,) = calls
    assert (options["require_full_compilation"], options["min_block_size"], options["disable_tf32"]) == (True, 1, True)
    assert "enabled_precisions" not in options
    (given,) = options["arg_inputs"]
    assert given["min_shape"] == (1, 3, 64, 64)
    assert given["max_shape"] == given["opt_shape"] == (3, 3, 64, 64)
    assert set(options) <= set.intersection(*(set(each["compile"]) for each in SURFACE.values()))


def test_an_engine_serves_smaller_batches_and_a_larger_one_builds_another(session):
    opened, calls = session()
    for count in (4, 2, 4, 6, 4):
        assert opened(images(count)).shape == (count, 60)
    assert len(calls) == opened.info["compilations"] == 2


def test_fp16_is_the_networks_own_type_between_fp32_in_and_out(session):
    opened, _ = session(precision="fp16")
    batch = images(2)
    assert relative(opened(batch), reference(make("torch-tensorrt"), batch)) <= TOLERANCE["fp16"]
    assert {each.dtype for each in opened._plain.parameters()} == {torch.float16}


@pytest.mark.parametrize(("precision", "off"), [("fp32", True), ("tf32", False)])
def test_tf32_is_said_to_the_builder(session, precision, off):
    opened, calls = session(precision=precision)
    opened(images(1))
    assert calls[0]["disable_tf32"] is off
    assert opened.info["tf32"] is not off


def test_int8_runs_through_the_session(session, modelopt):
    opened, _ = session(precision="int8")
    batch = images(4)
    assert relative(opened(batch), reference(make("torch-tensorrt"), batch)) <= TOLERANCE["int8"]
    assert "ranges" in opened.info


def test_a_partial_compilation_is_refused_and_its_nodes_are_named(session):
    opened, calls = session(left=(torch.relu, torch.neg))
    with pytest.raises(BackendUnavailable, match=r"leave a part of the network in torch \(.*relu.*neg.*\)") as error:
        opened(images(1))
    assert "\n" not in str(error.value)
    assert [call.get("dryrun") for call in calls] == [None, True]


def test_a_partial_compilation_that_the_library_does_not_notice_is_refused_too(session, monkeypatch):
    opened, _ = session(left=(torch.relu,))
    real = sys.modules["torch_tensorrt"].dynamo.compile

    def lax(program, **options):
        return real(program, **{**options, "require_full_compilation": False})

    monkeypatch.setattr(sys.modules["torch_tensorrt"], "dynamo", types.SimpleNamespace(compile=lax))
    with pytest.raises(BackendUnavailable, match="leave a part"):
        opened(images(1))


def test_the_plan_is_the_engine_that_ran(session):
    opened, calls = session()
    assert opened.plan(images(2)) == b"plan"
    assert len(calls) == 1


def test_it_times_itself_in_a_mode_and_closes_twice(session):
    opened, _ = session()
    assert isinstance(opened, Timed)
    assert isinstance(opened, Moded)
    opened.use(LIKE["trtexec-10"])
    assert len(measure_latency(opened, 1, (64, 64), 0.0).values) >= 10
    assert opened.info["transfers"] == "host to device and back, pinned memory"
    opened.close()
    opened.close()
    with pytest.raises(ValueError, match="closed"):
        opened(images(1))


# Without it


def test_without_a_driver_it_is_one_line_and_its_import_costs_nothing(monkeypatch):
    monkeypatch.setattr(environment, "has_cuda", lambda: False)
    with pytest.raises(BackendUnavailable, match="pip install torch-tensorrt") as error:
        open_session(make("torch-tensorrt"))
    assert error.value.exit_code == 6
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("raised", [AssertionError("Torch is not for CUDA"), AssertionError(), OSError("no lib")])
def test_whatever_its_import_raises_it_is_not_available_and_why(monkeypatch, raised):
    class Finder:
        def find_spec(self, name, path=None, target=None):
            if name == "torch_tensorrt":
                raise raised

    monkeypatch.setattr(environment, "has_cuda", lambda: True)
    monkeypatch.setattr(sys, "meta_path", [Finder(), *sys.meta_path])
    monkeypatch.delitem(sys.modules, "torch_tensorrt", raising=False)
    assert f"does not load ({type(raised).__name__}" in torch_tensorrt.available()


def test_on_a_cpu_it_offers_nothing_and_says_why():
    assert set(torch_tensorrt.precisions("cpu").values()) == {"TensorRT runs on NVIDIA GPUs alone"}
    assert all(torch_tensorrt.precisions("cuda").values()) or torch.cuda.is_available()
    assert set(torch_tensorrt.precisions("cpu")) == set(backends.PRECISIONS)
