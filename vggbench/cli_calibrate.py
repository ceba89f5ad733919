"""`vggbench calibrate`: the ranges that INT8 needs, from images, as a JSON file."""

from __future__ import annotations

import json as json_module
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from vggbench import cli_options as options
from vggbench.cli_common import note, print_json, say

if TYPE_CHECKING:
    from vggbench.ranges import Ranges


def calibrate(
    network: options.Network = "D",
    weights: options.Weights = "sample",
    data: Annotated[str, typer.Option(help="A folder of images, or 'sample' (the built-in set).")] = "sample",
    split: Annotated[
        str | None,
        typer.Option(help="Which split; never the reported one (default: tune of sample, train of a folder)."),
    ] = None,
    labels: options.Labels = None,
    images: Annotated[int, typer.Option(help="The first so many, in a fixed order that keeps classes even.")] = 512,
    method: Annotated[
        str | None, typer.Option(help="minmax, entropy or percentile (default: minmax).", show_default=False)
    ] = None,
    percentile: Annotated[
        float | None, typer.Option(help="Of that method: above 50, up to 100 (default: 99.999).", show_default=False)
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="The file to write (default: ranges-NETWORK.json).", metavar="FILE.json")
    ] = None,
    scale: Annotated[
        int | None, typer.Option(help="Shorter side in pixels (default: the training scale).", min=1)
    ] = None,
    train_scale: options.TrainScale = None,
    width: options.Width = None,
    crop_size: options.CropSize = None,
    preprocess: options.Preprocess = None,
    threads: options.Threads = None,
    on_bad: options.OnBad = "stop",
    resize_filter: options.ResizeFilter = None,
    side_rounding: options.SideRounding = None,
    grid_rounding: options.GridRounding = None,
    exif: options.Exif = None,
    json: options.Json = False,
    quiet: options.Quiet = False,
) -> None:
    """Take the ranges of a network's tensors from images, for INT8; keep the evaluated images out of them."""
    from vggbench import progress, runs_calibrate, runs_inputs
    from vggbench.protocols import Choices
    from vggbench.ranges import DEFAULT_METHOD, DEFAULT_PERCENTILE
    from vggbench.weights import resolve

    choices = {
        "resize_filter": resize_filter,
        "side_rounding": side_rounding,
        "grid_rounding": grid_rounding,
        "exif": exif,
    }
    path = out or Path(f"ranges-{network}.json")
    runs_inputs.check_file(path, "ranges.json")
    size = options.size_of(weights, width, crop_size)
    found = resolve(weights, network, train_scale=train_scale, preprocess=preprocess, **size)
    with progress.shown(quiet) as report:
        ranges = runs_calibrate.ranges_for(
            found,
            data=data,
            split=split,
            labels=labels,
            method=method or DEFAULT_METHOD,
            percentile=DEFAULT_PERCENTILE if percentile is None else percentile,
            images=images,
            choices=Choices(**{key: value for key, value in choices.items() if value is not None}),
            scale=scale,
            threads=threads,
            on_bad=on_bad,
            progress=report,
        )
    runs_calibrate.write(path, ranges)
    _tell(ranges, path, images, json)


def _tell(ranges: Ranges, path: Path, asked: int, json: bool) -> None:
    from vggbench.ranges import to_json

    used = len(ranges.images)
    if used < asked:
        skipped = ranges.data.get("skipped")
        note(
            f"{used:,} images were used, not {asked:,}: "
            + (f"left out {skipped}." if skipped else "there are no more.")
        )
    if json:
        print_json({"out": str(path), "digest": ranges.digest, **json_module.loads(to_json(ranges)), "images": used})
        return
    how = ranges.method if ranges.percentile is None else f"{ranges.method} {ranges.percentile:g}"
    say(f"{ranges.network}: {how} over {used:,} images of {ranges.data['name']} ({ranges.data['split']})")
    longest = max(len(each.tensor) for each in ranges.tensors)
    say(f"{'tensor':{longest}} {'low':>12} {'high':>12}")
    for each in ranges.tensors:
        say(f"{each.tensor:{longest}} {each.low:12.5g} {each.high:12.5g}")
    say(f"Written to {path}.")
