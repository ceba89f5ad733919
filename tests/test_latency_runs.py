"""Fresh processes in turn: their order, their deaths, Ctrl-C and going on."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import latency_workers
import pytest
from typer.testing import CliRunner

from vggbench import runs_latency
from vggbench.cli import app
from vggbench.errors import BackendUnavailable
from vggbench.measure.peak import Found, peak_record
from vggbench.results import Samples, read_records
from vggbench.runs_fresh import WorkerDied
from vggbench.runs_latency import Request

ROOT = Path(__file__).parents[1]
REQUEST = Request(
    network="A", weights="sample", backends=("pytorch",), device="cpu", threads=1, min_seconds=0.0, peak=False
)

pytestmark = pytest.mark.usefixtures("own_cache")


@pytest.fixture
def here(monkeypatch):
    """Work is done in this process, and its order noted; what is in ``fails`` is raised instead."""

    class Here:
        order: list = []  # noqa: RUF012
        fails: dict = {}  # noqa: RUF012

    found = Here()
    found.order, found.fails = [], {}

    def run(work, *arguments):
        if work is runs_latency.time_peak:
            precision, threads, _, device, environment, process, before = arguments
            found.order.append((process, precision, len(before)))
            if precision in found.fails:
                raise found.fails[precision]
            samples = Samples(unit="seconds", values=[0.001] * 5)
            product = Found(precision, "torch mm", (64, 64, 64), {})
            conditions = {"product": "torch mm"}
            return [peak_record(product, samples, threads, device, environment=environment, conditions=conditions,
                                process=process)]  # fmt: skip
        (task,) = arguments
        found.order.append((task.process, task.variant.precision, task.variant.backend))
        if found.order[-1] in found.fails:
            raise found.fails[found.order[-1]]
        return work(task)

    monkeypatch.setattr(runs_latency, "in_fresh_process", run)
    return found


def timed(request=REQUEST, out=None):
    return runs_latency.latency(request, out, work=latency_workers.fake)


def but(**changes):
    return Request(**{**vars(REQUEST), **changes})


# Order, deaths


@pytest.mark.parametrize("there", [True, False])
def test_huge_pages_are_asked_for_in_the_fresh_processes_only_and_their_want_is_said(here, monkeypatch, there):
    monkeypatch.delenv("GLIBC_TUNABLES", raising=False)
    asked = {"GLIBC_TUNABLES": "glibc.malloc.hugetlb=1"} if there else {}
    monkeypatch.setattr(runs_latency.environment, "huge_pages", lambda variables: asked)
    timing = timed(but(huge_pages=True))
    assert [record.environment.get("GLIBC_TUNABLES") for record in timing.records] == [asked.get("GLIBC_TUNABLES")] * 3
    assert ("Huge pages" in " ".join(timing.notes)) is not there
    assert "GLIBC_TUNABLES" not in os.environ
    assert timed().records[0].environment.get("GLIBC_TUNABLES") is None


def test_processes_run_in_turn_over_the_variants_and_keep_every_value(here, tmp_path):
    out = tmp_path / "a.jsonl"
    request = but(backends=("pytorch", "onnxruntime"), batches=(1, 2), processes=3)
    timing = timed(request, out)
    round_ = [("fp32", "pytorch"), ("fp32", "onnxruntime")]
    assert here.order == [(process, *variant) for process in (1, 2, 3) for variant in round_]
    assert len(timing.records) == 3 * 2 * 2
    assert read_records(out) == timing.records
    assert [record.process for record in timing.records] == [1] * 4 + [2] * 4 + [3] * 4
    assert all(len(record.samples.values) >= 10 and record.samples.warmups for record in timing.records)
    assert list(tmp_path.iterdir()) == [out], "nothing unfinished is left"


def test_the_peak_is_searched_once_and_its_product_timed_anew_in_each_round(here):
    timing = timed(but(peak=True, processes=2))
    assert here.order == [(1, "fp32", 0), (1, "fp32", "pytorch"), (2, "fp32", 1), (2, "fp32", "pytorch")]
    assert [record.kind for record in timing.records] == ["peak", "latency"] * 2


def test_a_peak_comes_right_before_the_first_variant_that_is_measured_by_it(here):
    timed(but(peak=True, processes=2, precisions=("fp32", "bf16"), backends=("pytorch", "onnxruntime")))
    one, two = ("fp32", "pytorch"), ("fp32", "onnxruntime")
    round_ = [("fp32", "peak"), one, two, ("bf16", "peak"), ("bf16", "pytorch")]
    told = [(each[1], "peak" if isinstance(each[2], int) else each[2]) for each in here.order]
    assert told == round_ * 2


def test_a_peak_that_cannot_be_measured_is_a_note(here):
    here.fails["fp32"] = BackendUnavailable("No matrix product.")
    timing = timed(but(peak=True, processes=1))
    assert timing.notes == ("No matrix product.",)
    assert len(timing.records) == 1


def test_a_process_that_dies_is_named_and_the_others_count(here, tmp_path):
    here.fails[2, "fp32", "pytorch"] = WorkerDied("killed by SIGKILL")
    timing = timed(out=tmp_path / "a.jsonl")
    assert timing.died == ("process 2 of fp32 on pytorch died: killed by SIGKILL",)
    assert [record.process for record in timing.records] == [1, 3]
    assert all(record.conditions["died"] == timing.died[0] for record in read_records(tmp_path / "a.jsonl"))
    here.fails.update({(process, "fp32", "pytorch"): WorkerDied("killed") for process in (1, 3)})
    with pytest.raises(BackendUnavailable, match=r"process 1 of fp32 on pytorch died: killed;.*Try a smaller --batch"):
        timed()


# Going on


def test_an_interrupted_run_goes_on_with_the_missing_processes(here, tmp_path):
    out = tmp_path / "a.jsonl"
    here.fails[2, "fp32", "pytorch"] = KeyboardInterrupt()
    with pytest.raises(KeyboardInterrupt):
        timed(out=out)
    kept = read_records(tmp_path / "a.jsonl.partial")
    assert [record.process for record in kept] == [1]
    here.fails.clear()
    here.order.clear()
    timing = timed(out=out)
    assert [process for process, *_ in here.order] == [2, 3]
    assert timing.records[0] == kept[0]
    assert "Went on with an interrupted run: 1 of its processes" in timing.notes[0]
    assert not (tmp_path / "a.jsonl.partial").exists()


def test_without_out_the_cache_keeps_what_was_measured(here, tmp_path):
    here.fails[2, "fp32", "pytorch"] = KeyboardInterrupt()
    with pytest.raises(KeyboardInterrupt):
        timed()
    here.fails.clear()
    timed()
    assert [process for process, *_ in here.order] == [1, 2, 2, 3]
    assert not list((tmp_path / "cache" / "latency").iterdir())


def test_another_command_begins_anew_and_says_so(here, tmp_path):
    out = tmp_path / "a.jsonl"
    here.fails[2, "fp32", "pytorch"] = KeyboardInterrupt()
    with pytest.raises(KeyboardInterrupt):
        timed(out=out)
    here.fails.clear()
    here.order.clear()
    timing = timed(but(batches=(2,)), out)
    assert [process for process, *_ in here.order] == [1, 2, 3]
    assert "is of another command, version or machine: begun anew" in timing.notes[0]


@pytest.mark.parametrize("cut", [1, 0.5])
def test_of_a_file_that_was_cut_the_whole_processes_are_used_and_the_cut_is_named(here, tmp_path, cut):
    out, partial = tmp_path / "a.jsonl", tmp_path / "a.jsonl.partial"
    request = but(batches=(1, 2))
    here.fails[3, "fp32", "pytorch"] = KeyboardInterrupt()
    with pytest.raises(KeyboardInterrupt):
        timed(request, out)
    lines = partial.read_bytes().splitlines(keepends=True)
    assert len(lines) == 4
    partial.write_bytes(b"".join(lines[:3]) + lines[3][: int(len(lines[3]) * cut) - 2])
    here.fails.clear()
    here.order.clear()
    timing = timed(request, out)
    assert [process for process, *_ in here.order] == [2, 3], "half of process 2 is missing"
    assert "cut in the middle of line 4" in timing.notes[0]
    assert sorted((record.process, record.workload.batch) for record in timing.records) == [
        (process, batch) for process in (1, 2, 3) for batch in (1, 2)
    ]


def test_ctrl_c_twice_ends_with_130_leaves_no_process_and_the_same_command_goes_on(tmp_path):
    out, marker = tmp_path / "a.jsonl", tmp_path / "marker"
    arguments = ["latency", "--network", "A", "--weights", "sample", "--backend", "pytorch", "--device", "cpu",
                 "--threads", "1", "--processes", "2", "--min-seconds", "0", "--no-peak"]  # fmt: skip
    arguments += ["--out", str(out)]
    process = subprocess.Popen(
        [sys.executable, "-c", "import latency_workers; latency_workers.main()", *arguments],
        env={
            **os.environ,
            "PYTHONPATH": os.pathsep.join(map(str, (ROOT, ROOT / "reference", ROOT / "tests"))),
            "LATENCY_MARKER": str(marker),
        },
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    try:
        deadline = time.monotonic() + 300
        while not (marker.exists() and marker.read_text()) and time.monotonic() < deadline:
            assert process.poll() is None, process.communicate()
            time.sleep(0.02)
        os.killpg(process.pid, signal.SIGINT)  # as a terminal does: the worker gets it too
        time.sleep(0.05)
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGINT)
        _, stderr = process.communicate(timeout=600)
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.communicate()
    assert process.returncode == 130, stderr
    assert stderr.strip().splitlines()[-1].startswith("vggbench: Interrupted.")
    assert "Traceback" not in stderr
    with pytest.raises(ProcessLookupError):
        os.kill(int(marker.read_text()), 0)
    assert [record.process for record in read_records(tmp_path / "a.jsonl.partial")] == [1]
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 0, result.output
    assert "Went on with an interrupted run: 1 of its processes" in result.stderr
    assert [record.process for record in read_records(out)] == [1, 2]


# The command


def test_the_table_fits_100_columns_and_the_choice_is_stated(here, monkeypatch):
    monkeypatch.setattr(runs_latency, "time_variant", latency_workers.fake)
    arguments = ["latency", "--network", "A", "--weights", "sample", "--backend", "pytorch,onnxruntime", "--batch",
                 "1,2", "--min-seconds", "0", "--device", "cpu"]  # fmt: skip
    result = CliRunner().invoke(app, [*arguments, "--min-iterations", "1000"])
    assert result.exit_code == 0, result.output
    assert max(map(len, result.stdout.splitlines())) <= 100
    assert "p99" in result.stdout
    assert "A (sample/A-256/seed0), 64 x 64 pixels, crop form, cpu" in result.stdout
    assert "latency, 3 fresh processes a variant in turn" in result.stdout
    assert result.stdout.count("fp32 pytorch") >= 2
    document = json.loads(CliRunner().invoke(app, [*arguments, "--json"]).stdout)
    assert [row["batch"] for row in document["rows"]] == [1, 2, 1, 2]
    assert all(row["share_of_peak"] > 0 for row in document["rows"])
    assert len(document["records"]) == 3 * (1 + 2 * 2)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--batch", "0"], "--batch '0': accepted are whole numbers from 1 on"),
        (["--batch", "1,1"], "each once"),
        (["--size", "224y3"], "--size '224y3': accepted is height x width"),
        (["--size", "32"], "Size 32x32: accepted are sides from 64 pixels on"),
        (["--precision", "fp32,"], "--precision 'fp32,': accepted are names separated by commas"),
        (["--precision", "fp23"], "No precision 'fp23'"),
        (["--scenario", "offline"], "No scenario 'offline'. Known: latency, throughput"),
        (["--device", "tpu"], "No device 'tpu'"),
        (["--backend", "tensorflow"], "No backend 'tensorflow'"),
    ],
)
def test_a_mistake_in_the_asking_is_one_line_and_code_2(arguments, message):
    result = CliRunner().invoke(app, ["latency", "--network", "A", "--weights", "sample", *arguments])
    assert result.exit_code == 2, result.output
    assert message in result.stderr
    assert len(result.stderr.splitlines()) == 1


def test_a_larger_size_takes_the_dense_form(here):
    timing = timed(but(size=(64, 96), processes=1))
    (record,) = timing.records
    assert record.networks[0].session["form"] == "dense"
    assert record.workload.size == [64, 96]


def test_of_several_backends_those_that_cannot_are_left_out_and_named(here):
    plan = runs_latency.plan_of(but(precisions=("fp32", "bf16"), backends=("onnxruntime", "pytorch")))
    pairs = [(variant.precision, variant.backend) for variant in plan.variants]
    assert pairs[:2] == [("fp32", "onnxruntime"), ("fp32", "pytorch")]
    assert ("bf16", "onnxruntime") not in pairs
    assert any("onnxruntime cannot run bf16" in reason for reason in plan.reasons)
    with pytest.raises(BackendUnavailable, match="pytorch cannot run int8"):
        runs_latency.plan_of(but(precisions=("int8",), backends=("pytorch",)))


def test_the_key_of_a_run_is_that_of_its_work_and_not_of_its_length():
    key = runs_latency.plan_of(REQUEST).key
    assert runs_latency.plan_of(but(processes=9)).key == key
    for change in ({"batches": (2,)}, {"threads": 2}, {"min_seconds": 1.0}, {"scenario": "throughput"}):
        assert runs_latency.plan_of(but(**change)).key != key
