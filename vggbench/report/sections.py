"""The page's sections: each turns records, findings and context into what its template shows."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from vggbench import paper
from vggbench.report import ReportContext, anchors, charts, engine_layers, hardest, numerics, raw, tables
from vggbench.report.precision import expected, missed, precision_rows, what_ran
from vggbench.report.rows import Measured, class_count, is_imagenet, measured
from vggbench.report.speed import peak_rows, speed_rows
from vggbench.results import Record, main_precision, precision_of
from vggbench.results_names import precision_name
from vggbench.samples import UNSTABLE_CV

if TYPE_CHECKING:
    from vggbench.findings import Finding


@dataclass(frozen=True)
class Inputs:
    """All that a section may look at. rows: of the main precision; every_row: of all."""

    records: list[Record]
    rows: list[Measured]
    findings: list[Finding]
    context: ReportContext
    tables: list[tables.ClaimTable]
    here: str
    every_row: list[Measured]


@dataclass(frozen=True)
class Section:
    """A part of the page with its heading, or none where data is None."""

    id: str
    title: str
    template: str
    data: dict[str, Any]


def inputs(records: list[Record], findings: Sequence[Finding], context: ReportContext) -> Inputs:
    """Counts the records once."""
    every_row = measured(records)
    main = main_precision(records)
    rows = [row for row in every_row if precision_of(row.record) == main]
    data = context.dataset
    classes = class_count(data)
    here = f"{data.get('name') or 'unnamed set'}" + (f", {classes} classes" if classes else "")
    return Inputs(records, rows, list(findings), context, tables.claim_tables(rows), here, every_row)


def summary(given: Inputs) -> dict[str, Any]:
    """What ran on what, and the verdicts in numbers."""
    verdicts = Counter(row.verdict.kind for table in given.tables for row in table.rows)
    found = Counter(finding.verdict for finding in given.findings)
    compared = [record for record in given.records if record.kind == "numerics"]
    shown = [row.record for row in given.every_row] or compared
    runs = [run for record in shown for run in record.networks]
    authors = bool(runs) and all(run.weights.get("status") == "authors" for run in runs)
    return {
        "real": authors and is_imagenet(given.context.dataset),
        "authors": authors,
        "imagenet": is_imagenet(given.context.dataset),
        "statuses": sorted({str(run.weights.get("status", "other")) for run in runs}),
        "verdicts": verdicts,
        "total_rows": sum(verdicts.values()),
        "measured_rows": sum(1 for table in given.tables for row in table.rows if row.first),
        "compared": len(compared),
        "flipped": numerics.flipped_answers(compared),
        "found": found,
        "unmeasured": sum(1 for finding in given.findings if finding.effect_points is None),
        "bad": bad_images(given),
        "networks": sorted({run.network for run in runs}),
        "weights": len({run.weights.get("digest") for run in runs}),
        "seeds": sorted({row.record.seed for row in given.rows if row.record.seed is not None}),
        "backends": sorted({f"{run.backend} {precision_name(run)}" for run in runs}),
        "images": sorted({row.images for row in given.rows} or {len(record.samples.values) for record in compared}),
        "classes": class_count(given.context.dataset),
    }


def findings(given: Inputs) -> dict[str, Any] | None:
    """The findings with the rule that judged them, and for each compared row the record it links to."""
    if not given.findings:
        return None
    from vggbench.findings import RULE
    from vggbench.findings_rows import row_key
    from vggbench.questions import label

    anchors: dict[str, str] = {}
    for row in given.rows:
        anchors.setdefault(label(row_key(row.record)), row.anchor)
    compared = {name for f in given.findings for c in f.comparisons for name in (c.label_a, c.label_b)}
    return {
        "figure": charts.forest(given.findings),
        "rule": RULE,
        "anchors": {name: anchors.get(name, "") for name in compared},
    }


def only_compares(given: Inputs) -> bool:
    """A page that compares precisions and has nothing to say of the paper's tables."""
    return not given.every_row and any(record.kind == "numerics" for record in given.records)


def claims(given: Inputs) -> dict[str, Any] | None:
    """The paper's rows; none of them on a page that only compares precisions."""
    if only_compares(given):
        return None
    return {
        "figures": {
            3: charts.error_by_depth(given.rows, given.here),
            4: charts.single_and_multi_scale(given.rows, given.here),
            6: charts.paper_against_measured(given.rows, given.here),
        }
    }


