"""The commands that time: latency, peak."""

from __future__ import annotations

import math
import textwrap
from pathlib import Path
from typing import Annotated, Any

import typer

from vggbench import cli_options as options
from vggbench import cli_quantized as quantized
from vggbench import progress
from vggbench.cli_common import aligned, figure, note, print_json, say, warn_of_fallbacks
from vggbench.errors import UsageError
from vggbench.precisions import QUANTIZED

_RUN = "How it is measured"
_GPU = "On a GPU"
_LIST = "commas between several"


def latency(
    network: options.Network = "D",
    weights: options.Weights = "random:0",
    precision: Annotated[str, typer.Option(help=f"{options.PRECISIONS}; {_LIST}.")] = "fp32",
    backend: Annotated[str, typer.Option(help=f"A backend's name or auto, the fastest one here; {_LIST}.")] = "auto",
    batch: Annotated[
        str | None,
        typer.Option(
            help=f"Images a call, {_LIST}; TensorRT builds an engine for each (default: 1; 8 for throughput).",
            metavar="N,N",
        ),
    ] = None,
    size: Annotated[
        str | None, typer.Option(help="Pixels, as 384x512; engines take no others (default: the crop).", metavar="HxW")
    ] = None,
    scenario: Annotated[
        str, typer.Option(help="latency: a call at a time; throughput: batches back to back.")
    ] = "latency",
    processes: Annotated[
        int, typer.Option(min=1, help="Fresh processes a variant, in turn.", rich_help_panel=_RUN)
    ] = 3,
    min_seconds: Annotated[
        float,
        typer.Option(
            min=0.0, max=options.DAY, help="Each process measures a batch at least so long.", rich_help_panel=_RUN
        ),
    ] = 2.0,
    max_seconds: Annotated[
        float | None,
        typer.Option(
            min=0.0,
            max=options.DAY,
            help="And at most so long, if its median is not settled (default: twice).",
            rich_help_panel=_RUN,
        ),
    ] = None,
    min_iterations: Annotated[int, typer.Option(min=1, help="And at least so many calls.", rich_help_panel=_RUN)] = 10,
    peak: Annotated[
        bool, typer.Option(help="Also measure this machine's own peak, in the same run.", rich_help_panel=_RUN)
    ] = True,
    huge_pages: Annotated[
        bool, typer.Option(help="Memory in pages of 2 MiB, as in `ab`: steadier.", rich_help_panel=_RUN)
    ] = False,
    calibration: Annotated[
        Path | None, typer.Option(help="Ranges for int8 and fp8 (default: of 16 sample images).", metavar="FILE")
    ] = None,
    float_layers: quantized.FloatLayers = None,
    peers: Annotated[
        bool, typer.Option("--peers", help="Every backend and precision here, batches 1, 8, 32 and 128.")
    ] = False,
    like: Annotated[
        str | None, typer.Option(help="Time as trtexec-10 or trtexec-11 does by default.", rich_help_panel=_GPU)
    ] = None,
    cuda_graph: Annotated[
        bool | None, typer.Option(help="Launch a CUDA graph (default: each backend's habit).", rich_help_panel=_GPU)
    ] = None,
    transfers: Annotated[
        str | None, typer.Option(help="Within a call's time: none, in, out or both.", rich_help_panel=_GPU)
    ] = None,
    check_trtexec: Annotated[
        bool, typer.Option("--check-trtexec", help="Also run trtexec on each engine.", rich_help_panel=_GPU)
    ] = False,
    device: options.Device = "auto",
    threads: options.Threads = None,
    out: Annotated[Path | None, typer.Option(help="Also write the records here.", metavar="FILE.jsonl")] = None,
    json: options.Json = False,
    quiet: options.Quiet = False,
) -> None:
    """Images a second and seconds a call; fresh processes in turn, and every raw value kept.

    Without options: VGG-16 at 224 pixels, FP32, batch 1, on the fastest backend here. Interrupted, the same command
    goes on where it stopped.
    """
    from vggbench import cli_gpu, runs_inputs, runs_latency

    names, mode = _names(precision, "--precision"), cli_gpu.mode_of(like, cuda_graph, transfers)
    program = cli_gpu.trtexec_for(backend, peers) if check_trtexec else None
    if like:
        min_iterations, min_seconds, max_seconds = cli_gpu.like_limits()
    request = runs_latency.Request(
        network=network,
        weights=weights,
        precisions=names,
        backends=_names(backend, "--backend"),
        batches=batches_of(batch),
        size=_size(size),
        device=device,
        threads=threads,
        scenario=scenario,
        processes=processes,
        min_seconds=min_seconds,
        max_seconds=max_seconds,
        min_iterations=min_iterations,
        calibration=calibration,
        float_layers=quantized.float_layers(float_layers, network, QUANTIZED if peers else names),
        peak=peak,
        mode=mode,
        huge_pages=huge_pages,
    )
    if peers:
        request = cli_gpu.with_peers(request)
    if out is not None:
        runs_inputs.check_file(out, "records.jsonl")
    with progress.shown(quiet or json) as report_progress:
        timing = runs_latency.latency(request, out, report_progress)
    compared = cli_gpu.compared(timing.records, program)
    warn_of_fallbacks(timing.records)
    _show(timing, json, compared, peers)
    if out is not None and not json:
        say(f"\nThe records: {out}")


