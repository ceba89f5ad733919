"""Calibration ranges: what INT8 needs beside the weights, as one readable JSON artefact, and how it is used.

A range belongs to a tensor of the FP32 graph (vggbench.graphs), at the place where values are first as they stay: the
image, a ReLU's or the normalization's output before any max-pool, for a max-pool commutes with rounding.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from pydantic import ConfigDict, TypeAdapter, ValidationError
from pydantic.dataclasses import dataclass as checked

from vgg_reference.architectures import Architecture
from vggbench.errors import CalibrationError, UsageError, first_problem

#: 1: first format.
FORMAT = 1
METHODS = ("minmax", "entropy", "percentile")
#: Seen with seven sample networks (512 images of "tune" calibrated, 400 others of it measured), mean relative L2 of
#: the logits against FP32, in symmetric int8: percentile 99.999 4.1 %, minmax 4.4 %, 99.99 6.6 %, entropy about 7 %. Of
#: the two that are alike minmax cuts nothing, so the two layouts agree without a clip behind every layer, which costs a
#: CPU 5 to 8 % of its speed; percentile moved top-1 of B and D by more than half a point.
DEFAULT_METHOD, DEFAULT_PERCENTILE = "minmax", 99.999
#: "tensorrt": explicit Q/DQ pairs, symmetric int8, for TensorRT 8.6 to 11 and OpenVINO. "cpu": unsigned activations
#: and integer biases, which ONNX Runtime turns into integer kernels.
LAYOUTS = ("tensorrt", "cpu")

_STRICT = ConfigDict(extra="forbid", allow_inf_nan=False)


@checked(frozen=True, config=_STRICT)
class TensorRange:
    """Lowest and highest value that a tensor is to represent; low <= 0 <= high, low < high."""

    tensor: str
    low: float
    high: float

    def __post_init__(self) -> None:
        if not self.low <= 0 <= self.high or self.low == self.high:
            raise ValueError(f"{self.tensor}: a range of {self.low} to {self.high}; 0 must lie in it, and more than 0")


@checked(frozen=True, config=_STRICT)
class CalibrationImage:
    """An image that the ranges were taken from. sha256: of its file's bytes."""

    id: str
    sha256: str


@checked(frozen=True, config=_STRICT)
class Ranges:
    """Ranges of one network's tensors, and all that is needed to know where they come from.

    weights: digest of the weights they belong to. data: name, split and fingerprint of the images; views: how an image
    became an input (form, scale, the choices that matter). versions: of the libraries that took them.
    """

    network: str
    weights: str
    method: str
    percentile: float | None
    data: dict[str, str]
    views: dict[str, str]
    versions: dict[str, str]
    tensors: tuple[TensorRange, ...]
    images: tuple[CalibrationImage, ...]
    format: int = FORMAT

    def __hash__(self) -> int:
        return hash(self.digest)

    @property
    def digest(self) -> str:
        """SHA-256 of what decides a quantized network's scores: the weights' digest and the ranges themselves."""
        fields = [self.weights, *([each.tensor, each.low, each.high] for each in self.tensors)]
        return hashlib.sha256(json.dumps(fields).encode()).hexdigest()

    def of(self, tensor: str) -> TensorRange:
        """Raises CalibrationError for a tensor without a range."""
        for each in self.tensors:
            if each.tensor == tensor:
                return each
        known = ", ".join(each.tensor for each in self.tensors)
        raise CalibrationError(
            f"The calibration of {self.network} has no range for {tensor}. It has: {known}. Make it anew: vggbench "
            f"calibrate --network {self.network}."
        )

    def check(self, network: str, weights_digest: str) -> None:
        """Raises CalibrationError if they were taken with other weights."""
        if self.weights != weights_digest:
            raise CalibrationError(
                f"These ranges belong to other weights ({self.network}, digest {self.weights[:12]}) than those of "
                f"{network} (digest {weights_digest[:12]}). Calibrate them: vggbench calibrate --network {network}."
            )


@dataclass(frozen=True)
class Quantization:
    """How a network is made INT8 or FP8.

    float_layers: these stay in floating point, in the network's order however they were given (see quantized_inputs for
    the names); of FP8 more do, see qdq_fp8. layout: one of LAYOUTS, or "" for the one that the backend runs best.
    """

    ranges: Ranges
    float_layers: tuple[str, ...] = field(default=())
    layout: str = ""

    def __post_init__(self) -> None:
        object.__setattr__(self, "float_layers", tuple(sorted(self.float_layers)))

    def keeping(self, *layers: str) -> Quantization:
        """The same with these layers, and no others, in floating point."""
        return replace(self, float_layers=layers)


def quantized_inputs(network: Architecture) -> dict[str, str]:
    """Layer ("block1.conv1", ..., "fc8") -> tensor whose range its input has, in the network's order."""
    found, tensor = {}, "images"
    for number, block in enumerate(network.blocks, start=1):
        for position in range(1, len(block) + 1):
            found[f"block{number}.conv{position}"] = tensor
            tensor = f"block{number}.relu{position}"
            if network.lrn and number == position == 1:
                tensor = "block1.lrn"
    for name in ("fc6", "fc7", "fc8"):
        found[name] = tensor
        tensor = f"{name}.relu"
    return found


def check_float_layers(layers: Iterable[str], network: Architecture) -> None:
    """Whether a network has these layers. Raises UsageError."""
    known = quantized_inputs(network)
    for layer in layers:
        if layer not in known:
            raise UsageError(f"{network.name} has no layer {layer!r}. Known: {', '.join(known)}.")


def to_json(ranges: Ranges) -> bytes:
    """The artefact: indented, the ranges before the list of images."""
    document = {"vggbench": "calibration", **_ADAPTER.dump_python(ranges, mode="json")}
    return (json.dumps(document, indent=1) + "\n").encode()


def read_ranges(path: Path) -> Ranges:
    """Raises CalibrationError for a file that is no artefact, is cut short, or is of a newer format."""
    remedy = "Make it anew: vggbench calibrate."
    try:
        fields: Any = json.loads(path.read_bytes())
    except OSError as error:
        raise CalibrationError(f"{path}: cannot read the calibration ({error.strerror}). {remedy}") from error
    except (ValueError, RecursionError) as error:
        raise CalibrationError(f"{path}: not a calibration, or one that was cut short ({error}). {remedy}") from error
    if not isinstance(fields, dict) or fields.pop("vggbench", None) != "calibration":
        raise CalibrationError(f"{path}: not a calibration of vggbench. {remedy}")
    if isinstance(fields.get("format"), int) and fields["format"] > FORMAT:
        raise CalibrationError(
            f"{path}: format {fields['format']}, this version reads up to {FORMAT}; upgrade vggbench."
        )
    try:
        return _ADAPTER.validate_python(fields)
    except ValidationError as error:
        raise CalibrationError(f"{path}: not a whole calibration ({first_problem(error)}). {remedy}") from error


_ADAPTER = TypeAdapter(Ranges)
