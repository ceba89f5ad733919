"""Changes to a graph, to plant faults in it; those that INT8 and FP8 share are whole faults."""

import numpy as np
from onnx import helper, numpy_helper

from vggbench.qdq_rules import violations


def node(graph, name):
    return next(each for each in graph.graph.node if each.name == name)


def put(graph, name, value):
    """An initializer's new value."""
    next(each for each in graph.graph.initializer if each.name == name).CopyFrom(numpy_helper.from_array(value, name))


def insert(graph, before, *nodes):
    """Nodes in front of a node, and the node's first input from the last of them."""
    at = [each.name for each in graph.graph.node].index(before)
    for offset, each in enumerate(nodes):
        graph.graph.node.insert(at + offset, each)
    graph.graph.node[at + len(nodes)].input[0] = nodes[-1].output[0]


def pair(name, x, scale="fc7.input.scale", zero="fc7.input.zero"):
    return [
        helper.make_node("QuantizeLinear", [x, scale, zero], [f"{name}.q"], name=f"{name}.quantize"),
        helper.make_node("DequantizeLinear", [f"{name}.q", scale, zero], [f"{name}.dq"], name=f"{name}.dequantize"),
    ]


def between(graph):
    insert(graph, "fc7.relu", *pair("fc7.output", "fc7"))


def doubled(graph):
    insert(graph, "fc7", *pair("fc7.again", "fc7.input.dq"))


def wrapped_pool(graph):
    insert(graph, "block2.pool", *pair("early", "block2.relu1"))


def scale_of(value):
    """The input's scale becomes this value, of the type it has."""

    def plant(graph):
        name = "fc7.input.scale"
        present = next(each for each in graph.graph.initializer if each.name == name)
        put(graph, name, np.array(value, numpy_helper.to_array(present).dtype))

    return plant


def rounded_bias(kind):
    """The bias stands behind a DequantizeLinear of this type, as integer kernels want it and TensorRT does not."""

    def plant(graph):
        bias = node(graph, "fc7").input[2]
        channels = next(each.dims[0] for each in graph.graph.initializer if each.name == bias)
        put(graph, bias, np.ones(channels, kind))
        inputs = [bias, "fc7.weight.scale"]
        made = helper.make_node("DequantizeLinear", inputs, ["fc7.bias"], name="fc7.bias.dequantize", axis=0)
        graph.graph.node.insert(0, made)
        node(graph, "fc7").input[2] = "fc7.bias"

    return plant


def rounded_scores(graph):
    last = next(each for each in graph.graph.node if each.output[0] == "scores")
    last.output[0] = "exact"
    graph.graph.node.extend(pair("rounded", "exact"))
    graph.graph.node[-1].output[0] = "scores"


def assert_named(graph, rule, name, detail):
    """That the rule is broken, first by this node, and told so; the rules that are broken."""
    found = violations(graph)
    first = next(each for each in found if each.rule == rule)
    assert first.node == name
    assert detail in first.detail
    return {each.rule for each in found}