def precision(given: Inputs) -> dict[str, Any] | None:
    """Other precisions beside the main one, row by row, their speeds, and the machine's peaks."""
    main = main_precision(given.records)
    names, rows = precision_rows(given.every_row, given.records)
    speed_names, speeds = speed_rows(given.records, main)
    peaks = peak_rows(given.records)
    if not rows and not speeds and not peaks:
        return None
    return {
        "main": main,
        "names": names,
        "rows": rows,
        "expected": expected(rows),
        "missed": missed(rows),
        "ran": what_ran(rows),
        "speed_names": speed_names,
        "speed_rows": speeds,
        "stable": UNSTABLE_CV,
        "peaks": peaks,
    }


def others(given: Inputs) -> dict[str, Any] | None:
    """Records that stand beside no row: other protocols and networks."""
    known = {claim.id for claim in paper.claims()}
    rows = [row for row in given.every_row if row.record.claim not in known]
    return {"rows": rows} if rows else None


def networks(given: Inputs) -> dict[str, Any] | None:
    if only_compares(given):
        return None
    return {"configurations": tables.configurations(), "sizes": tables.networks()}


def quoted(given: Inputs) -> dict[str, Any] | None:
    if only_compares(given):
        return None
    return {"tables": tables.quoted_tables()}


def method(given: Inputs) -> dict[str, Any]:
    """Open choices with their values and how many records took each, data, skipped images, environment."""
    choices: dict[str, Counter[str]] = {}
    for row in given.rows:
        for key, value in row.record.workload.choices.items():
            choices.setdefault(key, Counter())[str(value)] += 1
    return {
        "choices": {key: dict(values.most_common()) for key, values in sorted(choices.items())},
        "bad": bad_images(given),
        "dataset": _dataset(given.context.dataset),
        "machine": {key: _plain(value) for key, value in sorted(given.context.machine.items())},
    }


def _dataset(data: Mapping[str, Any]) -> dict[str, str]:
    """Of the data; the fingerprint of the whole set where it is another than that of the images used."""
    same = data.get("fingerprint_full") == data.get("fingerprint")
    left_out = ("bad", "fingerprint_full") if same else ("bad",)
    return {key: _plain(value) for key, value in data.items() if key not in left_out}


def bad_images(given: Inputs) -> list[dict[str, str]]:
    """Images that some record skipped, each once."""
    found: dict[str, str] = {}
    for data in (given.context.dataset, *(record.workload.data for record in given.records)):
        for bad in data.get("bad", []):
            found.setdefault(str(bad.get("id", "")), str(bad.get("why", "")))
    return [{"id": image, "why": why} for image, why in sorted(found.items())]


def _plain(value: Any) -> str:
    """A value of a description as one line."""
    if value is None:
        return "none"
    if isinstance(value, list | tuple):
        text = ", ".join(map(str, value[:8]))
        return f"{len(value)}: {text}, …" if len(value) > 8 else text
    if isinstance(value, dict):
        return ", ".join(f"{key}: {_plain(inner)}" for key, inner in value.items())
    return f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) else str(value)


#: In the page's order: id, heading, template, what it shows. A new section is one row here and one template.
SECTIONS = (
    ("findings", "Findings of the paper", findings),
    ("tables", "Tables 3 to 6: printed and measured", claims),
    ("anchors", "Other people's figures for these weights", anchors.section),
    ("precision", "Precision and speed", precision),
    ("numerics", "What a precision moves", numerics.section),
    ("engine-layers", "What each layer ran in", engine_layers.section),
    ("others", "Other measurements", others),
    ("networks", "Tables 1 and 2: the networks", networks),
    ("hardest", "Hardest images", hardest.section),
    ("quoted", "Tables 7 to 12: quoted", quoted),
    ("method", "How this was measured", method),
    ("records", "Records", raw.section),
)


def sections(given: Inputs) -> list[Section]:
    """The sections that have something to show."""
    found = []
    for id_, title, build in SECTIONS:
        data = build(given)
        if data is not None:
            found.append(Section(id_, title, f"{id_}.html.j2", data))
    return found
