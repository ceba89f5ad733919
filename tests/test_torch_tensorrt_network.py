"""torch-tensorrt without a GPU: the network as it is exported, and its Q/DQ nodes from our ranges."""

import dataclasses
import sys
import types

import numpy as np
import pytest
import torch
from backend_inputs import TOLERANCE, images, make, reference, relative
from fake_torch_tensorrt import install_modelopt

from vgg_reference.architectures import architecture
from vggbench import quantize_modelopt
from vggbench.backends import open_session, plain_network
from vggbench.backends.plain_network import exported, shapes_for
from vggbench.backends.torch_tensorrt import profile_of
from vggbench.errors import BackendUnavailable, UsageError
from vggbench.ranges import quantized_inputs
from vggbench.sizes import parse

# The network as it is exported

FORMS = [
    ("A-LRN", "crop", {}),
    ("B", "crop", {"batch_norm": True}),
    ("C", "dense", {"pool_rounding": "ceil"}),
    ("C", "dense", {"pool_rounding": "floor", "score_pool": "mean_probs"}),
]


def drawn(variant, shape):
    """The shapes of the engine for images of this shape, and the network as it is exported for it."""
    shapes = shapes_for(*shape[2:], variant, profile_of(variant))
    plain, _ = plain_network.plain_network(variant, torch.float32)
    return shapes, exported(plain, shapes).module()


@pytest.mark.parametrize(("network", "form", "more"), FORMS)
def test_the_exported_network_gives_the_references_scores_at_every_shape_of_its_profile(network, form, more):
    variant = make("torch-tensorrt", network, form, sizes=parse("1:2:3", "64:96:256"), **more)
    shapes, program = drawn(variant, (3, 3, 75, 133) if form == "dense" else (3, 3, 64, 64))
    inside = [(3, 75, 133), (1, 75, 133)] if form == "dense" else [(3, 64, 64), (1, 64, 64)]
    if form == "dense":
        inside += [(1, max(99, shapes.least[2]), 200)] if shapes.least[2] < shapes.most[2] else [(1, 75, 200)]
    for shape in inside:
        sides = (shape[0], 3, *shape[1:])
        assert all(low <= side <= high for low, side, high in zip(shapes.least, sides, shapes.most, strict=True))
        some = images(*shape)
        with torch.inference_mode():
            assert relative(program(torch.from_numpy(some)).numpy(), reference(variant, some)) <= TOLERANCE["fp32"]


def test_an_images_engine_depends_on_its_size_alone_and_covers_what_was_asked_for():
    crops = make("torch-tensorrt", sizes=parse("4:8:16", None))
    assert dataclasses.astuple(shapes_for(64, 64, crops, profile_of(crops))) == (
        (4, 3, 64, 64), (8, 3, 64, 64), (16, 3, 64, 64)
    )  # fmt: skip
    exact = make("torch-tensorrt", sizes=parse("2", None))
    assert shapes_for(64, 64, exact, profile_of(exact)).most == (2, 3, 64, 64)
    dense = make("torch-tensorrt", "C", "dense", sizes=parse(None, "64:96:256"))
    asked = profile_of(dense)
    general = shapes_for(100, 133, dense, asked)
    assert shapes_for(256, 97, dense, asked) == general
    assert (general.best, general.most) == ((1, 3, 96, 96), (1, 3, 256, 256))
    low = shapes_for(64, 133, dense, asked)
    assert (low.least[2], low.most[2], low.most[3]) == (64, 64, 256), "a side with one row of scores has its own engine"
    with pytest.raises(UsageError, match=r"Images of 64x300 .*width 64 to 256.*--sizes 64:96:300\.$"):
        shapes_for(64, 300, dense, asked)


# Q/DQ


@pytest.fixture
def modelopt(monkeypatch):
    return install_modelopt(monkeypatch)


def quantized(variant):
    plain, layers = plain_network.plain_network(variant, torch.float32)
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


@pytest.mark.parametrize("precision", ["int8", "fp8"])
def test_ranges_lie_where_the_layer_does(precision):
    """modelopt would copy one of the CPU's in every call, and the copy would stand in what torch.export gives."""
    variant = make("torch-tensorrt", precision=precision)
    _, layers = plain_network.plain_network(variant, torch.float32)
    (name, plain), *_ = layers.items()
    elsewhere = types.SimpleNamespace(device=torch.device("meta"), detach=plain.weight.detach)
    quantizers = types.SimpleNamespace(amax=None), types.SimpleNamespace(amax=None)
    layer = types.SimpleNamespace(weight=elsewhere, bias=plain.bias)
    layer.input_quantizer, layer.weight_quantizer = quantizers
    tensors = quantized_inputs(architecture(variant.weights.network))
    quantize_modelopt._set(layer, name, tensors[name], variant.quantization, precision)
    assert [each.amax.device.type for each in quantizers] == ["meta", "meta"]


def test_a_modelopt_that_quantizes_nothing_is_named(modelopt):
    sys.modules["modelopt.torch.quantization"].quantize = lambda model, config, forward_loop=None: model
    with pytest.raises(BackendUnavailable, match=r"put no quantizer into block1\.conv1"):
        quantized(make("onnxruntime", precision="int8", layout="tensorrt"))


def test_without_modelopt_it_is_one_line_that_says_how_to_get_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "modelopt", None)
    assert "pip install nvidia-modelopt" in quantize_modelopt.available()
    with pytest.raises(BackendUnavailable, match="nvidia-modelopt does not load"):
        quantized(make("onnxruntime", precision="int8", layout="tensorrt"))
