"""Rows of timings: statistics over processes, ratios, and the doubts that stand beside them."""

import measuring
import pytest

from vggbench import cli_latency
from vggbench.backends.fake import FakeSession
from vggbench.measure.records import latency_record
from vggbench.results import Samples
from vggbench.runs_latency_rows import doubts, rows_of
from vggbench.variants import Variant

SIZE = (32, 32)


def timed(values, process=1, batch=1, precision="fp32", **more):
    variant = Variant(measuring.WEIGHTS, "crop", more.pop("backend", "fake"), precision)
    session = FakeSession(variant)
    session.info |= {"arithmetic": precision, **more}
    record = latency_record(
        session, variant, Samples(unit="seconds", values=values), batch, SIZE, environment={}, process=process
    )
    return record


def test_processes_are_the_unit_of_a_rows_statistics():
    records = [timed([speed] * 10, number, batch=2) for number, speed in enumerate((0.1, 0.2, 0.4), start=1)]
    (row,) = rows_of(records)
    assert (row["processes"], row["calls"]) == (3, 30)
    assert row["images_per_second"] == pytest.approx(10.0)
    assert row["images_per_second_by_process"] == pytest.approx([20.0, 10.0, 5.0])
    assert row["images_per_second_interval"] == pytest.approx((5.0, 20.0))
    assert row["coefficient_of_variation"] == 0.0, "within a process; between them nothing is hidden by it"
    assert row["median_seconds"] == pytest.approx(0.2)


def test_the_ratio_is_to_the_fp32_row_of_the_same_batch_and_backend():
    records = [
        timed([0.3] * 10, batch=1),
        timed([0.4] * 10, batch=8),
        timed([0.1] * 10, batch=1, precision="int8"),
        timed([0.1] * 10, batch=8, precision="int8"),
        timed([0.2] * 10, batch=1, backend="other"),
        timed([0.1] * 10, batch=1, backend="other", precision="bf16"),
    ]
    assert [row["ratio_to_fp32"] for row in rows_of(records)] == pytest.approx([1, 1, 3, 4, 1, 2])
    assert rows_of(records[2:3])[0]["ratio_to_fp32"] is None


def test_doubts_name_what_ran_what_varies_and_what_is_missing():
    (row,) = rows_of([timed([0.1, 0.2] * 10, precision="fp16", arithmetic="fp32 on weights stored as fp16")])
    found = doubts(row, processes=3)
    assert found[0] == "what ran is fp32 on weights stored as fp16"
    assert any(text.startswith("unstable, calls of a process vary by 34.") for text in found)
    (one_of_three,) = rows_of([timed([0.1] * 20, 1), timed([0.1] * 20, 2), timed([0.1, 0.2] * 10, 3)])
    assert one_of_three["coefficient_of_variation"] == 0.0
    assert any("vary by 34." in text for text in doubts(one_of_three, 3)), "the process that makes the row unstable"
    assert any("median is known to" in text for text in found)
    assert "1 of 3 processes" in found
    assert any("too few calls to say" in text for text in doubts(rows_of([timed([0.1] * 9)])[0], 1))
    wild = {**row, "relative_standard_error": 1.5}
    assert any("median is known to 150.0 % only" in text for text in doubts(wild, 1)), "not of too few calls"
    (row,) = rows_of([timed([0.1] * 20, number) for number in (1, 2, 3)])
    assert doubts(row, processes=3) == []
    assert "faster than its peak" in doubts({**row, "share_of_peak": 1.1}, processes=3)[0]
    assert doubts({**row, "share_of_peak": 1.01}, processes=3) == []


def test_the_widest_row_fits_100_columns():
    row = {
        "precision": "bf16", "backend": "torch-compile", "batch": 128, "images_per_second": 1234.5,
        "images_per_second_interval": (1200.4, 1299.9), "median_seconds": 0.1234, "coefficient_of_variation": 0.123,
        "percentile_seconds": {"p90": 0.13, "p95": 0.14, "p99": 0.15}, "ratio_to_fp32": 12.34, "share_of_peak": 1.0,
    }  # fmt: skip
    assert max(map(len, cli_latency._table([row]))) <= 100
