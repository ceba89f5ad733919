"""TensorRT's rules, held without TensorRT: our graphs keep them, and every planted fault is named with its node."""

from __future__ import annotations

import json

import numpy as np
import onnx
import pytest
from graph_edits import (
    assert_named,
    between,
    doubled,
    insert,
    node,
    put,
    rounded_bias,
    rounded_scores,
    scale_of,
    wrapped_pool,
)
from onnx import TensorProto, helper, numpy_helper
from qdq_networks import NETWORKS, fp32, int8, small, variant
from typer.testing import CliRunner

from vggbench.cli import app
from vggbench.errors import CalibrationError
from vggbench.graphs import export_onnx
from vggbench.qdq_rules import EXPLANATIONS, FP8_RULES, RULES, Violation, check_graph, violations


@pytest.fixture
def graph():
    copy = onnx.ModelProto()
    copy.CopyFrom(int8(small("A"), "tensorrt"))
    return copy


@pytest.mark.parametrize("batch_norm", [False, True])
@pytest.mark.parametrize("form", ["crop", "dense"])
@pytest.mark.parametrize("network", NETWORKS)
def test_the_tensorrt_layout_breaks_no_rule(network, form, batch_norm):
    weights = small(network, batch_norm)
    assert violations(int8(weights, "tensorrt", form)) == []
    assert violations(int8(weights, "tensorrt", form, ["block1.conv1", "fc7"], int8_weights=True)) == []


def test_the_cpu_layout_breaks_some():
    broken = {each.rule for each in violations(int8(small("A"), "cpu"))}
    assert {"int8-type", "float-bias", "pool-once"} <= broken


def asymmetric(graph):
    put(graph, "fc7.input.zero", np.array(3, np.int8))


def unsigned(graph):
    put(graph, "fc7.input.zero", np.array(0, np.uint8))


def normalized(graph):
    for name in ("gain", "shift", "mean", "variance"):
        graph.graph.initializer.append(numpy_helper.from_array(np.ones(8, np.float32), name))
    inputs = ["block2.conv1", "gain", "shift", "mean", "variance"]
    insert(graph, "block2.relu1", helper.make_node("BatchNormalization", inputs, ["normed"], name="block2.norm1"))


def per_tensor_weights(graph):
    put(graph, "fc7.weight.scale", np.array(0.01, np.float32))
    put(graph, "fc7.weight.zero", np.array(0, np.int8))


def other_axis(graph):
    for name in ("fc7.weight.quantize", "fc7.weight.dequantize"):
        node(graph, name).attribute[0].i = 1


def per_channel_input(graph):
    put(graph, "block2.conv1.input.scale", np.full(4, 0.1, np.float32))


def no_dequantize(graph):
    node(graph, "fc7").input[0] = "fc7.input.q"
    graph.graph.node.remove(node(graph, "fc7.input.dequantize"))


def no_quantize(graph):
    node(graph, "fc7.input.dequantize").input[0] = "fc6.relu"
    graph.graph.node.remove(node(graph, "fc7.input.quantize"))


def float_weights(graph):
    node(graph, "fc7").input[1] = "classifier.3.weight"
    for name in ("fc7.weight.quantize", "fc7.weight.dequantize"):
        graph.graph.node.remove(node(graph, name))


def half_scale(graph):
    put(graph, "fc7.input.scale", np.array(1, np.float16))


def foreign_operator(graph):
    node(graph, "block1.relu1").op_type = "HardSwish"


def own_domain(graph):
    node(graph, "block1.relu1").domain = "com.microsoft"


@pytest.mark.parametrize(
    ("plant", "rule", "name", "detail"),
    [
        (asymmetric, "symmetric", "fc7.input.quantize", "zero point 3"),
        (rounded_bias(np.int32), "float-bias", "fc7.bias.dequantize", "a rounded bias"),
        (between, "conv-relu", "fc7.output.quantize", "between fc7 and fc7.relu"),
        (per_tensor_weights, "per-channel-weights", "fc7.weight.quantize", "one scale"),
        (doubled, "one-pair", "fc7.again.quantize", "behind fc7.input.dequantize"),
        (unsigned, "int8-type", "fc7.input.quantize", "uint8 in place of int8"),
        (normalized, "conv-relu", "block2.norm1", "between block2.conv1 and block2.relu1"),
        (other_axis, "per-channel-weights", "fc7.weight.quantize", "scales along axis 1"),
        (per_channel_input, "per-tensor-input", "block2.conv1.input.quantize", "4 scales"),
        (no_dequantize, "dequantize-missing", "fc7.input.quantize", "read by fc7"),
        (no_quantize, "quantize-missing", "fc7.input.dequantize", "reads fc6.relu"),
        (float_weights, "both-inputs", "fc7", "float weights"),
        (wrapped_pool, "pool-once", "block2.pool", "also block3.conv1.input.quantize behind it"),
        (rounded_scores, "float-output", "rounded.dequantize", "output scores is rounded"),
        (scale_of(0), "scale", "fc7.input.quantize", "scale 0.0"),
        (scale_of(np.inf), "scale", "fc7.input.quantize", "scale inf"),
        (half_scale, "scale", "fc7.input.quantize", "float16"),
        (foreign_operator, "operator", "block1.relu1", "HardSwish"),
        (own_domain, "operator", "block1.relu1", "com.microsoft.Relu"),
    ],
)
def test_a_planted_fault_is_named_with_its_node_and_rule(graph, plant, rule, name, detail):
    plant(graph)
    assert_named(graph, rule, name, detail)


