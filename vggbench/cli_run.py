"""The commands that measure: reproduce, evaluate, report."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from vggbench import cli_options as options
from vggbench import cli_quantized as quantized
from vggbench import progress
from vggbench.cli_common import note, print_json, say, warn_of_fallbacks
from vggbench.cli_explain import published_errors, show_estimate, show_judged, show_missing, show_stages, show_verdicts
from vggbench.cli_workers import let_waiting_threads_sleep, threads_each, workers
from vggbench.precisions import QUANTIZED


def reproduce(
    out: Annotated[Path, typer.Option(help="Folder for index.html and records.jsonl.", metavar="DIR")],
    data: options.Data = "sample",
    weights: Annotated[
        list[str] | None,
        typer.Option(
            help="Weights of a network, repeatable; NETWORK:S=FILE names the training scale too.",
            metavar="NETWORK=FILE",
        ),
    ] = None,
    table: Annotated[list[int] | None, typer.Option(help="Only this table (3-6), repeatable.", metavar="N")] = None,
    anchors: options.Anchors = None,
    images: options.Images = None,
    full: Annotated[
        bool, typer.Option("--full", help="All images for costly rows, all rows at every precision (so with DIR).")
    ] = False,
    speed: Annotated[
        bool, typer.Option(help="Also time each network at each precision, where there are several.")
    ] = True,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would run and what it costs, and stop.")] = False,
    crops_per_second: Annotated[
        float | None, typer.Option(min=0.001, help="For --dry-run: the first network's speed, instead of a trial.")
    ] = None,
    preprocess: options.Preprocess = None,
    authors: Annotated[
        bool,
        typer.Option(
            "--authors-weights",
            help="You state that the files are the authors' models; for verdicts, where no digest says it.",
        ),
    ] = False,
    labels: options.Labels = None,
    backend: options.Backend = None,
    precision: options.Precisions = None,
    calibration: quantized.Calibrations = None,
    float_layers: quantized.NetworksFloatLayers = None,
    device: options.Device = "auto",
    threads: options.Threads = None,
    batch: options.Batch = None,
    sizes: options.Sizes = None,
    engine_input: options.EngineInput = None,
    on_bad: options.OnBad = "stop",
    score_pool: options.ScorePool = None,
    pool_rounding: options.PoolRounding = None,
    grid_extent: options.GridExtent = None,
    grid_rounding: options.GridRounding = None,
    resize_filter: options.ResizeFilter = None,
    side_rounding: options.SideRounding = None,
    exif: options.Exif = None,
    decoder: options.Decoder = "pillow",
    explain: options.Explain = False,
    json: options.Json = False,
    quiet: options.Quiet = False,
) -> None:
    """Measure the rows of the paper's tables and write the page that holds both.

    Without --data and --weights: the built-in sample set and the small networks trained on it. With ImageNet and the
    authors' weights it is the real reproduction. An interrupted run goes on where it stopped.
    """
    let_waiting_threads_sleep()
    from vggbench import runs, runs_estimate, runs_inputs, runs_precision

    with workers() as group:
        choices = _choices(score_pool, pool_rounding, grid_extent, grid_rounding, resize_filter, side_rounding, exif)
        setting, others, left_out = runs_precision.settings(
            precision,
            on_sample=data == runs_inputs.SAMPLE,
            backend=backend,
            device=device,
            threads=threads_each(group, threads),
            on_bad=on_bad,
            choices=options.checked_choices(choices),
            decoder=decoder,
            sizes=options.engine_sizes(batch, sizes, engine_input),
        )
        names = [*(each.precision for each in (setting, *others)), *(QUANTIZED if left_out else ())]
        quantized.check_belongs(calibration, names)
        request = runs_inputs.Request(
            data=data,
            labels=labels,
            weights=options.networks_and_files(weights or []),
            preprocess=preprocess,
            authors=authors,
            tables=tuple(table or ()),
            anchors=anchors,
            images=images,
            full=full,
            speed=speed,
            setting=setting,
            others=others,
            left_out=left_out,
            calibrations={
                key: Path(file) for key, file in options.networks_and_files(calibration or [], "Calibrations").items()
            },
            float_layers=quantized.networks_float_layers(float_layers, names),
        )
        with progress.shown(quiet or json or group.rank > 0) as report_progress:
            if dry_run:
                if group.rank == 0:
                    show_estimate(runs_estimate.estimate(request, report_progress, crops_per_second), json)
                return
            done = runs.reproduce(request, out, report_progress, group)
        if done is not None:
            _show_reproduced(done, json, explain)


def _choices(
    score_pool: str | None,
    pool_rounding: str | None,
    grid_extent: str | None,
    grid_rounding: str | None,
    resize_filter: str | None,
    side_rounding: str | None,
    exif: str | None,
) -> dict[str, str | None]:
    return dict(locals())


def _show_reproduced(done: Any, json: bool, explain: bool) -> None:
    from vggbench.runs import summary_of, summary_of_all

    warn_of_fallbacks(done.records)
    if json:
        print_json(summary_of_all(done))
        return
    accuracy = [summary_of(record) for record in done.records if record.kind == "accuracy"]
    rows = [(_row_label(row["row"]), row) for row in accuracy]
    width = max(len(label) for label, _ in rows)
    say(f"{'row':{width}} {'at':5} {'images':>7} {'top-1 %':>8} {'top-5 %':>8}   paper")
    for label, row in rows:
        kept = f"   {row['float_layers']} in float" if row["float_layers"] else ""
        say(
            f"{label:{width}} {row['precision']:5} {row['images']:7,} {row['top1_error_percent']:8.2f} "
            f"{row['top5_error_percent']:8.2f}   {_paper(row)}{kept}"
        )
    show_verdicts([{**row, "label": label} for label, row in rows])
    show_judged(done.findings)
    show_missing(done.missing)
    if explain:
        show_stages(done.stages)
    say(f"\nThe page: {done.page}\nThe records: {done.records_path}")


def _row_label(key: str) -> str:
    """A row's key for a terminal: many fused networks as their number."""
    from vggbench.questions import label

    place, _, rest = key.partition("/")
    fused = rest.count("+") + 1
    return f"{fused} networks {rest.rsplit('/', 1)[1]} (Table {place[5:]})" if fused > 2 else label(key)


