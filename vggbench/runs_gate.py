"""Two record sets on disk -> a comparison and its files."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from vggbench.gate import Comparison, Limits, compare
from vggbench.results import write_output
from vggbench.results_files import read_set


@dataclass(frozen=True)
class Outputs:
    """Where a comparison is written; None: not."""

    html: Path | None = None
    markdown: Path | None = None
    junit: Path | None = None


def gate(base: Sequence[Path], head: Sequence[Path], *, limits: Limits, across: Iterable[str] = ()) -> Comparison:
    """Files and folders of each side, judged. Raises RecordError, UsageError."""
    sides = [read_set(paths) for paths in (base, head)]
    remarks = [remark for _, found in sides for remark in found]
    names = (_name(base), _name(head))
    return compare(sides[0][0], sides[1][0], limits=limits, across=across, names=names, notes=remarks)


def write(found: Comparison, outputs: Outputs) -> list[Path]:
    """The files asked for, each whole or not at all. Raises StorageError."""
    written = []
    if outputs.html is not None:
        from vggbench.report.gate import page

        written.append(outputs.html / "index.html")
        write_output(written[-1], page(found).encode(), "the page")
    if outputs.markdown is not None:
        from vggbench.report.markdown import markdown

        written.append(outputs.markdown)
        write_output(written[-1], markdown(found).encode(), "the summary")
    if outputs.junit is not None:
        from vggbench.report.junit import junit

        written.append(outputs.junit)
        write_output(written[-1], junit(found), "the JUnit report")
    return written


def _name(paths: Sequence[Path]) -> str:
    """As typed, without the folders of a user's home."""
    home = Path.home()
    shown = [
        f"~/{path.relative_to(home)}" if path.is_relative_to(home) and path != home else str(path) for path in paths
    ]
    return ", ".join(shown)
