"""The history command and its page: named runs, cut files, the page in a browser."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys

import numpy as np
import pytest
from browsers import axe_source
from history_records import timing
from typer.testing import CliRunner

from vggbench.cli import app
from vggbench.errors import RecordError
from vggbench.history import history, runs_of
from vggbench.report.history import history_page
from vggbench.results import read_records, write_records


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """20 runs with a step of 8 % in batch 1 and none in batch 4, and hostile text in a fact."""
    folder, generator = tmp_path_factory.mktemp("records"), np.random.default_rng(1)
    for index in range(20):
        library = "1.32.0" if index < 9 else "<b>1.33.0</b>"
        records = timing(index, 0.216 if index >= 9 else 0.2, generator, onnxruntime=library)
        records += timing(index, 0.8, generator, batch=4, onnxruntime=library)
        write_records(folder / f"run{index:02d}" / "records.jsonl.gz", records)
    return folder


def test_the_command_names_the_run_the_size_and_the_library(folder):
    done = CliRunner().invoke(app, ["history", str(folder), "--json"])
    assert done.exit_code == 0, done.output
    rows = json.loads(done.stdout)["rows"]
    assert [len(row["changes"]) for row in rows] == [1, 0]
    change = rows[0]["changes"][0]
    assert (change["run"], change["previous_run"]) == (10, 9)
    assert change["changed"][1] == {"name": "onnxruntime", "before": "1.32.0", "after": "<b>1.33.0</b>"}
    text = CliRunner().invoke(app, ["history", str(folder)]).stdout
    assert "run 10: 200" in text
    assert "onnxruntime: 1.32.0 -> <b>1.33.0</b>" in text


def test_the_page_is_whole_offline_escaped_and_the_same_twice(folder, tmp_path):
    assert CliRunner().invoke(app, ["history", str(folder), "--out", str(tmp_path)]).exit_code == 0
    html = (tmp_path / "index.html").read_text()
    sources = [(file.parent.name, read_records(file)) for file in sorted(folder.rglob("*.gz"))]
    found = history(runs_of(sources))
    assert history_page(found) == history_page(found)
    assert "1 change in 1 of 2 judged rows" in html
    assert "&lt;b&gt;1.33.0&lt;/b&gt;" in html
    assert "<b>1.33.0" not in html
    assert not re.findall(r"""(?:src|href)=["'](?!#|data:)""", html)
    assert html.count('<figure class="chart"') == 2
    ids = re.findall(r'\bid="([^"]+)"', html)
    assert len(ids) == len(set(ids))
    assert set(re.findall(r'href="#([^"]+)"', html)) <= set(ids)


def test_the_chart_shows_every_process(folder):
    sources = [(file.parent.name, read_records(file)) for file in sorted(folder.rglob("*.gz"))]
    html = history_page(history(runs_of(sources)))
    wide = html[html.index('id="chart-1"') :].split('<div class="wide">')[1].split("</div>")[0]
    dots = re.findall(r'<path [^>]*fill="var\(--muted\)"', wide)
    assert len(dots) == 20 * 3


def test_a_cut_file_is_used_up_to_its_cut_and_named(folder, tmp_path):
    copy = tmp_path / "copy"
    shutil.copytree(folder, copy)
    (copy / "run03" / "records.jsonl").write_bytes(
        b"".join(record.model_dump_json().encode() + b"\n" for record in read_records(copy / "run03/records.jsonl.gz"))[
            :-40
        ]
    )
    (copy / "run03" / "records.jsonl.gz").unlink()
    done = CliRunner().invoke(app, ["history", str(copy)])
    assert done.exit_code == 0, done.output
    assert "cut in the middle of line 6" in done.stderr


@pytest.mark.parametrize("significance", ["0", "1", "-0.1"])
def test_a_significance_that_cannot_be_is_refused(folder, significance):
    done = CliRunner().invoke(app, ["history", str(folder), "--significance", significance])
    assert done.exit_code == 2
    assert "accepted is between 0 and 1" in done.stderr


def test_no_records_are_refused_in_one_line(tmp_path):
    done = CliRunner().invoke(app, ["history", str(tmp_path)])
    assert done.exit_code == RecordError.exit_code
    assert len(done.stderr.strip().splitlines()) == 1
    (tmp_path / "empty.jsonl").write_text("")
    done = CliRunner().invoke(app, ["history", str(tmp_path)])
    assert done.exit_code == RecordError.exit_code
    assert done.stderr.startswith("vggbench: No record in 1 files")


def test_a_history_is_told_without_torch():
    code = (
        "import sys; import vggbench.report.history, vggbench.history\n"
        "assert not {'torch', 'onnx', 'onnxruntime'} & set(sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(("width", "scheme"), [(1280, "dark"), (390, "light")])
def test_the_page_in_a_browser(folder, tmp_path, browser, width, scheme):
    """No request, no complaint, no scrolling sideways, nothing serious by axe."""
    assert CliRunner().invoke(app, ["history", str(folder), "--out", str(tmp_path)]).exit_code == 0
    context = browser.new_context(viewport={"width": width, "height": 900}, color_scheme=scheme, bypass_csp=True)
    page, address = context.new_page(), (tmp_path / "index.html").as_uri()
    requests, complaints = [], []
    page.on("request", lambda request: requests.append(request.url))
    page.on("console", lambda message: complaints.append(message.text))
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.goto(address)
    page.locator("#open-records").click()
    page.evaluate("document.querySelectorAll('details').forEach(d => { d.open = true; })")
    assert page.evaluate("document.scrollingElement.scrollWidth") <= width
    assert page.locator(f".chart .{'wide' if width == 1280 else 'narrow'}").first.is_visible()
    assert [url for url in requests if not url.startswith("data:")] == [address]
    assert complaints == []
    page.evaluate(axe_source())
    found = page.evaluate("axe.run(document, { resultTypes: ['violations'] })")["violations"]
    assert [each["id"] for each in found if each["impact"] in ("serious", "critical")] == []
    context.close()
