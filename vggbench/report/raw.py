"""Every record as text on the page: its line in the file, a name for people, its JSON without the raw values."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from markupsafe import Markup

from vggbench.report import ReportContext, engine_layers, numerics
from vggbench.report.rows import anchor_of, rank_counts
from vggbench.results import Record
from vggbench.results_names import precision_name

if TYPE_CHECKING:
    from vggbench.report.sections import Inputs

#: Of a record's JSON: hardest images shown, and levels that get a line an entry.
SHOWN_HARDEST, JSON_LEVELS = 1, 2


def section(given: Inputs) -> dict[str, Any]:
    """Every record with its line, its JSON (ranks counted, the raw list stands in the file) and its short name."""
    shown, seen = [], set[str]()
    for line, record in enumerate(given.records, start=1):
        anchor = anchor_of(record)
        if anchor in seen:
            continue
        seen.add(anchor)
        shown.append(
            {"anchor": anchor, "line": line, "name": record_name(record), "json": _json(record, given.context)}
        )
    return {"records": shown}


def record_name(record: Record) -> str:
    """A line that names a record for people."""
    nets = " + ".join(f"{run.network}/{run.weights.get('train_scale') or '?'}" for run in record.networks)
    parts = [record.claim or record.workload.protocol or record.kind, "" if record.claim else nets]
    parts.append("" if record.seed is None else f"seed {record.seed}")
    parts.append(" + ".join(dict.fromkeys(f"{run.backend} {precision_name(run)}" for run in record.networks)))
    return ", ".join(part for part in parts if part)


def _json(record: Record, context: ReportContext) -> Markup:
    """As text inside an element, where quotes stand as they are: escaped they made up a third of the page."""
    fields = record.model_dump()
    if record.samples.unit == "rank":
        fields["samples"] = {"unit": "rank", "count": len(record.samples.values), "rank_counts": rank_counts(record)}
    if record.environment and context.machine:
        fields["environment"] = _difference(record.environment, context.machine)
    if len(record.hardest) > SHOWN_HARDEST:
        fields["hardest"] = [*record.hardest[:SHOWN_HARDEST], f"and {len(record.hardest) - SHOWN_HARDEST} in the file"]
    text = _lines(engine_layers.shortened(numerics.shortened(fields)))
    return Markup(text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;"))


def _lines(value: Any, depth: int = 0) -> str:
    """JSON with a line an entry in the first levels, and what lies deeper on one line."""
    if depth == JSON_LEVELS or not isinstance(value, dict | list) or not value:
        return json.dumps(value, ensure_ascii=False)
    pad = " " * (depth + 1)
    if isinstance(value, list):
        return "[\n" + ",\n".join(pad + _lines(each, depth + 1) for each in value) + "\n" + pad[1:] + "]"
    entries = (
        f"{pad}{json.dumps(str(key), ensure_ascii=False)}: {_lines(each, depth + 1)}" for key, each in value.items()
    )
    return "{\n" + ",\n".join(entries) + "\n" + pad[1:] + "}"


def _difference(environment: dict[str, Any], machine: dict[str, Any]) -> Any:
    """What a record's environment says otherwise than the page's; None: it does not have the entry."""
    names = dict.fromkeys([*environment, *machine])
    other = {name: environment.get(name) for name in names if environment.get(name) != machine.get(name)}
    same = "as under Environment on this page"
    return {f"{same}, but": other} if other else same
