"""The command that says what a precision moves: numerics."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from vggbench import cli_options as options
from vggbench import cli_quantized as quantized
from vggbench import progress
from vggbench.cli_common import note, print_json, say, warn_of_fallbacks
from vggbench.errors import UsageError

_GRAMMAR = "PRECISION[@BACKEND][/LAYOUT]"
#: Rows of the sensitivity that a terminal shows.
_WORST = 5


def numerics(
    network: options.Network = "D",
    variant: Annotated[
        list[str] | None,
        typer.Option(
            help="What is compared, repeatable: bf16, int8@openvino, int8@onnxruntime/tensorrt (default: bf16).",
            metavar=_GRAMMAR,
        ),
    ] = None,
    reference: Annotated[str, typer.Option(help="Against what.", metavar=_GRAMMAR)] = "fp32",
    data: options.Data = "sample",
    weights: options.Weights = "sample",
    images: Annotated[int, typer.Option(min=1, help="The first N images of the fixed order.")] = 256,
    out: Annotated[Path | None, typer.Option(help="Folder for index.html and records.jsonl.", metavar="DIR")] = None,
    calibration: Annotated[
        Path | None,
        typer.Option(
            help="Ranges for int8 and fp8, from vggbench calibrate (default: the sample set's).", metavar="FILE"
        ),
    ] = None,
    float_layers: quantized.FloatLayers = None,
    sensitivity: Annotated[
        bool, typer.Option("--sensitivity", help="INT8 one layer at a time, and all but one: two sessions a layer.")
    ] = False,
    keep: Annotated[
        str, typer.Option(help="With --sensitivity: keep so many of the worst layers in floating point.")
    ] = "1,2,3",
    form: Annotated[
        str, typer.Option(help="crop (center crop) or dense (whole image).", autocompletion=lambda: ["crop", "dense"])
    ] = "crop",
    scale: Annotated[int | None, typer.Option(help="Q in pixels (default: the training scale).", min=1)] = None,
    train_scale: options.TrainScale = None,
    split: options.Split = "test",
    preprocess: options.Preprocess = None,
    labels: options.Labels = None,
    device: options.Device = "auto",
    threads: options.Threads = None,
    batch: options.Batch = None,
    sizes: options.Sizes = None,
    on_bad: options.OnBad = "stop",
    json: options.Json = False,
    quiet: options.Quiet = False,
) -> None:
    """What a precision moves, against FP32 on the same images: every layer, every image's logits, flipped answers."""
    from vggbench import runs_inputs, runs_numerics

    specs = [runs_numerics.parse(text) for text in (reference, *(variant or ["bf16"]))]
    asked = runs_numerics.Asked(
        setting=runs_inputs.setting(device=device, threads=threads, on_bad=on_bad),
        reference=reference,
        variants=tuple(variant or ["bf16"]),
        form=form,
        scale=scale,
        calibration=calibration,
        float_layers=quantized.float_layers(float_layers, network, [spec.precision for spec in specs]),
        sensitivity=sensitivity,
        keep=_counts(keep),
        sizes=options.engine_sizes(batch, sizes),
    )
    if out is not None:
        runs_inputs.check_out(out)
    with progress.shown(quiet or json) as report_progress:
        dataset, found = runs_numerics.open_inputs(
            asked,
            network=network,
            weights=weights,
            data=data,
            labels=labels,
            split=split,
            images=images,
            train_scale=train_scale,
            preprocess=preprocess,
            progress=report_progress,
        )
        records = runs_numerics.numerics(dataset, found, asked, report_progress)
    page = runs_numerics.save(dataset, records, out, asked.setting.choices) if out is not None else None
    rows = runs_numerics.summaries(records)
    warn_of_fallbacks(records)
    if json:
        variants = [{**row, **_of_record(record)} for row, record in zip(rows, records, strict=True)]
        print_json({"page": str(page) if page else None, "variants": variants})
        return
    _show(rows, records)
    if page:
        say(f"\nThe page: {page}\nThe records: {page.with_name('records.jsonl')}")


def _counts(text: str) -> tuple[int, ...]:
    """ "1,2,3" -> (1, 2, 3). Raises UsageError."""
    parts = [part.strip() for part in text.split(",")]
    if not all(part.isascii() and part.isdigit() for part in parts):
        raise UsageError(f"--keep {text!r}: accepted are whole numbers of layers separated by commas, as 1,2,3.")
    return tuple(int(part) for part in parts)


def _of_record(record: Any) -> dict[str, Any]:
    measured = record.numerics.model_dump()
    return {name: measured[name] for name in ("layers", "layers_note", "changed", "sensitivity", "recovery")}


def _show(rows: list[dict[str, Any]], records: list[Any]) -> None:
    """A line a variant, then what the layers of a sensitivity cost."""
    first = rows[0]
    counts = f"{first['images']:,} images, {first['reference_errors']:,} wrong"
    say(f"{first['network']} against {first['reference']}, {counts}")
    names = [row["variant"] + (f", {row['float_layers']} in float" if row["float_layers"] else "") for row in rows]
    width = max(7, *map(len, names))
    say(f"{'variant':{width}}     rel. L2        95 %  flips  lost  gained  wrong  p      p, Holm")
    for name, row in zip(names, rows, strict=True):
        say(
            f"{name:{width}}  {_percent(row['relative_l2_median'])}  {_percent(row['relative_l2_p95'])}"
            f"  {row['flips']:5,} {row['lost']:5,}  {row['gained']:6,}  {row['variant_errors']:5,}"
            f"  {row['p']:<5.3g}  {row['p_holm']:.3g}"
        )
    for row, record in zip(rows, records, strict=True):
        measured = record.numerics
        if measured.layers_note:
            note(f"{row['variant']}: no table of layers. {measured.layers_note}")
        if measured.sensitivity:
            _show_sensitivity(row, measured)


def _show_sensitivity(row: dict[str, Any], measured: Any) -> None:
    say(f"\n{row['variant']}: relative L2 of all images' logits together with one layer quantized, and with all but it")
    for each in measured.sensitivity[:_WORST]:
        say(
            f"  {each.layer:14} {_percent(each.alone_relative_l2)}  {each.alone_flips:4,} flips   "
            f"{_percent(each.without_relative_l2)}  {each.without_flips:4,} flips"
        )
    for each in measured.recovery:
        kept = f"--float-layers {','.join(each.float_layers)}" if each.float_layers else "none kept"
        say(f"  {kept}: {_percent(each.relative_l2).strip()}, {each.flips:,} flips, {each.top1_errors:,} wrong")


def _percent(ratio: float) -> str:
    """Three significant digits, ten characters wide, as "4.55e-05 %" is."""
    return f"{100 * ratio:.3g} %".rjust(10)
