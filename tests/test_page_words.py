"""What the page says where its figures alone would mislead."""

from __future__ import annotations

import page_fixtures as fixtures
import pytest
from numerics_records import numerics_record
from test_report_speed import latency

from vggbench.findings import judge
from vggbench.report import FROM_RECORDS, context_from, rebuild, render
from vggbench.report.page import rate
from vggbench.results import write_records


@pytest.fixture(scope="module")
def records():
    return fixtures.sample_records(seeds=(0,), images=200)


def test_a_table_whose_rows_saw_different_images_says_not_to_subtract_them(records):
    html = render(records, judge(records), fixtures.context(200))
    tables = [html.split(f'id="table{number}"')[1].split("</section>")[0] for number in (3, 4, 5, 6)]
    assert ["do not subtract" in table for table in tables] == [False, False, True, True]


def test_a_ratio_below_a_tenth_keeps_a_digit():
    timings = [latency("fp32", [0.001]), latency("int8", [0.5])]
    html = render(timings, [], context_from(timings))
    assert "0.002 x" in html
    assert "0.00 x" not in html


@pytest.mark.parametrize(
    ("value", "shown"), [(1.6, "1.60"), (99.94, "99.9"), (99.96, "100"), (1830.4, "1,830"), (1e-7, "1.00e-07")]
)
def test_a_measured_number_keeps_its_three_digits(value, shown):
    assert rate(value) == shown


def test_a_page_that_only_compares_says_what_flipped_and_leaves_the_papers_tables_out():
    compared = [numerics_record("bf16", "pytorch"), numerics_record("int8", "onnxruntime", "cpu")]
    html = render(compared, [], context_from(compared))
    headline = html.split('<p class="headline">')[1].split("</p>")[0]
    assert "answers" in headline
    assert 'id="quoted"' not in html
    assert 'id="networks"' not in html


def test_a_finding_that_was_not_measured_is_not_called_undecided(records):
    findings = judge(records)
    missing = sum(1 for finding in findings if finding.effect_points is None)
    assert missing
    html = render(records, findings, fixtures.context(200))
    assert html.count('">not measured</span>') >= 2 * missing
    assert f"({missing} of them not measured)" in html


def test_a_page_made_from_records_says_what_it_lacks(records, tmp_path):
    write_records(tmp_path / "records.jsonl", records)
    html = rebuild(tmp_path / "records.jsonl")
    assert FROM_RECORDS in html
    assert "no thumbnails" in html
    assert '<span class="no-image">' not in html
    assert FROM_RECORDS not in render(records, judge(records), fixtures.context(200))


def test_a_fingerprint_stands_twice_only_where_the_whole_set_has_another(records):
    for whole, times in (("f" * 64, 1), ("e" * 64, 2)):
        context = fixtures.context(200)
        context.dataset.update(fingerprint="f" * 64, fingerprint_full=whole)
        data = render(records, [], context).split('<h3 id="data">')[1].split("</dl>")[0]
        assert data.count("<dt>fingerprint") == times
