"""INT8 graphs: both layouts compute the same, in integers where they should, and keep the FP32 graph's names."""

from __future__ import annotations

import dataclasses

import numpy as np
import onnx
import pytest
from onnx import numpy_helper
from qdq_networks import NETWORKS, SMALL, drawn, fp32, inputs, int8, names_of, ranges, run, sample, small, variant

from vgg_reference.architectures import architecture
from vgg_reference.weights import random_weights
from vggbench.backends.openvino import load as load_openvino
from vggbench.errors import CalibrationError, UsageError, WeightsError
from vggbench.qdq import fold_batch_norm, quantize
from vggbench.qdq_parts import activation_scale, weight_scales
from vggbench.ranges import LAYOUTS, Quantization, TensorRange, quantized_inputs

openvino = load_openvino()


def relative(found, wanted):
    return float(np.linalg.norm(found - wanted) / np.linalg.norm(wanted))


def layers_of(weights):
    return list(quantized_inputs(architecture(weights.network, weights.batch_norm)))


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize(("network", "form", "batch_norm"), [("D", "crop", False), ("A-LRN", "dense", True)])
def test_the_same_graph_has_the_same_bytes_and_passes_onnx_full_check(network, form, batch_norm, layout):
    first, second = (int8(small(network, batch_norm), layout, form) for _ in range(2))
    onnx.checker.check_model(first, full_check=True)
    assert first.SerializeToString(deterministic=True) == second.SerializeToString(deterministic=True)
    assert not [node for node in first.graph.node if node.op_type == "BatchNormalization"]


@pytest.mark.parametrize("network", NETWORKS)
def test_the_layouts_agree_on_the_sample_networks(network):
    images = drawn("test", 32)
    tensorrt, cpu = (run(int8(sample(network), layout), images)["scores"] for layout in LAYOUTS)
    assert relative(cpu, tensorrt) < 0.01
    assert (cpu.argmax(1) == tensorrt.argmax(1)).all()
    assert 0 < relative(tensorrt, run(fp32(sample(network)), images)["scores"]) < 0.1


@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_tensor_with_a_range_keeps_its_name_and_its_value(layout):
    weights, images = sample("A-LRN"), drawn("test", 8)
    names = [name for name in names_of(weights) if name != "images"]
    wanted = run(fp32(weights), images, names)
    found = run(int8(weights, layout), images, names)
    for name in names:
        assert found[name].shape == wanted[name].shape
        assert found[name].dtype == np.float32
        assert relative(found[name], wanted[name]) < 0.15, name


@pytest.mark.parametrize("form", ["crop", "dense"])
def test_all_layers_in_float_give_the_fp32_scores(form):
    weights = small("D")
    images = inputs(weights)
    wanted = run(fp32(weights, form), images)["scores"]
    for layout in LAYOUTS:
        model = int8(weights, layout, form, layers_of(weights))
        assert "QuantizeLinear" not in {node.op_type for node in model.graph.node}
        np.testing.assert_array_equal(run(model, images)["scores"], wanted)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_float_layer_reads_floats_and_keeps_its_weights(layout):
    weights = small("B")
    model = int8(weights, layout, float_layers=["block2.conv2", "fc7"])
    made = {output: node.op_type for node in model.graph.node for output in node.output}
    stored = {each.name: numpy_helper.to_array(each) for each in model.graph.initializer}
    before = {each.name: numpy_helper.to_array(each) for each in fp32(weights).graph.initializer}
    for node in model.graph.node:
        if node.name in ("block2.conv2", "fc7"):
            assert made[node.input[0]] == "Relu"
            for name in node.input[1:]:
                np.testing.assert_array_equal(stored[name], before[name])
    images = inputs(weights)
    assert relative(run(model, images)["scores"], run(fp32(weights), images)["scores"]) < 0.1


def test_batch_normalization_goes_into_the_weights():
    weights = small("A", batch_norm=True)
    source = fp32(weights)
    nodes, constants = fold_batch_norm(source.graph)
    folded = onnx.ModelProto()
    folded.CopyFrom(source)
    del folded.graph.node[:], folded.graph.initializer[:]
    folded.graph.node.extend(nodes)
    folded.graph.initializer.extend(numpy_helper.from_array(array, name) for name, array in constants.items())
    images = inputs(weights)
    np.testing.assert_allclose(run(folded, images)["scores"], run(source, images)["scores"], rtol=1e-4, atol=1e-5)


