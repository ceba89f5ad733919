"""Places in an ONNX graph where a layer's output can be read without another kernel being chosen for it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from vggbench.backends import Array
from vggbench.qdq_fp8 import from_e4m3, to_e4m3

#: These pass 8-bit values on as they are, so rounding before them and after them is the same; but for a cast to FP16,
#: which stands between FP32's normalization and FP8's rounding alone, and moves a value in some hundreds by a step.
_COMMUTE = ("MaxPool", "Flatten", "Cast")


@dataclass(frozen=True)
class Tap:
    """A tensor of the FP32 graph, and the graph's tensor that holds it.

    scale, zero, low, high: of a rounding that stands behind a max-pool, or before channels of zeros, done here in place
    of it; scale 0 for none.
    fp8: to E4M3 and not to integers; it has no zero, low and high.
    """

    name: str
    tensor: str
    scale: float = 0.0
    zero: int = 0
    low: int = 0
    high: int = 0
    fp8: bool = False

    def values(self, outputs: Mapping[str, Any]) -> Array:
        found = np.asarray(outputs[self.tensor], np.float32)
        if not self.scale:
            return found
        if self.fp8:
            return from_e4m3(to_e4m3(found, self.scale), self.scale)
        steps = np.clip(np.rint(found / np.float32(self.scale)) + self.zero, self.low, self.high)
        rounded: Array = (steps - self.zero).astype(np.float32) * np.float32(self.scale)
        return rounded


def tapped(model: onnx.ModelProto, names: Sequence[str]) -> tuple[bytes, list[Tap]]:
    """The graph with these tensors among its outputs, and where each stands.

    A quantized tensor is read behind its DequantizeLinear: an output before it would keep onnxruntime from fusing the
    layer with its rounding, and other kernels would be measured than those that run.
    """
    taps = [_tap(model.graph, name) for name in names]
    present = {output.name for output in model.graph.output} | {given.name for given in model.graph.input}
    for tensor in dict.fromkeys(tap.tensor for tap in taps):
        if tensor not in present:
            # onnxruntime infers a type that is left out; TensorRT refuses such a graph, and one of another type.
            model.graph.output.append(helper.make_tensor_value_info(tensor, _type(model.graph, tensor), None))
    return model.SerializeToString(), taps


def _type(graph: onnx.GraphProto, tensor: str) -> int:
    """Of elements: what a cast, a scale or a zero point says, else that of its layer's first input."""
    producers = {output: node for node in graph.node for output in node.output}
    known = {each.name: each.data_type for each in graph.initializer}
    known |= {each.name: each.type.tensor_type.elem_type for each in graph.input}
    while tensor not in known:
        node = producers[tensor]
        if node.op_type == "Cast":
            return next(int(attribute.i) for attribute in node.attribute if attribute.name == "to")
        tensor = node.input[{"DequantizeLinear": 1, "QuantizeLinear": 2}.get(node.op_type, 0)]
    return int(known[tensor])


def _tap(graph: onnx.GraphProto, name: str) -> Tap:
    producers = {output: node for node in graph.node for output in node.output}
    if name in producers and producers[name].op_type == "DequantizeLinear":
        return Tap(name, name)
    quantize, direct = _rounding(graph, name)
    if quantize is None:
        return Tap(name, name)
    dequantize = _consumers(graph, quantize.output[0], "DequantizeLinear") if direct else []
    if dequantize:  # else there are channels of zeros between the two (see qdq_cpu)
        return Tap(name, dequantize[0].output[0])
    constants = {each.name: each for each in graph.initializer}
    scale, zero = (numpy_helper.to_array(constants[each]) for each in quantize.input[1:3])
    if constants[quantize.input[2]].data_type == TensorProto.FLOAT8E4M3FN:
        return Tap(name, name, float(scale), fp8=True)
    limits = np.iinfo(zero.dtype)
    return Tap(name, name, float(scale), int(zero), int(limits.min), int(limits.max))


def _rounding(graph: onnx.GraphProto, tensor: str) -> tuple[onnx.NodeProto | None, bool]:
    """The QuantizeLinear that a tensor goes into, and whether nothing stands between."""
    direct = True
    while True:
        found = _consumers(graph, tensor, "QuantizeLinear")
        if found:
            return found[0], direct
        passing = _consumers(graph, tensor, *_COMMUTE)
        if not passing:
            return None, direct
        tensor, direct = passing[0].output[0], False


def _consumers(graph: onnx.GraphProto, tensor: str, *ops: str) -> list[onnx.NodeProto]:
    return [node for node in graph.node if node.op_type in ops and tensor in node.input]
