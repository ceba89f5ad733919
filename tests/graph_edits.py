"""Changes to a graph, to plant faults in it."""

from onnx import numpy_helper


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
