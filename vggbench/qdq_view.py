"""An ONNX graph with its edges, to look at nodes by what stands before and behind them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy.typing as npt
import onnx
from onnx import TensorProto, numpy_helper

Q, DQ = "QuantizeLinear", "DequantizeLinear"
LAYERS = ("Conv", "Gemm")


@dataclass(frozen=True)
class View:
    """A graph with its edges: producer of a tensor, consumers of a tensor, constants."""

    model: onnx.ModelProto
    producers: dict[str, onnx.NodeProto]
    consumers: dict[str, list[onnx.NodeProto]]
    constants: dict[str, TensorProto]

    def nodes(self, *kinds: str) -> Iterator[onnx.NodeProto]:
        return (node for node in self.model.graph.node if node.op_type in kinds)

    def producer(self, tensor: str, kind: str) -> onnx.NodeProto | None:
        """The node that makes the tensor, if it is of this kind."""
        node = self.producers.get(tensor)
        return node if node is not None and node.op_type == kind else None

    def value(self, tensor: str) -> npt.NDArray[Any] | None:
        found = self.constants.get(tensor)
        return None if found is None else numpy_helper.to_array(found)

    def rounding(self) -> Iterator[tuple[onnx.NodeProto, str]]:
        """Nodes that round weights or input, with their role; a rounded bias has a rule of its own."""
        for node in self.nodes(Q, DQ):
            role = self.role(node)
            if role != "bias":
                yield node, role

    def role(self, node: onnx.NodeProto) -> str:
        """What a QuantizeLinear or DequantizeLinear rounds: "weights", "bias" or "input"."""
        output = node.output[0]
        for consumer in self.consumers.get(output, []):
            if consumer.op_type == DQ and node.op_type == Q:
                return self.role(consumer)
            if consumer.op_type in LAYERS and output in list(consumer.input)[1:]:
                return "weights" if consumer.input[1] == output else "bias"
        return "input"


def view_of(model: onnx.ModelProto) -> View:
    producers = {output: node for node in model.graph.node for output in node.output}
    consumers: dict[str, list[onnx.NodeProto]] = {}
    for node in model.graph.node:
        for name in node.input:
            consumers.setdefault(name, []).append(node)
    return View(model, producers, consumers, {each.name: each for each in model.graph.initializer})


def opset_of(model: onnx.ModelProto) -> int:
    return next((int(each.version) for each in model.opset_import if each.domain in ("", "ai.onnx")), 0)


def name_of(node: onnx.NodeProto) -> str:
    return str(node.name) or f"{node.op_type} of {node.output[0]}"
