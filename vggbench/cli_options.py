"""Options that several commands share. Values are checked where they are used, so that nothing heavy is imported here;
a test compares the values named in the help with those accepted."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from vggbench import precisions
from vggbench.errors import UsageError

if TYPE_CHECKING:
    from vggbench.protocols import Choices
    from vggbench.runs_inputs import Setting
    from vggbench.sizes import Sizes as EngineSizes

_OPEN = "What the paper leaves open"
_HOW = "How it runs"
#: Of a side and of images a call. More fits no memory; far more does not even fit the libraries' integers.
MOST_PIXELS, MOST_IMAGES = 1 << 16, 1 << 20
#: No single timing takes longer, in seconds; without an end a typed "inf" would be taken.
DAY = 86_400.0
PRECISIONS = " or ".join(", ".join(precisions.PRECISIONS).rsplit(", ", 1))


def known(name: str) -> Callable[[], list[str]]:
    """Values for shell completion, imported only then."""

    def values() -> list[str]:
        from vggbench import plan, protocols

        tables = {
            "protocol": list(protocols.PROTOCOLS),
            "backend": ["auto", *precisions.BACKENDS],
            "precision": list(precisions.PRECISIONS),
            "device": ["auto", *precisions.DEVICES],
            "anchors": list(plan.ANCHORS),
            **{key: list(accepted) for key, accepted in protocols.CHOICES.items()},
        }
        return tables[name]

    return values


def _networks() -> list[str]:
    from vgg_reference.architectures import ARCHITECTURES

    return list(ARCHITECTURES)


def _choice(name: str, help_: str) -> typer.models.OptionInfo:
    option: typer.models.OptionInfo = typer.Option(
        f"--{name.replace('_', '-')}", help=help_, autocompletion=known(name), rich_help_panel=_OPEN
    )
    return option


Network = Annotated[
    str, typer.Option(help="A, A-LRN, B, C, D, E or shallow-B (Table 1).", autocompletion=_networks, show_default=True)
]
Backend = Annotated[
    str | None,
    typer.Option(
        help=f"{', '.join(precisions.BACKENDS)} or auto: the fastest one here for the precision (default: auto).",
        autocompletion=known("backend"),
        rich_help_panel=_HOW,
    ),
]
Precision = Annotated[str, typer.Option(help=f"{PRECISIONS}.", autocompletion=known("precision"), rich_help_panel=_HOW)]
Precisions = Annotated[
    str | None,
    typer.Option(
        help="One or several, as fp32,int8; findings are judged at the first (default: on the sample set "
        "fp32,bf16,int8 as far as they run here, else fp32).",
        autocompletion=known("precision"),
        rich_help_panel=_HOW,
    ),
]
Anchors = Annotated[
    str | None,
    typer.Option(
        help="Rows beside other people's figures for these files, on ImageNet: center (one center crop), all (ten "
        "crops and dense too), only (center, and no row of the paper), none (default: center; none with --table).",
        autocompletion=known("anchors"),
        metavar="WHICH",
    ),
]
_DEVICE_HELP = f"auto, {' or '.join(precisions.DEVICES)}."
Device = Annotated[str, typer.Option(help=_DEVICE_HELP, autocompletion=known("device"), rich_help_panel=_HOW)]
Threads = Annotated[
    int | None,
    # Thousands of threads would be started one by one, until the machine has no more.
    typer.Option(min=1, max=1024, help="Threads of the CPU backend (default: physical cores).", rich_help_panel=_HOW),
]
Batch = Annotated[
    str | None,
    typer.Option(
        help="What TensorRT engines are built for, in images a call; more are split (default: 1:32:64 crops, 1 whole "
        "image).",
        metavar="N|MIN:OPT:MAX",
        rich_help_panel=_HOW,
    ),
]
Sizes = Annotated[
    str | None,
    typer.Option(
        help="And in pixels of whole images, each a side or HxW, as 224:384:640 (default: from 1 to 8 times the crop).",
        metavar="N|MIN:OPT:MAX",
        rich_help_panel=_HOW,
    ),
]
EngineInput = Annotated[
    str | None,
    typer.Option(
        help="Of TensorRT's: pixels (uint8, normalized inside, the default) or floats, four times the bytes.",
        autocompletion=lambda: ["pixels", "floats"],
        rich_help_panel=_HOW,
    ),
]
OnBad = Annotated[
    str,
    typer.Option(
        help="stop, or skip: leave corrupt images out and name them in the record.",
        autocompletion=lambda: ["stop", "skip"],
        rich_help_panel=_HOW,
    ),
]
Decoder = Annotated[
    str,
    typer.Option(
        help="Of JPEGs: pillow, or simplejpeg with the same pixels, where it is installed.",
        autocompletion=lambda: ["pillow", "simplejpeg"],
        rich_help_panel=_HOW,
    ),
]
Explain = Annotated[
    bool, typer.Option("--explain", help="Say where the time went and what limits.", rich_help_panel=_HOW)
]
Data = Annotated[
    str,
    typer.Option(
        help="Labelled images: a folder (ImageNet's layouts), a tar archive, shards, or sample.", metavar="DIR|sample"
    ),
]
Weights = Annotated[
    str,
    typer.Option(
        help="sample, random:SEED, a fetched model's name (weights list), or a file: .safetensors, .caffemodel, .pth, "
        ".npz, .h5.",
        metavar="sample|random:SEED|NAME|FILE",
    ),
]
TrainScale = Annotated[
    str | None, typer.Option(help="The training scale S: 256, 384 or [256;512] (default: what the weights say).")
]
Width = Annotated[float | None, typer.Option(help="Of random weights: multiplies channels and hidden units.")]
CropSize = Annotated[int | None, typer.Option(help="Of random weights: pixels, a multiple of 32.")]
Preprocess = Annotated[
    str | None, typer.Option(help="What foreign weights expect: paper-rgb, paper-bgr or torchvision.")
]
Images = Annotated[int | None, typer.Option(min=1, help="Only the first N images of the fixed order.")]
Split = Annotated[str, typer.Option(help="Of the sample set: test, tune or train.")]
Labels = Annotated[
    Path | None,
    typer.Option(
        help="A list of file names and labels, the devkit's ground truth, WordNet ids, or ReaL's real.json.",
        metavar="FILE",
    ),
]
Json = Annotated[bool, typer.Option("--json", help="One JSON document on standard output, nothing else there.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="No progress.", rich_help_panel=_HOW)]

ScorePool = Annotated[
    str | None, _choice("score_pool", "Dense scores: mean_logits (mean before the soft-max) or mean_probs.")
]
PoolRounding = Annotated[
    str | None, _choice("pool_rounding", "Max-pools of the dense form round: ceil (Caffe) or floor (PyTorch).")
]
GridExtent = Annotated[str | None, _choice("grid_extent", "The 5x5 grid spans: whole image or its central square.")]
GridRounding = Annotated[str | None, _choice("grid_rounding", "Crop offsets: round or floor.")]
ResizeFilter = Annotated[
    str | None,
    _choice(
        "resize_filter",
        "Antialiased: bicubic, bilinear, lanczos, hamming or box by Pillow; torch-bicubic or torch-bilinear, which are "
        "faster and at most one step of 255 off.",
    ),
]
SideRounding = Annotated[str | None, _choice("side_rounding", "Longer side after rescaling: round or floor.")]
Exif = Annotated[str | None, _choice("exif", "Orientation tags: ignore (as the paper's tools did) or apply.")]


def setting(
    backend: str | None,
    precision: str,
    device: str,
    threads: int | None,
    on_bad: str,
    choices: dict[str, str | None],
    decoder: str = "pillow",
    sizes: EngineSizes | None = None,
) -> Setting:
    """Checked before anything costly happens. Raises UsageError, BackendUnavailable."""
    from vggbench import runs_inputs

    return runs_inputs.setting(
        backend=backend,
        precision=precision,
        device=device,
        threads=threads,
        on_bad=on_bad,
        choices=checked_choices(choices),
        decoder=decoder,
        sizes=sizes,
    )


def engine_sizes(batch: str | None, sizes: str | None, engine_input: str | None = None) -> EngineSizes | None:
    """--batch, --sizes and --engine-input, None if none was given. Raises UsageError."""
    from vggbench.sizes import parse

    return parse(batch, sizes, engine_input)


def checked_choices(choices: dict[str, str | None]) -> Choices:
    """The open choices as typed, None for the default. Raises UsageError."""
    from vggbench.protocols import Choices, check_choices

    return check_choices(dataclasses.replace(Choices(), **{key: value for key, value in choices.items() if value}))


def size_of(weights: str, width: float | None, crop_size: int | None) -> dict[str, Any]:
    """--width and --crop-size, those that were given, for weights.resolve. Raises UsageError beside other weights."""
    found = {name: value for name, value in (("width", width), ("crop_size", crop_size)) if value is not None}
    if found and not weights.startswith("random:"):
        option = f"--{next(iter(found)).replace('_', '-')}"
        raise UsageError(f"{option} belongs to random weights, asked were {weights!r}. Leave it out, or take random:0.")
    return found


def scales_of(scale: int | None, scales: str | None) -> tuple[int, ...] | None:
    """--scale 384 or --scales 256,384,512; None if neither was given. Raises UsageError."""
    if scale is not None and scales is not None:
        raise UsageError("Both --scale and --scales were given. Give one of them.")
    if scale is None and scales is None:
        return None
    try:
        found = (scale,) if scale is not None else tuple(int(part) for part in (scales or "").split(","))
    except ValueError:
        raise UsageError(f"Scales {scales!r}: accepted are pixels separated by commas, as 256,384,512.") from None
    if max(found) > MOST_PIXELS:
        raise UsageError(f"Scale {max(found)}: accepted are up to {MOST_PIXELS:,} pixels.")
    return found


def networks_and_files(
    given: list[str],
    what: str = "Weights",
    value: str = "FILE",
    example: str = "D=vgg16.safetensors or D=ranges.json",
) -> dict[tuple[str, str | None], str]:
    """--weights D=FILE or D:384=FILE, each once -> (network, training scale or None) -> file. Raises UsageError."""
    found: dict[tuple[str, str | None], str] = {}
    for text in given:
        name, equals, file = text.partition("=")
        if not equals or not name or not file:
            raise UsageError(
                f"{what} {text!r}: accepted is NETWORK={value}, as {example}, or with the training scale "
                f"D:256={value}, 'D:[256;512]={value}'."
            )
        network, colon, scale = name.partition(":")
        key = (network, scale.replace("256-512", "[256;512]") if colon else None)
        if key in found:
            raise UsageError(f"{what} for {name} were given twice. Give each network and training scale once.")
        found[key] = file
    return found
