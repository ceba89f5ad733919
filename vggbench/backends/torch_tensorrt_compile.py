"""Networks compiled by torch-tensorrt, dynamo: exported, all of it in TensorRT or refused and named."""

from __future__ import annotations

import contextlib
import importlib
import tempfile
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from torch import nn

from vgg_reference.architectures import architecture
from vggbench import precisions as table
from vggbench import quantize_modelopt
from vggbench.backends.plain_network import Shapes, exported, plain_network
from vggbench.errors import BackendUnavailable
from vggbench.ranges import quantized_inputs
from vggbench.variants import Variant

_DTYPES = {"fp16": torch.float16}


def library() -> Any:
    """The torch_tensorrt module."""
    found: ModuleType = importlib.import_module("torch_tensorrt")
    return found


def settings(variant: Variant) -> dict[str, Any]:
    """What 2.11 to 2.14 share and is not as it would be unasked. enabled_precisions is not one: types are explicit."""
    return {
        "require_full_compilation": True,
        "min_block_size": 1,
        "disable_tf32": variant.precision != "tf32",
        "immutable_weights": True,
    }


def options(variant: Variant, shapes: Shapes, device: str, timings: Path) -> dict[str, Any]:
    """Arguments of compile and of convert_exported_program_to_serialized_trt_engine."""
    given = {"min_shape": shapes.least, "opt_shape": shapes.best, "max_shape": shapes.most}
    if shapes.least == shapes.most:
        given = {"shape": shapes.best}
    return {
        "arg_inputs": [library().Input(**given, dtype=torch.float32)],
        "timing_cache_path": str(timings),
        "device": torch.device(device),
        **settings(variant),
    }


def network(variant: Variant, device: str) -> nn.Module:
    """The network in its precision, with Q/DQ nodes where it is quantized. Raises WeightsError, CalibrationError."""
    plain, layers = plain_network(variant, _DTYPES.get(variant.precision, torch.float32))
    found: nn.Module = plain.to(device)
    if variant.precision in table.QUANTIZED:
        assert variant.quantization is not None
        tensors = quantized_inputs(architecture(variant.weights.network, variant.weights.batch_norm))
        found = quantize_modelopt.quantize(found, layers, tensors, variant.quantization, variant.precision)
    return found


def program(variant: Variant, shapes: Shapes, device: str) -> torch.export.ExportedProgram:
    """The network as torch.export has it."""
    quantized = variant.precision in table.QUANTIZED
    drawn = network(variant, device)
    with quantize_modelopt.exporting() if quantized else contextlib.nullcontext():
        return exported(drawn, shapes)


def converted(variant: Variant, shapes: Shapes, device: str) -> bytes:
    """A plan built once more, for a module that does not show its own."""
    convert = library().dynamo.convert_exported_program_to_serialized_trt_engine
    with tempfile.TemporaryDirectory(prefix="vggbench-") as folder:
        arguments = options(variant, shapes, device, Path(folder, "timings"))
        return bytes(convert(program(variant, shapes, device), **arguments))


def compiled(drawn: torch.export.ExportedProgram, arguments: dict[str, Any]) -> Any:
    """The compiled graph, all of it in engines. Raises BackendUnavailable naming what stayed in torch, or why."""
    dynamo: Any = library().dynamo
    try:
        module = dynamo.compile(drawn, **arguments)
    except Exception as error:  # its own kinds, TensorRT's, and a bare AssertionError for a partial compilation
        left = _left_by(dynamo, drawn, arguments)
        raise BackendUnavailable(_refused(left) if left else f"torch-tensorrt failed: {line(error)}") from error
    left = left_in_torch(module)
    if left:
        raise BackendUnavailable(_refused(left))
    return module


def _left_by(dynamo: Any, drawn: torch.export.ExportedProgram, arguments: dict[str, Any]) -> list[str]:
    """The same once more as a dry run that may leave nodes in torch, only to name them."""
    with contextlib.suppress(Exception):
        return left_in_torch(dynamo.compile(drawn, **{**arguments, "require_full_compilation": False, "dryrun": True}))
    return []


def _refused(nodes: list[str]) -> str:
    shown = ", ".join(nodes[:8]) + (f" and {len(nodes) - 8} more" if len(nodes) > 8 else "")
    return f"torch-tensorrt would leave a part of the network in torch ({shown}); such a mixture is not measured."


def left_in_torch(module: Any) -> list[str]:
    """Nodes of a compiled graph that are not in an engine: of its own, and of submodules that run in torch."""
    found = []
    for node in module.graph.nodes:
        if node.op == "call_module" and "_run_on_acc" not in str(node.target):
            inner = module.get_submodule(str(node.target))
            graph = getattr(inner, "graph", None)
            found += (
                [str(each.target) for each in graph.nodes if each.op == "call_function"]
                if graph
                else [str(node.target)]
            )
        elif node.op == "call_function" and "getitem" not in str(node.target):
            found.append(str(node.target))
    return list(dict.fromkeys(found))


def line(error: Exception) -> str:
    """An error's first line, or its kind."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
