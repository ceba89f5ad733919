"""TensorRT's rules for an FP8 graph that an INT8 one does not have; see qdq_fp8 for where they come from."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
import onnx
from onnx import TensorProto, helper

from vggbench.qdq_fp8 import FP8_MAX, LEAST_SCALE, fits
from vggbench.qdq_view import DQ, LAYERS, Q, View

#: E4M3 came with 19; every TensorRT 10 reads up to 20.
OPSETS = range(19, 21)
ABOUT_OPSETS = f"With FP8 the standard operators are of opset {OPSETS[0]}, the first, to {OPSETS[-1]}, TensorRT 10.0's."
#: Any of these in a graph makes it an FP8 graph; TensorRT has the first alone.
_TYPES = {
    getattr(TensorProto, name): name.lower()
    for name in ("FLOAT8E4M3FN", "FLOAT8E4M3FNUZ", "FLOAT8E5M2", "FLOAT8E5M2FNUZ")
}

Found = Iterator[tuple[onnx.NodeProto, str]]


def is_fp8(model: onnx.ModelProto) -> bool:
    """Whether any constant, a zero point or weights, is of an 8-bit float type."""
    return any(each.data_type in _TYPES for each in model.graph.initializer)


def _e4m3(view: View) -> Found:
    """Its zero point, or stored weights, say the type; QuantizeLinear without a zero point makes integers."""
    for node, _ in view.rounding():
        stored = view.constants.get(node.input[0]) if node.op_type == DQ else None
        zero = view.constants.get(node.input[2]) if len(node.input) > 2 else None
        if node.op_type == Q and len(node.input) < 3:
            yield node, "no zero point, so uint8"
        for each in (stored, zero):
            if each is not None and each.data_type != TensorProto.FLOAT8E4M3FN:
                yield node, f"{TensorProto.DataType.Name(each.data_type).lower()} in place of float8e4m3fn"
                break


def _scale(view: View) -> Found:
    for node, _ in view.rounding():
        scale = view.value(node.input[1])
        if scale is None or scale.dtype not in (np.float16, np.float32):
            yield node, "no constant" if scale is None else f"{scale.dtype}"
        elif scale.size != 1:
            yield node, f"{scale.size} scales"
        elif not (np.isfinite(scale) & (scale > 0)).all():
            yield node, f"scale {scale.reshape(-1)[0]}"


def _whole_range(view: View) -> Found:
    for node in view.nodes(DQ):
        stored, scale = view.value(node.input[0]), view.value(node.input[1])
        if stored is None or scale is None or view.role(node) != "weights":
            continue
        largest = float(np.abs(stored.astype(np.float32)).max())
        if largest != FP8_MAX and float(scale.reshape(-1)[0]) > LEAST_SCALE:
            yield node, f"the largest is {largest:g}"


def _kernels(view: View) -> Found:
    for node in view.nodes(*LAYERS):
        weights = view.producer(node.input[1], DQ)
        source = weights and (view.producer(weights.input[0], Q) or weights)
        stored = view.constants.get(source.input[0]) if source is not None else None
        if stored is None:
            continue
        channels, window = tuple(stored.dims[:2]), int(np.prod(stored.dims[2:]))
        groups = helper.get_node_attr_value(node, "group") if any(a.name == "group" for a in node.attribute) else 1
        if groups != 1 or not fits(channels, window):
            yield node, f"{channels[1]} to {channels[0]} channels, window {window}" + ", groups" * (groups != 1)


#: As qdq_rules.RULES, in place of "int8-type", "scale" and "per-channel-weights".
RULES: dict[str, tuple[str, Callable[[View], Found]]] = {
    "fp8-type": ("QuantizeLinear and DequantizeLinear work on float8e4m3fn, named by the zero point.", _e4m3),
    "fp8-scale": ("A tensor has one scale, constant, finite and above 0: largest magnitude / 448.", _scale),
    "fp8-range": ("The largest of stored weights is 448, or a part of E4M3's range is not used or cut.", _whole_range),
    "fp8-kernel": (
        "A rounded layer has channels in multiples of 16, a window of at most 32 positions and no groups, or no FP8 "
        "kernel takes it.",
        _kernels,
    ),
}
