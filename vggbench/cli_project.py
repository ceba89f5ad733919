"""`vggbench project`: hours for Tables 3-6 on other machines."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from vggbench import cli_options as options
from vggbench.cli_common import print_json, say


def project(
    data: Annotated[str, typer.Option(help="Photographs like those to be run on.", metavar="DIR|sample")] = "sample",
    gpu_crops_per_second: Annotated[
        float | None, typer.Option(help="Of VGG-16 (D), 224 pixels, on one GPU, if you know it.", min=0.001)
    ] = None,
    records: Annotated[
        Path | None, typer.Option(help="Records of vggbench latency on the GPU, instead.", metavar="RECORDS")
    ] = None,
    cores_per_gpu: Annotated[
        int | None, typer.Option(help="CPU cores beside each GPU (default: those of this machine).", min=1)
    ] = None,
    backend: options.Backend = None,
    precision: options.Precision = "fp32",
    threads: options.Threads = None,
    decoder: options.Decoder = "pillow",
    json: options.Json = False,
) -> None:
    """Hours for the rows of Tables 3-6 that public weights allow, on two cores and 1, 8 and 64 GPUs; what limits.

    The network on this CPU and the decoding are timed now, for seconds; a GPU's speed is given or read from records.
    """
    from vggbench import progress, runs_estimate, runs_inputs, runs_project

    setting = options.setting(backend, precision, "cpu", threads, "stop", {}, decoder)
    dataset = runs_inputs.open_images(data, None, progress.silent)
    parts = runs_project.measure(dataset, setting, gpu_crops_per_second, records, cores_per_gpu)
    crops = runs_project.crop_equivalents(runs_project.networks(), setting, runs_estimate.typical_aspect(dataset))
    lines = runs_project.project(parts, crops)
    if json:
        print_json(runs_project.as_document(parts, crops, lines))
        return
    gpu = parts.gpu_crops_per_second
    say(f"D and E over {runs_project.IMAGES:,} images: {crops:,.0f} crops' work of D, and on one core")
    say(f"{parts.preparing_seconds / 3600:.1f} h of decoding and rescaling ({parts.said['preparing']}).")
    say(f"D here: {parts.cpu_crops_per_second:.2f} crops/s on {parts.cpu_threads} threads ({parts.said['cpu']}).")
    if gpu is None:
        say("D on a GPU: no record; --records or --gpu-crops-per-second gives its speed.")
    else:
        say(f"D on a GPU: {gpu:,.0f} crops/s ({parts.said['gpu']}).")
    say(f"\n{'machine':28} {'hours':>10} {'network':>10} {'preparing':>10}   limits")
    for line in lines:
        cells = [line.hours, line.compute_hours, line.preparing_hours]
        numbers = " ".join(f"{'-' if cell is None else f'{cell:,.2f}':>10}" for cell in cells)
        say(f"{line.machine:28} {numbers}   {line.limits}")
