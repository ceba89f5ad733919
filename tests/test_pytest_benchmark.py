"""Timings to and from pytest-benchmark, judged by its own code; and the pytest plugin in a run of its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from vggbench.cli import app
from vggbench.errors import RecordError
from vggbench.pytest_benchmark_json import export, read, stats
from vggbench.results import NetworkRun, Record, Samples, Workload, read_records, write_records

ROOT = Path(__file__).parents[1]


def timings(batches=(1, 8), processes=2, **environment):
    generator = np.random.default_rng(0)
    run = NetworkRun(
        network="D",
        weights={"name": "random:0", "digest": "a" * 64},
        passes=[],
        backend="onnxruntime",
        precision="fp32",
        session={"device": "cpu", "threads": 2},
    )
    return [
        Record(
            kind="latency",
            networks=[run],
            workload=Workload(batch=batch, size=[224, 224], scenario="latency"),
            samples=Samples(unit="seconds", values=list(0.1 * batch + generator.random(11 + process)), warmups=[2.0]),
            environment={"commit": "abc1234-dirty", "cpu": "Example CPU", "kernel": "Linux 6.1", **environment},
            started="2026-01-01T10:00:00+00:00",
            process=process,
        )
        for process in range(processes)
        for batch in batches
    ]


def run_pytest(folder, *arguments, plugin="vggbench.pytest_plugin", **variables):
    """pytest in a process of its own with one plugin, named by -p as an entry point would."""
    environment = {**os.environ, "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1", **variables}
    environment["PYTHONPATH"] = f"{ROOT}{os.pathsep}{ROOT / 'reference'}"
    return subprocess.run(
        [sys.executable, "-m", "pytest", "-p", plugin, "-p", "no:cacheprovider", *arguments],
        cwd=folder,
        capture_output=True,
        text=True,
        env=environment,
        timeout=600,
    )


@pytest.mark.parametrize("count", [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 50, 101])
def test_the_summary_is_pytest_benchmarks_own(count):
    from pytest_benchmark.stats import Stats

    values = list(np.random.default_rng(count).lognormal(0, 1, count))
    theirs = Stats()
    for value in values:
        theirs.update(value)
    ours = stats(values)
    for name, expected in theirs.as_dict().items():
        assert ours[name] == pytest.approx(expected) if name != "outliers" else ours[name] == expected, name
    assert ours["data"] == values


def test_pytest_benchmark_compares_two_exported_files(tmp_path):
    for name in ("base", "head"):
        write_records(tmp_path / f"{name}.jsonl", timings())
        done = CliRunner().invoke(
            app, ["export-benchmark", str(tmp_path / f"{name}.jsonl"), "--out", str(tmp_path / f"{name}.json")]
        )
        assert done.exit_code == 0, done.output
    done = subprocess.run(
        [sys.executable, "-m", "pytest_benchmark", "compare", "base.json", "head.json", "--columns=median,rounds"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert done.returncode == 0, done.stderr
    assert "4 tests" in done.stdout
    assert "D, random:0, fp32, onnxruntime, batch 8, 224x224, latency, threads 2 (base)" in done.stdout
    assert "Failed to load" not in done.stdout + done.stderr


def test_exported_records_come_back_as_they_were(tmp_path):
    records = sorted(timings(), key=lambda record: record.workload.batch)
    write_records(tmp_path / "a.jsonl", records)
    out = tmp_path / "b.jsonl"
    runner = CliRunner()
    runner.invoke(app, ["export-benchmark", str(tmp_path / "a.jsonl"), "--out", str(tmp_path / "a.json")])
    done = runner.invoke(app, ["import-benchmark", str(tmp_path / "a.json"), "--out", str(out), "--json"])
    assert done.exit_code == 0, done.output
    assert json.loads(done.stdout)["records"] == 4
    assert read_records(out) == records


def test_no_hosts_name_is_written():
    document = json.loads(export(timings())[0])
    assert document["machine_info"]["node"] == ""
    assert document["commit_info"]["id"] == "abc1234"
    assert document["commit_info"]["dirty"] is True


def test_several_commits_cannot_share_a_file_and_records_without_timings_are_refused():
    with pytest.raises(RecordError, match="several commits"):
        export([*timings(), *timings(commit="def5678")])
    with pytest.raises(RecordError, match="No timings"):
        export([])


@pytest.fixture(scope="module")
def theirs(tmp_path_factory):
    """What pytest-benchmark itself writes: with raw data, and without."""
    folder = tmp_path_factory.mktemp("theirs")
    (folder / "test_sums.py").write_text(
        "import pytest\n"
        "@pytest.mark.parametrize('count', [10, 1000])\n"
        "def test_sum(benchmark, count):\n"
        "    benchmark.extra_info['sides'] = count\n"
        "    benchmark.pedantic(lambda: sum(range(count)), rounds=7, iterations=3)\n"
    )
    done = run_pytest(
        folder, "-q", "--benchmark-json=raw.json", "--benchmark-save=short", plugin="pytest_benchmark.plugin"
    )
    assert done.returncode == 0, done.stdout + done.stderr
    (short,) = folder.glob(".benchmarks/*/*_short.json")
    return folder / "raw.json", short


def test_raw_data_of_pytest_benchmark_becomes_records(theirs):
    records = read(theirs[0])
    data = [each["stats"]["data"] for each in json.loads(theirs[0].read_text())["benchmarks"]]
    assert [record.samples.values for record in records] == data
    assert records[0].networks[0].network == "test_sums.py::test_sum[10]"
    assert records[0].conditions == {"sides": 10, "iterations": 3}
    assert records[0].environment["python"] == ".".join(map(str, sys.version_info[:3]))
    assert os.uname().nodename not in records[0].model_dump_json() or len(os.uname().nodename) < 4


def test_summaries_alone_are_refused_in_one_line(theirs, tmp_path):
    done = CliRunner().invoke(app, ["import-benchmark", str(theirs[1]), "--out", str(tmp_path / "x.jsonl")])
    assert done.exit_code == RecordError.exit_code
    assert len(done.stderr.strip().splitlines()) == 1
    assert "2 of 2 benchmarks have no raw data" in done.stderr
    assert "--benchmark-save-data" in done.stderr
    assert not (tmp_path / "x.jsonl").exists()


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "{}",
        '{"benchmarks": 3}',
        '{"benchmarks": []}',
        '{"benchmarks": [{"name": "a"}]}',
        '{"benchmarks": [{"name": "a", "stats": 3}]}',
        '{"benchmarks": [{"name": "a", "stats": {"data": ["x"]}}]}',
        '{"benchmarks": [{"name": "a", "stats": {"data": [NaN]}}]}',
        '{"benchmarks": [{"name": 1, "stats": {"data": 5}}]}',
    ],
)
def test_other_json_is_refused_as_records_that_cannot_be_read(tmp_path, text):
    path = tmp_path / "a.json"
    path.write_text(text)
    with pytest.raises(RecordError, match=r"a\.json: "):
        read(path)


def test_a_changed_export_is_refused(tmp_path):
    document = json.loads(export(timings())[0])
    document["benchmarks"][0]["stats"]["data"].pop()
    path = tmp_path / "a.json"
    path.write_text(json.dumps(document))
    with pytest.raises(RecordError, match="does not fit the records"):
        read(path)


TESTS = """
import statistics, time
import pytest
from vgg_reference.weights import random_weights
from vggbench import backends
from vggbench.variants import Variant

