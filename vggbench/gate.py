"""Two sets of records -> a verdict for each row and for all. Reads records only: never runs a network."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from vggbench.errors import RecordError
from vggbench.gate_pairs import check_axes, is_judged, pairs
from vggbench.gate_rows import BETTER, INCONCLUSIVE, NOT_COMPARABLE, REGRESSED, SAME, VERDICTS, Limits, Row, rows
from vggbench.results import Record

__all__ = ["EXIT_STATUS", "Comparison", "Limits", "Row", "compare", "document"]

#: 2 is for options and records that cannot be used.
EXIT_STATUS = {SAME: 0, BETTER: 0, REGRESSED: 1, INCONCLUSIVE: 3, NOT_COMPARABLE: 3}


@dataclass(frozen=True)
class Comparison:
    """verdict: of all rows together. reason: one line. notes: cuts in the files and the like.

    machine: of BASE and of HEAD, their environments as recorded.
    """

    verdict: str
    reason: str
    rows: tuple[Row, ...]
    across: tuple[str, ...]
    limits: Limits
    base: str
    head: str
    machine: tuple[dict[str, Any], dict[str, Any]]
    notes: tuple[str, ...] = ()
    started: str = ""

    @property
    def exit_status(self) -> int:
        return EXIT_STATUS[self.verdict]

    @property
    def counts(self) -> dict[str, int]:
        """Verdict -> rows, the gravest first, without those that no row has."""
        found = Counter(row.verdict for row in self.rows)
        return {verdict: found[verdict] for verdict in VERDICTS if found[verdict]}

    @property
    def labels(self) -> tuple[str, ...]:
        """What differed with permission, each once."""
        return tuple(dict.fromkeys(label for row in self.rows for label in row.across))


def compare(
    base: Sequence[Record],
    head: Sequence[Record],
    *,
    limits: Limits = Limits(),  # noqa: B008 - frozen
    across: Iterable[str] = (),
    names: tuple[str, str] = ("BASE", "HEAD"),
    notes: Iterable[str] = (),
) -> Comparison:
    """Rows by what was measured, each judged on its own. Raises UsageError (axis), RecordError (empty set)."""
    allowed = check_axes(across)
    for side, name, records in zip(("BASE", "HEAD"), names, (base, head), strict=True):
        if not any(map(is_judged, records)):
            raise RecordError(f"{side} ({name}) holds no measured time, error or numerics. Give records of a run.")
    found = tuple(rows(pairs(base, head, allowed), limits))
    verdict = _overall(found)
    return Comparison(
        verdict,
        _because(verdict, found),
        found,
        tuple(sorted(allowed)),
        limits,
        *names,
        (dict(base[0].environment), dict(head[0].environment)),
        tuple(notes),
        max((record.started for record in head), default=""),
    )


def _overall(found: Sequence[Row]) -> str:
    """A row that HEAD adds fails nothing; one that HEAD lost does, for nobody knows what became of it."""
    present = {row.verdict for row in found if not row.new}
    if REGRESSED in present:
        return REGRESSED
    if present <= {NOT_COMPARABLE}:
        return NOT_COMPARABLE
    if present & {INCONCLUSIVE, NOT_COMPARABLE}:
        return INCONCLUSIVE
    return BETTER if BETTER in present else SAME


def _because(verdict: str, found: Sequence[Row]) -> str:
    """The first row that decided, and how many more."""
    wanted = {INCONCLUSIVE: (INCONCLUSIVE, NOT_COMPARABLE)}.get(verdict, (verdict,))
    deciding = [row for row in found if row.verdict in wanted and (not row.new or verdict == NOT_COMPARABLE)]
    if verdict in (SAME, BETTER) or not deciding:
        return f"{len(found)} {'row' if len(found) == 1 else 'rows'}, none regressed"
    first = deciding[0]
    kind = "" if first.verdict == verdict else f"{first.verdict} because "
    more = f" (and {len(deciding) - 1} more)" if len(deciding) > 1 else ""
    return f"{first.name}, {first.metric}: {kind}{first.reason}{more}"


def document(found: Comparison) -> dict[str, Any]:
    """What --json prints."""
    return {
        "verdict": found.verdict,
        "exit_status": found.exit_status,
        "reason": found.reason,
        "across": list(found.across),
        "differs": list(found.labels),
        "limits": asdict(found.limits),
        "counts": found.counts,
        "base": found.base,
        "head": found.head,
        "notes": list(found.notes),
        "rows": [asdict(row) for row in found.rows],
    }
