"""Runs on a time line: what is found, what is not, and what is named with it."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys

import numpy as np
import pytest
from test_page_in_browser import axe_source, browser  # noqa: F401 - a fixture
from typer.testing import CliRunner

from vggbench.cli import app
from vggbench.errors import RecordError
from vggbench.history import differing, history, runs_of
from vggbench.history_changes import FEWEST_RUNS, change_points, drifts
from vggbench.report.history import history_page
from vggbench.results import NetworkRun, Record, Samples, Workload, read_records, write_records

NOISE = 0.01


def network(**changes):
    fields = {
        "network": "D",
        "weights": {"name": "random:0", "digest": "a" * 64},
        "passes": [],
        "backend": "onnxruntime",
        "precision": "fp32",
        "session": {"device": "cpu", "threads": 2},
    }
    return NetworkRun(**{**fields, **changes})


def environment(index, **changes):
    return {
        "vggbench": "0.1.0",
        "commit": f"c{index:04d}",
        "command": "vggbench latency",
        "cpu": "Example CPU 9000",
        "cores": 2,
        "onnxruntime": "1.32.0",
        **changes,
    }


def timing(index, seconds, generator, processes=3, batch=1, **changes):
    """A run's records of one row, about ``seconds`` a call, with a share of noise common to the run."""
    level = seconds * np.exp(generator.normal(0, NOISE))
    return [
        Record(
            kind="latency",
            networks=[network()],
            workload=Workload(batch=batch, size=[224, 224], scenario="latency"),
            samples=Samples(unit="seconds", values=list(level * np.exp(generator.normal(0, NOISE, 9)))),
            environment=environment(index, **changes),
            started=f"2026-01-{index + 1:02d}T10:00:{process:02d}+00:00",
            process=process,
        )
        for process in range(processes)
    ]


def accuracy(index, ranks, **changes):
    return Record(
        kind="accuracy",
        claim="table3/D/256",
        networks=[network(weights={"name": "sample/D/256/seed0", "train_scale": "256"})],
        workload=Workload(protocol="dense", data={"name": "sample", "split": "test", "fingerprint": "5f" * 32}),
        samples=Samples(unit="rank", values=list(ranks)),
        environment=environment(index, **changes),
        started=f"2026-01-{index + 1:02d}T10:00:00+00:00",
        seed=0,
    )


def over(levels, seed=0, **changes):
    """Runs whose one row has these seconds a call."""
    generator = np.random.default_rng(seed)
    sources = [
        (f"run{index}.jsonl", timing(index, level, generator, **{k: v(index) for k, v in changes.items()}))
        for index, level in enumerate(levels)
    ]
    return runs_of(sources)


def test_of_200_series_without_a_change_about_one_in_a_hundred_has_one():
    generator = np.random.default_rng(7)
    alarms = sum(bool(change_points(generator.normal(0, NOISE, 20))) for _ in range(200))
    # At a true rate of 1 % more than 6 of 200 come with a probability of 0.4 %; the seed is fixed.
    assert alarms <= 6, alarms


def test_heavy_tails_raise_no_more_alarms():
    generator = np.random.default_rng(8)
    assert sum(bool(change_points(generator.standard_t(2, 20))) for _ in range(100)) <= 4


def test_a_step_of_5_percent_in_1_percent_noise_is_found_at_its_run():
    generator = np.random.default_rng(3)
    found = []
    for _ in range(40):
        values = generator.normal(0, NOISE, 24)
        values[15:] += np.log(1.05)
        found.append([step.index for step in change_points(values)])
    assert sum(indices == [15] for indices in found) >= 37, found


def test_two_steps_back_to_the_first_level_are_both_found():
    generator = np.random.default_rng(4)
    found = []
    for _ in range(20):
        values = generator.normal(0, NOISE, 30)
        values[8:20] -= 0.1
        found.append([step.index for step in change_points(values)])
    assert sum(indices == [8, 20] for indices in found) >= 17, found


def test_equal_values_have_no_change_and_the_same_values_the_same_answer():
    assert change_points([0.25] * 40) == []
    values = np.random.default_rng(0).normal(0, 1, 30) + 3 * (np.arange(30) > 12)
    assert change_points(values) == change_points(values) != []


def test_fewest_runs_are_what_a_clear_step_needs():
    step = [0.0, 0.01, 0.02, 0.03, 0.04, 1.0, 1.01, 1.02, 1.03, 1.04, 1.05]
    assert len(step) == FEWEST_RUNS
    assert [found.index for found in change_points(step)] == [5]
    assert not change_points(step[1:-3])


