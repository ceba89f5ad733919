"""TensorRT's rules for an INT8 or FP8 graph, held without TensorRT: what it parses and runs in 8 bits.

INT8's hold for 8.6, 10 and 11, FP8's for 10.3 and later; those of an FP8 graph alone stand in qdq_rules_fp8.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from google.protobuf.message import DecodeError  # type: ignore[import-untyped]
from onnx import TensorProto, helper

from vggbench import qdq_rules_fp8
from vggbench.errors import CalibrationError
from vggbench.qdq_view import DQ, LAYERS, Q, View, name_of, opset_of, view_of

_OPERATORS = """Add BatchNormalization Cast Conv DequantizeLinear Div Exp Flatten Gemm GlobalAveragePool Log LogSoftmax
MaxPool Mul QuantizeLinear ReduceMax ReduceMean Relu Sqrt Sub"""
#: Of these TensorRT 8.6 reads all; what vggbench writes is among them.
OPERATORS = frozenset(_OPERATORS.split())
#: Of a graph's metadata, what every graph of vggbench has and GraphInfo needs.
_SAID = {"network", "form", "precision", "weights"}
#: QuantizeLinear has an axis from 13 on; TensorRT 8.6 reads up to 17.
OPSETS = range(13, 18)


@dataclass(frozen=True)
class Violation:
    """A rule of RULES that a node breaks. node: its name; detail: what it has in place of what the rule wants."""

    node: str
    rule: str
    detail: str


@dataclass(frozen=True)
class GraphInfo:
    """What a graph says of itself, and what it breaks. layers: convolutions and fully-connected ones, by name."""

    network: str
    form: str
    precision: str
    layout: str
    weights: str
    opset: int
    bytes: int
    int8_layers: tuple[str, ...]
    fp8_layers: tuple[str, ...]
    float_layers: tuple[str, ...]
    violations: tuple[Violation, ...]


Found = Iterator[tuple[onnx.NodeProto, str]]


def _operator(view: View) -> Found:
    for node in view.model.graph.node:
        if node.op_type not in OPERATORS or node.domain not in ("", "ai.onnx"):
            yield node, f"{node.domain or 'ai.onnx'}.{node.op_type}"


def _int8(view: View) -> Found:
    for node, _ in view.rounding():
        kind = _zero_type(view, node)
        if kind is not None and kind != TensorProto.INT8:
            yield node, f"{TensorProto.DataType.Name(kind).lower()} in place of int8"


def _zero_type(view: View, node: onnx.NodeProto) -> int | None:
    """The integers' type as the zero point or a stored tensor says it; None where neither is there."""
    named = [view.constants[name] for name in (list(node.input)[2:] or list(node.input)[:1]) if name in view.constants]
    return None if not named or (node.op_type == Q and len(node.input) < 3) else int(named[0].data_type)


def _symmetric(view: View) -> Found:
    for node, _ in view.rounding():
        found = view.value(node.input[2]) if len(node.input) > 2 else np.zeros(1)
        zero = None if found is None else found.astype(np.float32)
        if zero is None:
            yield node, "a zero point that is no constant"
        elif zero.any():
            yield node, f"zero point {zero.reshape(-1)[zero.reshape(-1) != 0][0]:g}"


def _scale(view: View) -> Found:
    for node, _ in view.rounding():
        scale = view.value(node.input[1])
        if scale is None or scale.dtype != np.float32:
            yield node, "no constant" if scale is None else f"{scale.dtype}"
        elif not (np.isfinite(scale) & (scale > 0)).all():
            yield node, f"scale {scale.reshape(-1)[~(np.isfinite(scale) & (scale > 0)).reshape(-1)][0]}"


def _granularity(view: View, wanted: str) -> Found:
    for node, role in view.rounding():
        scale = view.value(node.input[1])
        if role != wanted or scale is None:
            continue
        axis = next((helper.get_attribute_value(each) for each in node.attribute if each.name == "axis"), 1)
        if wanted == "input" and scale.size != 1:
            yield node, f"{scale.size} scales"
        elif wanted == "weights" and (scale.ndim != 1 or axis != 0 or scale.size != _channels(view, node)):
            yield node, "one scale" if scale.size == 1 else f"{scale.size} scales along axis {axis}"