backends.BACKENDS["fake"] = "vggbench.backends.fake"
VARIANT = Variant(random_weights("A", width=1/64, hidden_width=1/256, num_classes=7, crop_size=32), "crop", "fake")

def test_variant(vggbench_latency):
    record = vggbench_latency(VARIANT, batch=2, min_seconds=0.05)
    assert record.networks[0].network == "A" and record.workload.size == [32, 32] and record.workload.batch == 2

def test_session(vggbench_latency):
    session = backends.open_session(VARIANT)
    record = vggbench_latency(session, size=(32, 32), min_seconds=0.05)
    session(__import__("numpy").zeros((1, 3, 32, 32), "float32"))  # still open

def test_callable(vggbench_latency):
    record = vggbench_latency(lambda: time.sleep(0.002), min_seconds=0.05, min_iterations=12)
    assert len(record.samples.values) >= 12 and record.samples.warmups
    assert 0.002 <= statistics.median(record.samples.values) < 0.2

def test_too_slow(vggbench_latency):
    record = vggbench_latency(lambda: time.sleep(0.002), min_seconds=0.01)
    assert statistics.median(record.samples.values) < 1e-6

@pytest.mark.parametrize("wrong", [3, VARIANT])
def test_refused(vggbench_latency, wrong):
    from vggbench.errors import UsageError
    with pytest.raises(UsageError, match="accepted are|No scenario"):
        vggbench_latency(wrong, scenario="latency" if wrong == 3 else "none")