@pytest.mark.parametrize("plant", [asymmetric, rounded_bias(np.int32), between, per_tensor_weights, doubled])
def test_one_planted_fault_breaks_one_rule(graph, plant):
    plant(graph)
    assert len({each.rule for each in violations(graph)}) == 1


def test_zero_points_may_be_absent(graph):
    for each in graph.graph.node:
        if each.op_type in ("QuantizeLinear", "DequantizeLinear"):
            del each.input[2]
    assert violations(graph) == []


@pytest.mark.parametrize("opset", [12, 18])
def test_opsets_beyond_tensorrt_8_are_named(graph, opset):
    graph.opset_import[0].version = opset
    assert violations(graph) == [Violation("A crop int8", "opset", f"opset {opset}")]


def test_a_node_without_a_name_is_named_by_its_output(graph):
    asymmetric(graph)
    node(graph, "fc7.input.quantize").name = ""
    assert violations(graph)[0].node == "QuantizeLinear of fc7.input.q"


def test_every_rule_has_one_line():
    assert set(EXPLANATIONS) == {*RULES, *FP8_RULES, "opset", "fp8-opset"}
    assert all(each.endswith(".") and "\n" not in each for each in EXPLANATIONS.values())


def test_float_graphs_break_no_rule():
    assert violations(fp32(small("A-LRN"), "dense")) == []
    assert violations(fp32(small("A", batch_norm=True), score_pool="mean_probs", form="dense")) == []


@pytest.fixture(scope="module")
def exported():
    return export_onnx(variant(small("A"), "tensorrt", float_layers=["fc7"]))


def test_a_graph_says_what_it_is(exported, tmp_path):
    path = tmp_path / "a.onnx"
    path.write_bytes(exported)
    info = check_graph(path)
    assert (info.network, info.form, info.precision, info.layout, info.opset) == ("A", "crop", "int8", "tensorrt", 17)
    assert info.weights == small("A").digest
    assert info.bytes == len(exported)
    assert info.float_layers == ("fc7",)
    assert len(info.int8_layers) == 10
    assert info.violations == ()


def test_a_file_that_is_no_graph_of_ours_is_one_line(exported, tmp_path):
    foreign = onnx.ModelProto()
    foreign.CopyFrom(onnx.load_from_string(exported))
    foreign.producer_name = "pytorch"
    silent = onnx.load_from_string(exported)
    for each in [each for each in silent.metadata_props if each.key == "network"]:
        silent.metadata_props.remove(each)
    files = {
        "empty.onnx": b"",
        "text.onnx": b"not a graph",
        "ranges.json": b"{}",
        "text.textproto": b"not a graph",
        "half.onnx": exported[: len(exported) // 2],
        "short.onnx": exported[:-1],
        "foreign.onnx": foreign.SerializeToString(),
        "silent.onnx": silent.SerializeToString(),
    }
    for name, data in files.items():
        (tmp_path / name).write_bytes(data)
        with pytest.raises(CalibrationError, match=rf"{name}: not .*vggbench export") as error:
            check_graph(tmp_path / name)
        assert "\n" not in str(error.value)
    for path in (tmp_path / "absent.onnx", tmp_path):
        with pytest.raises(CalibrationError, match="cannot read the graph"):
            check_graph(path)


def test_a_graph_that_lost_an_initializer_is_one_line(exported, tmp_path):
    graph, path = onnx.load_from_string(exported), tmp_path / "lost.onnx"
    del graph.graph.initializer[0]
    path.write_bytes(graph.SerializeToString())
    with pytest.raises(CalibrationError, match="not a whole ONNX graph") as error:
        check_graph(path)
    assert "\n" not in str(error.value)


def test_the_command_names_what_is_broken_and_exits_with_its_code(exported, tmp_path):
    good, bad = tmp_path / "good.onnx", tmp_path / "bad.onnx"
    good.write_bytes(exported)
    graph = onnx.load_from_string(exported)
    put(graph, "fc6.input.zero", np.array(3, np.int8))
    bad.write_bytes(graph.SerializeToString())
    done = CliRunner().invoke(app, ["check", str(good)])
    assert done.exit_code == 0
    assert "A, crop form, int8 tensorrt, opset 17" in done.stdout
    assert json.loads(CliRunner().invoke(app, ["check", str(good), "--json"]).stdout)["violations"] == []
    done = CliRunner().invoke(app, ["check", str(bad)])
    assert done.exit_code == CalibrationError.exit_code
    assert "symmetric            fc6.input.quantize: zero point 3. Zero points are 0." in done.stdout
    assert "breaks TensorRT's rules in 2 places, first symmetric at fc6.input.quantize" in " ".join(done.stderr.split())
    found = json.loads(CliRunner().invoke(app, ["check", str(bad), "--json"]).stdout)["violations"]
    assert {each["rule"] for each in found} == {"symmetric"}


def test_the_type_of_stored_integers_counts(graph):
    short = int8(small("A"), "tensorrt", int8_weights=True)
    stored = next(each for each in short.graph.initializer if each.name == "classifier.3.weight")
    assert stored.data_type == TensorProto.INT8
    del node(short, "fc7.weight.dequantize").input[2]
    put(short, "classifier.3.weight", numpy_helper.to_array(stored).astype(np.uint8))
    assert [(each.rule, each.node) for each in violations(short)] == [("int8-type", "fc7.weight.dequantize")]
