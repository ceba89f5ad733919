"""A graph (vggbench.graphs) and calibration ranges -> INT8, in one of two layouts with the same integers, or FP8.

Quantized are the convolutions and fully-connected layers of ranges.quantized_inputs: input and weights. Max-pools work
on the 8-bit values, local response normalization and the scores stay float. Batch normalization goes into the weights.
FP8 leaves out more layers: see qdq_fp8.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
import onnx
from onnx import helper, numpy_helper

from vgg_reference.architectures import architecture
from vggbench import qdq_cpu, qdq_fp8, qdq_tensorrt
from vggbench.errors import UsageError
from vggbench.qdq_parts import Array, Draft, Layer, activation_scale, weight_scales
from vggbench.ranges import LAYOUTS, Quantization, check_float_layers, quantized_inputs
from vggbench.variants import Variant

#: Counts changes of this module and its parts that change the bytes of a graph; part of a cached graph's name.
QDQ_VERSION = 2


def quantize(model: onnx.ModelProto, variant: Variant, *, int8_weights: bool = False) -> onnx.ModelProto:
    """The INT8 or FP8 graph, as the variant's precision says, of one of the same weights and form.

    Input and output stay float. model: FP32; for FP8 FP16 but for its weights (see graph_nodes.Draft). int8_weights: of
    the "tensorrt" layout; weights stored as integers, a quarter of the bytes, which TensorRT reads from 10 on (8.6
    wants them as floats behind a QuantizeLinear). The "cpu" layout always stores integers, FP8 its own type.
    Raises UsageError (no ranges, unknown layer or layout), CalibrationError (ranges of other weights), WeightsError.
    """
    how = _checked(variant)
    inputs = quantized_inputs(architecture(variant.weights.network, variant.weights.batch_norm))
    nodes, constants = fold_batch_norm(model.graph)
    if variant.precision == "fp8":
        return _model(model, qdq_fp8.rewrite(nodes, constants, inputs, variant), "fp8")
    layers = _layers(nodes, constants, inputs, how)
    if how.layout == "cpu":
        draft = qdq_cpu.rewrite(nodes, constants, layers, how.ranges.method != "minmax")
    else:
        draft = qdq_tensorrt.rewrite(nodes, constants, layers, int8_weights)
    return _model(model, draft, "int8")


def _checked(variant: Variant) -> Quantization:
    """The variant's quantization. Raises UsageError, CalibrationError."""
    how, weights = variant.quantization, variant.weights
    if how is None:
        raise UsageError(f"{variant.precision} without calibration ranges. Take them first: vggbench calibrate.")
    if how.layout not in LAYOUTS:
        raise UsageError(f"No layout {how.layout!r}. Known: {', '.join(LAYOUTS)}.")
    network = architecture(weights.network)
    known = quantized_inputs(network)
    check_float_layers(how.float_layers, network)
    if variant.precision == "fp8" and how.layout == "cpu":
        raise UsageError("FP8 has no layout for CPUs: its graphs are TensorRT's. Leave the layout out.")
    if variant.precision == "fp8" and how.float_layers and len(qdq_fp8.fp16_layers(variant)) == len(known):
        raise UsageError(
            f"With {', '.join(how.float_layers)} in floating point no layer of {weights.network} is left for fp8, "
            "whose kernels take none of the others. Leave some out, or take fp16."
        )
    how.ranges.check(weights.network, weights.digest)
    return how


def fold_batch_norm(graph: onnx.GraphProto) -> tuple[list[onnx.NodeProto], dict[str, Array]]:
    """Nodes without batch normalization and initializers by name: y = (conv - mean) / sqrt(var + eps) * gain + shift.

    In double precision; the next node reads the convolution in place of the normalization.
    """
    constants: dict[str, Array] = {each.name: numpy_helper.to_array(each) for each in graph.initializer}
    nodes: list[onnx.NodeProto] = []
    renamed: dict[str, str] = {}
    for node in graph.node:
        if node.op_type == "BatchNormalization":
            convolution = nodes[-1]
            gain, shift, mean, variance = (constants.pop(name).astype(np.float64) for name in node.input[1:])
            epsilon = helper.get_node_attr_value(node, "epsilon")
            factor = gain / np.sqrt(variance + epsilon)
            weight, bias = convolution.input[1:]
            constants[weight] = (constants[weight] * factor[:, None, None, None]).astype(np.float32)
            constants[bias] = ((constants[bias] - mean) * factor + shift).astype(np.float32)
            renamed[node.output[0]] = convolution.output[0]
            continue
        copy = onnx.NodeProto()
        copy.CopyFrom(node)
        copy.input[:] = [renamed.get(name, name) for name in node.input]
        nodes.append(copy)
    return nodes, constants


def _layers(
    nodes: Sequence[onnx.NodeProto], constants: dict[str, Array], inputs: dict[str, str], how: Quantization
) -> dict[str, Layer]:
    """The layers to quantize by name, their weights taken out of the constants."""
    layers = {}
    for node in nodes:
        if node.name not in inputs or node.name in how.float_layers:
            continue
        weights, bias = (constants.pop(name) for name in node.input[1:])
        input_scale = activation_scale(how.ranges.of(inputs[node.name]))
        scales = weight_scales(node.name, weights, bias, input_scale)
        layers[node.name] = Layer(node, inputs[node.name], weights, bias, input_scale, scales)
    return layers


def _model(source: onnx.ModelProto, draft: Draft, precision: str) -> onnx.ModelProto:
    """The draft with the source's inputs, outputs and opset; metadata is for the caller, who knows what decided it."""
    model = onnx.ModelProto()
    for field in ("ir_version", "producer_name", "producer_version"):
        setattr(model, field, getattr(source, field))
    model.opset_import.extend(source.opset_import)
    model.graph.name = f"{source.graph.name} {precision}"
    model.graph.input.extend(source.graph.input)
    model.graph.output.extend(source.graph.output)
    model.graph.node.extend(draft.nodes)
    _store(model.graph, draft.constants.items())
    return model


def _store(graph: onnx.GraphProto, constants: Iterable[tuple[str, Array]]) -> None:
    for name, array in constants:
        kind = helper.np_dtype_to_tensor_dtype(array.dtype)
        tensor = graph.initializer.add(name=name, dims=array.shape, data_type=kind)
        tensor.raw_data = array.astype(array.dtype.newbyteorder("<"), order="C", copy=False).tobytes()