def test_values_beyond_a_range_that_cuts_on_purpose_are_cut_in_both_layouts():
    weights, images = sample("A"), drawn("test", 16)
    cut = tuple(dataclasses.replace(each, high=each.high / 3) for each in ranges(weights).tensors)
    how = dataclasses.replace(ranges(weights), tensors=cut, method="percentile")
    tensorrt, cpu = (
        run(
            quantize(
                fp32(weights), dataclasses.replace(variant(weights, layout), quantization=Quantization(how, (), layout))
            ),
            images,
        )["scores"]
        for layout in LAYOUTS
    )
    assert relative(cpu, tensorrt) < 0.01
    assert relative(tensorrt, run(fp32(weights), images)["scores"]) > 0.1


#: Layers of the "cpu" layout that run in floats on purpose: their output is not rounded, and ONNX Runtime has no
#: convolution from integers to floats.
FLOAT_ON_PURPOSE = {
    ("A-LRN", "crop"): {"block1.conv1", "block1.lrn.sum"},
    ("A-LRN", "dense"): {"block1.conv1", "block1.lrn.sum", "fc8"},
    ("D", "dense"): {"fc8"},
}


@pytest.mark.parametrize(("network", "form"), [("A", "crop"), ("C", "crop"), ("D", "dense"), *FLOAT_ON_PURPOSE])
def test_onnx_runtime_runs_the_cpu_layout_in_integers(network, form, tmp_path):
    weights, path = small(network), tmp_path / "optimized.onnx"
    run(int8(weights, "cpu", form), inputs(weights), optimized_model_filepath=str(path))
    kinds = [node.op_type for node in onnx.load(path).graph.node]
    # Fused nodes have names of ONNX Runtime's own; so they are counted.
    purpose = FLOAT_ON_PURPOSE.get((network, form), set())
    assert sum(kinds.count(kind) for kind in ("Conv", "FusedConv", "Gemm", "FusedGemm", "MatMul")) == len(purpose)
    integer = len(layers_of(weights)) - len(purpose - {"block1.lrn.sum"})
    assert kinds.count("QLinearConv") + kinds.count("QGemm") == integer
    assert "Relu" not in kinds
    assert kinds.count("NhwcMaxPool") == (4 if network == "A-LRN" else 5)
    # One more step in floats between two layers would show here: the image's, the normalization's, dense fc8's.
    assert kinds.count("QuantizeLinear") == (2 if network == "A-LRN" else 1)
    assert kinds.count("DequantizeLinear") == len(purpose - {"block1.lrn.sum"})


@pytest.mark.parametrize(("network", "form"), [("A", "crop"), ("A-LRN", "crop"), ("D", "dense")])
def test_a_fourth_channel_of_zeros_changes_no_score(network, form):
    weights = sample(network)
    model = int8(weights, "cpu", form)
    plain = onnx.ModelProto()
    plain.CopyFrom(model)
    pads = [node for node in plain.graph.node if node.op_type == "Pad"]
    # Of A-LRN the first layer is a convolution to floats, which has no integer kernel, and no use for a fourth.
    assert [node.name for node in pads] == ([] if network == "A-LRN" else ["block1.conv1.input.pad"])
    for node in pads:
        plain.graph.node.remove(node)
        next(each for each in plain.graph.node if each.input[0] == node.output[0]).input[0] = node.input[0]
        first = next(each for each in plain.graph.initializer if each.name == "features.0.weight")
        array = numpy_helper.to_array(first)
        assert array.shape[1] == 4
        first.CopyFrom(numpy_helper.from_array(np.ascontiguousarray(array[:, :3]), first.name))
    images = drawn("test", 8)
    np.testing.assert_array_equal(run(model, images)["scores"], run(plain, images)["scores"])


def test_onnx_runtime_would_run_the_tensorrt_layout_in_floats(tmp_path):
    path = tmp_path / "optimized.onnx"
    run(int8(small(), "tensorrt"), inputs(small()), optimized_model_filepath=str(path))
    kinds = {node.op_type for node in onnx.load(path).graph.node}
    assert "QLinearConv" not in kinds


@pytest.mark.parametrize("layout", LAYOUTS)
def test_one_dense_file_takes_images_of_any_size(layout):
    weights = small("A")
    model, float_model = int8(weights, layout, "dense"), fp32(weights, "dense")
    for sides in [(384, 512), (512, 771)]:
        images = inputs(weights, 1, sides)
        assert relative(run(model, images)["scores"], run(float_model, images)["scores"]) < 0.1


@pytest.mark.parametrize("form", ["crop", "dense"])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_openvino_and_onnx_runtime_agree_on_every_graph(layout, form):
    weights = sample("B")
    model, images = int8(weights, layout, form), drawn("test", 16)
    core = openvino.Core()
    compiled = core.compile_model(
        core.read_model(model.SerializeToString()),
        "CPU",
        {"INFERENCE_NUM_THREADS": 1, "INFERENCE_PRECISION_HINT": "f32"},
    )
    found, wanted = compiled(images)[0], run(model, images)["scores"]
    assert relative(found, wanted) < 0.05
    assert (found.argmax(1) == wanted.argmax(1)).mean() >= 0.9


