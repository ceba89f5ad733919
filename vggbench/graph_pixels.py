"""The input variant that takes pixels: uint8 in, a quarter of the bytes to the device, normalization in the graph."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, helper, numpy_helper

from vgg_reference.weights import Preprocess
from vggbench.graph_nodes import INPUT

#: The pixels' name in a graph that starts from them.
PIXELS = "pixels"


def from_pixels(model: onnx.ModelProto, preprocess: Preprocess) -> onnx.ModelProto:
    """The graph, changed in place, behind a prefix that does what views.to_input does: "pixels" (batch, h, w, 3) uint8,
    RGB, in place of "images"; (value - mean) * scale by channel, channels reordered, channels first.

    Of FP32 operations alone, each rounded as numpy's are, so that the network behind it gets the same bits, unless the
    runtime folds them into its first layer; then they differ by roundings of FP32 (relative 1e-7), or where it chooses
    types by itself (TensorRT 8.6) by roundings of the engine's precision.
    """
    given = model.graph.input[0]
    batch, _, height, width = (dim.dim_param or dim.dim_value for dim in given.type.tensor_type.shape.dim)
    order = np.array(["RGB".index(colour) for colour in preprocess.order], np.int64)
    constants: dict[str, npt.NDArray[Any]] = {
        "pixels.order": order,
        "pixels.mean": np.array(preprocess.mean, np.float32),
        "pixels.scale": np.array(preprocess.scale, np.float32),
    }
    steps: list[tuple[str, list[str], dict[str, Any]]] = [("Cast", [], {"to": TensorProto.FLOAT})]
    if list(order) != [0, 1, 2]:
        steps.append(("Gather", ["pixels.order"], {"axis": 3}))
    steps.append(("Sub", ["pixels.mean"], {}))
    if set(preprocess.scale) != {1.0}:
        steps.append(("Mul", ["pixels.scale"], {}))
    steps.append(("Transpose", [], {"perm": [0, 3, 1, 2]}))
    nodes, value = [], PIXELS
    for number, (kind, more, attributes) in enumerate(steps):
        result = INPUT if number == len(steps) - 1 else f"pixels.{kind.lower()}"
        nodes.append(helper.make_node(kind, [value, *more], [result], name=f"pixels.{kind}", **attributes))
        value = result
    used = {name for node in nodes for name in node.input}
    model.graph.initializer.extend(numpy_helper.from_array(constants[name], name) for name in constants if name in used)
    behind = list(model.graph.node)
    del model.graph.node[:], model.graph.input[:]
    model.graph.node.extend([*nodes, *behind])
    model.graph.input.append(helper.make_tensor_value_info(PIXELS, TensorProto.UINT8, [batch, height, width, 3]))
    return model
