"""Other people's figures for published weights beside what was measured with the same files and views."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from vggbench import paper, paper_anchors
from vggbench.paper_anchors import Anchor
from vggbench.report.rows import Measured, Verdict, compare, data_reasons, measured, other_choices, verdict, views
from vggbench.results import NetworkRun, Record

if TYPE_CHECKING:
    from vggbench.report.sections import Inputs

#: What changes nothing where views are crops: they act on dense score maps only.
_DENSE_ONLY = ("score_pool", "pool_rounding")


@dataclass(frozen=True)
class AnchorRow:
    """A published figure and the record that stands beside it, if one of this run has the same weights and views."""

    anchor: Anchor
    row: Measured | None
    verdict: Verdict


def anchor_rows(rows: Sequence[Measured]) -> list[AnchorRow]:
    """Every figure of weights that ran, by network; none where only unknown weights ran."""
    single = [row for row in rows if len(row.record.networks) == 1]
    known = dict.fromkeys(name for row in rows for run in row.record.networks if (name := lineage_of(run)))
    found = []
    for name in known:
        mine = [row for row in single if lineage_of(row.record.networks[0]) == name]
        for anchor in paper_anchors.of_lineage(*name):
            row = next((row for row in mine if views(row.record.networks[0].passes) == anchor.views), None)
            found.append(AnchorRow(anchor, row, anchor_verdict(anchor, row)))
    return found


def lineage_of(run: NetworkRun) -> tuple[str, str] | None:
    """Whose weights a network ran with, and which network: by their file's digest, or as stated; None if unknown."""
    source = run.weights.get("source") or {}
    digests = {kind: str(source.get(kind, "")) for kind in ("sha1", "sha256", "md5")}
    return paper_anchors.lineage(run.network, str(run.weights.get("status")), digests)


def anchor_verdict(anchor: Anchor, row: Measured | None) -> Verdict:
    """As of the paper's rows: the same images and views, then the interval decides."""
    if anchor.why_not:
        return Verdict("not comparable", anchor.why_not)
    if row is None:
        return Verdict("not measured", f"not part of this run; {_command(anchor)} measures it")
    reasons = [*data_reasons(row.record), *_choice_reasons(anchor, row.record)]
    if reasons:
        return Verdict("not comparable", "; ".join(reasons))
    return compare(row, anchor.top1_error_percent, anchor.top5_error_percent, anchor.rounding_points)


def _choice_reasons(anchor: Anchor, record: Record) -> list[str]:
    from vggbench.protocols import Choices, as_flat_dict  # its import loads the networks, so only where needed

    wanted = as_flat_dict(Choices())
    if anchor.resize_filter:
        wanted["resize_filter"] = anchor.resize_filter
    crops = anchor.views is not None and all(form == "crop" for form, *_ in anchor.views)
    others = other_choices(record, {k: v for k, v in wanted.items() if not (crops and k in _DENSE_ONLY)})
    return [
        f"{name} = {value}, the figure is of {wanted[name]} (--{name.replace('_', '-')} {wanted[name]})"
        for name, value in sorted(others.items())
    ]


def _command(anchor: Anchor) -> str:
    """What to type for a figure's views."""
    name, scales = paper_anchors.protocol_of(anchor.views or frozenset())
    how = f"--protocol {name} --scale{'s' if len(scales) > 1 else ''} {','.join(map(str, scales))}"
    chosen = f" --resize-filter {anchor.resize_filter}" if anchor.resize_filter else ""
    return f"vggbench evaluate --data IMAGENET_DIR --network {anchor.network} --weights FILE {how}{chosen}"


def verdicts_of(record: Record) -> dict[str, Any]:
    """For --json: the verdict on the paper's row, and on each figure of others with the same weights and views."""
    claim = next((claim for claim in paper.claims() if claim.id == record.claim), None)
    beside = [row for row in anchor_rows(measured([record])) if row.row is not None]
    fields = ("who", "protocol", "top1_error_percent", "top5_error_percent")
    return {
        "verdict": dataclasses.asdict(verdict(claim, record)) if claim else None,
        "anchors": [
            {**{name: getattr(row.anchor, name) for name in fields}, **dataclasses.asdict(row.verdict)}
            for row in beside
        ],
    }


def section(given: Inputs) -> dict[str, Any] | None:
    """The table on the page; none where no published weights ran."""
    rows = anchor_rows(given.rows)
    return {"rows": rows} if rows else None