def test_weights_stored_as_integers_give_the_same_scores_in_a_third_of_the_bytes():
    weights = small("D")
    long, short = int8(weights, "tensorrt"), int8(weights, "tensorrt", int8_weights=True)
    np.testing.assert_array_equal(*(run(model, inputs(weights))["scores"] for model in (long, short)))
    assert short.ByteSize() < long.ByteSize() / 3


def test_the_layouts_share_every_integer():
    weights = small("D")
    tensorrt, cpu = (int8(weights, layout, int8_weights=True) for layout in LAYOUTS)
    one, other = (
        {each.name: numpy_helper.to_array(each) for each in model.graph.initializer} for model in (tensorrt, cpu)
    )
    for name, tensor in quantized_inputs(architecture("D")).items():
        index = next(node for node in fp32(weights).graph.node if node.name == name).input
        channels = one[index[1]].shape[1]
        np.testing.assert_array_equal(one[index[1]], other[index[1]][:, :channels])
        assert not other[index[1]][:, channels:].any(), "the image's channels are filled up to four with zeros"
        np.testing.assert_allclose(one[index[2]], other[index[2]] * other[f"{name}.bias.scale"], rtol=1e-6)
        scale = other.get(f"{tensor}.scale", other.get(f"{name}.input.scale"))
        assert one[f"{name}.input.scale"] == scale


def test_rounding_is_half_to_even_and_saturates_as_quantize_linear_does():
    weights = small("A")
    model = int8(weights, "cpu")
    stored = {each.name: numpy_helper.to_array(each) for each in model.graph.initializer}
    source = {each.name: numpy_helper.to_array(each) for each in fp32(weights).graph.initializer}
    for name in ("features.0.weight", "classifier.3.weight"):
        node = next(node for node in model.graph.node if node.input[0] == name)
        scale = stored[node.input[1]].reshape(-1, *[1] * (source[name].ndim - 1))
        found = stored[name][:, : source[name].shape[1]]  # a fourth channel of zeros set aside
        np.testing.assert_array_equal(found, np.clip(np.rint(source[name] / scale), -128, 127))
        assert np.abs(found).max(axis=tuple(range(1, source[name].ndim))).tolist() == [127] * len(source[name])


def test_channels_of_zeros_and_large_biases_get_scales_that_fit():
    kernel = np.zeros((3, 2, 1, 1), np.float32)
    kernel[1], kernel[2] = 1e-12, 0.5
    scales = weight_scales("conv", kernel, np.array([0, 0.3, 0.3], np.float32), np.array(0.02, np.float32))
    assert scales[0] == 1
    assert 0.3 / (0.02 * scales[1]) <= 2**30 * 1.001
    assert scales[2] == np.float32(0.5 / 127)


@pytest.mark.parametrize("high", [1e-45, 1e300])
def test_a_range_without_a_float32_step_is_refused(high):
    with pytest.raises(CalibrationError, match=r"fc7\.relu: a range of"):
        activation_scale(TensorRange("fc7.relu", 0.0, high))


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_weights_that_are_not_finite_are_refused(value):
    kernel = np.ones((2, 2, 1, 1), np.float32)
    kernel[1, 0] = value
    with pytest.raises(WeightsError, match=r"conv: weights that are not finite"):
        weight_scales("conv", kernel, np.zeros(2, np.float32), np.array(1, np.float32))


def test_ranges_of_another_network_are_refused():
    other = random_weights("D", 1, **SMALL)
    chosen = dataclasses.replace(variant(small("D"), "cpu"), weights=other)
    with pytest.raises(CalibrationError, match="belong to other weights"):
        quantize(fp32(other), chosen)


def test_unknown_layers_and_layouts_and_missing_ranges_are_refused():
    weights = small("A")
    with pytest.raises(UsageError, match=r"no layer 'fc9'\. Known: block1\.conv1, .*fc8"):
        int8(weights, "cpu", float_layers=["fc9"])
    with pytest.raises(UsageError, match=r"No layout 'gpu'\. Known: tensorrt, cpu"):
        int8(weights, "gpu")
    with pytest.raises(UsageError, match="without calibration ranges"):
        quantize(fp32(weights), dataclasses.replace(variant(weights, "cpu"), quantization=None))
    short = dataclasses.replace(ranges(weights), tensors=ranges(weights).tensors[:3])
    with pytest.raises(CalibrationError, match="has no range for"):
        quantize(
            fp32(weights), dataclasses.replace(variant(weights, "cpu"), quantization=Quantization(short, (), "cpu"))
        )
