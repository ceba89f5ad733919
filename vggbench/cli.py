"""Arguments -> one function -> exit status. Only the modules named cli* print or exit."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

import vggbench
from vggbench import (
    cli_calibrate,
    cli_check,
    cli_export,
    cli_gate,
    cli_gpu,
    cli_history,
    cli_latency,
    cli_numerics,
    cli_project,
    cli_run,
    cli_tools,
    cli_train,
    cli_weights,
    interrupts,
)
from vggbench.cli_common import EXIT_CODES, EXIT_INTERRUPTED, guarded, mistyped

_EPILOG = "Exit codes: " + "; ".join(f"{code} {meaning}" for code, meaning in EXIT_CODES.items()) + "."

app = typer.Typer(
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog=_EPILOG,
    help="Reproduces the VGG paper (arXiv 1409.1556): its tables beside measured numbers.",
)


def _group(name: str, about: str) -> typer.Typer:
    group = typer.Typer(no_args_is_help=True, help=about)
    app.add_typer(group, name=name)
    return group


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"vggbench {vggbench.__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version and exit.")
    ] = False,
) -> None:
    pass


app.command("reproduce")(guarded(cli_run.reproduce))
app.command("evaluate")(guarded(cli_run.evaluate))
app.command("train")(guarded(cli_train.train))
app.command("project")(guarded(cli_project.project))
app.command("report")(guarded(cli_run.report))
app.command("latency")(guarded(cli_latency.latency))
app.command("peak")(guarded(cli_latency.peak))
app.command("numerics")(guarded(cli_numerics.numerics))
app.command("calibrate")(guarded(cli_calibrate.calibrate))
app.command("export")(guarded(cli_export.export))
app.command("check")(guarded(cli_check.check))
app.command("history")(guarded(cli_history.history))
app.command("export-benchmark")(guarded(cli_history.export_benchmark))
app.command("import-benchmark")(guarded(cli_history.import_benchmark))

_data = _group("data", "Images: the built-in sample set, and folders.")
_data.command("prepare")(guarded(cli_tools.data_prepare))
_data.command("describe")(guarded(cli_tools.data_describe))
_weights = _group("weights", "Weights: what is shipped and published, what a file holds; download and convert.")
_weights.command("list")(guarded(cli_weights.weights_list))
_weights.command("fetch")(guarded(cli_weights.weights_fetch))
_weights.command("verify")(guarded(cli_weights.weights_verify))
_weights.command("convert")(guarded(cli_weights.weights_convert))
_weights.command("info")(guarded(cli_weights.weights_info))
_cache = _group("cache", "Everything kept to save work; all of it can be computed again.")
_cache.command("ls")(guarded(cli_tools.cache_ls))
_cache.command("prune")(guarded(cli_tools.cache_prune))
app.command("compare")(guarded(cli_gate.compare))
app.command("gate")(guarded(cli_gate.gate))
app.command("ab")(guarded(cli_gate.ab))
app.command("gpu")(guarded(cli_gpu.gpu))
app.command("doctor")(guarded(cli_tools.doctor))


def main(arguments: list[str] | None = None) -> None:
    """Entry point of the command and of `python -m vggbench`."""
    try:
        status = app(arguments, prog_name="vggbench", standalone_mode=False)
    except typer.Abort:
        status = EXIT_INTERRUPTED
    except Exception as error:
        status = mistyped(error)
    # The parser takes a Ctrl-C outside of every command, and says nothing.
    if status == EXIT_INTERRUPTED and not interrupts.ignored():
        raise KeyboardInterrupt
    sys.exit(status)
