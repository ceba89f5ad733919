"""The layout that ONNX Runtime turns into integer kernels on a CPU: QLinearConv, QGemm, 8-bit max-pools.

Activations are uint8, as vpmaddubsw and VNNI want one side unsigned, and on the grid of the "tensorrt" layout: the
same step (largest magnitude / 127), so that both layouts compute the same integers. A step of largest / 255 is finer
(2.0 to 2.8 % instead of 2.2 to 4.4 % from the FP32 scores of the sample networks), but its scores are 2.1 to 4.3 %
from the other layout's and its best class another in 5 to 10 % of images; INT8 on a CPU would not foretell INT8 in
TensorRT.

Values beyond the range of calibration are the rest: int8 clips them, uint8 holds twice the range. A Clip behind every
layer took 5 to 8 % of VGG-16's time, for the sake of its largest tensors; on the inputs of the layers from block 4 on,
a tenth of its values, it brings the layouts from 0.2 to 1.4 % apart to 0.1 to 0.5 % (ranges by minmax). The other
methods cut on purpose, and without a Clip the layouts would be 6 to 7 % apart: with their ranges every layer has one.

A fully-connected layer is a Gemm, which becomes QGemm; as a 7x7 convolution (QLinearConv, what the dense form has) fc6
took 2 to 8 times as long at batch 1 to 32.

The integer kernels take channels by fours. An image has three: with a fourth of zeros, and weights of zero for it, the
first convolution gives the same integers in half the time: 2 to 4 % of VGG-16's (tests/bench/fourth_channel.py).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence

import numpy as np
import onnx
from onnx import helper

from vggbench.qdq_parts import STEPS, Array, Draft, Floats, Layer

#: Layers from here on, by name, always have their input clipped.
CLIP_FROM = "block4"
#: After a ReLU: the type's end does what the ReLU does.
_UNSIGNED = np.array(0, np.uint8)
#: Elsewhere (the image, the normalization's output): int8's values moved up, clipped where int8 clips.
_SHIFTED = np.array(128, np.uint8)
#: So many products integer kernels sum up at once.
GROUP = 4


def rewrite(
    nodes: Sequence[onnx.NodeProto], constants: Mapping[str, Array], layers: Mapping[str, Layer], clip_all: bool
) -> Draft:
    """Between two quantized layers values stay in 8 bits: a ReLU becomes the pair that names its tensor, pools and
    flatten get a pair behind them. clip_all: see above."""
    draft = Draft(constants=dict(constants))
    scales = {layer.tensor: layer.input_scale for layer in layers.values()}
    relus = {node.input[0]: node.output[0] for node in nodes if node.op_type == "Relu"}
    clipped = {layer.node.input[0] for layer in layers.values() if clip_all or layer.name >= CLIP_FROM}
    #: Tensors that come from a DequantizeLinear -> their scale.
    carried: dict[str, Floats] = {}
    for node in nodes:
        x, output = node.input[0], node.output[0]
        if node.name in layers:
            layer, quantized_output = layers[node.name], relus.get(output) in scales
            if x not in carried:
                more = -layer.weights.shape[1] % GROUP if node.op_type == "Conv" and quantized_output else 0
                layer = dataclasses.replace(layer, weights=_with_channels(layer.weights, more)) if more else layer
                x = _integers(draft, layer, x, more)
            _inputs(draft, layer, x, quantized_output)
        elif node.op_type == "Relu" and output in scales and x in layers:
            carried[output] = scales[output]
            _pair(draft, output, x, scales[output], output in clipped)
            continue
        elif node.op_type in ("MaxPool", "Flatten") and x in carried:
            carried[output] = carried[x]
            node.output[0] = f"{output}.values"
            draft.nodes.append(node)
            _pair(draft, output, node.output[0], carried[x], output in clipped)
            continue
        draft.nodes.append(node)
    return draft


def _pair(draft: Draft, name: str, x: str, scale: Floats, clip: bool) -> None:
    """A pair whose output bears the name; clip: without the values that int8 does not hold."""
    integers = draft.quantize(name, x, scale, _UNSIGNED)
    if clip:
        largest = draft.constant("largest", np.array(STEPS, np.uint8))
        draft.nodes.append(helper.make_node("Clip", [integers, "", largest], [f"{name}.clip"], name=f"{name}.clip"))
        integers = f"{name}.clip"
    draft.dequantize(name, integers, scale, _UNSIGNED, name)


def _with_channels(weights: Floats, more: int) -> Floats:
    """Of a convolution, which ignores so many further input channels."""
    return np.pad(weights, ((0, 0), (0, more), (0, 0), (0, 0)))


def _integers(draft: Draft, layer: Layer, x: str, more: int) -> str:
    """A pair behind float tensor ``x``, with so many channels of zeros behind its own."""
    name = f"{layer.name}.input"
    integers = draft.quantize(name, x, layer.input_scale, _SHIFTED)
    if more:
        channels = draft.constant(f"{name}.channels", np.array([0, 0, 0, 0, 0, more, 0, 0], np.int64))
        inputs, integers = [integers, channels, f"{name}.zero"], f"{name}.padded"
        draft.nodes.append(helper.make_node("Pad", inputs, [integers], name=f"{name}.pad"))
    return draft.dequantize(name, integers, layer.input_scale, _SHIFTED)


def _inputs(draft: Draft, layer: Layer, x: str, quantized_output: bool) -> None:
    """The layer's inputs: integers behind DequantizeLinear where there is an integer kernel, else floats.

    ONNX Runtime has no convolution from 8 bits to floats (fc8 of the dense form, what stands before the normalization
    or a float layer), and would dequantize the weights at every run: they are stored as floats on the same grid.
    """
    node, scales = layer.node, layer.weight_scales
    _, weights, bias = node.input
    if node.op_type == "Conv" and not quantized_output:
        draft.constant(weights, layer.rounded_weights)
        draft.constant(bias, layer.rounded_bias)
    else:
        zeros = np.zeros(len(scales), np.int8)
        weights = draft.dequantize(f"{layer.name}.weight", draft.constant(weights, layer.int8_weights), scales, zeros)
        bias = draft.constant(bias, layer.int32_bias)
        bias = draft.dequantize(f"{layer.name}.bias", bias, layer.bias_scales, zeros.astype(np.int32))
    node.input[:] = [x, weights, bias]
