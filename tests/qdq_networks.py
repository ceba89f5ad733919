"""Networks, images and ranges for the tests of INT8 graphs; ranges by the FP32 graph's own extremes."""

from __future__ import annotations

from functools import cache

import numpy as np
import onnx
import onnxruntime

from vgg_reference.architectures import architecture
from vgg_reference.weights import random_weights
from vggbench import weights as weight_sources
from vggbench.graphs import export_onnx
from vggbench.images.sample_drawing import draw
from vggbench.protocols import Choices, Pass
from vggbench.qdq import quantize
from vggbench.quantize import input_of
from vggbench.ranges import Quantization, Ranges, TensorRange, quantized_inputs
from vggbench.variants import Variant
from vggbench.views import make_views, to_input

NETWORKS = ("A", "A-LRN", "B", "C", "D", "E")
SMALL = {"width": 1 / 16, "hidden_width": 1 / 64, "num_classes": 7, "crop_size": 64}


@cache
def sample(network):
    return weight_sources.resolve("sample", network, train_scale="256", num_classes=60)


@cache
def small(network="D", batch_norm=False, seed=0):
    return random_weights(network, seed, batch_norm=batch_norm, **SMALL)


@cache
def drawn(split, count):
    """Center crops of the sample set's first images, drawn here, as input of the sample networks."""
    step = Pass("crop", 73, "center", False)
    views = [make_views(draw(split, index)[0], step, 64, Choices())[0] for index in range(count)]
    return to_input(np.stack(views), sample("A").preprocess)


def names_of(weights):
    return dict.fromkeys(quantized_inputs(architecture(weights.network, weights.batch_norm)).values())


def run(model, images, tensors=("scores",), **options):
    """Tensors of the graph by name; options: attributes of SessionOptions."""
    model = with_outputs(model, [name for name in tensors if name != "scores"])
    chosen = onnxruntime.SessionOptions()
    chosen.intra_op_num_threads, chosen.log_severity_level = 1, 3
    for name, value in options.items():
        setattr(chosen, name, value)
    session = onnxruntime.InferenceSession(model.SerializeToString(), chosen, providers=["CPUExecutionProvider"])
    return dict(zip(tensors, session.run(list(tensors), {"images": images}), strict=True))


def with_outputs(model, names):
    if names:
        copy = onnx.ModelProto()
        copy.CopyFrom(model)
        model = copy
        for name in names:
            model.graph.output.add(name=name)
    return model


def fp32(weights, form="crop", opset=17, **more):
    return onnx.load_from_string(export_onnx(Variant(weights, form, "onnxruntime", **more), opset))


def inputs(weights, count=4, sides=(64, 64), seed=0):
    pixels = np.random.default_rng(seed).integers(0, 256, (count, *sides, 3), dtype=np.uint8)
    return to_input(pixels, weights.preprocess)


@cache
def ranges(weights):
    """minmax over a few images."""
    images = drawn("tune", 64) if weights.status == "sample" or weights.num_classes == 60 else inputs(weights)
    tensors = [name for name in names_of(weights) if name != "images"]
    values = {"images": images, **run(fp32(weights), images, tensors)}
    found = tuple(TensorRange(name, min(0.0, float(each.min())), float(each.max())) for name, each in values.items())
    views = {"input": input_of(weights)}
    return Ranges(weights.network, weights.digest, "minmax", None, {}, views, {}, found, ())


def variant(weights, layout, form="crop", float_layers=(), **more):
    how = Quantization(ranges(weights), tuple(float_layers), layout)
    return Variant(weights, form, "onnxruntime", "int8", quantization=how, **more)


def int8(weights, layout, form="crop", float_layers=(), **options):
    return quantize(fp32(weights, form), variant(weights, layout, form, float_layers), **options)


def fp8(weights, form="crop", float_layers=(), **more):
    """The variant, for vggbench.graphs."""
    return Variant(
        weights, form, "onnxruntime", "fp8", quantization=Quantization(ranges(weights), float_layers), **more
    )
