"""The gate on files: exit status, one-line refusals, and outputs that others can read."""

from __future__ import annotations

import gzip
import json
import re
import subprocess
import sys
import xml.etree.ElementTree as ET
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import gate_records as make
import pytest
from markdown_it import MarkdownIt
from typer.testing import CliRunner

from vggbench import cli_gate, results
from vggbench.cli import app
from vggbench.gate import Limits, compare
from vggbench.report.gate import page
from vggbench.report.junit import junit
from vggbench.report.markdown import markdown
from vggbench.results import write_records
from vggbench.results_files import read_whole_part

ROOT = Path(__file__).parents[1]
VERDICTS = {"regressed", "same", "better", "inconclusive", "not comparable"}


def run(*arguments):
    return CliRunner().invoke(app, [str(argument) for argument in arguments], prog_name="vggbench")


def saved(folder, name, records):
    write_records(folder / name, records)
    return folder / name


@pytest.fixture
def base(tmp_path):
    return saved(tmp_path, "base.jsonl", make.timings())


@pytest.fixture(scope="module")
def every_verdict():
    """A comparison with each verdict, and names that try to break out of the outputs."""
    values = make.ranks(500)
    base = [
        *make.timings(),
        *make.timings(network="A"),
        *make.timings(network="B"),
        *make.timings(network="E"),
        make.judged(values, name=make.HOSTILE),
    ]
    head = [
        *make.timings(0.2, 1),
        *make.timings(0.05, 1, network="A"),
        *make.timings(0.1, 1, network="B", count=3),
        *make.timings(0.1, 1, network="E", batch=8),
        make.judged(values, name=make.HOSTILE),
    ]
    return compare(base, head, names=("a|b", "<b>head</b>"), notes=[make.HOSTILE])


# Exit status


@pytest.mark.parametrize("command", ["gate", "compare"])
@pytest.mark.parametrize(
    ("head", "status"),
    [
        (make.timings(seed=1), 0),
        (make.timings(0.05, 1), 0),
        (make.timings(0.2, 1), 1),
        (make.timings(count=3), 3),
        (make.timings(environment={"cpu": "Other CPU"}), 3),
    ],
)
def test_exit_status_tells_the_verdict_and_the_last_line_why(tmp_path, base, command, head, status):
    result = run(command, base, saved(tmp_path, "head.jsonl", head))
    assert result.exit_code == status, result.output
    lines = result.stderr.splitlines()
    assert len(lines) == (1 if status else 0)
    assert (not status) or lines[0].startswith("vggbench: ")


def test_the_options_defaults_are_the_rules_own():
    ours = cli_gate._limits(cli_gate.TOLERANCE_PERCENT)
    assert ours == Limits()
    for command in (cli_gate.gate, cli_gate.compare, cli_gate.ab):
        assert command.__doc__.endswith("3 inconclusive or not comparable.")


def test_bad_input_is_one_line_and_exit_2(tmp_path, base):
    empty = saved(tmp_path, "empty.jsonl", [])
    (tmp_path / "folder").mkdir()
    newer = tmp_path / "newer.jsonl"
    fields = json.loads(make.timing().model_dump_json()) | {"format": results.FORMAT + 1}
    fields["environment"]["vggbench"] = "9.1"
    newer.write_text(json.dumps(fields) + "\n")
    wrong = tmp_path / "wrong.jsonl"
    wrong.write_text("{}\n")
    for arguments, told in (
        ((base, empty), "holds no measured"),
        ((base, tmp_path / "absent.jsonl"), "cannot read records"),
        ((tmp_path / "folder", base), "holds no records"),
        ((base, newer), "vggbench 9.1 or later reads it"),
        ((base, wrong), "line 1: not a record"),
        ((base, base, "--across", "colour"), "No axis 'colour'"),
        ((base, base, "--tolerance", "0.05"), "a percentage, as 5 or 5%"),
        ((base, base, "--tolerance", "much"), "a percentage"),
    ):
        result = run("gate", *arguments)
        assert result.exit_code == 2, result.output
        assert result.stdout == ""
        assert len(result.stderr.splitlines()) == 1
        assert told in result.stderr