def _paper(row: dict[str, Any]) -> str:
    numbers = [row["paper_top1_error_percent"], row["paper_top5_error_percent"]]
    return " / ".join("-" if number is None else f"{number:.1f}" for number in numbers) if row["claim"] else ""


def evaluate(
    network: options.Network = "D",
    data: options.Data = "sample",
    weights: options.Weights = "sample",
    protocol: Annotated[
        str,
        typer.Option(
            help="center, ten-crop, dense, multi-scale, multi-crop or multi-crop-and-dense.",
            autocompletion=options.known("protocol"),
        ),
    ] = "dense",
    scale: Annotated[int | None, typer.Option(help="Q in pixels, for protocols of one scale.")] = None,
    scales: Annotated[str | None, typer.Option(help="Several Q, as 256,384,512 (default: the paper's for S).")] = None,
    train_scale: options.TrainScale = None,
    images: options.Images = None,
    split: options.Split = "test",
    width: options.Width = None,
    crop_size: options.CropSize = None,
    preprocess: options.Preprocess = None,
    labels: options.Labels = None,
    out: Annotated[Path | None, typer.Option(help="Also write the record here.", metavar="FILE.jsonl")] = None,
    backend: options.Backend = None,
    precision: options.Precision = "fp32",
    calibration: quantized.Calibration = None,
    float_layers: quantized.FloatLayers = None,
    device: options.Device = "auto",
    threads: options.Threads = None,
    batch: options.Batch = None,
    sizes: options.Sizes = None,
    engine_input: options.EngineInput = None,
    on_bad: options.OnBad = "stop",
    score_pool: options.ScorePool = None,
    pool_rounding: options.PoolRounding = None,
    grid_extent: options.GridExtent = None,
    grid_rounding: options.GridRounding = None,
    resize_filter: options.ResizeFilter = None,
    side_rounding: options.SideRounding = None,
    exif: options.Exif = None,
    decoder: options.Decoder = "pillow",
    explain: options.Explain = False,
    json: options.Json = False,
    quiet: options.Quiet = False,
) -> None:
    """Top-1 and top-5 error of one network by one of the paper's protocols, over a folder of labelled images."""
    let_waiting_threads_sleep()
    from vggbench import runs, runs_inputs

    with workers() as group:
        choices = _choices(score_pool, pool_rounding, grid_extent, grid_rounding, resize_filter, side_rounding, exif)
        asked, each = options.engine_sizes(batch, sizes, engine_input), threads_each(group, threads)
        setting = options.setting(backend, precision, device, each, on_bad, choices, decoder, asked)
        quantized.check_belongs(calibration, [precision])
        kept = quantized.float_layers(float_layers, network, [precision])
        if out is not None:
            runs_inputs.check_file(out, "records.jsonl")
        with progress.shown(quiet or json or group.rank > 0) as report_progress:
            found = runs.evaluate(
                data=data,
                labels=labels,
                split=split,
                network=network,
                weights=weights,
                preprocess=preprocess,
                train_scale=train_scale,
                protocol_name=protocol,
                scales=options.scales_of(scale, scales),
                images=images,
                size=options.size_of(weights, width, crop_size),
                calibration=calibration,
                float_layers=kept,
                setting=setting,
                progress=report_progress,
                group=group,
            )
    if found is not None:
        _show_evaluated(*found, setting.why, out, json, explain)