def test_a_trend_is_told_from_steps():
    generator = np.random.default_rng(5)
    noise = generator.normal(0, NOISE, 30)
    trend, steps = noise + 0.01 * np.arange(30), noise + 0.1 * (np.arange(30) >= 14)
    assert drifts(trend, change_points(trend))
    assert change_points(steps)
    assert not drifts(steps, change_points(steps))
    assert not drifts(noise, change_points(noise))
    (row,) = history(over(0.2 * 1.01 ** np.arange(30))).series
    assert row.drift_percent == pytest.approx(1, abs=0.15)


def test_what_changed_between_the_neighbours_is_named_commit_first():
    runs = over([0.2] * 12 + [0.22] * 8, onnxruntime=lambda index: "1.32.0" if index < 12 else "1.33.0")
    (row,) = history(runs).series
    (change,) = row.changes
    assert change.index == 12
    assert change.facts == (("commit", "c0011", "c0012"), ("onnxruntime", "1.32.0", "1.33.0"))
    assert change.percent == pytest.approx(10, abs=2)


def test_every_differing_fact_is_named_also_one_that_appears():
    before, after = (
        {"command": "a", "kernel": "6.1", "commit": "x"},
        {"command": "b", "commit": "y", "gpu_driver": "580"},
    )
    assert differing(before, after) == (
        ("commit", "x", "y"),
        ("kernel", "6.1", None),
        ("gpu_driver", None, "580"),
        ("command", "a", "b"),
    )


def test_rows_of_other_machines_batches_and_threads_never_mix():
    generator = np.random.default_rng(0)
    first = timing(0, 0.2, generator)
    others = [
        *timing(1, 0.4, generator, batch=8),
        *timing(1, 0.3, generator, cpu="Other CPU"),
        first[0].model_copy(update={"networks": [network(session={"device": "cpu", "threads": 1})]}),
    ]
    found = history(runs_of([("a", first), ("b", others)]))
    assert len(found.series) == 4
    assert all(len(row.points) == 1 for row in found.series)


def test_a_file_of_two_commits_is_two_runs_and_a_record_in_two_files_counts_once():
    generator = np.random.default_rng(0)
    old, new = timing(0, 0.2, generator), timing(1, 0.2, generator)
    runs = runs_of([("both", [*new, *old]), ("again", old)])
    assert [(run.label, len(run.records)) for run in runs] == [("c0000", 3), ("c0001", 3)]


def test_rows_with_few_runs_are_shown_and_not_judged():
    (row,) = history(over([0.2, 0.4, 0.4, 0.4])).series
    assert row.changes == ()
    assert row.why == f"4 of the {FEWEST_RUNS} runs that a verdict needs"


def test_errors_are_paired_by_image_and_only_changed_answers_count():
    generator = np.random.default_rng(0)
    ranks = generator.integers(0, 3, 600)
    worse = ranks.copy()
    worse[np.flatnonzero(ranks == 0)[:12]] = 1
    shuffled = generator.permutation(ranks)
    found = history(runs_of([(f"{i}", [accuracy(i, r)]) for i, r in enumerate([ranks, ranks, worse, worse])]))
    (row,) = found.series
    assert [(change.index, row.unit) for change in row.changes] == [(2, "error")]
    # The same error rate with other answers is no loss, whatever the images.
    found = history(runs_of([(f"{i}", [accuracy(i, r)]) for i, r in enumerate([ranks, shuffled])]))
    assert found.series[0].changes == ()


def test_small_losses_add_up_until_they_count():
    ranks = np.zeros(400, int)
    runs = []
    for index in range(14):
        ranks = ranks.copy()
        ranks[index] = 1
        runs.append((f"{index}", [accuracy(index, ranks)]))
    (row,) = history(runs_of(runs)).series
    assert [change.index for change in row.changes] == [12]


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


def test_records_without_a_time_line_are_counted():
    peak = timing(0, 0.2, np.random.default_rng(0))[0].model_copy(update={"kind": "peak"})
    assert history(runs_of([("a", [peak])])).ignored == {"peak": 1}


def test_a_history_is_told_without_torch():
    code = (
        "import sys; import vggbench.report.history, vggbench.history\n"
        "assert not {'torch', 'onnx', 'onnxruntime'} & set(sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(("width", "scheme"), [(1280, "dark"), (390, "light")])
def test_the_page_in_a_browser(folder, tmp_path, browser, width, scheme):  # noqa: F811
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
