"""The commands that compare measurements: compare, gate, ab."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer

from vggbench import cli_options as options
from vggbench import progress
from vggbench.cli_common import fail, note, print_json, say
from vggbench.errors import RecordError, UsageError

if TYPE_CHECKING:
    from vggbench.gate import Comparison, Limits

_JUDGED = "How it is judged"
_FILES = "Files for CI"
_EXIT_STATUS = "Exit status: 0 passed, 1 regressed, 2 bad usage or input, 3 inconclusive or not comparable."
#: As vggbench.gate.Limits has them, which is not imported for --help; a test compares the two.
TOLERANCE_PERCENT, ACCURACY_POINTS, DRIFT_PERCENT, PROCESSES = "5", 0.1, "1", 7


def _axes() -> list[str]:
    from vggbench.gate_axes import NAMES

    return list(NAMES)


_SET = "Records: a .jsonl or .jsonl.gz, or a folder with them."
Base = Annotated[Path, typer.Argument(help=_SET, metavar="BASE", show_default=False)]
Head = Annotated[Path, typer.Argument(help=_SET, metavar="HEAD", show_default=False)]
MoreBase = Annotated[
    list[Path] | None, typer.Option("--more-base", help="More records of BASE, repeatable.", metavar="PATH")
]
MoreHead = Annotated[
    list[Path] | None, typer.Option("--more-head", help="More records of HEAD, repeatable.", metavar="PATH")
]
Tolerance = Annotated[
    str,
    typer.Option(
        help="Of a time, in percent: 5 suits a quiet machine, where medians of fresh processes stay within 2 %; "
        "on a shared one only 25 is honest, a coarse tripwire.",
        metavar="PERCENT",
        rich_help_panel=_JUDGED,
    ),
]
AccuracyTolerance = Annotated[
    float,
    typer.Option(
        min=0.0,
        help="Of an error, in percentage points: 0.1 is the last digit that the paper prints. The same images are "
        "compared one by one, so no more is needed for chance; another precision may be granted 0.2 or 0.5.",
        metavar="POINTS",
        rich_help_panel=_JUDGED,
    ),
]
DriftTolerance = Annotated[
    str,
    typer.Option(
        help="Of the logits' mean distance from the reference, in percent of their norm: 1 is half of what two "
        "layouts of the same INT8 ranges may differ by.",
        metavar="PERCENT",
        rich_help_panel=_JUDGED,
    ),
]
Needed = Annotated[
    int,
    typer.Option(
        "--processes-needed", min=2, help="Fresh processes a side; with fewer a time is inconclusive.",
        rich_help_panel=_JUDGED,
    ),
]  # fmt: skip
Across = Annotated[
    list[str] | None,
    typer.Option(
        help="What may differ, repeatable: machine, driver, a library (torch, onnxruntime, openvino, tensorrt, "
        "torch-tensorrt), python, vggbench, backend, precision, threads, weights, batch ... The upgrade case is "
        "--across tensorrt. Everything that comes out says so.",
        metavar="AXIS",
        autocompletion=_axes,
        rich_help_panel=_JUDGED,
    ),
]
Html = Annotated[
    Path | None, typer.Option(help="One offline page: DIR/index.html.", metavar="DIR", rich_help_panel=_FILES)
]
Markdown = Annotated[
    Path | None, typer.Option(help="For a step summary or a comment.", metavar="FILE", rich_help_panel=_FILES)
]
JUnit = Annotated[
    Path | None, typer.Option(help="JUnit XML, a test case a row.", metavar="FILE", rich_help_panel=_FILES)
]


def _with_exit_status(command: Callable[..., None]) -> Callable[..., None]:
    """Its help ends in what its exit status means."""
    command.__doc__ = f"{inspect.cleandoc(command.__doc__ or '')}\n\n{_EXIT_STATUS}"
    return command


def _judging(every_row: bool, about: str) -> Callable[..., None]:
    """`compare` and `gate`: one list of options. every_row: whether rows that passed are shown too."""

    def judge(
        base: Base,
        head: Head,
        more_base: MoreBase = None,
        more_head: MoreHead = None,
        across: Across = None,
        tolerance: Tolerance = TOLERANCE_PERCENT,
        accuracy_tolerance: AccuracyTolerance = ACCURACY_POINTS,
        drift_tolerance: DriftTolerance = DRIFT_PERCENT,
        processes_needed: Needed = PROCESSES,
        html: Html = None,
        markdown: Markdown = None,
        junit: JUnit = None,
        json: options.Json = False,
    ) -> None:
        from vggbench import runs_gate

        limits = _limits(tolerance, accuracy_tolerance, drift_tolerance, processes_needed)
        sides = [base, *(more_base or [])], [head, *(more_head or [])]
        _finish(
            lambda: runs_gate.gate(*sides, limits=limits, across=across or ()), (html, markdown, junit), json, every_row
        )

    judge.__doc__ = about
    return _with_exit_status(judge)


compare = _judging(
    True,
    """Every row of two record sets: time, errors and drift, each change with its interval and a verdict.

    Judges as `gate` does and shows all rows.""",
)
gate = _judging(
    False,
    """Whether HEAD got worse than BASE: the verdict for CI, and the rows that decided.

    A row regressed where the whole interval of its change lies beyond the tolerance; it is inconclusive where the
    interval straddles it. Another machine, version or workload is not comparable, unless --across names it.""",
)


@_with_exit_status
def ab(
    base: Annotated[str, typer.Option(help="A command, as '/envA/bin/vggbench latency --batch 1'.", metavar="CMD")],
    head: Annotated[str, typer.Option(help="The same of the other installation.", metavar="CMD")],
    out: Annotated[Path, typer.Option(help="Folder for base.jsonl, head.jsonl and every run.", metavar="DIR")],
    processes: Annotated[int, typer.Option(min=1, help="Runs a side, in turn: ABAB.")] = PROCESSES,
    turns: Annotated[
        bool, typer.Option("--turns/--whole-runs", help="Slices of both at once in turn, or a run after the other.")
    ] = True,
    huge_pages: Annotated[bool, typer.Option(help="Memory in pages of 2 MiB where the system has them.")] = True,
    across: Across = None,
    tolerance: Tolerance = TOLERANCE_PERCENT,
    html: Html = None,
    markdown: Markdown = None,
    junit: JUnit = None,
    json: options.Json = False,
    quiet: options.Quiet = False,
) -> None:
    """Two installations (two Python environments) on this machine, timed in turn and compared.

    Each run is CMD with --processes 1 --no-peak --out FILE added. One of each side is open at a time, and they time
    slices of 0.1 s in turn, so that what the machine does for longer meets both; that takes the memory of two. For
    another commit, install it into an environment of its own and name its vggbench. Interrupted, the same command takes
    the rounds that are missing.
    """
    from vggbench import runs_ab

    limits = _limits(tolerance)

    def run() -> Comparison:
        with progress.shown(quiet or json) as shown:
            done = runs_ab.ab(
                base,
                head,
                out,
                processes,
                turns=turns,
                pages=huge_pages,
                limits=limits,
                across=across or (),
                progress=shown,
            )
        return done.comparison

    _finish(run, (html, markdown, junit), json, True)


def _finish(
    run: Callable[[], Comparison],
    files: tuple[Path | None, Path | None, Path | None],
    json: bool,
    every_row: bool,
) -> None:
    """Compares, writes, prints and exits. Records that cannot be used are 2 here, as CI expects of a gate."""
    from vggbench import runs_gate
    from vggbench.gate import document

    try:
        found = run()
    except RecordError as error:
        fail(str(error), UsageError.exit_code)
    written = runs_gate.write(found, runs_gate.Outputs(*files))
    if json:
        print_json({**document(found), "files": [str(path) for path in written]})
    else:
        _show(found, every_row)
        for path in written:
            say(f"Written: {path}")
    for text in found.notes:
        note(text)
    _exit(found)


def _exit(found: Comparison) -> NoReturn:
    if found.exit_status:
        fail(f"{found.verdict}: {found.reason}.", found.exit_status)
    raise typer.Exit(0)


def _limits(
    tolerance: str,
    accuracy: float = ACCURACY_POINTS,
    drift: str = DRIFT_PERCENT,
    processes: int = PROCESSES,
) -> Limits:
    from vggbench.gate import Limits

    return Limits(_percent("--tolerance", tolerance), accuracy, _percent("--drift-tolerance", drift), processes)


def _percent(option: str, text: str) -> float:
    """ "5" and "5%" are 0.05. A bare 0.05 or 0.25 is refused: nobody knows whether a fraction was meant."""
    match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*(%?)\s*", text)
    if match is None or (0 < float(match[1]) < 1 and not match[2]):
        raise UsageError(
            f"{option} {text!r}: accepted is a percentage, as 5 or 5%; below one only with its sign, 0.5%."
        )
    return float(match[1]) / 100


def _show(found: Comparison, every_row: bool) -> None:
    """The rows for a terminal; of a gate only those that did not simply pass."""
    from vggbench.report.gate import HEADLINES, shown_row

    say(f"{HEADLINES[found.verdict]}: {found.head} against {found.base}")
    for label in found.labels:
        say(f"  across {label}")
    shown = [shown_row(number, row) for number, row in enumerate(found.rows, start=1)]
    listed = [each for each in shown if every_row or each["row"].verdict != "same"]
    for each in listed:
        for line in _row_lines(each):
            say(line)
    if len(listed) < len(shown):
        say(f"{len(shown) - len(listed)} of {len(shown)} rows are the same.")


def _row_lines(each: dict[str, Any]) -> list[str]:
    row = each["row"]
    lines = [f"{row.verdict.upper() if row.verdict == 'regressed' else row.verdict:14} {each['metric']}: {row.name}"]
    if each["change"] is not None:
        how = "of the rounds' ratios, " if row.detail.get("interleaved") else ""
        values = f"{each['base']} -> {each['head']}, {each['change']} ({each['interval']}), {how}{each['counts']}"
        lines.append(f"{'':14} {values}" + (f", p {row.p:.2g}" if row.p is not None else ""))
    return [*lines, f"{'':14} {row.reason}"]
