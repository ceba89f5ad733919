"""`vggbench check`: what a graph is, and which of TensorRT's rules for INT8 and FP8 it breaks, without TensorRT."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from vggbench import cli_options as options
from vggbench.cli_common import print_json, say
from vggbench.errors import CalibrationError


def check(
    file: Annotated[Path, typer.Argument(help="A graph that vggbench export wrote.", metavar="FILE.onnx")],
    json: options.Json = False,
) -> None:
    """What a graph is, and each of TensorRT's rules for INT8 and FP8 that it breaks, with its node."""
    from vggbench.qdq_rules import EXPLANATIONS, as_document, check_graph

    info = check_graph(file)
    if json:
        print_json(as_document(info))
    else:
        layout = f" {info.layout}" if info.layout else ""
        say(f"{file}: {info.network}, {info.form} form, {info.precision}{layout}, opset {info.opset}")
        in_8_bits = (
            f"{len(info.fp8_layers)} layers in FP8" if info.fp8_layers else f"{len(info.int8_layers)} layers in INT8"
        )
        quantized = info.int8_layers or info.fp8_layers
        names = f" ({', '.join(info.float_layers)})" if quantized and info.float_layers else ""
        say(f"weights {info.weights[:12]}, {in_8_bits}, {len(info.float_layers)} in float{names}")
        for each in info.violations:
            say(f"{each.rule:20} {each.node}: {each.detail}. {EXPLANATIONS[each.rule]}")
    if info.violations:
        first = info.violations[0]
        other = " It is a graph for the CPU; for TensorRT export --layout tensorrt." if info.layout == "cpu" else ""
        raise CalibrationError(
            f"{file}: breaks TensorRT's rules in {len(info.violations)} places, first {first.rule} at {first.node} "
            f"({first.detail}).{other}"
        )
    if not json:
        say("No rule of TensorRT's is broken.")
