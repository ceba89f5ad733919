"""`vggbench gpu`, and what `vggbench latency` says of a GPU's timing: modes, peers, trtexec."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from vggbench import cli_options as options
from vggbench import modes, progress
from vggbench.cli_common import aligned, figure, note, print_json, say, warn_of_fallbacks
from vggbench.errors import UsageError


def gpu(
    out: Annotated[
        Path | None, typer.Option(help="Folder for the report (default: reports/<gpu>-<date>).", metavar="DIR")
    ] = None,
    networks: Annotated[
        str, typer.Option(help="D: VGG-16 and the sample family; all: the paper's six networks.")
    ] = "D",
    budget_seconds: Annotated[
        float | None, typer.Option(min=1.0, help="It ends within them, the page written (default: 600; 1500 for all).")
    ] = None,
    only: Annotated[str | None, typer.Option(help="Only these steps, commas between.", metavar="NAME,NAME")] = None,
    weights: Annotated[str, typer.Option(help="Of the networks that are timed: random:SEED or sample.")] = "random:0",
    processes: Annotated[int, typer.Option(min=1, help="Fresh processes a variant.")] = 1,
    min_seconds: Annotated[
        float, typer.Option(min=0.0, max=options.DAY, help="Each measures a batch at least so long.")
    ] = 0.5,
    images: Annotated[int, typer.Option(min=1, help="Sample images for ranks and numerics.")] = 512,
    batch: Annotated[str, typer.Option(help="Images a call, commas between.")] = "1,8,32,128",
    no_network: Annotated[bool, typer.Option("--no-network", help="Fail on any attempt to reach a network.")] = False,
    engine_python: Annotated[
        Path | None, typer.Option(help="A Python without torch that has TensorRT.", metavar="PYTHON")
    ] = None,
    device: options.Device = "auto",
    threads: options.Threads = None,
    json: options.Json = False,
    quiet: options.Quiet = False,
) -> None:
    """Build, check and time everything that runs here, and write a report: one command for a machine with a GPU.

    A step that fails is named and the others go on; what is finished is kept, and the same command does only the rest.
    """
    from vggbench import runs_gpu, runs_gpu_targets
    from vggbench.cli_latency import batches_of

    request = runs_gpu.Request(
        networks=networks,
        weights=weights,
        batches=batches_of(batch),
        processes=processes,
        min_seconds=min_seconds,
        images=images,
        device=device,
        threads=threads,
        only=tuple(part.strip() for part in only.split(",")) if only else (),
        budget_seconds=budget_seconds,
        no_network=no_network,
        engine_python=engine_python,
    )
    with progress.shown(quiet or json) as report_progress:
        done = runs_gpu.gpu(request, out, report_progress)
    targets = runs_gpu_targets.targets(done.records)
    warn_of_fallbacks(done.records)
    if json:
        print_json({"steps": [dataclasses.asdict(step) for step in done.steps], "out": str(done.out),
                    "targets": [dataclasses.asdict(target) for target in targets]})  # fmt: skip
        return
    for step in done.steps:
        say(f"{step.state:8} {step.seconds:7.1f} s  {step.name}{': ' + step.why if step.why else ''}")
    say("")
    for line in runs_gpu_targets.table(targets):
        say(line)
    say(f"\nThe report: {done.out / 'index.html'}")


def mode_of(like: str | None, cuda_graph: bool | None, transfers: str | None) -> modes.Mode | None:
    """None where nothing was asked for. Raises UsageError."""
    if like is not None and like not in modes.LIKE:
        raise UsageError(f"--like {like!r}: known are {', '.join(modes.LIKE)}.")
    if like is not None and (cuda_graph is not None or transfers is not None):
        raise UsageError("--like names CUDA graph and transfers itself. Give it alone, or the two options without it.")
    if transfers is not None and transfers not in modes.TRANSFERS:
        raise UsageError(f"--transfers {transfers!r}: known are {', '.join(modes.TRANSFERS)}.")
    if like is not None:
        return modes.LIKE[like]
    if cuda_graph is None and transfers is None:
        return None
    return modes.Mode(cuda_graph=cuda_graph, transfers=transfers or "none")


def like_limits() -> tuple[int, float, float]:
    """trtexec's least calls, least seconds, and no more than those."""
    return modes.LIKE_ITERATIONS, modes.LIKE_SECONDS, modes.LIKE_SECONDS


def trtexec_for(backend: str, peers: bool) -> str:
    """Raises BackendUnavailable before anything is timed."""
    from vggbench.runs_trtexec import program_for

    return program_for(["tensorrt"] if peers else [part.strip() for part in backend.split(",")])


def with_peers(request: Any) -> Any:
    """The request for every peer; batches that were named stay."""
    from vggbench.backends import resolve_device
    from vggbench.runs_peak import has_cuda
    from vggbench.runs_peers import BATCHES, peers

    pairs = peers(resolve_device(request.device, has_cuda()))
    return dataclasses.replace(request, pairs=pairs, batches=request.batches or BATCHES)


def compared(records: Sequence[Any], program: str | None) -> list[Any]:
    """By trtexec, where it was asked for."""
    if program is None:
        return []
    from vggbench.runs_trtexec import compare

    return compare(records, program)


def as_documents(found: Sequence[Any]) -> list[dict[str, Any]]:
    return [{**dataclasses.asdict(each), "ratio": each.ratio} for each in found]


def compared_lines(found: Sequence[Any]) -> list[str]:
    """The ratio to trtexec, a line an engine."""
    lines = []
    for each in found:
        what = f"{each.precision} tensorrt batch {each.batch}"
        if each.ratio is None:
            note(f"{what}: not compared with trtexec. {each.why_not}")
            continue
        lines.append(
            f"{what}: {1000 * each.seconds:.4g} ms here, {1000 * each.trtexec_seconds:.4g} ms by trtexec "
            f"{each.version}, ratio {each.ratio:.3f}"
        )
    return lines


def mode_lines(rows: Sequence[dict[str, Any]]) -> list[str]:
    """What lay within a call's time: once where all rows agree, else by row."""
    by_mode: dict[str, list[str]] = {}
    for row in rows:
        by_mode.setdefault(row["mode"], []).append(f"{row['precision']} {row['backend']}")
    if len(by_mode) == 1:
        return [f"Timed by {mode}." for mode in by_mode]
    return [f"{', '.join(dict.fromkeys(who))}: timed by {mode}." for mode, who in by_mode.items()]


def peer_table(rows: list[dict[str, Any]]) -> list[str]:
    """Fits 100 columns."""
    tails = [name for name in ("p90", "p99") if any(name in row["percentile_seconds"] for row in rows)]
    lines = [["prec", "backend", "batch", "images/s", "median ms", *tails, "CV %", "x eager fp16", "% peak", "% floor"]]
    for row in rows:
        seconds = [row["percentile_seconds"].get(name) for name in tails]
        lines.append(
            [
                row["precision"],
                row["backend"],
                str(row["batch"]),
                figure(row["images_per_second"]),
                figure(1000 * row["median_seconds"]),
                *("-" if each is None else figure(1000 * each) for each in seconds),
                f"{100 * row['coefficient_of_variation']:.1f}",
                f"{row['ratio_to_eager_fp16']:.2f}" if row["ratio_to_eager_fp16"] else "-",
                f"{100 * row['share_of_peak']:.0f}" if row["share_of_peak"] else "-",
                f"{100 * row['share_of_floor']:.0f}" if row["share_of_floor"] else "-",
            ]
        )
    return aligned(lines)
