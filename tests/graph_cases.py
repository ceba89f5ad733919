"""Small networks as graphs, altered weights, and what a graph gives: for the tests of graphs."""

import numpy as np
import onnx
import onnxruntime

from vgg_reference.weights import random_weights, save_weights, state_dict
from vggbench.variants import Variant

SMALL = {"width": 1 / 16, "hidden_width": 1 / 64, "num_classes": 7, "crop_size": 64}


def variant(network="D", form="crop", batch_norm=False, **more):
    return Variant(random_weights(network, 0, batch_norm=batch_norm, **SMALL), form, "onnxruntime", **more)


def fp16(network="D", form="crop", batch_norm=False, **more):
    return variant(network, form, batch_norm, precision="fp16", **more)


def altered(folder, change, network="A", batch_norm=False):
    """Weights of a file whose tensors ``change`` has altered in place."""
    weights = random_weights(network, 0, batch_norm=batch_norm, **SMALL)
    state = {name: tensor.clone() for name, tensor in state_dict(weights).items()}
    change(state)
    return save_weights(folder / "altered.safetensors", state, weights)


def scores(graph, images):
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
    return session.run(["scores"], {"images": images})[0]


def images(count=2, height=64, width=64):
    return (np.random.default_rng(0).standard_normal((count, 3, height, width)) * 60).astype(np.float32)


def distance(found, expected):
    """Relative L2."""
    return np.linalg.norm(found - expected) / np.linalg.norm(expected)


def types(model):
    """Tensor -> element type, of everything in the graph."""
    inferred = onnx.shape_inference.infer_shapes(model, check_type=True, strict_mode=True).graph
    values = [*inferred.value_info, *inferred.input, *inferred.output]
    return {each.name: each.type.tensor_type.elem_type for each in values} | {
        tensor.name: tensor.data_type for tensor in inferred.initializer
    }


def shape(value):
    return [dim.dim_param or dim.dim_value for dim in value.type.tensor_type.shape.dim]


FORMS = [("crop", "mean_logits"), ("dense", "mean_logits"), ("dense", "mean_probs")]