def test_a_cut_file_is_used_as_far_as_it_is_whole_and_the_cut_is_named(tmp_path, base):
    data = base.read_bytes()
    (tmp_path / "cut.jsonl").write_bytes(data[:-30])
    result = run("gate", tmp_path / "cut.jsonl", base, "--json")
    document = json.loads(result.stdout)
    assert (result.exit_code, document["rows"][0]["counts"]) == (3, [6, 7])
    assert "cut.jsonl: cut in the middle of line 7; the 6 records before it are used." in document["notes"][0]
    assert "1 more of BASE" in result.stderr


@pytest.mark.parametrize("kept", [0.3, 0.6, 0.95])
def test_of_a_cut_gz_file_the_whole_lines_are_used(tmp_path, kept):
    records = make.timings(count=40)
    data = saved(tmp_path, "whole.jsonl.gz", records).read_bytes()
    (tmp_path / "cut.jsonl.gz").write_bytes(data[: int(len(data) * kept)])
    found, cut = read_whole_part(tmp_path / "cut.jsonl.gz")
    assert 0 < len(found) < 40
    assert found == records[: len(found)]
    assert f"the {len(found)} records before it" in cut
    assert read_whole_part(tmp_path / "whole.jsonl.gz") == (records, None)


def test_a_line_that_is_whole_but_no_record_is_no_cut(tmp_path):
    path = tmp_path / "r.jsonl"
    path.write_text(make.timing().model_dump_json() + '\n{"kind": "guess"}')
    with pytest.raises(results.RecordError, match="line 2: not a record"):
        read_whole_part(path)
    path.write_text(make.timing().model_dump_json())
    assert read_whole_part(path)[1] is None


def test_several_files_folders_and_members_of_a_gz_are_one_set(tmp_path, base):
    records = make.timings(seed=5)
    folder = tmp_path / "head"
    folder.mkdir()
    write_records(folder / "one.jsonl", records[:3])
    lines = [record.model_dump_json().encode() + b"\n" for record in records[3:5]]
    (folder / "two.jsonl.gz").write_bytes(gzip.compress(lines[0]) + gzip.compress(lines[1]))
    more = saved(tmp_path, "more.jsonl", records[5:])
    result = run("gate", base, folder, "--more-head", more, "--json")
    assert json.loads(result.stdout)["rows"][0]["counts"] == [7, 7]


def test_across_stands_in_every_output(tmp_path, base):
    head = saved(tmp_path, "head.jsonl", make.timings(seed=1, library="1.33.0"))
    outputs = ("--html", tmp_path / "page", "--markdown", tmp_path / "gate.md", "--junit", tmp_path / "gate.xml")
    result = run("gate", base, head, "--across", "onnxruntime", *outputs)
    assert result.exit_code == 0, result.output
    files = [tmp_path / "page" / "index.html", tmp_path / "gate.md", tmp_path / "gate.xml"]
    for text in (result.stdout, *(file.read_text() for file in files)):
        assert "onnxruntime 1.32.0 \N{RIGHTWARDS ARROW} 1.33.0" in text
    assert json.loads(run("gate", base, head, "--across", "onnxruntime", "--json").stdout)["across"] == ["onnxruntime"]


# Outputs


