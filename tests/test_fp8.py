"""FP8 graphs: E4M3 as its definition has it, pairs where kernels take them, and all values those of the definition."""

from __future__ import annotations

import dataclasses

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from fp8_cases import VALUES, decoded, model, relative, rounded, scores, session, slowly
from onnx import TensorProto, helper, numpy_helper
from qdq_networks import NETWORKS, drawn, fp8, names_of, ranges, sample, small
from torch.nn import functional

from vgg_reference import ARCHITECTURES
from vgg_reference.weights import random_weights, state_dict
from vggbench.errors import CalibrationError, UsageError, WeightsError
from vggbench.graphs import build_graph, export_onnx, graph_path, newest_opset
from vggbench.qdq_fp8 import LEAST_SCALE, fp16_layers, from_e4m3, input_scale, to_e4m3, weight_scale
from vggbench.ranges import TensorRange


def test_the_definition_has_448_as_its_largest_and_two_to_the_minus_ninth_as_its_smallest_value():
    assert (VALUES[-1], VALUES[1], np.isnan(decoded(127))) == (448, 2.0**-9, True)
    assert (np.diff(VALUES) > 0).all()


@pytest.mark.parametrize("scale", [1.0, 0.0371, 2.0**-14, 3.0])
def test_rounding_is_that_of_the_definition_bit_for_bit(scale):
    generator = np.random.default_rng(0)
    spread = generator.standard_normal(50_000) * np.exp(generator.normal(0, 4, 50_000)) * scale
    middles = (VALUES[1:] + VALUES[:-1]) / 2 * scale
    exact = np.concatenate([VALUES, -VALUES, middles, -middles]) * scale
    beyond = np.array([449, 464, 480, 1e9, np.inf, -449, -np.inf, 0.0, -0.0]) * scale
    values = np.concatenate([spread, exact, beyond]).astype(np.float32)
    found = to_e4m3(values, scale)
    assert np.array_equal(found.view(np.uint8), slowly(values, scale))
    assert np.array_equal(from_e4m3(found, scale), rounded(values, scale))


def test_a_scale_makes_the_largest_value_448_and_cuts_nothing():
    for largest in np.random.default_rng(1).uniform(1e-3, 65504, 500):
        scale = float(input_scale(TensorRange("t", -largest, largest / 2)))
        assert largest <= 448 * scale <= largest * (1 + 2**-9) + 448 * 2.0**-24
        assert float(to_e4m3(np.array([largest]), scale)[0]) == 448
    tiny = weight_scale("fc7", np.full((2, 2), 1e-6, np.float32))
    assert float(tiny) == float(weight_scale("fc7", np.zeros((2, 2), np.float32))) == LEAST_SCALE


@pytest.mark.parametrize("high", [70_000.0, 1e300])
def test_a_range_or_weights_beyond_fp16_are_one_line(high):
    with pytest.raises(CalibrationError, match=r"fc7\.relu: a range of .* no FP16 scale"):
        input_scale(TensorRange("fc7.relu", 0.0, high))
    for worst in (high, np.nan, np.inf):
        with pytest.raises(WeightsError, match="fc7: weights beyond FP16's range, or not finite"):
            weight_scale("fc7", np.array([1.0, worst]))


@pytest.mark.parametrize("batch_norm", [False, True])
@pytest.mark.parametrize("form", ["crop", "dense"])
@pytest.mark.parametrize("network", [*NETWORKS, "shallow-B"])
def test_every_graph_passes_onnx_full_check_and_has_the_same_bytes(network, form, batch_norm, tmp_path):
    made = fp8(small(network, batch_norm), form)
    graph = build_graph(made)
    onnx.checker.check_model(graph, full_check=True)
    assert [entry.version for entry in graph.opset_import] == [19]
    assert graph.SerializeToString(deterministic=True) == export_onnx(made)
    kinds = {value.name: value.type.tensor_type.elem_type for value in (*graph.graph.input, *graph.graph.output)}
    assert kinds == {"images": TensorProto.FLOAT, "scores": TensorProto.FLOAT}
    assert "BatchNormalization" not in {node.op_type for node in graph.graph.node}
    assert graph_path(made, tmp_path).read_bytes() == export_onnx(made)


def test_layers_that_no_fp8_kernel_takes_are_fp16_and_named():
    def kept(network, form="crop", float_layers=(), **size):
        return fp16_layers(fp8_of(random_weights(network, 0, **size), form, float_layers))

    for network in NETWORKS:
        assert kept(network) == ("block1.conv1", "fc8")  # 3 channels, 1,000 classes
        assert kept(network, "dense") == ("block1.conv1", "fc6", "fc8")  # a window of 7 x 7
    assert kept("D", num_classes=1008, batch_norm=True) == ("block1.conv1",)
    assert kept("D", "dense", crop_size=160, num_classes=16) == ("block1.conv1",)
    assert kept("shallow-B", num_classes=16) == ("block1.conv1",)
    assert kept("D", float_layers=("fc7", "block3.conv1")) == ("block1.conv1", "block3.conv1", "fc7", "fc8")
    said = {entry.key: entry.value for entry in model("D").metadata_props}
    names = ("block1.conv1", "block1.conv2", "block2.conv1", "fc8")
    assert said["fp16_layers"].split() == list(fp16_layers(fp8(sample("D")))) == list(names)
    assert (said["arithmetic"], said["layout"], said["opset"]) == ("fp8", "tensorrt", "19")
    made = {output: node.op_type for node in model("D").graph.node for output in node.output}
    for node in model("D").graph.node:
        if node.op_type in ("Conv", "Gemm"):
            pairs = [made.get(name) == "DequantizeLinear" for name in node.input]
            assert pairs == ([False] * 3 if node.name in names else [True, True, False]), node.name


