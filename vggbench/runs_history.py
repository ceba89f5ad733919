"""Many records files -> one history, its page, and the same as data."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vggbench import history as histories
from vggbench import runs_inputs
from vggbench.errors import RecordError, UsageError
from vggbench.history import History
from vggbench.history_changes import SIGNIFICANCE
from vggbench.progress import Report, silent
from vggbench.report import write_page
from vggbench.report.history import history_page
from vggbench.results_files import files_of, read_found, read_whole_part


@dataclass(frozen=True)
class Done:
    """notes: files that break off, of which what stands before the cut is used, and files that were passed over."""

    history: History
    page: Path | None
    notes: tuple[str, ...]


def history(
    paths: Sequence[Path],
    out: Path | None = None,
    significance: float = SIGNIFICANCE,
    command: str = "",
    progress: Report = silent,
) -> Done:
    """paths: files, or folders with all records below them. Raises UsageError, RecordError, StorageError."""
    if not 0 < significance < 1:
        raise UsageError(f"Significance {significance:g}: accepted is between 0 and 1, as 0.01.")
    if out is not None:
        runs_inputs.check_out(out)
    files = {file: path.is_dir() for path in paths for file in files_of(path, below=True)}
    sources, notes = [], list[str]()
    for number, (file, in_folder) in enumerate(files.items()):
        progress("Reading records", number, len(files), file.name)
        records, remark = read_found(file) if in_folder else read_whole_part(file)
        sources.append((_name(file), records))
        notes += [remark] if remark else []
    progress("Reading records", len(files), len(files), "")
    runs = histories.runs_of(sources)
    if not runs:
        raise RecordError(f"No record in {len(files)} files. Give files or folders that vggbench wrote with --out.")
    found = histories.history(runs, significance)
    page = None
    if out is not None:
        page = out / "index.html"
        write_page(page, history_page(found, command))
    return Done(found, page, tuple(notes))


def document(done: Done) -> dict[str, Any]:
    """The history as one JSON document; seconds and fractions, runs by their number from 1."""
    number = {id(run): place for place, run in enumerate(done.history.runs, start=1)}
    return {
        "page": None if done.page is None else str(done.page),
        "significance": done.history.significance,
        "ignored": done.history.ignored,
        "notes": list(done.notes),
        "runs": [
            {"run": number[id(run)], "file": run.name, "started": run.started, "label": run.label}
            for run in done.history.runs
        ],
        "rows": [
            {
                **dict(series.key),
                "unit": series.unit,
                "name": series.name,
                "not_judged": series.why,
                "drift_percent": series.drift_percent,
                "points": [{"run": number[id(point.run)], "values": list(point.values)} for point in series.points],
                "changes": [
                    {
                        "run": number[id(series.points[change.index].run)],
                        "previous_run": number[id(series.points[change.index - 1].run)],
                        "before": change.before,
                        "after": change.after,
                        "percent": change.percent if math.isfinite(change.percent) else None,
                        "p": change.p,
                        "changed": [{"name": n, "before": b, "after": a} for n, b, a in change.facts],
                    }
                    for change in series.changes
                ],
            }
            for series in done.history.series
        ],
    }


def _name(file: Path) -> str:
    """The file with its folder, which often is what tells runs apart."""
    return "/".join(file.parts[-2:]) if file.parent.name else file.name