def _show_evaluated(record: Any, counts: dict[str, Any], why: str, out: Path | None, json: bool, explain: bool) -> None:
    from vggbench import runs

    if out is not None:
        runs.save([record], out)
    warn_of_fallbacks([record])
    summary = runs.summary_of(record)
    if json:
        print_json({**summary, **counts, "backend_choice": why, "record": record.model_dump()})
        return
    if why:
        say(why)
    how = f"{summary['backend']} {summary['precision']}"
    how += f" ({summary['float_layers']} in float)" if summary["float_layers"] else ""
    say(f"{summary['row']} on {summary['data']}, {summary['images']:,} images, {how}")
    for name, label in (("top1", "top-1"), ("top5", "top-5")):
        low, high = summary[f"{name}_interval_percent"]
        percent = summary[f"{name}_error_percent"]
        say(f"{label} error {percent:6.2f} %   95 % interval {low:.2f} to {high:.2f}")
    for beside in summary["anchors"]:
        say(f"{beside['kind']}: {beside['who']}, {published_errors(beside)}; {beside['reason']}")
    if summary["bad"]:
        note(f"{len(summary['bad'])} images were left out, the first: {summary['bad'][0]['id']}")
    computed = f"{counts['views_per_second']:.1f} views/s" if counts["computed"] else "nothing was computed"
    say(f"{computed}, {counts['cached']:,} image-passes were in the cache")
    if explain:
        show_stages(counts["stages"])


def report(
    records: Annotated[Path, typer.Argument(help="records.jsonl or .jsonl.gz of an earlier run.", metavar="RECORDS")],
    out: Annotated[Path, typer.Option(help="Folder for index.html.", metavar="DIR")],
    json: options.Json = False,
) -> None:
    """Rebuild the page from records alone; needs no images, weights or GPU."""
    from vggbench import runs

    page = runs.report(records, out)
    if json:
        print_json({"page": str(page)})
    else:
        say(f"The page: {page}")
