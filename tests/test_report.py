"""The page: verdicts, traceable numbers, escaping, the same bytes for the same input."""

from __future__ import annotations

import dataclasses
import json
import re
import subprocess
import sys
from html.parser import HTMLParser

import page_fixtures as fixtures
import pytest

from vggbench import paper
from vggbench.errors import StorageError
from vggbench.findings import judge
from vggbench.report import context_from, rebuild, render, write_page
from vggbench.report.frame import frame
from vggbench.report.page import duration, p_value
from vggbench.report.rows import anchor_of, measured, rank_counts, signed, verdict
from vggbench.results import NetworkRun, write_records

CLAIMS = {claim.id: claim for claim in paper.claims()}
PUBLIC = CLAIMS["table4/D/[256;512]"]
NOT_PUBLIC = CLAIMS["table3/A/256"]


class Elements(HTMLParser):
    """Ids, links inside the page, tag names and all visible text of a page."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.ids: list[str] = []
        self.links: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.headings: list[int] = []
        self.feed(html)

    def handle_starttag(self, tag, attrs):
        found = dict(attrs)
        self.tags.append((tag, found))
        if "id" in found:
            self.ids.append(found["id"])
        if tag == "a":
            self.links.append(found["href"])
        if re.fullmatch("h[1-6]", tag):
            self.headings.append(int(tag[1]))

    def handle_data(self, data):
        self.text += data


@pytest.fixture(scope="module")
def records():
    return fixtures.sample_records(images=200, hostile=True) + fixtures.other_records(200)


@pytest.fixture(scope="module")
def html(records):
    return render(records, judge(records), fixtures.context(200, hostile=True))


@pytest.fixture(scope="module")
def page(html):
    return Elements(html)


def test_row_is_reproduced_where_the_print_lies_in_the_interval():
    assert verdict(PUBLIC, fixtures.imagenet_record(PUBLIC, 24.8, 7.5)).kind == "reproduced"
    assert verdict(PUBLIC, fixtures.imagenet_record(PUBLIC, 25.1, 7.4)).kind == "reproduced"


def test_row_differs_where_the_print_lies_outside_and_says_by_how_much():
    found = verdict(PUBLIC, fixtures.imagenet_record(PUBLIC, 28.5, 7.5))
    assert found.kind == "not reproduced"
    assert found.reason == "differs in top-1 by +3.70 points"
    found = verdict(PUBLIC, fixtures.imagenet_record(PUBLIC, 24.0, 6.5))
    assert found.reason == "differs in top-1 by \N{MINUS SIGN}0.80 points and top-5 by \N{MINUS SIGN}1.00 points"


def test_rounding_of_the_print_widens_the_interval():
    record = fixtures.imagenet_record(PUBLIC, 24.8, 7.5)
    row = measured([record])[0]
    inside = dataclasses.replace(PUBLIC, top1_error_percent=row.top1.high + 0.049)
    outside = dataclasses.replace(PUBLIC, top1_error_percent=row.top1.high + 0.051)
    assert verdict(inside, record).kind == "reproduced"
    assert verdict(outside, record).kind == "not reproduced"


def changed(record, **run_changes):
    """The record with its first network's fields or weights changed."""
    run = record.networks[0]
    weights = run.weights | run_changes.pop("weights", {})
    return record.model_copy(
        update={"networks": [NetworkRun(**{**run.model_dump(), "weights": weights} | run_changes)]}
    )


def comparable():
    return fixtures.imagenet_record(PUBLIC, 24.8, 7.5)


@pytest.mark.parametrize(
    ("record", "reason"),
    [
        (changed(comparable(), weights={"status": "other"}), "not known to be the authors' weights"),
        (changed(comparable(), weights={"status": "random"}), "random weights"),
        (changed(comparable(), weights={"train_scale": "256"}), "other networks or training scales"),
        (
            changed(comparable(), passes=[{"form": "dense", "scale": 384, "grid": "whole", "flip": True}]),
            "other scales or views",
        ),
        (fixtures.imagenet_record(PUBLIC, 24.8, 7.5, images=5000), "5,000 of the 50,000 validation images"),
        (fixtures.imagenet_record(PUBLIC, 24.8, 7.5, score_pool="mean_probs"), "score_pool = mean_probs"),
        (fixtures.sample_records((0,), 20)[0], "images of sample, not the ILSVRC-2012 validation set"),
    ],
)
def test_anything_but_the_papers_setting_is_not_comparable(record, reason):
    found = verdict(PUBLIC, record)
    assert found.kind == "not comparable"
    assert reason in found.reason


