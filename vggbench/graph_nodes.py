"""A network's layers as ONNX nodes and constants, in FP32 or FP16, for vggbench.graphs.

Nodes are named as the paper's layers (``block3.conv2``, ``fc6``), constants as in the state dict.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, helper

from vgg_reference.architectures import Architecture, architecture, final_side
from vgg_reference.model import LRN_BETA, LRN_K, LRN_SIZE
from vggbench.errors import UsageError, WeightsError
from vggbench.variants import Variant

INPUT, OUTPUT = "images", "scores"
#: The largest finite number of FP16.
FP16_MAX = 65504.0

Arrays = dict[str, npt.NDArray[Any]]

_BATCH_NORM_EPSILON = 1e-5


@dataclass(frozen=True)
class Draft:
    """A graph being written. arrays: the state dict. nodes, constants: of the graph, so far.

    fp16_weights: weights are stored in FP16, with batch norm folded into them. fp16_arithmetic: the layers compute in
    FP16 too; without it each weight is cast to FP32 in the graph. The second without the first is FP8's, whose weights
    vggbench.qdq rounds or makes FP16.
    """

    variant: Variant
    opset: int
    arrays: Arrays
    fp16_weights: bool = False
    fp16_arithmetic: bool = False
    nodes: list[onnx.NodeProto] = field(default_factory=list)
    constants: Arrays = field(default_factory=dict)

    @property
    def network(self) -> Architecture:
        return architecture(self.variant.weights.network, self.variant.weights.batch_norm)

    @property
    def dense(self) -> bool:
        return self.variant.form == "dense"


def draw(draft: Draft) -> None:
    """All nodes from INPUT to OUTPUT, both FP32. Raises UsageError, WeightsError."""
    x = _to_fp16(draft, INPUT)
    x = _features(draft, x)
    if not draft.dense:
        x = _add(draft, "Flatten", "flatten", [x], axis=1)
        x = _classifier(draft, x, None if draft.fp16_arithmetic else OUTPUT)
        if draft.fp16_arithmetic:
            _add(draft, "Cast", OUTPUT, [x], to=TensorProto.FLOAT)
    else:
        # The mean over a map adds up hundreds of scores: in FP16 it would lose more than all layers before.
        _average(draft, _to_fp32(draft, _classifier(draft, x, None)))


def _features(draft: Draft, x: str) -> str:
    """The blocks of Table 1; returns the name of the last pool's output."""
    network = draft.network
    indices = _feature_indices(network.batch_norm, network.lrn, [len(block) for block in network.blocks])
    ceil = int(draft.dense and draft.variant.pool_rounding == "ceil")
    for number, block in enumerate(network.blocks, start=1):
        for position, conv in enumerate(block, start=1):
            index = next(indices)
            folded = network.batch_norm and draft.fp16_weights
            if folded:
                _fold_batch_norm(draft, index)
            inputs = [x, *_take(draft, f"features.{index}.weight", f"features.{index}.bias")]
            name = f"block{number}.conv{position}"
            x = _add(draft, "Conv", name, inputs, kernel_shape=[conv.kernel] * 2, pads=[conv.padding] * 4)
            if network.batch_norm and not folded:
                keys = [f"features.{index + 1}.{key}" for key in ("weight", "bias", "running_mean", "running_var")]
                inputs = [x, *_take(draft, *keys)]
                name = f"block{number}.norm{position}"
                x = _add(draft, "BatchNormalization", name, inputs, epsilon=_BATCH_NORM_EPSILON)
            x = _add(draft, "Relu", f"block{number}.relu{position}", [x])
            if network.lrn and number == position == 1:
                x = _to_fp16(draft, _lrn(draft, _to_fp32(draft, x)))
        x = _add(draft, "MaxPool", f"block{number}.pool", [x], kernel_shape=[2, 2], strides=[2, 2], ceil_mode=ceil)
    return x


def _feature_indices(batch_norm: bool, lrn: bool, block_lengths: list[int]) -> Iterator[int]:
    """Index of each convolution in the state dict: pools, activations and norms count too, as in torchvision."""
    index = 0
    for number, length in enumerate(block_lengths):
        for position in range(length):
            yield index
            index += 2 + batch_norm + (lrn and number == position == 0)
        index += 1


def _fold_batch_norm(draft: Draft, index: int) -> None:
    """Batch norm after convolution ``index`` into its weight and bias: running variances may be beyond FP16."""
    arrays = draft.arrays
    gamma, beta, mean, variance = (
        arrays[f"features.{index + 1}.{key}"].astype(np.float64)
        for key in ("weight", "bias", "running_mean", "running_var")
    )
    scale = gamma / np.sqrt(variance + _BATCH_NORM_EPSILON)
    arrays[f"features.{index}.weight"] = arrays[f"features.{index}.weight"] * scale[:, None, None, None]
    arrays[f"features.{index}.bias"] = (arrays[f"features.{index}.bias"] - mean) * scale + beta


