"""Records and findings -> one HTML page that needs no network. No torch here: any machine can rebuild a page."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vggbench.errors import RecordError
from vggbench.results import Record, read_records, write_output

if TYPE_CHECKING:
    from vggbench.findings import Finding

#: What a page made from records alone cannot show, or says otherwise than the run's own page.
FROM_RECORDS = (
    "Made from the records: they hold no pictures and no names of classes, and the time is the sum of what they took, "
    "in which passes that were kept from before count nothing."
)

__all__ = ["ReportContext", "context_from", "rebuild", "render", "write_page"]


@dataclass(frozen=True)
class ReportContext:
    """What the page says about the run as a whole.

    started: ISO 8601. dataset: name, split, images, fingerprint, layout, classes (a count, or the names in label
    order), total. machine: the flat dict of vggbench.environment. thumbnails: image id -> JPEG bytes, a few kB each.
    notes: sentences shown below the summary. full: whether every protocol ran on all images.
    """

    title: str
    command: str
    started: str
    elapsed_seconds: float | None
    dataset: dict[str, Any]
    machine: dict[str, Any] = field(default_factory=dict)
    thumbnails: dict[str, bytes] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    full: bool = False


def render(records: Sequence[Record], findings: Sequence[Finding], context: ReportContext) -> str:
    """The whole page. The same input gives the same bytes."""
    from vggbench.report.page import page

    return page(list(records), list(findings), context)


def write_page(path: Path, html: str) -> None:
    """Written whole or not at all. Raises StorageError."""
    write_output(path, html.encode("utf-8"), "the page")


def context_from(records: Sequence[Record], command: str = "") -> ReportContext:
    """What a page can say about a run from its records alone: no thumbnails, and times as recorded."""
    measured = [record for record in records if record.origin == "measured"] or list(records)
    accuracy = [record for record in measured if record.kind == "accuracy"]
    seen = accuracy or [record for record in measured if record.kind == "numerics"]
    widest = max(seen, key=lambda record: len(record.samples.values), default=None)
    times = [record.elapsed_seconds for record in measured if record.elapsed_seconds is not None]
    counts = {len(record.samples.values) for record in accuracy}
    environment = measured[0].environment if measured else {}
    return ReportContext(
        title="The VGG paper, reproduced" if accuracy or not seen else "What a precision moves",
        command=command or str(environment.get("command", "")),
        started=min((record.started for record in measured if record.started), default=""),
        elapsed_seconds=sum(times) if times else None,
        dataset=dict(widest.workload.data) if widest else {},
        machine=dict(environment),
        full=len(counts) == 1,
    )


def rebuild(records_path: Path) -> str:
    """The page from a records file (.jsonl or .jsonl.gz) alone. Raises RecordError."""
    from vggbench.findings import judge

    records = read_records(records_path)
    if not records:
        raise RecordError(f"{records_path}: holds no records. Give a .jsonl or .jsonl.gz that vggbench wrote.")
    judged = judge(records) if any(record.kind == "accuracy" for record in records) else []
    return render(records, judged, replace(context_from(records), notes=[FROM_RECORDS]))