def fp8_of(weights, form, float_layers):
    tensors = tuple(TensorRange(name, -1.0, 400.0) for name in names_of(weights))
    how = dataclasses.replace(ranges(small("A")), network=weights.network, weights=weights.digest, tensors=tensors)
    made = fp8(small("A"), form, float_layers)
    return dataclasses.replace(made, weights=weights, quantization=dataclasses.replace(made.quantization, ranges=how))


@pytest.mark.parametrize("network", ["A-LRN", "C"])
def test_stored_weights_are_the_definitions_and_a_byte_each(network):
    weights, graph = sample(network), model(network)
    state = {name: tensor.numpy() for name, tensor in state_dict(weights).items()}
    stored = {each.name: each for each in graph.graph.initializer}
    rounding = {node.input[0]: node for node in graph.graph.node if node.op_type == "DequantizeLinear"}
    seen = 0
    for name, values in state.items():
        if name not in rounding:
            assert np.array_equal(numpy_helper.to_array(stored[name]), values.astype(np.float16))
            continue
        scale = numpy_helper.to_array(stored[rounding[name].input[1]])
        assert (scale.dtype, scale.shape) == (np.float16, ())
        assert np.abs(values).max() / 448 <= float(scale) < np.abs(values).max() / 448 * (1 + 2**-10)
        assert stored[name].data_type == TensorProto.FLOAT8E4M3FN
        assert stored[name].raw_data == slowly(values, scale).tobytes()
        seen += 1
    assert seen == len(names_of(weights)) - len(fp16_layers(fp8(weights)))


def opened_up(network, batch):
    """Of an FP8 graph: its nodes by name, and every value in it by name; codes as the values that they stand for."""
    graph = onnx.ModelProto()
    graph.CopyFrom(model(network))
    for name in [node.output[0] for node in graph.graph.node]:
        if name.endswith(".q"):
            graph.graph.node.append(helper.make_node("Cast", [name], [f"{name}.value"], to=TensorProto.FLOAT))
        if name != "scores":
            graph.graph.output.add(name=f"{name}.value" if name.endswith(".q") else name)
    # Optimized, what is read may not be what the next node reads.
    run = session(
        graph.SerializeToString(), graph_optimization_level=onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    )
    names = [value.name for value in graph.graph.output]
    values = dict(zip(names, run.run(names, {"images": batch}), strict=True))
    constants = {each.name: numpy_helper.to_array(each) for each in graph.graph.initializer}
    return {node.name: node for node in graph.graph.node}, {**constants, **values}


@pytest.mark.parametrize("loudness", [1, 8])
def test_values_in_the_graph_are_the_definitions_bit_for_bit_also_beyond_the_ranges(loudness):
    nodes, values = opened_up("A", drawn("test", 4) * np.float32(loudness))
    cut = 0
    for name, node in nodes.items():
        if node.op_type == "QuantizeLinear":
            given, scale = values[node.input[0]], np.float32(values[node.input[1]])
            assert given.dtype == np.float16
            assert np.array_equal(values[f"{node.output[0]}.value"] * scale, rounded(given, scale)), name
            cut += int((np.abs(given.astype(np.float32)) > 448 * scale).sum())
    assert (cut > 1000) == (loudness > 1)


@pytest.mark.parametrize("network", NETWORKS)
def test_each_layer_computes_on_values_and_weights_rounded_by_the_definition(network):
    nodes, values = opened_up(network, drawn("test", 2))
    state, kept = state_dict(sample(network)), fp16_layers(fp8(sample(network)))
    checked = 0
    for name, node in nodes.items():
        if node.op_type in ("Conv", "Gemm") and name not in kept and "lrn" not in name:
            pair = nodes[f"{name}.input.quantize"]
            x = rounded(values[pair.input[0]], values[pair.input[1]])
            weights = state[nodes[f"{name}.weight.dequantize"].input[0]].numpy()
            operands = [x, rounded(weights, values[f"{name}.weight.scale"]), state[node.input[2]].numpy()]
            operands = [*map(torch.from_numpy, operands)]
            if node.op_type == "Gemm":
                expected = functional.linear(*operands).numpy()
            else:
                expected = functional.conv2d(*operands, padding=weights.shape[2] // 2).numpy()
            assert relative(values[name].astype(np.float32), expected) < 1e-3, name
            assert relative(values[pair.input[0]].astype(np.float32), x) > 0.01
            checked += 1
    assert checked == len(ARCHITECTURES[network].convolutions) + 3 - len(kept)


def test_float8_zero_points_decide_the_type():
    constants = {each.name: each for each in model("D").graph.initializer}
    for node in model("D").graph.node:
        if node.op_type in ("QuantizeLinear", "DequantizeLinear"):
            zero = constants[node.input[2]]
            assert (zero.data_type, zero.raw_data) == (TensorProto.FLOAT8E4M3FN, b"\0")


def test_every_opset_offered_gives_these_scores_and_older_ones_are_refused():
    made, batch = fp8(sample("A")), drawn("test", 4)
    expected = scores("A", batch)
    for opset in range(19, newest_opset() + 1):
        found = session(export_onnx(made, opset)).run(None, {"images": batch})[0]
        if opset < 23:
            assert np.array_equal(found, expected)
        else:  # the quotient is rounded to the scale's type, FP16, first: one value in a thousand takes another step
            assert relative(found, expected) < 0.05
    for opset in (17, 18):
        with pytest.raises(UsageError, match=f"No opset {opset} for fp8. Accepted here: 19 to"):
            build_graph(made, opset)
    with pytest.raises(UsageError, match="no layout for CPUs"):
        build_graph(dataclasses.replace(made, quantization=dataclasses.replace(made.quantization, layout="cpu")))