def _lrn(draft: Draft, x: str) -> str:
    """x / (k + alpha/size * sum of squares over ``size`` channels)^0.75, as x / (sqrt(s) * sqrt(sqrt(s))); in FP32.

    ONNX's own LRN means the same, but onnxruntime runs it on one thread through pow(): on a CPU this form (a banded
    1x1 convolution and two square roots) was seen to be seven times as fast as LRN, three times as fast as with Pow.
    """
    assert LRN_BETA == 0.75
    channels = draft.arrays["features.0.weight"].shape[0]
    index = np.arange(channels)
    band = (np.abs(index[:, None] - index[None, :]) <= LRN_SIZE // 2)[:, :, None, None]
    draft.constants["lrn.band"] = band * np.float32(draft.variant.weights.lrn_alpha / LRN_SIZE)
    draft.constants["lrn.k"] = np.full(channels, LRN_K, np.float32)
    squares = _add(draft, "Mul", "block1.lrn.squares", [x, x])
    total = _add(draft, "Conv", "block1.lrn.sum", [squares, "lrn.band", "lrn.k"], kernel_shape=[1, 1])
    half = _add(draft, "Sqrt", "block1.lrn.sqrt", [total])
    quarter = _add(draft, "Sqrt", "block1.lrn.sqrt_sqrt", [half])
    return _add(draft, "Div", "block1.lrn", [x, _add(draft, "Mul", "block1.lrn.power", [half, quarter])])


def _classifier(draft: Draft, x: str, output: str | None) -> str:
    """fc6, fc7, fc8: matrix products in crop form, convolutions in dense form; returns the last output's name."""
    side = final_side(draft.variant.weights.crop_size, len(draft.network.blocks))
    for name, index in (("fc6", 0), ("fc7", 3), ("fc8", 6)):
        if draft.dense:
            key = f"classifier.{index}.weight"
            draft.arrays[key] = draft.arrays[key].reshape(draft.arrays[key].shape[0], -1, side, side)
        weight, bias = _take(draft, f"classifier.{index}.weight", f"classifier.{index}.bias")
        if draft.dense:
            x = _add(draft, "Conv", name, [x, weight, bias], kernel_shape=[side, side])
        else:
            x = _add(draft, "Gemm", name, [x, weight, bias], output if name == "fc8" else None, transB=1)
        if name != "fc8":
            x = _add(draft, "Relu", f"{name}.relu", [x])
        side = 1
    return x


def _average(draft: Draft, x: str) -> None:
    """The score map's mean over space (section 3.2), as vgg_reference.model.average_score_map."""
    score_pool = draft.variant.score_pool
    if score_pool == "mean_logits":
        x = _add(draft, "GlobalAveragePool", "score_mean", [x])
    elif score_pool == "mean_probs":
        # The largest value is taken out before exp(): classes far below others would else become log(0).
        logs = _add(draft, "LogSoftmax", "log_posteriors", [x], axis=1)
        largest = _reduce(draft, "ReduceMax", "log_posteriors.max", logs)
        ratios = _add(draft, "Exp", "posterior_ratios", [_add(draft, "Sub", "log_ratios", [logs, largest])])
        mean = _reduce(draft, "ReduceMean", "posterior_ratios.mean", ratios)
        x = _add(draft, "Add", "log_mean_posteriors", [_add(draft, "Log", "log_mean_ratios", [mean]), largest])
    else:
        raise UsageError(f"No score-pool {score_pool!r}. Known: mean_logits, mean_probs.")
    _add(draft, "Flatten", "flatten", [x], OUTPUT, axis=1)


def _reduce(draft: Draft, op: str, name: str, x: str) -> str:
    """Over height and width; from opset 18 on the axes are an input."""
    if draft.opset < 18:
        return _add(draft, op, name, [x], axes=[2, 3])
    draft.constants["space"] = np.array([2, 3], np.int64)
    return _add(draft, op, name, [x, "space"])


def _to_fp16(draft: Draft, x: str) -> str:
    """A cast where layers compute in FP16, else ``x`` itself."""
    return _add(draft, "Cast", f"{x}.fp16", [x], to=TensorProto.FLOAT16) if draft.fp16_arithmetic else x


def _to_fp32(draft: Draft, x: str) -> str:
    """Out of FP16 again: the way into what would overflow or lose too much there."""
    return _add(draft, "Cast", f"{x}.fp32", [x], to=TensorProto.FLOAT) if draft.fp16_arithmetic else x


def _take(draft: Draft, *names: str) -> list[str]:
    """Make tensors of the state dict constants of the graph, under their own names; returns what layers are to read."""
    for name in names:
        array = draft.arrays[name]
        if not np.isfinite(array).all():
            raise WeightsError(
                f"{draft.variant.weights.name}: {name} has values that are not finite; the file is damaged or its "
                "training failed."
            )
        draft.constants[name] = as_fp16(draft.variant, name, array) if draft.fp16_weights else array
    if draft.fp16_weights and not draft.fp16_arithmetic:
        return [_add(draft, "Cast", f"{name}.fp32", [name], to=TensorProto.FLOAT) for name in names]
    return list(names)


def as_fp16(variant: Variant, name: str, array: npt.NDArray[Any]) -> npt.NDArray[np.float16]:
    """A constant, batch norm folded in, in FP16. Raises WeightsError for one with a value that FP16 does not hold."""
    largest = float(np.abs(array).max())
    if largest > FP16_MAX:
        with_norm = " with batch norm folded in" if variant.weights.batch_norm else ""
        raise WeightsError(
            f"{variant.weights.name}: {name}{with_norm} has a value of {largest:.6g}, beyond FP16's "
            f"{FP16_MAX:.0f}. Use fp32."
        )
    return array.astype(np.float16)


def _add(draft: Draft, op: str, name: str, inputs: list[str], output: str | None = None, **attributes: Any) -> str:
    """Append a node; its output bears its name unless another is given. Returns the output's name."""
    output = output or name
    draft.nodes.append(helper.make_node(op, inputs, [output], name=name, **attributes))
    return output
