"""TensorRT's rules for FP8, held without TensorRT: our graphs keep them, every planted fault is named with its node."""

from __future__ import annotations

import json
from functools import cache

import ml_dtypes
import numpy as np
import onnx
import pytest
from graph_edits import assert_named, between, doubled, node, put, rounded_bias, rounded_scores, scale_of, wrapped_pool
from onnx import TensorProto, helper
from qdq_networks import NETWORKS, fp8, sample
from typer.testing import CliRunner

from vgg_reference.weights import random_weights
from vggbench.cli import app
from vggbench.errors import CalibrationError
from vggbench.graphs import export_onnx
from vggbench.qdq_fp8 import LEAST_SCALE
from vggbench.qdq_rules import Violation, check_graph, violations

E4M3 = ml_dtypes.float8_e4m3fn


@cache
def whole():
    return export_onnx(fp8(sample("A")))


@pytest.fixture
def graph():
    return onnx.load_from_string(whole())


@pytest.mark.parametrize("batch_norm", [False, True])
@pytest.mark.parametrize("form", ["crop", "dense"])
@pytest.mark.parametrize("network", NETWORKS)
def test_an_fp8_graph_breaks_no_rule(network, form, batch_norm):
    weights = wide(network, batch_norm)
    for kept in ((), ("block3.conv2", "fc7")):
        model = onnx.load_from_string(export_onnx(fp8(weights, form, kept)))
        assert violations(model) == []
        assert "DequantizeLinear" in {each.op_type for each in model.graph.node}


@cache
def wide(network, batch_norm):
    """As wide as FP8 takes from the second block on."""
    size = {"width": 1 / 8, "hidden_width": 1 / 64, "num_classes": 16, "crop_size": 64}
    return random_weights(network, 0, batch_norm=batch_norm, **size)


def other_float(graph):
    put(graph, "fc7.input.zero", np.zeros((), ml_dtypes.float8_e5m2))


def integers(graph):
    put(graph, "fc7.input.zero", np.zeros((), np.int8))


def no_zero_point(graph):
    del node(graph, "fc7.input.quantize").input[2]


def moved(graph):
    put(graph, "fc7.input.zero", np.array(2, E4M3))


def negative_scale(graph):
    put(graph, "fc7.weight.scale", np.array(-0.01, np.float16))


def scale_of_another_type(graph):
    put(graph, "fc7.input.scale", np.array(1, np.float64))


def a_scale_for_each_channel(graph):
    put(graph, "fc7.weight.scale", np.full(512, 0.01, np.float16))


def int8s_steps(graph):
    """Stored with a scale of largest / 127, as INT8's."""
    found = next(each for each in graph.graph.initializer if each.name == "classifier.3.weight")
    values = onnx.numpy_helper.to_array(found).astype(np.float32) * 127 / 448
    put(graph, "classifier.3.weight", values.astype(E4M3))


def float_input(graph):
    node(graph, "fc7").input[0] = "fc6.relu"
    for name in ("fc7.input.quantize", "fc7.input.dequantize"):
        graph.graph.node.remove(node(graph, name))


def odd_channels(graph):
    put(graph, "classifier.3.weight", np.full((511, 512), 448, E4M3))


def wide_window(graph):
    put(graph, "features.11.weight", np.full((32, 32, 7, 7), 448, E4M3))


def grouped(graph):
    node(graph, "block3.conv1").attribute.append(helper.make_attribute("group", 2))


@pytest.mark.parametrize(
    ("plant", "rule", "name", "detail"),
    [
        (other_float, "fp8-type", "fc7.input.quantize", "float8e5m2 in place of float8e4m3fn"),
        (integers, "fp8-type", "fc7.input.quantize", "int8 in place of float8e4m3fn"),
        (no_zero_point, "fp8-type", "fc7.input.quantize", "no zero point, so uint8"),
        (moved, "symmetric", "fc7.input.quantize", "zero point 2"),
        (scale_of(0), "fp8-scale", "fc7.input.quantize", "scale 0.0"),
        (scale_of(np.inf), "fp8-scale", "fc7.input.quantize", "scale inf"),
        (negative_scale, "fp8-scale", "fc7.weight.dequantize", "scale -0.01"),
        (scale_of_another_type, "fp8-scale", "fc7.input.quantize", "float64"),
        (a_scale_for_each_channel, "fp8-scale", "fc7.weight.dequantize", "512 scales"),
        (int8s_steps, "fp8-range", "fc7.weight.dequantize", "the largest is 128"),
        (between, "conv-relu", "fc7.output.quantize", "between fc7 and fc7.relu"),
        (doubled, "one-pair", "fc7.again.quantize", "behind fc7.input.dequantize"),
        (wrapped_pool, "pool-once", "block2.pool", "also block3.conv1.input.quantize behind it"),
        (rounded_bias(E4M3), "float-bias", "fc7.bias.dequantize", "a rounded bias"),
        (float_input, "both-inputs", "fc7", "float input"),
        (rounded_scores, "float-output", "rounded.dequantize", "output scores is rounded"),
        (odd_channels, "fp8-kernel", "fc7", "512 to 511 channels, window 1"),
        (wide_window, "fp8-kernel", "block4.conv1", "32 to 32 channels, window 49"),
        (grouped, "fp8-kernel", "block3.conv1", "groups"),
    ],
)
def test_a_planted_fault_is_named_with_its_node_and_rule(graph, plant, rule, name, detail):
    plant(graph)
    assert assert_named(graph, rule, name, detail) == {rule}


@pytest.mark.parametrize("opset", [18, 21])
def test_opsets_without_e4m3_or_beyond_the_first_tensorrt_10_are_named(graph, opset):
    graph.opset_import[0].version = opset
    assert violations(graph) == [Violation("A crop fp8", "fp8-opset", f"opset {opset}")]


def test_the_rules_of_an_fp8_graph_are_not_those_of_an_int8_one(graph):
    for each in graph.graph.initializer:
        if each.data_type == TensorProto.FLOAT8E4M3FN:
            each.data_type = TensorProto.INT8
    assert {"opset", "per-channel-weights", "scale"} <= {each.rule for each in violations(graph)}


def test_weights_too_small_for_a_scale_of_fp16_use_a_part_of_e4m3_and_break_no_rule(graph):
    int8s_steps(graph)
    put(graph, "fc7.weight.scale", np.array(LEAST_SCALE, np.float16))
    assert violations(graph) == []


def test_the_command_counts_fp8_layers_and_names_what_is_broken(graph, tmp_path):
    good, bad = tmp_path / "good.onnx", tmp_path / "bad.onnx"
    good.write_bytes(whole())
    a_scale_for_each_channel(graph)
    bad.write_bytes(graph.SerializeToString())
    info = check_graph(good)
    assert (info.precision, info.layout, info.opset, info.int8_layers) == ("fp8", "tensorrt", 19, ())
    assert (len(info.fp8_layers), info.float_layers) == (8, ("block1.conv1", "block2.conv1", "fc8"))
    done = CliRunner().invoke(app, ["check", str(good)])
    assert done.exit_code == 0
    assert "8 layers in FP8, 3 in float" in done.stdout
    assert json.loads(CliRunner().invoke(app, ["check", str(good), "--json"]).stdout)["fp8_layers"][0] == "block3.conv1"
    done = CliRunner().invoke(app, ["check", str(bad)])
    assert done.exit_code == CalibrationError.exit_code
    assert "fp8-scale            fc7.weight.dequantize: 512 scales. A tensor has one scale" in done.stdout
