"""Small networks, their ranges and images, and sessions that are opened once: for the tests of backends."""

from __future__ import annotations

import dataclasses
import functools

import numpy as np
import onnx
import torch

from vgg_reference.architectures import architecture
from vgg_reference.model import average_score_map
from vgg_reference.weights import load, random_weights
from vggbench import backends, graphs
from vggbench.backends import BACKENDS, PRECISIONS, open_session, ort
from vggbench.ranges import Quantization, Ranges, TensorRange, quantized_inputs
from vggbench.variants import Variant

#: Largest difference to the reference network in float64, relative to the largest score.
TOLERANCE = {"fp32": 1e-4, "tf32": 5e-3, "bf16": 5e-2, "fp16": 5e-3, "int8": 1.5e-1, "fp8": 1.5e-1}
#: The same between two ways of running one session: kernels may add in another order, a coarse type then rounds anew.
SPREAD = {"fp32": 1e-5, "tf32": 2e-3, "bf16": 2e-2, "fp16": 2e-3, "int8": 3e-2, "fp8": 3e-2}
#: Compiling takes seconds for each network and form; its tests stand in test_torch_compile.py. What runs on a GPU alone
#: has tests of its own too, against what its library offers.
TESTED = [name for name in BACKENDS if name not in ("torch-compile", "tensorrt", "torch-tensorrt")]
NAMES = [*TESTED, "fake"]
#: What works here; of the rest TestEveryBackend checks that there is a reason.
PAIRS = [
    (name, precision)
    for name in TESTED
    for precision in PRECISIONS
    if backends.module(name).available() is None and backends.missing(name, precision, "cpu") is None
]
EVERYWHERE = [*PAIRS, *(("fake", precision) for precision in PRECISIONS)]
NETWORKS = ["A-LRN", "C", "shallow-B"]
CROP = 64


@functools.cache
def weights_of(network, batch_norm=False):
    return random_weights(
        network, 0, width=1 / 8, hidden_width=1 / 16, num_classes=60, crop_size=CROP, batch_norm=batch_norm
    )


@functools.cache
def ranges_of(weights):
    """Lowest and highest value of each quantized input, over a few images through the FP32 graph."""
    tensors = list(dict.fromkeys(quantized_inputs(architecture(weights.network)).values()))[1:]
    model = graphs.build_graph(Variant(weights, "dense", "onnxruntime"))
    model.graph.output.extend(
        onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, None) for name in tensors
    )
    batch = images(8, 80, 110, seed=2)
    values = ort.inference_session(model.SerializeToString(), dense=True).run(tensors, {"images": batch})
    found = [("images", batch), *zip(tensors, values, strict=True)]
    return Ranges(
        weights.network,
        weights.digest,
        "minmax",
        None,
        {},
        {},
        {},
        tuple(TensorRange(name, min(0.0, float(x.min())), max(0.0, float(x.max()))) for name, x in found),
        (),
    )


def make(backend, network="A", form="crop", precision="fp32", batch_norm=False, layout="", **more):
    weights = weights_of(network, batch_norm)
    if precision in ("int8", "fp8"):
        more["quantization"] = Quantization(ranges_of(weights), layout=layout)
    return Variant(weights, form, backend, precision, **more)


def images(count, height=CROP, width=CROP, seed=0):
    return (np.random.default_rng(seed).standard_normal((count, 3, height, width)) * 60).astype(np.float32)


def relative(found, expected):
    return np.abs(found - expected).max() / np.abs(expected).max()


def reference(variant, batch):
    """Scores of the reference network in float64."""
    plain = dataclasses.replace(variant, backend="reference", precision="fp32")
    return _reference(plain, batch.tobytes(), batch.shape)


@functools.cache
def _reference(variant, pixels, shape):
    dense = variant.form == "dense"
    model = load(variant.weights, dense=dense, pool_ceil=dense and variant.pool_rounding == "ceil").double()
    with torch.inference_mode():
        scores = model(torch.from_numpy(np.frombuffer(pixels, np.float32).reshape(shape).copy()).double())
        return (average_score_map(scores, variant.score_pool) if dense else scores).numpy()


@functools.cache
def session_of(variant, threads=2):
    """An open session on the CPU, kept for the tests that follow: opening is most of their time."""
    return open_session(variant, "cpu", threads)
