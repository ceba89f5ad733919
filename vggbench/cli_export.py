"""vggbench export: a network as an ONNX file for other runtimes."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from vggbench import cli_options as options
from vggbench import cli_quantized as quantized
from vggbench.cli_common import print_json, say
from vggbench.errors import UsageError

if TYPE_CHECKING:
    from vgg_reference.weights import Weights
    from vggbench.ranges import Quantization


def export(
    out: Annotated[Path, typer.Option(help="The file to write.", metavar="FILE.onnx")],
    network: options.Network = "D",
    weights: options.Weights = "sample",
    precision: Annotated[str, typer.Option(help="fp32, fp16, int8 or fp8 (E4M3).")] = "fp32",
    form: Annotated[str, typer.Option(help="crop: crop-sized images; dense: images of any size.")] = "crop",
    opset: Annotated[
        int | None,
        typer.Option(help="From 17, which TensorRT 8.6 reads, or 19 for fp8, to the newest here (default: the first)."),
    ] = None,
    external_weights: Annotated[
        bool, typer.Option("--external-weights", help="Weights in a file beside it; always so beyond 2 GB.")
    ] = False,
    calibration: Annotated[
        Path | None, typer.Option(help="Of int8 and fp8: ranges from vggbench calibrate.", metavar="FILE.json")
    ] = None,
    layout: Annotated[
        str | None, typer.Option(help="Of int8: tensorrt, or cpu for ONNX Runtime (default: tensorrt).")
    ] = None,
    float_layers: quantized.FloatLayers = None,
    storage_only: Annotated[
        bool,
        typer.Option("--storage-only", help="Of fp16: FP16 weights, FP32 layers, for CPUs that have no FP16."),
    ] = False,
    train_scale: options.TrainScale = None,
    width: options.Width = None,
    crop_size: options.CropSize = None,
    preprocess: options.Preprocess = None,
    score_pool: options.ScorePool = None,
    pool_rounding: options.PoolRounding = None,
    json: options.Json = False,
) -> None:
    """Write a network as an ONNX file: float32 images in, float32 scores out, the same bytes every time."""
    if form not in ("crop", "dense"):
        raise UsageError(f"No form {form!r}. Known: crop, dense.")
    from vggbench import graph_files, graphs
    from vggbench.variants import Variant
    from vggbench.weights import resolve

    kept = quantized.float_layers(float_layers, network, [precision])
    size = options.size_of(weights, width, crop_size)
    found = resolve(weights, network, train_scale=train_scale, preprocess=preprocess, **size)
    choices = options.checked_choices({"score_pool": score_pool, "pool_rounding": pool_rounding})
    variant = Variant(
        found,
        form,
        "onnx",
        precision,
        pool_rounding=choices.pool_rounding,
        score_pool=choices.score_pool,
        quantization=_quantization(precision, calibration, layout, kept, found),
    )
    model = graphs.build_graph(variant, opset, storage_only=storage_only)
    graph_files.write_model(model, out, external_weights)
    document = graph_files.describe_graph(out)
    if json:
        print_json(document)
    else:
        _say(document)


def _quantization(
    precision: str, calibration: Path | None, layout: str | None, float_layers: tuple[str, ...], weights: Weights
) -> Quantization | None:
    """Raises UsageError for options that do not belong together, CalibrationError."""
    from vggbench.precisions import QUANTIZED
    from vggbench.ranges import LAYOUTS, Quantization

    quantized.check_belongs(calibration, [precision])
    if layout is not None and precision != "int8":
        raise UsageError(f"--layout belongs to int8, asked was {precision}. Leave it out.")
    if precision not in QUANTIZED:
        return None
    if layout is not None and layout not in LAYOUTS:
        raise UsageError(f"No layout {layout!r}. Known: {', '.join(LAYOUTS)}.")
    if calibration is None:
        raise UsageError(
            f"An {precision} graph needs calibration ranges. Make them: vggbench calibrate --network "
            f"{weights.network}, and give them: --calibration FILE."
        )
    from vggbench.runs_calibrate import ranges_for

    return Quantization(ranges_for(weights, file=calibration), float_layers, layout or "")


def _say(document: dict[str, Any]) -> None:
    said = document["metadata"]
    say(f"{document['path']}: {said['network']}, {said['arithmetic']}, {said['form']} form, opset {document['opset']}")
    if document["weights_file"]:
        say(f"weights  {document['weights_file']}")
    if said.get("float_layers"):
        say(f"float    {said['float_layers']}: asked for")
    if said.get("fp16_layers"):
        say(f"fp16     {said['fp16_layers']}: FP8 kernels do not take them")
    say(f"sha256   {document['sha256']}")
    say(f"bytes    {document['bytes']:,}")
    for kind, values in (("input", document["inputs"]), ("output", document["outputs"])):
        for value in values:
            say(f"{kind:8} {value['name']}  {value['type']} ({', '.join(map(str, value['shape']))})")
