"""Records as one tidy pandas table: for notebooks, spreadsheets and results.csv beside the page."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pandas as pd

from vggbench import paper
from vggbench.report.rows import Measured, measured, verdict
from vggbench.results import Record
from vggbench.results_names import float_layers_in


def frame(records: Sequence[Record]) -> pd.DataFrame:
    """One row per accuracy record, in order: what ran, on what, and its errors in percent beside the paper's.

    Columns low and high are 95 % Wilson intervals. record: the line of records.jsonl, from 1.
    """
    claims = {claim.id: claim for claim in paper.claims()}
    return pd.DataFrame([_row(each, claims.get(each.record.claim or "")) for each in measured(records)])


def _row(each: Measured, claim: paper.Claim | None) -> dict[str, Any]:
    record = each.record
    networks = record.networks
    judged = verdict(claim, record) if claim else None
    return {
        "record": each.line,
        "claim": record.claim,
        "table": claim.table if claim else None,
        "networks": " + ".join(run.network for run in networks),
        "train_scales": " + ".join(str(run.weights.get("train_scale")) for run in networks),
        "protocol": record.workload.protocol,
        "backend": " + ".join(dict.fromkeys(run.backend for run in networks)),
        "precision": " + ".join(dict.fromkeys(run.precision for run in networks)),
        "float_layers": float_layers_in(record),
        "data": record.workload.data.get("name"),
        "images": each.images,
        "seed": record.seed,
        "origin": record.origin,
        "top1_error_percent": each.top1.percent,
        "top1_low": each.top1.low,
        "top1_high": each.top1.high,
        "top5_error_percent": each.top5.percent,
        "top5_low": each.top5.low,
        "top5_high": each.top5.high,
        "paper_top1_error_percent": claim.top1_error_percent if claim else None,
        "paper_top5_error_percent": claim.top5_error_percent if claim else None,
        "verdict": judged.kind if judged else None,
        "reason": judged.reason if judged else None,
        "likely": judged.likely or None if judged else None,
    }
