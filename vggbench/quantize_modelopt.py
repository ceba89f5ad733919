"""Q/DQ on the torch path through nvidia-modelopt, from the project's own ranges: it is asked for the nodes alone.

Its calibration never runs. Every quantizer gets the largest magnitude that the ONNX graphs' scales come from, so that
one set of ranges serves both paths: INT8 per tensor for inputs and per output channel for weights, FP8 (E4M3) per
tensor for both.
"""

from __future__ import annotations

import copy
import importlib
from collections.abc import Mapping
from contextlib import AbstractContextManager
from typing import Any

import numpy as np
import torch
from torch import nn

from vggbench.errors import BackendUnavailable
from vggbench.qdq_parts import STEPS, activation_scale, weight_scales
from vggbench.ranges import Quantization

#: modelopt's own names: which layers get quantizers, of how many bits, weights per channel or not.
_CONFIGS = {"int8": "INT8_DEFAULT_CFG", "fp8": "FP8_DEFAULT_CFG"}
_INSTALL = "Install it with: pip install nvidia-modelopt"


def available() -> str | None:
    """None, or one line: what is missing and how to get it."""
    try:
        importlib.import_module("modelopt.torch.quantization")
    except Exception as error:  # a broken installation raises what it likes
        return f"nvidia-modelopt does not load ({_first_line(error)}). {_INSTALL}"
    return None


def quantize(
    network: nn.Module, layers: Mapping[str, nn.Conv2d | nn.Linear], tensors: Mapping[str, str], how: Quantization,
    precision: str,
) -> nn.Module:  # fmt: skip
    """The network with quantizers in its layers, in place; layers of ``how.float_layers`` keep theirs off.

    layers: name -> the module in the network; tensors: name -> whose range its input has. precision: "int8" or "fp8".
    Biases go to the grid of the integer graphs. Raises BackendUnavailable, CalibrationError, WeightsError.
    """
    missing = available()
    if missing is not None:
        raise BackendUnavailable(missing)
    modelopt: Any = importlib.import_module("modelopt.torch.quantization")
    config = copy.deepcopy(getattr(modelopt, _CONFIGS[precision]))
    config["algorithm"] = None  # no calibration: the ranges are there already
    places = {id(module): path for path, module in network.named_modules()}
    paths = {name: places[id(layer)] for name, layer in layers.items()}
    quantized: nn.Module = modelopt.quantize(network, config, forward_loop=None)
    for name, path in paths.items():
        layer: Any = quantized.get_submodule(path)
        if not hasattr(layer, "input_quantizer"):
            raise BackendUnavailable(f"nvidia-modelopt put no quantizer into {name}: its version is not one we know.")
        layer.output_quantizer.disable()
        if name in how.float_layers:
            layer.input_quantizer.disable()
            layer.weight_quantizer.disable()
            continue
        _set(layer, name, tensors[name], how, precision)
    return quantized


def exporting() -> AbstractContextManager[Any]:
    """Within it torch.export sees the quantizers as TensorRT's own operator. modelopt must be there."""
    context: AbstractContextManager[Any] = importlib.import_module(
        "modelopt.torch.quantization.utils"
    ).export_torch_mode()
    return context


def _set(layer: Any, name: str, tensor: str, how: Quantization, precision: str) -> None:
    """Amax of input and weights, as the scales of vggbench.qdq give them; the bias on its grid.

    On the layer's own device: an amax elsewhere would be copied in every call, and torch.export would see the copy.
    """
    place = layer.weight.device
    weights = layer.weight.detach().float().cpu().numpy()
    bias = layer.bias.detach().float().cpu().numpy()
    input_scale = activation_scale(how.ranges.of(tensor))
    layer.input_quantizer.amax = torch.tensor(float(input_scale) * STEPS, device=place)
    if precision == "fp8":
        layer.weight_quantizer.amax = torch.tensor(float(np.abs(weights).max()), device=place)
        return
    scales = weight_scales(name, weights, bias, input_scale)
    shape = (-1, *[1] * (weights.ndim - 1))
    layer.weight_quantizer.amax = torch.from_numpy((scales * STEPS).reshape(shape).astype(np.float32)).to(place)
    steps = scales * input_scale
    with torch.no_grad():
        layer.bias.copy_(torch.from_numpy(np.rint(bias / steps).astype(np.float32) * steps))


def _first_line(error: Exception) -> str:
    text = str(error).strip().splitlines()
    return f"{type(error).__name__}: {text[0][:160]}" if text else type(error).__name__
