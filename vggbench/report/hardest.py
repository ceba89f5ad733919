"""Images that are among the hardest of most records: which they are, and their cards."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from vggbench.report.rows import Measured, class_name, embedded, measured
from vggbench.results import Record, main_precision, precision_of

if TYPE_CHECKING:
    from vggbench.report.sections import Inputs

#: Cards on a page.
SHOWN = 12


def ids(records: Sequence[Record]) -> list[str]:
    """The images that a page of these records shows, for whoever makes their thumbnails."""
    main = main_precision(records)
    return [case["id"] for case in cases([row for row in measured(records) if precision_of(row.record) == main])]


def cases(rows: Sequence[Measured]) -> list[dict[str, Any]]:
    """An image each, with the record that is furthest off and the number of records that name it."""
    found: dict[str, dict[str, Any]] = {}
    for row in rows:
        for case in row.record.hardest:
            image, truth = str(case.get("id", "")), float(case.get("true_posterior", 0.0))
            known = found.setdefault(image, {"id": image, "truth": truth, "case": case, "row": row, "count": 0})
            known["count"] += 1
            if truth < known["truth"]:
                known |= {"truth": truth, "case": case, "row": row}
    return sorted(found.values(), key=lambda case: (-case["count"], case["truth"], case["id"]))[:SHOWN]


def section(given: Inputs) -> dict[str, Any] | None:
    """What hardest.html.j2 shows; None where no record names any."""
    chosen = cases(given.rows)
    if not chosen:
        return None
    dataset, thumbnails = given.context.dataset, given.context.thumbnails
    shown = [_card(case, dataset, thumbnails) for case in chosen]
    records = sum(1 for row in given.rows if row.record.hardest)
    return {"cases": shown, "records": records, "pictures": any(card["src"] for card in shown)}


def _card(case: dict[str, Any], dataset: Mapping[str, Any], thumbnails: Mapping[str, bytes]) -> dict[str, Any]:
    worst = case["case"]
    names = {key: class_name(worst.get(key), dataset) for key in ("label", "answer")}
    posterior = float(worst.get("posterior", 0.0))
    return {**case, **names, "posterior": posterior, "src": embedded(thumbnails.get(case["id"]))}
