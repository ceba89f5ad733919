"""The page's section on precisions, from records alone."""

from __future__ import annotations

import numpy as np
import pytest
from page_fixtures import sample_records
from scipy import stats

from vggbench.findings import judge
from vggbench.report import context_from, render
from vggbench.report.precision import missed, precision_rows
from vggbench.report.rows import measured
from vggbench.results import LayerDrift, Numerics, Record, Samples, Sensitivity


def at(record: Record, precision: str, lost: int, gained: int) -> Record:
    """The record at another precision, so many right answers lost and gained."""
    ranks = list(record.samples.values)
    right = [index for index, rank in enumerate(ranks) if rank == 0]
    wrong = [index for index, rank in enumerate(ranks) if rank > 0]
    for index in right[:lost]:
        ranks[index] = 3
    for index in wrong[:gained]:
        ranks[index] = 0
    networks = [run.model_copy(update={"precision": precision}) for run in record.networks]
    return record.model_copy(update={"networks": networks, "samples": Samples(unit="rank", values=ranks)})


@pytest.fixture(scope="module")
def main() -> list[Record]:
    found = [r for r in sample_records() if r.claim and r.claim.startswith("table3/") and r.origin == "measured"]
    assert len(found) > 5
    return found


def test_change_is_the_difference_of_the_error_rates_with_mcnemar_and_holm(main):
    others = [at(main[0], "int8", 9, 2), at(main[1], "int8", 3, 4)]
    names, rows = precision_rows(measured([*main, *others]), [])
    assert names == ["int8"]
    assert [row.main.record.claim for row in rows] == [main[0].claim, main[1].claim]
    change = rows[0].changes["int8"]
    assert change.points == pytest.approx(change.row.top1.percent - rows[0].main.top1.percent)
    assert (change.lost, change.gained) == (9, 2)
    assert change.p == pytest.approx(stats.binomtest(9, 11).pvalue)
    assert change.p_holm == pytest.approx(min(1, 2 * change.p))
    assert change.low < change.points < change.high


def test_precisions_stand_in_one_order_whatever_the_records(main):
    others = [at(main[0], name, 1, 0) for name in ("int8", "fp16", "bf16")]
    assert precision_rows(measured([*others, *main]), [])[0] == ["bf16", "fp16", "int8"]


def test_other_images_weights_or_choices_are_not_paired(main):
    other = at(main[0], "int8", 1, 0)
    data = other.workload.model_copy(update={"data": {**other.workload.data, "fingerprint": "another"}})
    run = other.networks[0].model_copy(update={"weights": {**other.networks[0].weights, "digest": "another"}})
    for changed in ({"workload": data}, {"networks": [run]}, {"origin": "recorded"}):
        assert precision_rows(measured([*main, other.model_copy(update=changed)]), [])[1] == []


def test_a_change_beyond_what_is_expected_names_the_layers_that_a_numerics_record_blames(main):
    images = len(main[0].samples.values)
    too_many = int(np.ceil(0.006 * images)) + 1
    other = at(main[0], "int8", too_many, 0)
    run = other.networks[0]
    layers = [LayerDrift(layer="fc8", relative_l2=0.1, max_absolute=1.0, sqnr_db=20.0, cosine=0.99)]
    blamed = [
        Sensitivity(layer=name, alone_relative_l2=0.1, alone_flips=1, without_relative_l2=0.0, without_flips=0)
        for name in ("fc6", "block1.conv1")
    ]
    numerics = Numerics(
        reference=main[0].networks[0],
        images=images,
        reference_errors=0,
        variant_errors=0,
        flips=0,
        lost=0,
        gained=0,
        p_value=1.0,
        layers=layers,
        changed=[],
        sensitivity=blamed,
    )
    record = Record(
        kind="numerics",
        networks=[run],
        workload=other.workload,
        samples=Samples(unit="ratio", values=[0.1]),
        numerics=numerics,
    )
    _, rows = precision_rows(measured([*main, other]), [*main, other, record])
    ((row, name, change),) = missed(rows)
    assert (row.main.record.claim, name, change.causes) == (main[0].claim, "int8", ("fc6", "block1.conv1"))


def test_page_shows_precisions_and_keeps_tables_and_findings_to_the_main_one(main):
    others = [at(record, "int8", 5, 0) for record in main]
    everything = [*sample_records(), *others]
    html = render(everything, judge(everything), context_from(everything))
    assert "Top-1 error in percent, by precision." in html
    assert "5 lost, 0 gained" in html
    assert judge(everything) == judge(sample_records())
    start, end = html.index('id="tables"'), html.index('id="precision"')
    assert "int8" not in html[start:end]