def test_junit_has_the_shape_that_the_strictest_schema_asks_for(every_verdict):
    data = junit(every_verdict)
    root = ET.fromstring(data)
    assert (root.tag, root.attrib) == ("testsuites", {})
    (suite,) = root
    needed = {"name", "package", "id", "hostname", "timestamp", "tests", "failures", "errors", "skipped", "time"}
    assert set(suite.attrib) == needed
    tags = [child.tag for child in suite]
    cases = suite.findall("testcase")
    assert tags == ["properties", *["testcase"] * len(cases), "system-out", "system-err"]
    assert all(set(each.attrib) == {"name", "value"} and each.get("name") for each in suite.iter("property"))
    for case in cases:
        assert set(case.attrib) == {"name", "classname", "time"}
        assert float(case.get("time")) >= 0
        assert len(case) <= 1
        assert {child.tag for child in case} <= {"failure", "skipped"}
    assert all(set(each.attrib) == {"message", "type"} for each in suite.iter("failure"))
    numbers = [int(suite.get(key)) for key in ("tests", "failures", "skipped", "errors")]
    assert numbers == [6, len(list(suite.iter("failure"))), len(list(suite.iter("skipped"))), 0]
    assert (numbers[1], numbers[2]) == (1, 2)
    assert "\x00" not in data.decode()
    (failure,) = suite.iter("failure")
    assert re.search(r"BASE \d[\d.]* ms, HEAD \d[\d.]* ms, change \+\d+\.\d\d % \(\+", failure.text)


def test_the_page_has_what_differs_between_the_machines_first(every_verdict):
    one, other = ({"gpu": None, "cores": 2, "torch": version} for version in ("2.1", "2.2"))
    html = page(replace(every_verdict, machine=(one, other)))
    cells = html.split('<section id="machines"')[1].split("</section>")[0]
    assert cells.index("torch") < cells.index("cores")
    assert "None" not in cells


def test_markdown_is_one_table_whose_cells_hold_no_markup_of_theirs(every_verdict):
    text = markdown(every_verdict)
    tokens = MarkdownIt("commonmark", {"html": True}).enable("table").parse(text)
    heads = [token for token in tokens if token.type == "th_open"]
    cells = [token for token in tokens if token.type == "td_open"]
    assert (len(heads), len(cells)) == (8, 8 * len(every_verdict.rows))
    inline = [child.type for token in tokens for child in token.children or ()]
    assert not {"html_inline", "code_inline", "image", "link_open"} & set(inline)
    assert "html_block" not in {token.type for token in tokens}
    assert "@x" not in text
    assert len([token for token in tokens if token.type == "heading_open"]) == 1
    first = next(line for line in text.splitlines() if line.startswith("| \N{CROSS MARK}"))
    assert "regressed" in first


def test_markdown_of_many_rows_fits_a_comment():
    records = [make.timing(network=f"N{number}") for number in range(300)]
    assert len(markdown(compare(records, records))) < 65536


class Page(HTMLParser):
    def __init__(self, html):
        super().__init__()
        self.tags, self.ids, self.links = [], [], []
        self.feed(html)

    def handle_starttag(self, tag, attributes):
        found = dict(attributes)
        self.tags.append(tag)
        self.ids += [found["id"]] if "id" in found else []
        self.links += [found[key] for key in ("href", "src") if key in found]


def test_the_page_is_whole_escaped_and_asks_for_nothing(every_verdict):
    html = page(every_verdict)
    found = Page(html)
    assert html.startswith("<!doctype html>")
    assert "<b>head</b>" not in html
    assert "img" not in found.tags
    assert all(link.startswith(("#", "data:")) for link in found.links)
    assert {link[1:] for link in found.links if link.startswith("#")} <= set(found.ids)
    assert len(found.ids) == len(set(found.ids))
    assert html.count("<svg") == 4
    assert "{'" not in html
    assert all(verdict in html for verdict in VERDICTS)
    assert page(every_verdict) == html


def test_the_comparison_has_every_verdict(every_verdict):
    assert {row.verdict for row in every_verdict.rows} == VERDICTS
    assert every_verdict.verdict == "regressed"


def test_the_gate_and_its_outputs_load_no_library_that_computes():
    code = (
        "import sys; import vggbench.gate, vggbench.report.gate, vggbench.report.markdown, vggbench.report.junit\n"
        "assert not {'torch', 'onnx', 'onnxruntime', 'vggbench.backends'} & set(sys.modules)"
    )
    environment = {"PYTHONPATH": f"{ROOT}:{ROOT / 'reference'}", "PATH": ""}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment, timeout=600)
    assert done.returncode == 0, done.stderr