def test_row_without_a_record_is_not_measured_and_says_why():
    assert verdict(PUBLIC, None).reason == "not part of this run"
    assert "no public weights exist for A trained at S = 256" in verdict(NOT_PUBLIC, None).reason


def test_errors_are_counted_from_ranks():
    record = fixtures.imagenet_record(PUBLIC, 24.8, 7.5)
    row = measured([record])[0]
    assert (row.top1.errors, row.top5.errors, row.images) == (12400, 3750, 50000)
    counts = rank_counts(record)
    assert sum(counts.values()) - counts["0"] == row.top1.errors


def test_ids_are_unique_and_every_link_inside_has_its_target(page):
    assert len(page.ids) == len(set(page.ids))
    inside = [link[1:] for link in page.links if link.startswith("#")]
    assert set(inside) <= set(page.ids)
    assert [link for link in page.links if not link.startswith("#")] == []


def test_every_measured_number_links_to_the_record_that_gives_it(html, records):
    rows = {row.anchor: row for row in measured(records)}
    cells = re.findall(r'<td class="num measured" data-sort="([\d.]+)"><a href="#(record-\w+)"[^>]*>([\d.]+)</a>', html)
    assert len(cells) == 2 * (31 + 1)
    for value, anchor, shown in cells:
        rates = (rows[anchor].top1.percent, rows[anchor].top5.percent)
        assert float(value) in rates
        assert f"{float(value):.1f}" == shown


def test_shown_json_of_a_record_yields_its_numbers(html, records):
    text = re.search(rf'id="{anchor_of(records[0])}">.*?<pre[^>]*>(.*?)</pre>', html, re.DOTALL)[1]
    shown = json.loads(text.replace("&#34;", '"').replace("&lt;", "<").replace("&gt;", ">").replace("&#39;", "'"))
    counts = shown["samples"]["rank_counts"]
    row = measured(records[:1])[0]
    assert sum(counts.values()) - counts["0"] == row.top1.errors
    assert sum(count for rank, count in counts.items() if int(rank) >= 5) == row.top5.errors


def test_hostile_names_are_text(html, page):
    assert fixtures.HOSTILE not in html
    assert fixtures.HOSTILE in page.text
    assert "<b>bold</b>" in page.text
    sources = [attrs.get("src") for tag, attrs in page.tags if tag == "img"]
    assert len(sources) == 12
    assert all(source.startswith("data:image/jpeg;base64,") for source in sources)
    assert not any(name.startswith("on") for _, attrs in page.tags for name in attrs)


def test_closing_tags_in_values_do_not_end_the_page_elements():
    evil = "</script></pre></style><script>alert(1)</script>"
    record = fixtures.sample_records((0,), 20)[0]
    record = changed(record, weights={"name": evil})
    context = dataclasses.replace(fixtures.context(20), title=evil, notes=[evil], machine={evil: evil})
    html = render([record], [], context)
    assert evil not in html
    assert [tag for tag, _ in Elements(html).tags].count("script") == 1


def test_page_names_no_address_to_load_from(html, page):
    policy = next(attrs["content"] for tag, attrs in page.tags if attrs.get("http-equiv") == "Content-Security-Policy")
    assert policy.startswith("default-src 'none'; img-src data:;")
    assert "unsafe" not in policy
    assert re.findall(r"(?:src|href)=\"(?:https?:)?//", html) == []
    assert "url(" not in html.replace("url(#", "")
    assert not any("style" in attrs for _, attrs in page.tags)


def test_other_measurements_say_what_they_ran_as():
    (record, _) = fixtures.other_records(200)
    bf16 = changed(record, precision="bf16", backend="pytorch")
    html = render([record, bf16], [], context_from([record, bf16]))
    others = html[html.index('<section id="others"') : html.index('<section id="networks"')]
    assert [others.count(f"<td>{how}</td>") for how in ("onnxruntime fp32", "pytorch bf16")] == [1, 1]