"""


@pytest.fixture(scope="module")
def measured(tmp_path_factory):
    folder = tmp_path_factory.mktemp("plugin")
    (folder / "test_theirs.py").write_text(TESTS)
    return folder, run_pytest(folder, "-q", "--vggbench-records", "out/records.jsonl")


def test_a_users_tests_measure_by_our_rules_and_leave_records(measured):
    folder, done = measured
    assert "1 failed, 5 passed" in done.stdout, done.stdout + done.stderr
    assert f"vggbench: 4 records in {Path('out/records.jsonl')}" in done.stdout
    records = read_records(folder / "out" / "records.jsonl")
    assert [record.networks[0].network for record in records] == [
        "A",
        "test_theirs.py::test_session",
        "test_theirs.py::test_callable",
        "test_theirs.py::test_too_slow",  # what failed was measured all the same
    ]
    assert [record.networks[0].backend for record in records] == ["fake", "fake", "callable", "callable"]
    assert all(record.environment["cpu"] and record.samples.warmups for record in records)
    assert len({record.conditions["interpreter"] for record in records}) == 1


def test_the_gate_and_pytest_benchmark_take_the_plugins_records(measured, tmp_path):
    path = measured[0] / "out" / "records.jsonl"
    done = CliRunner().invoke(app, ["history", str(path), "--json"])
    assert done.exit_code == 0, done.output
    assert len(json.loads(done.stdout)["rows"]) == 4
    done = CliRunner().invoke(app, ["export-benchmark", str(path), "--out", str(tmp_path / "a.json")])
    assert done.exit_code == 0, done.output
    done = CliRunner().invoke(app, ["gate", str(path), str(path), "--json"])
    assert done.exit_code == 3, done.output  # one process a side decides nothing


def test_the_plugin_imports_nothing_where_it_is_not_used(tmp_path):
    (tmp_path / "test_other.py").write_text(
        "import sys\n"
        "def test_nothing_heavy():\n"
        "    assert not {'torch', 'numpy', 'pydantic', 'onnx', 'vggbench.results'} & set(sys.modules)\n"
    )
    done = run_pytest(tmp_path, "-q")
    assert "1 passed" in done.stdout, done.stdout + done.stderr
    done = run_pytest(tmp_path, "-q", "--vggbench-records", "none.jsonl")
    assert "nothing was measured" in done.stdout
    assert not (tmp_path / "none.jsonl").exists()


def test_records_that_cannot_be_written_fail_the_run_in_one_line(tmp_path):
    (tmp_path / "test_theirs.py").write_text(
        "def test_one(vggbench_latency):\n    vggbench_latency(lambda: None, min_seconds=0.01)\n"
    )
    (tmp_path / "file").write_text("")
    done = run_pytest(tmp_path, "-q", "--vggbench-records", "file/records.jsonl")
    assert done.returncode == pytest.ExitCode.USAGE_ERROR
    assert "vggbench: file/records.jsonl: cannot write records" in done.stdout
    assert "Traceback" not in done.stdout + done.stderr


def test_parallel_tests_are_refused(tmp_path):
    (tmp_path / "test_theirs.py").write_text("def test_one(): pass\n")
    (tmp_path / "conftest.py").write_text(
        "def pytest_addoption(parser):\n    parser.addoption('--numprocesses', type=int)\n"
    )
    done = run_pytest(tmp_path, "--vggbench-records", "a.jsonl", "--numprocesses", "2")
    assert done.returncode == pytest.ExitCode.USAGE_ERROR
    assert "leave out -n" in done.stderr
