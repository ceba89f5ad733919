"""Networks as ONNX graphs, written node by node from Table 1 and the state dict, so that the bytes are reproducible.

No tracing: nodes are named as the paper's layers (``block3.conv2``, ``fc6``), initializers as in the state dict.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, helper

from vgg_reference.architectures import Architecture, architecture, final_side
from vgg_reference.model import LRN_BETA, LRN_K, LRN_SIZE
from vgg_reference.weights import BadWeights, state_dict
from vggbench import cache
from vggbench.errors import UsageError, WeightsError
from vggbench.variants import Variant, digest_of

#: The newest opset that TensorRT 8.6 reads, and the IR version that came with it.
OPSET = 17
IR_VERSION = 8
#: Counts changes of this file that change the bytes of a graph; part of a cached graph's name.
GRAPH_VERSION = 1

INPUT, OUTPUT = "images", "scores"

Arrays = dict[str, npt.NDArray[Any]]


def export_onnx(variant: Variant) -> bytes:
    """The variant's ONNX model: "images" (batch, 3, h, w) -> "scores" (batch, classes), FP32.

    Crop form: h = w = crop size, batch dynamic. Dense form: batch, h and w dynamic, fully-connected layers as
    convolutions (section 3.2), the score map averaged by ``variant.score_pool`` inside the graph.
    Raises UsageError for another precision, WeightsError.
    """
    if variant.precision != "fp32":
        raise UsageError(f"No {variant.precision} graph. Known: fp32.")
    try:
        arrays = {name: tensor.numpy() for name, tensor in state_dict(variant.weights).items()}
    except BadWeights as error:
        raise WeightsError(str(error)) from error
    nodes: list[onnx.NodeProto] = []
    constants: Arrays = {}
    features = _features(variant, arrays, nodes, constants)
    scores = _classifier(variant, arrays, nodes, constants, features)
    if variant.form == "dense":
        _average(variant.score_pool, nodes, scores)
    data: bytes = _model(variant, nodes, constants).SerializeToString(deterministic=True)
    return data


def graph_path(variant: Variant, cache_root: Path) -> Path:
    """The variant's graph as a file in the cache, written on first use, whole or not at all. Raises StorageError."""
    key = digest_of({**_identity(variant), "graph": GRAPH_VERSION, "opset": OPSET})
    path = cache_root / "graphs" / f"{key}.onnx"
    with cache.storage_errors(path):
        present = path.is_file()
    if present:
        cache.touch(path)
    else:
        cache.write_atomic(path, export_onnx(variant))
    return path


def graph_sha256(graph: bytes | Path) -> str:
    """SHA-256 of a graph's bytes, for records."""
    if isinstance(graph, bytes):
        return hashlib.sha256(graph).hexdigest()
    sha = hashlib.sha256()
    with graph.open("rb") as file:
        while chunk := file.read(1 << 22):
            sha.update(chunk)
    return sha.hexdigest()


def _features(variant: Variant, arrays: Arrays, nodes: list[onnx.NodeProto], constants: Arrays) -> str:
    """The blocks of Table 1; returns the name of the last pool's output."""
    network = _architecture(variant)
    indices = _feature_indices(network.batch_norm, network.lrn, [len(block) for block in network.blocks])
    ceil = int(variant.form == "dense" and variant.pool_rounding == "ceil")
    x = INPUT
    for number, block in enumerate(network.blocks, start=1):
        for position, conv in enumerate(block, start=1):
            name = f"block{number}.conv{position}"
            index = next(indices)
            inputs = [x, *_take(arrays, constants, f"features.{index}.weight", f"features.{index}.bias")]
            x = _add(nodes, "Conv", name, inputs, kernel_shape=[conv.kernel] * 2, pads=[conv.padding] * 4)
            if network.batch_norm:
                keys = [f"features.{index + 1}.{key}" for key in ("weight", "bias", "running_mean", "running_var")]
                inputs = [x, *_take(arrays, constants, *keys)]
                x = _add(nodes, "BatchNormalization", f"block{number}.norm{position}", inputs, epsilon=1e-5)
            x = _add(nodes, "Relu", f"block{number}.relu{position}", [x])
            if network.lrn and number == position == 1:
                x = _lrn(nodes, constants, x, arrays["features.0.weight"].shape[0], variant.weights.lrn_alpha)
        x = _add(nodes, "MaxPool", f"block{number}.pool", [x], kernel_shape=[2, 2], strides=[2, 2], ceil_mode=ceil)
    return x


def _feature_indices(batch_norm: bool, lrn: bool, block_lengths: list[int]) -> Iterator[int]:
    """Index of each convolution in the state dict: pools, activations and norms count too, as in torchvision."""
    index = 0
    for number, length in enumerate(block_lengths):
        for position in range(length):
            yield index
            index += 2 + batch_norm + (lrn and number == position == 0)
        index += 1