def test_headings_are_in_order(page):
    assert page.headings[0] == 1
    assert page.headings.count(1) == 1
    assert all(later - earlier <= 1 for earlier, later in zip(page.headings, page.headings[1:], strict=False))


def test_same_input_gives_the_same_bytes(html, records):
    assert render(records, judge(records), fixtures.context(200, hostile=True)) == html


def test_page_stays_small(html):
    assert len(html.encode()) < 2_000_000


def test_skipped_images_and_choices_are_named(page):
    for text in ("1 image could not be decoded", "score pool", "mean_logits", "Pillow 13.0.0", "Example CPU 9000"):
        assert text in page.text


def test_page_says_that_the_sample_set_stands_in(page):
    assert "The sample set stands in for ImageNet." in page.text
    assert "This is the real reproduction" not in page.text


def test_page_says_that_it_is_the_real_reproduction():
    claims = [claim for claim in paper.claims() if claim.has_public_weights and claim.technique == "dense"]
    records = [fixtures.imagenet_record(c, c.top1_error_percent, c.top5_error_percent) for c in claims]
    text = Elements(render(records, judge(records), context_from(records))).text
    assert "This is the real reproduction:" in text
    assert f"{len(claims)} of {len(claims)} comparable rows reproduced" in text


def test_page_without_records_or_findings_still_says_so():
    text = Elements(render([], [], context_from([]))).text
    assert "0 of 32 rows of the paper measured; no finding judged." in text
    assert "The sample set stands in" not in text


def test_every_row_of_the_paper_is_on_the_page(page):
    for number in range(1, 13):
        assert f"table{number}" in page.ids
    for row in paper.quoted():
        assert row.label in page.text


def test_page_is_rebuilt_from_records_alone(tmp_path, records):
    write_records(tmp_path / "records.jsonl.gz", records)
    text = Elements(rebuild(tmp_path / "records.jsonl.gz")).text
    assert "31/32 rows of Tables 3\N{EN DASH}6 measured" in " ".join(text.split())


def test_report_needs_no_torch(tmp_path):
    code = (
        "import sys; import page_fixtures as f; from vggbench.report import render; from vggbench.findings import judge;"  # noqa: E501
        "r = f.sample_records((0,), 30); render(r, judge(r), f.context(30)); assert 'torch' not in sys.modules"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], env={"PYTHONPATH": ":".join(sys.path)}, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr


def test_page_is_written_whole_or_not_at_all(tmp_path):
    write_page(tmp_path / "new" / "index.html", "<p>é")
    assert (tmp_path / "new" / "index.html").read_bytes() == "<p>é".encode()
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError, match="cannot write the page"):
        write_page(tmp_path / "file" / "index.html", "")
    assert sorted(p.name for p in tmp_path.rglob("*")) == ["file", "index.html", "new"]


@pytest.mark.parametrize(
    ("shown", "expected"),
    [
        (signed(-0.04), "0.0"),
        (signed(-1.25, 2), "\N{MINUS SIGN}1.25"),
        (signed(1), "+1.0"),
        (p_value(0.0001), "< 0.001"),
        (p_value(0.0312), "0.031"),
        (p_value(0.5), "0.50"),
        (duration(None), "not recorded"),
        (duration(3.21), "3.2 s"),
        (duration(431), "7 min 11 s"),
        (duration(7300), "2 h 1 min"),
    ],
)
def test_numbers_read_well(shown, expected):
    assert shown == expected


def test_the_frame_holds_every_accuracy_record_beside_the_papers_numbers():
    records = fixtures.sample_records()
    table = frame(records)
    assert len(table) == len(measured(records))
    row = table[table["claim"] == "table3/D/256"].iloc[0]
    assert (row["paper_top1_error_percent"], row["paper_top5_error_percent"]) == (27.0, 8.8)
    ranks = records[int(row["record"]) - 1].samples.values
    assert row["top1_error_percent"] == pytest.approx(100 * sum(rank > 0 for rank in ranks) / len(ranks))
    assert row["top1_low"] < row["top1_error_percent"] < row["top1_high"]
