"""The input variant that takes pixels: uint8 in, a quarter of the bytes to the device, normalization in the engine."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, helper, numpy_helper

from vgg_reference.weights import Preprocess
from vggbench.backends import Array, check_scores
from vggbench.backends.tensorrt import running
from vggbench.engines.opening import Settings
from vggbench.engines.run import Runner
from vggbench.errors import UsageError
from vggbench.graphs import INPUT, OUTPUT, build_graph
from vggbench.variants import Variant

Pixels = npt.NDArray[np.uint8]
#: The pixels' name in a graph that starts from them.
PIXELS = "pixels"


def from_pixels(model: onnx.ModelProto, preprocess: Preprocess) -> onnx.ModelProto:
    """The graph behind a prefix that does what views.to_input does: "pixels" (batch, h, w, 3) uint8, RGB, in place of
    "images"; (value - mean) * scale by channel, channels reordered, channels first.

    Of FP32 operations alone, each rounded as numpy's are, so that the network behind it gets the same bits, unless the
    runtime folds them into its first layer; then they differ by roundings of FP32 (relative 1e-7).
    """
    made = onnx.ModelProto()
    made.CopyFrom(model)
    given = made.graph.input[0]
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
    made.graph.initializer.extend(numpy_helper.from_array(constants[name], name) for name in constants if name in used)
    behind = list(made.graph.node)
    del made.graph.node[:], made.graph.input[:]
    made.graph.node.extend([*nodes, *behind])
    made.graph.input.append(helper.make_tensor_value_info(PIXELS, TensorProto.UINT8, [batch, height, width, 3]))
    return made


class PixelSession:
    """A session that takes views (n, h, w, 3), uint8, RGB, as views.make_views gives them, and not network inputs."""

    def __init__(self, variant: Variant, settings: Settings | None = None) -> None:
        drawn = dataclasses.replace(variant, precision="fp32") if variant.precision == "tf32" else variant
        graph = from_pixels(build_graph(drawn), variant.weights.preprocess).SerializeToString(deterministic=True)
        self._variant = variant
        self._running = running(variant, graph, settings or Settings())
        self._runner: Runner | None = self._running.__enter__()
        self.device = "cuda:0"

    def __call__(self, pixels: Pixels) -> Array:
        """Scores (n, classes). Raises UsageError for other arrays and for sizes outside the engine's profile."""
        if self._runner is None:
            raise ValueError("This session is closed.")
        if pixels.dtype != np.uint8 or pixels.ndim != 4 or pixels.shape[3] != 3 or not pixels.flags.c_contiguous:
            came = f"{pixels.shape} {pixels.dtype}"
            raise UsageError(f"Pixels are {came}; accepted are (n, h, w, 3), uint8, C-contiguous.")
        scores: Array = self._runner(pixels)[OUTPUT]
        return check_scores(scores, self._variant)

    def close(self) -> None:
        """Free the device's memory; a second close does nothing."""
        if self._runner is not None:
            self._runner = None
            self._running.__exit__(None, None, None)