def _lrn(nodes: list[onnx.NodeProto], constants: Arrays, x: str, channels: int, alpha: float) -> str:
    """x / (k + alpha/size * sum of squares over ``size`` channels)^0.75, as x / (sqrt(s) * sqrt(sqrt(s))).

    ONNX's own LRN means the same, but onnxruntime runs it on one thread through pow(): on a CPU this form (a banded
    1x1 convolution and two square roots) was seen to be seven times as fast as LRN, three times as fast as with Pow.
    """
    assert LRN_BETA == 0.75
    index = np.arange(channels)
    band = (np.abs(index[:, None] - index[None, :]) <= LRN_SIZE // 2)[:, :, None, None]
    constants["lrn.band"] = band * np.float32(alpha / LRN_SIZE)
    constants["lrn.k"] = np.full(channels, LRN_K, np.float32)
    squares = _add(nodes, "Mul", "block1.lrn.squares", [x, x])
    total = _add(nodes, "Conv", "block1.lrn.sum", [squares, "lrn.band", "lrn.k"], kernel_shape=[1, 1])
    half = _add(nodes, "Sqrt", "block1.lrn.sqrt", [total])
    quarter = _add(nodes, "Sqrt", "block1.lrn.sqrt_sqrt", [half])
    return _add(nodes, "Div", "block1.lrn", [x, _add(nodes, "Mul", "block1.lrn.power", [half, quarter])])


def _classifier(variant: Variant, arrays: Arrays, nodes: list[onnx.NodeProto], constants: Arrays, x: str) -> str:
    """fc6, fc7, fc8: matrix products in crop form, convolutions in dense form; returns the last output's name."""
    dense = variant.form == "dense"
    side = final_side(variant.weights.crop_size, len(_architecture(variant).blocks))
    if not dense:
        x = _add(nodes, "Flatten", "flatten", [x], axis=1)
    for name, index in (("fc6", 0), ("fc7", 3), ("fc8", 6)):
        weight, bias = _take(arrays, constants, f"classifier.{index}.weight", f"classifier.{index}.bias")
        output = OUTPUT if name == "fc8" and not dense else None
        if dense:
            constants[weight] = constants[weight].reshape(constants[weight].shape[0], -1, side, side)
            x = _add(nodes, "Conv", name, [x, weight, bias], kernel_shape=[side, side])
        else:
            x = _add(nodes, "Gemm", name, [x, weight, bias], output, transB=1)
        if name != "fc8":
            x = _add(nodes, "Relu", f"{name}.relu", [x])
        side = 1
    return x


def _average(score_pool: str, nodes: list[onnx.NodeProto], x: str) -> None:
    """The score map's mean over space (section 3.2), as vgg_reference.model.average_score_map."""
    if score_pool == "mean_logits":
        x = _add(nodes, "GlobalAveragePool", "score_mean", [x])
    elif score_pool == "mean_probs":
        # The largest value is taken out before exp(): classes far below others would else become log(0).
        logs = _add(nodes, "LogSoftmax", "log_posteriors", [x], axis=1)
        largest = _add(nodes, "ReduceMax", "log_posteriors.max", [logs], axes=[2, 3])
        ratios = _add(nodes, "Exp", "posterior_ratios", [_add(nodes, "Sub", "log_ratios", [logs, largest])])
        mean = _add(nodes, "ReduceMean", "posterior_ratios.mean", [ratios], axes=[2, 3])
        x = _add(nodes, "Add", "log_mean_posteriors", [_add(nodes, "Log", "log_mean_ratios", [mean]), largest])
    else:
        raise UsageError(f"No score-pool {score_pool!r}. Known: mean_logits, mean_probs.")
    _add(nodes, "Flatten", "flatten", [x], OUTPUT, axis=1)


def _model(variant: Variant, nodes: list[onnx.NodeProto], constants: Arrays) -> onnx.ModelProto:
    weights = variant.weights
    sides: list[int | str] = ["height", "width"] if variant.form == "dense" else [weights.crop_size] * 2
    graph = helper.make_graph(
        nodes,
        f"{weights.network} {variant.form}",
        [helper.make_tensor_value_info(INPUT, TensorProto.FLOAT, ["batch", 3, *sides])],
        [helper.make_tensor_value_info(OUTPUT, TensorProto.FLOAT, ["batch", weights.num_classes])],
    )
    model = helper.make_model(
        graph,
        producer_name="vggbench",
        producer_version=str(GRAPH_VERSION),
        opset_imports=[helper.make_opsetid("", OPSET)],
        ir_version=IR_VERSION,
    )
    for name, array in constants.items():
        # Filled in place: helper's functions would copy half a gigabyte at each level.
        tensor = model.graph.initializer.add(name=name, dims=array.shape, data_type=TensorProto.FLOAT)
        tensor.raw_data = array.astype("<f4", order="C", copy=False).tobytes()
    helper.set_model_props(model, {key: str(value) for key, value in sorted(_identity(variant).items())})
    return model


def _identity(variant: Variant) -> dict[str, Any]:
    """What decides a graph: one graph serves every backend."""
    return {key: value for key, value in variant.identity.items() if key != "backend"}


def _architecture(variant: Variant) -> Architecture:
    return architecture(variant.weights.network, variant.weights.batch_norm)


def _take(arrays: Arrays, constants: Arrays, *names: str) -> list[str]:
    """Make tensors of the state dict initializers of the graph, under their own names."""
    constants.update({name: arrays[name] for name in names})
    return list(names)


def _add(
    nodes: list[onnx.NodeProto], op: str, name: str, inputs: list[str], output: str | None = None, **attributes: Any
) -> str:
    """Append a node; its output bears its name unless another is given. Returns the output's name."""
    output = output or name
    nodes.append(helper.make_node(op, inputs, [output], name=name, **attributes))
    return output