def peak(
    precision: Annotated[
        str, typer.Option(help=f"fp32, bf16, fp16, int8; on CUDA tf32 and fp8 too; {_LIST}.")
    ] = "fp32,bf16,int8",
    seconds: Annotated[float, typer.Option(min=0.0, max=options.DAY, help="The best product is timed so long.")] = 3.0,
    device: options.Device = "auto",
    threads: options.Threads = None,
    out: Annotated[Path | None, typer.Option(help="Also write the records here.", metavar="FILE.jsonl")] = None,
    json: options.Json = False,
    quiet: options.Quiet = False,
) -> None:
    """This machine's own peak: the fastest matrix product that a library here does, for each precision."""
    from vggbench import runs_inputs, runs_peak
    from vggbench.results import write_records
    from vggbench.shares import operations_per_second

    if out is not None:
        runs_inputs.check_file(out, "records.jsonl")
    with progress.shown(quiet or json) as report_progress:
        records, missed = runs_peak.peak(_names(precision, "--precision"), threads, seconds, device, report_progress)
    if out is not None:
        write_records(out, records)
    if json:
        rows = [{**record.peak.model_dump(), "operations_per_second": operations_per_second(record)}
                for record in records if record.peak]  # fmt: skip
        print_json({"peaks": rows, "missed": missed, "records": [record.model_dump() for record in records]})
        return
    for line in _peak_lines(records):
        say(line)
    for text in missed:
        note(text)


def _names(text: str, option: str) -> tuple[str, ...]:
    names = tuple(part.strip() for part in text.split(","))
    if not all(names) or len(set(names)) < len(names):
        raise UsageError(f"{option} {text!r}: accepted are names separated by commas, each once.")
    return names


def batches_of(text: str | None) -> tuple[int, ...]:
    if text is None:
        return ()
    parts = [part.strip() for part in text.split(",")]
    if not all(part.isascii() and part.isdigit() and int(part) > 0 for part in parts) or len(set(parts)) < len(parts):
        raise UsageError(f"--batch {text!r}: accepted are whole numbers from 1 on, separated by commas, each once.")
    if max(map(int, parts)) > options.MOST_IMAGES:
        raise UsageError(f"--batch {text!r}: accepted are up to {options.MOST_IMAGES:,} images a call.")
    return tuple(map(int, parts))


def _size(text: str | None) -> tuple[int, int] | None:
    if text is None:
        return None
    sides = text.lower().split("x")
    if len(sides) not in (1, 2) or not all(side.isascii() and side.isdigit() for side in sides):
        raise UsageError(f"--size {text!r}: accepted is height x width in pixels, as 384x512, or one side, as 224.")
    if max(map(int, sides)) > options.MOST_PIXELS:
        raise UsageError(f"--size {text!r}: accepted are sides up to {options.MOST_PIXELS:,} pixels.")
    return int(sides[0]), int(sides[-1])


