"""The FP8 layout: E4M3 pairs on the edges into a layer, FP16 around them, for TensorRT from 10.3 on.

Settled from NVIDIA's documentation; nothing of it has been tried on a GPU here.

- E4M3, x -> castToFp8(clip(x / scale, -448, 448)), ties to even (developer guide, "Quantization Schemes"); ONNX's
  QuantizeLinear has it from opset 19 on, saturating, with the type of the zero point, which therefore must be there:
  without one TensorRT's parser takes INT8 (onnx-tensorrt, QuantDequantLinearHelper). It reads scales in FP16.
- One scale a tensor, for inputs and weights, as ModelOpt's FP8_DEFAULT_CFG: every TensorRT 10 takes it. Its ONNX
  exporter gives weights one a channel, which TensorRT lists for matrix products from 10.6 on, on Hopper (release
  notes). E4M3 is a float, whose relative step does not depend on the channel's size: on the sample networks' weights
  the rounding is 2.6 % with one scale and 2.2 to 2.6 % with one a channel.
- Weights stored in FP8 with a DequantizeLinear alone ("Explicit Quantization", quantized weights): a byte each.
- FP8 convolutions came with 10.2 for Hopper, and with 10.3 for Ada "with the same limits" (release notes of 10.3;
  NVIDIA/TensorRT issue 3987: none for a first layer). Windows have at most 32 positions, or FP16 or FP32 kernels take
  over (release notes, limitations, to 10.16; ModelOpt's find_nodes_from_convs_to_exclude). Channels are multiples of 16
  (ModelOpt's pull request 395 names such a limit, its exporter leaves out fewer than 16): the stricter reading. So the
  first layer and the dense form's 7x7 fc6 have no pairs. Matrix products have the same rule here, though no window, so
  that fc8 of 1,000 classes is FP16 in both forms.
- What has no pairs is FP16, normalization and the score map's mean FP32, as in the FP16 graph: ModelOpt's default
  (high_precision_dtype fp16). Networks are strongly typed, for which no builder flag is set.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import ml_dtypes
import numpy as np
import numpy.typing as npt
import onnx

from vgg_reference.architectures import architecture, final_side, layer_sizes
from vggbench.errors import CalibrationError, WeightsError
from vggbench.graph_nodes import as_fp16
from vggbench.qdq_parts import Array, Draft, Floats
from vggbench.ranges import TensorRange
from vggbench.variants import Variant

#: Largest finite E4M3 value.
FP8_MAX = 448.0
#: Of an FP8 layer: channels in and out are multiples of it; a convolution's window has at most so many positions.
CHANNELS, WINDOW = 16, 32
#: A scale below would lose bits in FP16. A larger one than needed costs E4M3, a float, nothing but its smallest values.
LEAST_SCALE = float(np.finfo(np.float16).tiny)

Halfs = npt.NDArray[np.float16]

_E4M3 = np.dtype(ml_dtypes.float8_e4m3fn)
_ZERO = np.zeros((), _E4M3)


def fp16_layers(variant: Variant) -> tuple[str, ...]:
    """Layers of an FP8 graph that have no pairs and compute in FP16: no kernel takes them, or ``float_layers``."""
    how, weights = variant.quantization, variant.weights
    network = architecture(weights.network)  # without batch normalization a layer has a bias for each channel
    side = final_side(weights.crop_size, len(network.blocks)) if variant.form == "dense" else 1
    windows = [*(conv.kernel**2 for _, conv in network.convolutions), side**2, 1, 1]
    kept = []
    for size, window in zip(layer_sizes(network, **weights.size), windows, strict=True):  # type: ignore[arg-type]
        channels = (size.weights // size.biases // window, size.biases)
        if not fits(channels, window) or (how is not None and size.name in how.float_layers):
            kept.append(size.name)
    return tuple(kept)


def fits(channels: Sequence[int], window: int) -> bool:
    """Whether FP8 kernels take a layer. channels: in and out; window: positions of a convolution's kernel."""
    return all(count % CHANNELS == 0 for count in channels) and window <= WINDOW


def rewrite(
    nodes: Sequence[onnx.NodeProto], constants: Mapping[str, Array], inputs: Mapping[str, str], variant: Variant
) -> Draft:
    """A graph of FP16 nodes whose weights are still FP32 -> FP8 pairs before the layers that take them, FP16 elsewhere.

    inputs: layer -> whose range its input has. Biases are FP16 in all. As in the INT8 layout a pair stands after a
    max-pool. Raises CalibrationError, WeightsError.
    """
    assert variant.quantization is not None
    draft, kept = Draft(constants=dict(constants)), fp16_layers(variant)
    for node in nodes:
        if node.name in inputs:
            x, weight, bias = node.input
            if node.name in kept:
                draft.constant(weight, as_fp16(variant, weight, constants[weight]))
            else:
                x = draft.pair(
                    f"{node.name}.input", x, input_scale(variant.quantization.ranges.of(inputs[node.name])), _ZERO
                )
                scale = weight_scale(node.name, constants[weight])
                stored = draft.constant(weight, to_e4m3(constants[weight], float(scale)))
                weight = draft.dequantize(f"{node.name}.weight", stored, scale, _ZERO)
            node.input[:] = [x, weight, draft.constant(bias, as_fp16(variant, bias, constants[bias]))]
        draft.nodes.append(node)
    return draft


def to_e4m3(values: Array, scale: float) -> Array:
    """As QuantizeLinear rounds: half to even, saturated at 448."""
    rounded: Array = np.clip(values.astype(np.float32) / np.float32(scale), -FP8_MAX, FP8_MAX).astype(_E4M3)
    return rounded


def from_e4m3(values: Array, scale: float) -> Floats:
    """As DequantizeLinear gives them back, but in FP32."""
    return values.astype(np.float32) * np.float32(scale)


def input_scale(values: TensorRange) -> Halfs:
    """The scale of a tensor: its largest magnitude is 448. Raises CalibrationError."""
    largest = max(abs(values.low), abs(values.high))
    scale = _scale(largest)
    if scale is None or not largest:
        raise CalibrationError(
            f"{values.tensor}: a range of {values.low} to {values.high} has no FP16 scale. Calibrate on images that "
            "are not constant (vggbench calibrate), or use int8."
        )
    return scale


def weight_scale(name: str, weights: Array) -> Halfs:
    """The scale of a layer's weights: their largest magnitude is 448. Raises WeightsError."""
    scale = _scale(float(np.abs(weights).max()))
    if scale is None:
        raise WeightsError(f"{name}: weights beyond FP16's range, or not finite. Use int8 or fp32.")
    return scale


def _scale(largest: float) -> Halfs | None:
    """largest / 448, rounded up to FP16 so that nothing is cut; None for what FP16 does not hold."""
    if not largest <= float(np.finfo(np.float16).max):  # NaN too
        return None
    wanted = max(largest / FP8_MAX, LEAST_SCALE)
    scale = np.float16(wanted)
    return np.array(scale if float(scale) >= wanted else np.nextafter(scale, np.float16(np.inf)))