def _channels(view: View, node: onnx.NodeProto) -> int:
    """Output channels of the constant that a weights' QuantizeLinear or DequantizeLinear starts from."""
    source = view.producer(node.input[0], Q) if node.op_type == DQ else None
    stored = view.constants.get((source or node).input[0])
    return int(stored.dims[0]) if stored is not None and stored.dims else -1


def _float_bias(view: View) -> Found:
    for node in view.nodes(Q, DQ):
        if view.role(node) == "bias":
            yield node, "a rounded bias"


def _conv_relu(view: View) -> Found:
    for relu in view.nodes("Relu"):
        chain: list[onnx.NodeProto] = []
        node = view.producers.get(relu.input[0])
        while node is not None and node.op_type in (Q, DQ, "BatchNormalization"):
            chain.append(node)
            node = view.producers.get(node.input[0])
        quantized = node is not None and node.op_type in LAYERS and view.producer(node.input[0], DQ) is not None
        if chain and node is not None and (quantized or chain[-1].op_type == Q):
            yield chain[-1], f"between {node.name} and {name_of(relu)}"


def _doubled(view: View) -> Found:
    for node in view.nodes(Q):
        before = view.producer(node.input[0], DQ)
        if before is not None:
            yield node, f"behind {name_of(before)}"


def _dq_missing(view: View) -> Found:
    for node in view.nodes(Q):
        readers = view.consumers.get(node.output[0], [])
        if not readers or any(reader.op_type != DQ for reader in readers):
            yield node, f"read by {name_of(readers[0])}" if readers else "read by nothing"


def _q_missing(view: View) -> Found:
    for node in view.nodes(DQ):
        if view.producer(node.input[0], Q) is None and node.input[0] not in view.constants:
            yield node, f"reads {node.input[0]}"


def _both(view: View) -> Found:
    for node in view.nodes(*LAYERS):
        data, weights = (view.producer(name, DQ) is not None for name in list(node.input)[:2])
        if data != weights:
            yield node, f"float {'weights' if data else 'input'}"


def _as_said(view: View) -> Found:
    """Of a graph that says which layers stay in float. A layer that is neither has a rule of its own."""
    said = {each.key: each.value for each in view.model.metadata_props}
    wanted = said.get("fp16_layers" if said.get("precision") == "fp8" else "float_layers")
    if wanted is None:
        return
    for node in layers_of(view.model):
        rounded = {view.producer(name, DQ) is not None for name in list(node.input)[:2]}
        if rounded == {node.name in wanted.split()}:
            yield node, "rounded, and said to stay in float" if True in rounded else "in float, and not said to be"


def layers_of(model: onnx.ModelProto) -> list[onnx.NodeProto]:
    """Convolutions and fully-connected layers; the normalization's band is none of them."""
    return [each for each in model.graph.node if each.op_type in LAYERS and not each.name.startswith("block1.lrn")]


def _pool(view: View) -> Found:
    for node in view.nodes("MaxPool"):
        behind = [reader for reader in view.consumers.get(node.output[0], []) if reader.op_type == Q]
        if view.producer(node.input[0], DQ) is not None and behind:
            yield node, f"also {name_of(behind[0])} behind it"


def _float_output(view: View) -> Found:
    for value in view.model.graph.output:
        node = view.producers.get(value.name)
        if node is not None and node.op_type in (Q, DQ):
            yield node, f"output {value.name} is rounded"


