"""The page's part on what a precision moves: numbers as recorded, escaped names, text alternatives."""

from __future__ import annotations

import re
from html.parser import HTMLParser

import numpy as np
import page_fixtures as fixtures
import pytest
from numerics_records import LAYERS, VARIANTS, numerics_record

from vggbench.findings import judge
from vggbench.report import context_from, rebuild, render
from vggbench.report.numerics import groups, shortened
from vggbench.report.numerics_charts import short
from vggbench.report.rows import anchor_of
from vggbench.results import (
    write_records,
)
from vggbench.statistics import holm


class Tables(HTMLParser):
    """Captions, rows of cells, ids and links of a page."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.rows: list[list[str]] = []
        self.ids: list[str] = []
        self.links: list[str] = []
        self.captioned = self.tables = self.unscoped = 0
        self.inside = False
        self.text = ""
        self.feed(html)

    def handle_starttag(self, tag, attrs):
        found = dict(attrs)
        self.tables += tag == "table"
        self.captioned += tag == "caption"
        self.unscoped += tag == "th" and "scope" not in found
        if "id" in found:
            self.ids.append(found["id"])
        if tag == "a":
            self.links.append(found["href"])
        if tag == "tr":
            self.rows.append([])
        if tag in ("td", "th"):
            self.rows[-1].append("")
        self.inside = self.inside or tag in ("td", "th")

    def handle_endtag(self, tag):
        self.inside = self.inside and tag not in ("td", "th")

    def handle_data(self, data):
        self.text += data
        if self.inside and self.rows and self.rows[-1]:
            self.rows[-1][-1] += data


@pytest.fixture(scope="module")
def records():
    return [numerics_record(*variant) for variant in VARIANTS]


@pytest.fixture(scope="module")
def html(records):
    return render(records, [], fixtures.context(60, hostile=True))


def section_of(html: str) -> str:
    return html[html.index('<section id="numerics"') : html.index('<section id="method"')]


@pytest.fixture(scope="module")
def page(html):
    return Tables(section_of(html))


def row(page: Tables, *starts: str) -> list[str]:
    (found,) = [row for row in page.rows if row and all(start in row[0] for start in starts)][:1]
    return [re.sub(r"\s+", " ", cell).strip() for cell in found]


def test_row_of_a_variant_shows_what_the_record_holds(page, records):
    found = row(page, "INT8 onnxruntime", "cpu layout")
    assert found[3:7] == ["16 26.7 %", "14", "2", "32"]
    assert float(found[1]) == pytest.approx(100 * np.median(records[1].samples.values), rel=0.005)
    assert found[9] == "60"


def test_holm_is_taken_over_all_variants_of_the_page(records):
    (group,) = groups(records)
    ps = [record.numerics.p_value for record in records]
    assert [each.p_holm for each in group.rows] == holm(ps)
    assert group.rows[1].p_holm == pytest.approx(3 * ps[1])


def test_networks_stand_apart_each_against_its_reference(records):
    others = [numerics_record("bf16", "pytorch", name="E")]
    found = groups([*records, *others])
    assert [(group.title, len(group.rows)) for group in found] == [("D, S = 256, seed 0", 3), ("E, S = 256, seed 0", 1)]
    assert found[0].reference == "FP32 onnxruntime"
    assert len({group.id for group in found}) == 2


def test_layers_stand_in_the_networks_order_with_every_variant(page):
    (table,) = [at for at, cells in enumerate(page.rows) if cells[0] == "Layer" and len(cells) == 13]
    assert [cells[0] for cells in page.rows[table + 1 : table + 7]] == LAYERS
    cells = row(page, "block2.relu1")
    assert cells[1] == "0.600"
    assert float(cells[3]) == pytest.approx(-20 * np.log10(0.006), abs=0.05)
    assert row(page, "images")[3] == "–"  # noqa: RUF001


def test_sensitivity_is_sorted_and_says_what_keeping_layers_gives_back(page):
    assert row(page, "block1.conv1")[1:3] == ["1.70", "9"]
    at = [cells[0] for cells in page.rows].index("block1.conv1")
    assert page.rows[at + 1][0] == "fc6"
    kept = [cells for cells in page.rows if cells[0] in ("none", "--float-layers block1.conv1") and len(cells) == 4]
    assert [cells[1] for cells in kept[:2]] == ["2.00", "0.420"]


def test_flipped_images_are_shown_with_pictures_and_escaped_names(html):
    section = section_of(html)
    assert fixtures.HOSTILE not in section
    assert "&lt;img src=x onerror" in section
    assert section.count("data:image/jpeg") == 12
    assert 'class="badge not-shown">lost</span>' in section
    assert "00040.jpg" not in section  # moved, but did not flip


def test_page_without_pictures_says_so(records):
    section = section_of(render(records, [], context_from(records)))
    assert "no thumbnail" in section
    assert "data:image" not in section


def test_variant_without_flips_or_layers_says_so(records):
    measured = records[0].numerics.model_copy(
        update={"flips": 0, "changed": [], "layers": [], "layers_note": "torch-compile shows its scores alone."}
    )
    section = section_of(render([records[0].model_copy(update={"numerics": measured})], [], context_from(records)))
    assert "No image's answer flipped" in section.replace("&#39;", "'")
    assert "torch-compile shows its scores alone." in section
    assert "chart-sqnr" not in section


def test_charts_have_text_alternatives_and_lead_to_their_tables(page, html):
    for chart in ("chart-sqnr-numerics-1", "chart-margin-numerics-1"):
        assert f'<title id="{chart}-wide-t">' in html
        assert f'<desc id="{chart}-narrow-d">' in html
        assert chart in page.ids
    assert {"#numerics-1", "#numerics-1-layers"} <= set(page.links)


def test_every_table_has_a_caption_and_every_head_a_scope(page):
    assert page.tables == page.captioned == 6
    assert page.unscoped == 0


def test_every_link_has_its_place_and_every_place_one_name(html, page):
    whole = Tables(html)
    assert {link[1:] for link in whole.links if link.startswith("#")} <= set(whole.ids)
    assert len(page.ids) == len(set(page.ids))


def test_numbers_link_to_their_record_which_keeps_its_values_in_the_file(html, records, page):
    for record in records:
        assert f"#{anchor_of(record)}" in page.links
    fields = shortened(records[0].model_dump())
    assert fields["samples"] == {"unit": "ratio", "count": 60}
    assert fields["numerics"]["drifts"] == "60 values"
    assert shortened(fixtures.other_records(5)[1].model_dump()) == fixtures.other_records(5)[1].model_dump()


def test_numerics_stand_beside_the_rows_of_the_paper(records):
    mixed = [*fixtures.sample_records((0,), images=60), *records]
    html = render(mixed, judge(mixed), fixtures.context(60))
    assert 'id="chart-margin-numerics-1"' in html
    assert 'id="chart-depth"' in html
    assert "What a precision moves" in html


def test_page_of_numerics_alone_speaks_of_them_and_not_of_the_papers_rows(records, tmp_path):
    write_records(tmp_path / "records.jsonl", records)
    html = rebuild(tmp_path / "records.jsonl")
    assert "<h1>What a precision moves</h1>" in html
    assert "3 variants compared with their reference" in html
    assert "60 a row" not in html
    assert "rows of the paper measured" not in html
    assert 'id="tables"' not in html
    assert 'id="findings"' not in html
    assert "onnxruntime int8, pytorch bf16" in html


def test_page_of_other_records_has_no_such_section():
    others = fixtures.other_records(20)
    assert "What a precision moves" not in render(others, [], context_from(others))


def test_rebuilt_page_names_its_data_and_is_the_same_every_time(records):
    context = context_from(records)
    assert context.dataset["name"] == "sample"
    assert render(records, [], context) == render(records, [], context)


def test_names_of_layers_are_short_under_the_chart():
    names = ["images", "block1.lrn", "block3.relu2", "fc6.relu", "scores"]
    assert [short(name) for name in names] == ["input", "1-lrn", "3-2", "fc6", "scores"]