def _show(timing: Any, json: bool, compared: list[Any], peers: bool) -> None:
    from vggbench import cli_gpu
    from vggbench.runs_latency_rows import doubts, rows_of
    from vggbench.runs_peers import peer_rows

    rows = peer_rows(timing.records) if peers else rows_of(timing.records)
    peaks = [record for record in timing.records if record.kind == "peak"]
    if json:
        rows = [{key: None if value == math.inf else value for key, value in row.items()} for row in rows]
        print_json(
            {
                **(rows[0] if len(rows) == 1 else {}),  # a single variant's numbers stand at the top, too
                "rows": rows,
                "trtexec": cli_gpu.as_documents(compared),
                "died": timing.died,
                "notes": timing.notes,
                "backends": timing.plan.reasons,
                "records": [record.model_dump() for record in timing.records],
            }
        )
        return
    request, plan, first = timing.plan.request, timing.plan, rows[0]
    say(f"{first['network']} ({first['weights']}), {plan.size[0]} x {plan.size[1]} pixels, {first['form']} form, "
        f"{first['device']}, {plan.threads} threads")  # fmt: skip
    several = "processes" if request.processes > 1 else "process"
    say(f"{request.scenario}, {request.processes} fresh {several} a variant in turn, each at least "
        f"{request.min_seconds:g} s and {request.min_iterations} calls a batch")  # fmt: skip
    for reason in plan.reasons:
        say(textwrap.fill(reason, 100))
    say("")
    for line in cli_gpu.peer_table(rows) if peers else _table(rows):
        say(line)
    for line in (*cli_gpu.mode_lines(rows), *cli_gpu.compared_lines(compared)):
        say(line)
    say("")
    for row in rows:
        say(f"{_label(row)}: {_cold(row)}")
    for line in _peak_lines([record for record in peaks if record.process == peaks[0].process]):
        say(line)
    for row in rows:
        found = doubts(row, request.processes)
        if found:
            note(f"{_label(row)}: {'; '.join(found)}.")
    for text in (*timing.died, *timing.notes):
        note(text)


def _table(rows: list[dict[str, Any]]) -> list[str]:
    """Fits 100 columns; tails only where some row has calls enough."""
    tails = [name for name in ("p90", "p95", "p99") if any(name in row["percentile_seconds"] for row in rows)]
    head = ["prec", "backend", "batch", "images/s", "95 % interval", "median ms", *tails, "CV %", "x fp32", "% peak"]
    lines = [head]
    for row in rows:
        low_high = row["images_per_second_interval"]
        lines.append(
            [
                row["precision"],
                row["backend"],
                str(row["batch"]),
                figure(row["images_per_second"]),
                f"{figure(low_high[0])}-{figure(low_high[1])}" if low_high else "-",
                figure(1000 * row["median_seconds"]),
                *(_milliseconds(row["percentile_seconds"].get(name)) for name in tails),
                f"{100 * row['coefficient_of_variation']:.1f}",
                f"{row['ratio_to_fp32']:.2f}" if row["ratio_to_fp32"] else "-",
                f"{100 * row['share_of_peak']:.0f}" if row["share_of_peak"] else "-",
            ]
        )
    return aligned(lines)


def _peak_lines(records: list[Any]) -> list[str]:
    from vggbench.shares import COPY, operations_per_second

    return [
        f"memory: {operations_per_second(record) / 1e9:,.1f} GB/s read and written by {record.peak.library}"
        if record.peak.precision == COPY
        else f"{record.peak.precision} peak: {operations_per_second(record) / 1e9:,.0f} billion operations/s by "
        f"{record.peak.library}, {record.peak.m} x {record.peak.k} x {record.peak.n}, {record.peak.threads} threads"
        for record in records
    ]


def _label(row: dict[str, Any]) -> str:
    return f"{row['precision']} {row['backend']} batch {row['batch']}"


def _cold(row: dict[str, Any]) -> str:
    """Cold start, memory, and a GPU's state."""
    text = f"opens in {row['open_seconds']:.2f} s, first call {1000 * row['first_call_seconds']:.0f} ms"
    text += f", memory {row['rss_peak_bytes'] / 2**30:.2f} GiB at most"
    if "gpu_memory_used_bytes" in row:
        text += f", on the GPU {row['gpu_memory_used_bytes'] / 2**30:.2f} GiB"
    if "gpu_joules_per_image" in row:
        text += f"; {row['gpu_mean_power_watts']:.0f} W, {row['gpu_joules_per_image']:.3f} J an image"
    if "gpu_sm_clock_mhz" in row:
        text += f"; {row['gpu_sm_clock_mhz']:.0f} MHz, {row.get('gpu_temperature_celsius', math.nan):.0f} degrees C"
    return text


def _milliseconds(seconds: float | None) -> str:
    return "-" if seconds is None else figure(1000 * seconds)
