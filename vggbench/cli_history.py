"""The commands over many runs and other tools' files: history, export-benchmark, import-benchmark."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from vggbench import cli_options as options
from vggbench import progress
from vggbench.cli_common import note, print_json, say


def history(
    records: Annotated[
        list[Path], typer.Argument(help="Records of many runs: files, or folders of them.", metavar="RECORDS...")
    ],
    out: Annotated[Path | None, typer.Option(help="Folder for index.html.", metavar="DIR")] = None,
    significance: Annotated[
        float, typer.Option(help="Chance of a false alarm that you accept in each row without a change.")
    ] = 0.01,
    json: options.Json = False,
    quiet: options.Quiet = False,
) -> None:
    """Put many runs on a time line and say where a row changed, by how much, and what else changed there.

    Timings need 11 runs for a verdict, errors two. A file is a run; runs of other machines are other rows.
    """
    import sys

    from vggbench import environment, runs_history

    command = environment.command_line(sys.argv)
    with progress.shown(quiet or json) as report_progress:
        done = runs_history.history(records, out, significance, command, report_progress)
    document = runs_history.document(done)
    if json:
        print_json(document)
        return
    for text in done.notes:
        note(text)
    for row in document["rows"]:
        _show(row)
    unjudged = sum(1 for row in document["rows"] if row["not_judged"])
    if unjudged:
        say(f"{unjudged} of {len(document['rows'])} rows have too few runs for a verdict.")
    if done.page is not None:
        say(f"\nThe page: {done.page}")


def _show(row: dict[str, Any]) -> None:
    if row["not_judged"]:
        return
    count = len(row["changes"])
    verdict = "no change" if not count else f"{count} change{'' if count == 1 else 's'}"
    if row["drift_percent"] is not None:
        verdict = f"drifts by {row['drift_percent']:+.2f} % a run"
    say(f"{row['name']}: {verdict} in {len(row['points'])} runs")
    factor, unit = (1000, "ms") if row["unit"] == "seconds" else (100, "% error")
    for change in row["changes"]:
        size = "" if change["percent"] is None else f" ({change['percent']:+.1f} %)"
        say(
            f"  run {change['run']}: {factor * change['before']:.4g} -> {factor * change['after']:.4g} {unit}{size}, "
            f"p = {change['p']:.2g}"
        )
        for fact in change["changed"]:
            say(f"    {fact['name']}: {fact['before']} -> {fact['after']}")


def export_benchmark(
    records: Annotated[Path, typer.Argument(help="Records with timings: a file or a folder.", metavar="RECORDS")],
    out: Annotated[Path, typer.Option(help="The file for pytest-benchmark.", metavar="FILE.json")],
    json: options.Json = False,
) -> None:
    """Write timings in pytest-benchmark's format, for its compare command and the tools that read it."""
    from vggbench.pytest_benchmark_json import export
    from vggbench.results import write_output
    from vggbench.results_files import read_set

    found, remarks = read_set([records])
    for text in remarks:
        note(text)
    data, count = export(found)
    write_output(out, data, "pytest-benchmark's JSON")
    if json:
        print_json({"file": str(out), "benchmarks": count})
    else:
        say(f"{count} benchmark{'' if count == 1 else 's'}: {out}")


def import_benchmark(
    file: Annotated[Path, typer.Argument(help="What pytest --benchmark-json or -save wrote.", metavar="FILE.json")],
    out: Annotated[Path, typer.Option(help="The records.", metavar="FILE.jsonl")],
    json: options.Json = False,
) -> None:
    """Read pytest-benchmark's JSON as records, so that history and gate take them; needs its raw data."""
    from vggbench.pytest_benchmark_json import read
    from vggbench.results import write_records

    found = read(file)
    write_records(out, found)
    if json:
        print_json({"file": str(out), "records": len(found)})
    else:
        say(f"{len(found)} record{'' if len(found) == 1 else 's'}: {out}")
