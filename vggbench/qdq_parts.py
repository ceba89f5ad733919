"""What both INT8 layouts are made of: scales, layers with their integers, QuantizeLinear and DequantizeLinear nodes."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import helper

from vggbench.errors import CalibrationError, WeightsError
from vggbench.ranges import TensorRange

Array = npt.NDArray[Any]
Floats = npt.NDArray[np.float32]

#: Steps on either side of zero: -128 stays out, so that the grid is symmetric.
STEPS = 127
#: Bound of an integer bias: the longest sum of products (fc6: 25,088 x 255 x 127) still fits above it into an int32.
BIAS_STEPS = 2**30
_TINY = np.finfo(np.float32).tiny


@dataclass(frozen=True)
class Layer:
    """A convolution or matrix product that becomes INT8: input and weights on grids of integers.

    tensor: whose range its input has. weights, bias: float, the weights' first axis is the output channel.
    input_scale: of its input, a scalar; weight_scales: (channels,).
    """

    node: onnx.NodeProto
    tensor: str
    weights: Floats
    bias: Floats
    input_scale: Floats
    weight_scales: Floats

    @property
    def name(self) -> str:
        return str(self.node.name)

    @property
    def int8_weights(self) -> npt.NDArray[np.int8]:
        """As QuantizeLinear rounds: half to even, saturated."""
        integers: npt.NDArray[np.int8] = np.clip(np.rint(self.weights / self._columns), -128, 127).astype(np.int8)
        return integers

    @property
    def rounded_weights(self) -> Floats:
        """As DequantizeLinear gives them back."""
        return self.int8_weights * self._columns

    @property
    def bias_scales(self) -> Floats:
        """The step of a sum of products (channels,), the only one in which integer kernels take a bias."""
        return self.input_scale * self.weight_scales

    @property
    def int32_bias(self) -> npt.NDArray[np.int32]:
        integers: npt.NDArray[np.int32] = np.rint(self.bias / self.bias_scales).astype(np.int32)
        return integers

    @property
    def rounded_bias(self) -> Floats:
        return self.int32_bias.astype(np.float32) * self.bias_scales

    @property
    def _columns(self) -> Floats:
        return self.weight_scales.reshape(-1, *[1] * (self.weights.ndim - 1))


@dataclass
class Draft:
    """A graph in the making. constants: initializers by name, of any type."""

    nodes: list[onnx.NodeProto] = field(default_factory=list)
    constants: dict[str, Array] = field(default_factory=dict)

    def pair(self, name: str, x: str, scale: Array, zero: Array, output: str = "") -> str:
        """A QuantizeLinear and a DequantizeLinear of tensor ``x``; scale and zero: one value, or one a channel."""
        return self.dequantize(name, self.quantize(name, x, scale, zero), scale, zero, output)

    def quantize(self, name: str, x: str, scale: Array, zero: Array) -> str:
        """A QuantizeLinear of tensor ``x``."""
        return self._linear("QuantizeLinear", f"{name}.quantize", x, name, scale, zero, f"{name}.q")

    def dequantize(self, name: str, x: str, scale: Array, zero: Array, output: str = "") -> str:
        """A DequantizeLinear of tensor ``x``."""
        return self._linear("DequantizeLinear", f"{name}.dequantize", x, name, scale, zero, output or f"{name}.dq")

    def constant(self, name: str, value: Array) -> str:
        self.constants[name] = value
        return name

    def _linear(self, op: str, node: str, x: str, name: str, scale: Array, zero: Array, output: str) -> str:
        inputs = [x, self.constant(f"{name}.scale", scale), self.constant(f"{name}.zero", zero)]
        axis: dict[str, Any] = {"axis": 0} if scale.ndim else {}
        self.nodes.append(helper.make_node(op, inputs, [output], name=node, **axis))
        return output


def activation_scale(values: TensorRange) -> Floats:
    """The symmetric scale of a tensor: its largest magnitude is 127 steps. Raises CalibrationError."""
    with np.errstate(over="ignore", under="ignore"):
        scale = np.array(max(abs(values.low), abs(values.high)) / STEPS).astype(np.float32)
    if not _TINY <= scale < np.inf:
        raise CalibrationError(
            f"{values.tensor}: a range of {values.low} to {values.high} has no float32 step. Calibrate on images that "
            "are not constant: vggbench calibrate."
        )
    return scale


def weight_scales(name: str, weights: Floats, bias: Floats, input_scale: Floats) -> Floats:
    """Symmetric scales (channels,): a channel's largest magnitude is 127 steps, unless its bias would leave int32.

    A channel of zeros would have no scale, one of nearly zeros a bias beyond int32. Raises WeightsError for weights
    that are not finite.
    """
    largest = np.abs(weights.reshape(len(weights), -1)).max(axis=1).astype(np.float64)
    if not (np.isfinite(largest).all() and np.isfinite(bias).all()):
        raise WeightsError(f"{name}: weights that are not finite numbers. Use weights that were trained to an end.")
    scales = np.maximum(largest / STEPS, np.abs(bias, dtype=np.float64) / input_scale / BIAS_STEPS)
    # The product with the input's scale is a float32 too, and the bias is divided by it.
    return np.where(scales * min(float(input_scale), 1.0) < _TINY, 1.0, scales).astype(np.float32)
