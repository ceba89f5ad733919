"""What a precision moves: numerics records as a summary, layers, flipped images and the layers that INT8 owes it to."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from vggbench.report.rows import anchor_of, class_name, embedded, titled
from vggbench.results import ImageDrift, LayerDrift, NetworkRun, Numerics, Record
from vggbench.results_names import precision_name
from vggbench.samples import median, percentile
from vggbench.statistics import holm

if TYPE_CHECKING:
    from vggbench.report.sections import Inputs

#: Cards of flipped images a network.
FLIPPED = 12


@dataclass(frozen=True)
class VariantRow:
    """One numerics record. ratio_median, ratio_p95: relative L2 of an image's logits; p_holm: over all on the page."""

    record: Record
    numerics: Numerics
    anchor: str
    name: str
    layout: str
    ratio_median: float
    ratio_p95: float
    p_holm: float

    @property
    def label(self) -> str:
        return f"{self.name}, {self.layout}" if self.layout else self.name


@dataclass(frozen=True)
class Group:
    """The variants of one network against one reference. id: of its part of the page."""

    id: str
    title: str
    reference: str
    rows: tuple[VariantRow, ...]


def groups(records: Sequence[Record]) -> list[Group]:
    """Numerics records by network, weights, reference and protocol, in their order."""
    shown = [record for record in records if record.kind == "numerics" and record.numerics and record.samples.values]
    adjusted = holm([record.numerics.p_value for record in shown if record.numerics])
    found: dict[tuple[str, ...], list[VariantRow]] = {}
    for record, p_holm in zip(shown, adjusted, strict=True):
        run, reference = record.networks[0], _what_ran(record.numerics.reference) if record.numerics else ""
        key = (run.network, str(run.weights.get("digest")), reference, str(record.workload.protocol))
        found.setdefault(key, []).append(_row(record, p_holm))
    return [_group(number, reference, rows) for number, ((_, _, reference, _), rows) in enumerate(found.items(), 1)]


def _row(record: Record, p_holm: float) -> VariantRow:
    assert record.numerics is not None
    run, ratios = record.networks[0], [float(value) for value in record.samples.values]
    layout = str(run.calibration.get("layout") or "")
    return VariantRow(
        record=record,
        numerics=record.numerics,
        anchor=anchor_of(record),
        name=_what_ran(run),
        layout=f"{layout} layout" if layout else "",
        ratio_median=median(ratios),
        ratio_p95=percentile(ratios, 95),
        p_holm=p_holm,
    )


def _what_ran(run: NetworkRun) -> str:
    return f"{titled(precision_name(run))} {run.backend}"


def _group(number: int, reference: str, rows: Sequence[VariantRow]) -> Group:
    record = rows[0].record
    run = record.networks[0]
    scale = run.weights.get("train_scale")
    seed = "" if record.seed is None else f", seed {record.seed}"
    title = f"{run.network}, S = {scale}{seed}" if scale else f"{run.network}, {run.weights.get('name', 'unnamed')}"
    return Group(f"numerics-{number}", title, reference, tuple(rows))


def flipped_answers(records: Sequence[Record]) -> list[str]:
    """Of each variant: "INT8 onnxruntime flips 9 of 64 answers"; the network's name where there are several."""
    found = groups(records)
    several = len(found) > 1
    return [
        (f"{group.title}: " if several else "")
        + f"{row.name} flips {row.numerics.flips:,} of {row.numerics.images:,} answers"
        for group in found
        for row in group.rows
    ]


def section(given: Inputs) -> dict[str, Any] | None:
    """What numerics.html.j2 shows; None without numerics records."""
    found = groups(given.records)
    if not found:
        return None
    from vggbench.report.numerics_charts import margins, series_of, sqnr

    parts = [
        {
            "group": group,
            "series": series_of(group),
            "sqnr": sqnr(group),
            "margins": margins(group),
            "layers": layer_rows(group),
            "notes": [(row.label, row.numerics.layers_note) for row in group.rows if row.numerics.layers_note],
            "flipped": flipped(group, given.context.dataset, given.context.thumbnails),
            "blamed": [row for row in group.rows if row.numerics.sensitivity],
        }
        for group in found
    ]
    return {"parts": parts, "rows": sum(len(group.rows) for group in found)}


def layer_rows(group: Group) -> list[tuple[str, list[LayerDrift | None]]]:
    """Each layer with what every variant that has layers makes of it, in the network's order."""
    tables = [{each.layer: each for each in row.numerics.layers} for row in with_layers(group)]
    names = dict.fromkeys(name for table in tables for name in table)
    return [(name, [table.get(name) for table in tables]) for name in names]


def with_layers(group: Group) -> list[VariantRow]:
    return [row for row in group.rows if row.numerics.layers]


def flipped_ids(records: Sequence[Record]) -> list[str]:
    """The images that a page of these records shows, for whoever makes their thumbnails."""
    return list(dict.fromkeys(case["id"] for group in groups(records) for case in _flipped_cases(group)))


def _flipped_cases(group: Group) -> list[dict[str, Any]]:
    """The images whose answer a variant changed, those that most variants flipped first."""
    cases: dict[str, dict[str, Any]] = {}
    for row in group.rows:
        for each in row.numerics.changed:
            if each.reference_class != each.variant_class:
                case = cases.setdefault(each.id, {"id": each.id, "first": each, "flips": []})
                case["flips"].append((row, each))
    return sorted(cases.values(), key=lambda case: (-len(case["flips"]), case["first"].margin))[:FLIPPED]


def flipped(group: Group, dataset: Mapping[str, Any], thumbnails: Mapping[str, bytes]) -> list[dict[str, Any]]:
    """Their cards: the answer before, and every other answer with the variants that gave it."""
    shown = []
    for case in _flipped_cases(group):
        first, answers = case["first"], dict[int, dict[str, Any]]()
        for row, each in case["flips"]:
            answer = {"class": class_name(each.variant_class, dataset), "kind": _kind(each), "variants": []}
            answers.setdefault(each.variant_class, answer)["variants"].append((row, each.drift))
        shown.append(
            {
                "id": case["id"],
                "label": class_name(first.label, dataset) if first.label >= 0 else "unknown",
                "reference": class_name(first.reference_class, dataset),
                "margin": first.margin,
                "answers": list(answers.values()),
                "src": embedded(thumbnails.get(case["id"])),
            }
        )
    return shown


def _kind(image: ImageDrift) -> str:
    """ "lost", "gained", or "other": wrong before and now, or without a label."""
    if image.reference_rank == 0 < image.variant_rank:
        return "lost"
    return "gained" if image.variant_rank == 0 < image.reference_rank else "other"


def shortened(fields: dict[str, Any]) -> dict[str, Any]:
    """A numerics record's JSON for the page, without the values of every image, which stand in the file."""
    if fields["kind"] == "numerics" and fields["numerics"]:
        count = len(fields["samples"]["values"])
        fields["samples"] = {"unit": fields["samples"]["unit"], "count": count}
        fields["numerics"] = fields["numerics"] | {"margins": f"{count} values", "drifts": f"{count} values"}
    return fields