#: Id -> (what the rule wants, how it is found).
RULES: dict[str, tuple[str, Callable[[View], Found]]] = {
    "operator": ("Only standard operators that TensorRT 8.6 reads.", _operator),
    "int8-type": ("QuantizeLinear and DequantizeLinear work on int8; uint8 does not parse.", _int8),
    "symmetric": ("Zero points are 0.", _symmetric),
    "scale": ("Scales are constant float32, finite and above 0.", _scale),
    "per-channel-weights": (
        "Weights have one scale for each output channel, axis 0.",
        lambda v: _granularity(v, "weights"),
    ),
    "per-tensor-input": ("A layer's input has one scale.", lambda v: _granularity(v, "input")),
    "float-bias": ("A bias is float; one behind a DequantizeLinear of int32 does not parse.", _float_bias),
    "conv-relu": ("Nothing stands between a layer and its ReLU, or they are not fused.", _conv_relu),
    "one-pair": ("An edge has one pair; a second one rounds again.", _doubled),
    "dequantize-missing": ("Every QuantizeLinear is read by DequantizeLinear only.", _dq_missing),
    "quantize-missing": ("Every DequantizeLinear reads a QuantizeLinear or stored integers.", _q_missing),
    "both-inputs": ("A layer's input and weights are both rounded or neither, or it runs in floats.", _both),
    "float-layers": ("The layers in float are those that were asked to be, by the graph's metadata.", _as_said),
    "pool-once": ("A max-pool has a pair on one side at most: it commutes with rounding.", _pool),
    "float-output": ("What the graph gives back is float and not rounded.", _float_output),
}
#: Of an INT8 graph alone: those of FP8 have rules in their place.
_INT8_ALONE = ("int8-type", "scale", "per-channel-weights")
FP8_RULES = {
    **{rule: each for rule, each in RULES.items() if rule not in _INT8_ALONE},
    **qdq_rules_fp8.RULES,
}
OPSET_RULE, FP8_OPSET_RULE = "opset", "fp8-opset"
#: Every rule's id -> its line, for the command line and the page.
EXPLANATIONS = {
    OPSET_RULE: f"The standard operators are of opset {OPSETS[0]} to {OPSETS[-1]}, the newest of TensorRT 8.6.",
    FP8_OPSET_RULE: qdq_rules_fp8.ABOUT_OPSETS,
    **{rule: about for rules in (RULES, FP8_RULES) for rule, (about, _) in rules.items()},
}


def violations(model: onnx.ModelProto) -> list[Violation]:
    """Every rule that the graph breaks, by rule, then in the graph's order; empty for one that TensorRT takes."""
    view = view_of(model)
    found = []
    opset, fp8 = opset_of(model), qdq_rules_fp8.is_fp8(model)
    if opset not in (qdq_rules_fp8.OPSETS if fp8 else OPSETS):
        found.append(Violation(model.graph.name, FP8_OPSET_RULE if fp8 else OPSET_RULE, f"opset {opset}"))
    for rule, (_, search) in (FP8_RULES if fp8 else RULES).items():
        found += [Violation(name_of(node), rule, detail) for node, detail in search(view)]
    return found


def check_graph(path: Path) -> GraphInfo:
    """What one of our graphs is, and the rules it breaks.

    Raises CalibrationError for a file that is no ONNX graph, is cut short, or was not written by vggbench.
    """
    remedy = "Write it anew: vggbench export."
    try:
        size = path.stat().st_size
        model = onnx.load(path, format="protobuf")  # by itself it goes by the file's name
        own = {each.key: each.value for each in model.metadata_props}
        ours = model.producer_name == "vggbench" and own.keys() >= _SAID
        if ours:
            onnx.checker.check_model(str(path), full_check=True)
    except OSError as error:
        raise CalibrationError(
            f"{path}: cannot read the graph ({error.strerror or error}). Give an .onnx file: vggbench export makes one."
        ) from error
    except DecodeError as error:
        raise CalibrationError(f"{path}: not an ONNX graph, or one that was cut short. {remedy}") from error
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError, ValueError) as error:
        raise CalibrationError(f"{path}: not a whole ONNX graph ({str(error).splitlines()[0]}). {remedy}") from error
    if not ours:
        raise CalibrationError(f"{path}: not a graph of vggbench, or one that was cut short. {remedy}")
    layers = layers_of(model)
    rounded = {output for node in model.graph.node if node.op_type == DQ for output in node.output}
    in_8_bits = tuple(node.name for node in layers if node.input[0] in rounded)
    fp8 = qdq_rules_fp8.is_fp8(model)
    return GraphInfo(
        network=own["network"],
        form=own["form"],
        precision=own["precision"],
        layout=own.get("layout", ""),
        weights=own["weights"],
        opset=opset_of(model),
        bytes=size,
        int8_layers=() if fp8 else in_8_bits,
        fp8_layers=in_8_bits if fp8 else (),
        float_layers=tuple(node.name for node in layers if node.input[0] not in rounded),
        violations=tuple(violations(model)),
    )


def as_document(info: GraphInfo) -> dict[str, Any]:
    """For JSON."""
    return dataclasses.asdict(info)
