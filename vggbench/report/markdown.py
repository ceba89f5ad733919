"""A comparison as GitHub-flavoured Markdown: a step summary or a comment, read in ten seconds."""

from __future__ import annotations

import re

from vggbench.gate import Comparison, Row
from vggbench.gate_rows import SAME
from vggbench.report.gate import HEADLINES, UNITS, interval_text, value_text
from vggbench.report.rows import signed

MARKS = {
    "regressed": "\N{CROSS MARK}",
    "inconclusive": "\N{WHITE QUESTION MARK ORNAMENT}",
    "not comparable": "\N{NO ENTRY SIGN}",
    "better": "\N{ROCKET}",
    "same": "\N{WHITE HEAVY CHECK MARK}",
}
#: Rows in the table; a step summary may hold 1 MiB, a comment 65,536 characters.
LISTED = 60


def markdown(found: Comparison) -> str:
    """Headline, what differs on purpose, one table with the gravest rows first, notes."""
    lines = [
        f"### {MARKS[found.verdict]} {HEADLINES[found.verdict]}: {_text(found.head)} against {_text(found.base)}",
        "",
    ]
    lines += [_text(f"{found.reason}."), ""]
    if found.labels:
        lines += [f"> **Across {_text(', '.join(found.across))}:** {_text('; '.join(found.labels))}", ""]
    ordered = sorted(found.rows, key=lambda row: list(MARKS).index(row.verdict))
    lines += ["| | row | metric | BASE | HEAD | change | interval | why |", "|---|---|---|---:|---:|---:|---:|---|"]
    lines += [_row(row) for row in ordered[:LISTED]]
    if len(ordered) > LISTED:
        lines += ["", f"{len(ordered) - LISTED} more rows stand in the page and in the JSON."]
    lines += ["", _rule(found)]
    lines += ["", *(f"- {_text(note)}" for note in found.notes)] if found.notes else []
    return "\n".join(lines) + "\n"


def _row(row: Row) -> str:
    title, unit, factor = UNITS[row.metric]
    change = "" if row.change is None else f"{signed(factor * row.change, 2)} {unit}"
    why = "" if row.verdict == SAME and row.p is None else _text(row.reason)
    cells = [
        f"{MARKS[row.verdict]} {row.verdict}",
        _text(row.name),
        title,
        value_text(row, row.base),
        value_text(row, row.head),
        change,
        interval_text(row),
        why,
    ]
    return f"| {' | '.join(cells)} |"


def _rule(found: Comparison) -> str:
    limits = found.limits
    turned = any(row.detail.get("interleaved") for row in found.rows)
    return (
        f"Tolerance: times {100 * limits.tolerance:g} %, errors {limits.accuracy_points:g} points, drift "
        f"{100 * limits.drift:g} %; at least {limits.processes} processes a side. Regressed only where the whole "
        "interval is beyond." + (" Times taken in turn change by the median of their rounds' ratios." if turned else "")
    )


def _text(text: str) -> str:
    """As plain text inside a table cell: nothing in a name or a path becomes markup, a mention or a new cell."""
    flat = " ".join(text.split())
    return re.sub(r"([\\`*_{}\[\]<>#|~$])", r"\\\1", flat).replace("@", "@\N{ZERO WIDTH SPACE}").replace("://", ":\\//")
