"""Options of int8 and fp8 that several commands share: ranges, and the layers that stay in floating point."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from vggbench import precisions
from vggbench.cli_options import networks_and_files
from vggbench.errors import UsageError

_HOW = "How it runs"
_KEPT = "Of int8 and fp8: layers that stay in floating point, as block1.conv1,fc6"
Calibration = Annotated[
    Path | None,
    typer.Option(
        help="Ranges for int8 and fp8, from vggbench calibrate (default: the sample family's own).",
        metavar="FILE.json",
        rich_help_panel=_HOW,
    ),
]
Calibrations = Annotated[
    list[str] | None,
    typer.Option(
        "--calibration",
        help="Ranges of a network for int8, repeatable; NETWORK:S=FILE names the training scale too.",
        metavar="NETWORK=FILE",
        rich_help_panel=_HOW,
    ),
]
FloatLayers = Annotated[
    str | None,
    typer.Option(
        help=f"{_KEPT}; numerics --sensitivity says which are worth it.", metavar="LAYER,LAYER", rich_help_panel=_HOW
    ),
]
NetworksFloatLayers = Annotated[
    list[str] | None,
    typer.Option(
        "--float-layers",
        help=f"{_KEPT} of a network, repeatable; NETWORK:S=LAYERS names the training scale too.",
        metavar="NETWORK=LAYERS",
        rich_help_panel=_HOW,
    ),
]


def check_belongs(given: object, asked: Sequence[str], option: str = "--calibration") -> None:
    """Whether one of the precisions takes what the option names, if it was given. Raises UsageError."""
    if given and not set(asked) & set(precisions.QUANTIZED):
        raise UsageError(f"{option} belongs to int8 and fp8, asked was {', '.join(asked)}. Leave it out.")


def float_layers(given: str | None, network: str, asked: Sequence[str]) -> tuple[str, ...]:
    """--float-layers as a network's layers, none where it was not given. asked: the precisions. Raises UsageError."""
    if given is None:
        return ()
    from vgg_reference.architectures import architecture
    from vggbench.ranges import check_float_layers, quantized_inputs

    check_belongs(True, asked, "--float-layers")
    layers, known = tuple(part.strip() for part in given.split(",")), architecture(network)
    check_float_layers(layers, known)
    if len(set(layers)) < len(layers):
        raise UsageError(f"--float-layers {given!r}: each layer is accepted once.")
    if len(layers) == len(quantized_inputs(known)):
        raise UsageError(
            f"--float-layers names all {len(layers)} layers of {network}, which leaves none to be quantized. Leave "
            "some out, or take fp32."
        )
    return layers


def networks_float_layers(
    given: list[str] | None, asked: Sequence[str]
) -> dict[tuple[str, str | None], tuple[str, ...]]:
    """--float-layers D=LAYERS or D:384=LAYERS -> (network, training scale or None) -> layers. Raises UsageError."""
    found = networks_and_files(given or [], "Float layers", "LAYERS", "D=block1.conv1,fc6")
    return {key: float_layers(layers, key[0], asked) for key, layers in found.items()}
