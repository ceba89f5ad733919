"""The one command for a GPU machine, run on this CPU: steps kept, failed, left out; peers, floors and targets."""

import dataclasses
import json
import subprocess
import sys
from pathlib import Path

import latency_workers
import pytest
from typer.testing import CliRunner

from vggbench import (
    runs_gpu,
    runs_gpu_steps,
    runs_gpu_support,
    runs_gpu_targets,
    runs_latency,
    runs_peak,
    runs_peers,
    shares,
)
from vggbench.cli import app
from vggbench.errors import BackendUnavailable, UsageError
from vggbench.measure.bandwidth import copy_record, time_copies
from vggbench.results import NetworkRun, Numerics, Peak, Record, Samples, Workload, read_records
from vggbench.runs_gpu import Request, Step

ROOT = Path(__file__).parents[1]
SMALL = 1 << 20


@pytest.fixture(autouse=True)
def _own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("VGGBENCH_CACHE", str(tmp_path / "cache"))


def copied(seconds=0.001, size=SMALL, device="cpu"):
    return copy_record(Samples(unit="seconds", values=[seconds] * 5), "torch copy_", size, 1, device, environment={})


def timed(precision, backend, batch=1, seconds=0.01, device="cuda:0", conditions=None, **session):
    said = {"device": device, "threads": 1, "form": "crop", "arithmetic": precision, "weights_stored": precision}
    weights = {"name": "random:0", "digest": "d", "width": 1.0, "num_classes": 1000, "crop_size": 224}
    run = NetworkRun(
        network="D", weights=weights, passes=[], backend=backend, precision=precision, session=said | session
    )
    return Record(
        kind="latency",
        networks=[run],
        workload=Workload(batch=batch, size=[224, 224], scenario="latency"),
        samples=Samples(unit="seconds", values=[seconds] * 20),
        environment={"gpu": "A GPU"},
        process=1,
        conditions={"clock": "events", "open_seconds": 1.0, "first_call_seconds": 1.0, "rss_peak_bytes": 1}
        | (conditions or {}),
    )


# Steps


def steps(order, fails):
    def work(name):
        def run():
            order.append(name)
            if name in fails:
                raise fails[name]
            return [copied()]

        return run

    absent = Step("engine", work("engine"), (("fp16", "torch-tensorrt"),))
    return [Step("first", work("first")), absent, Step("second", work("second")), Step("third", work("third"))]


@pytest.fixture
def planned(monkeypatch):
    """Steps of a test's own, their order and what they raise."""
    order, fails = [], {}
    monkeypatch.setattr(runs_gpu_steps, "steps_of", lambda request: steps(order, fails))
    return order, fails


def test_a_step_that_fails_is_named_and_the_others_go_on(planned, tmp_path):
    _, fails = planned
    fails |= {"first": BackendUnavailable("No memory."), "second": RuntimeError("cuda error 700\nat line 3")}
    done = runs_gpu.gpu(Request(device="cpu"), tmp_path)
    assert [(step.name, step.state) for step in done.steps] == [
        ("first", "failed"), ("engine", "not run"), ("second", "failed"), ("third", "done"),
    ]  # fmt: skip
    assert [step.why for step in done.steps if step.state == "failed"] == [
        "No memory.", "RuntimeError: cuda error 700 at line 3",
    ]  # fmt: skip
    assert "TensorRT runs on NVIDIA GPUs alone" in done.steps[1].why or "torch-tensorrt needs" in done.steps[1].why
    assert len(read_records(tmp_path / "records.jsonl")) == 1
    page = (tmp_path / "index.html").read_text(encoding="utf-8")
    assert "cuda error 700" in page
    assert "not run" in page


def test_the_same_command_does_only_what_is_missing(planned, tmp_path):
    order, fails = planned
    fails["second"] = KeyboardInterrupt()
    with pytest.raises(KeyboardInterrupt):
        runs_gpu.gpu(Request(device="cpu"), tmp_path)
    fails.clear()
    done = runs_gpu.gpu(Request(device="cpu", budget_seconds=50.0), tmp_path)
    assert order == ["first", "second", "second", "third"]
    assert [step.state for step in done.steps] == ["kept", "not run", "done", "done"]
    assert len(done.records) == 3
    runs_gpu.gpu(Request(device="cpu", images=9), tmp_path)
    assert order[4:] == ["first", "second", "third"], "another request is other work"


def test_what_was_cut_is_done_anew(planned, tmp_path):
    order, _ = planned
    runs_gpu.gpu(Request(device="cpu"), tmp_path)
    (path,) = (tmp_path / "steps").glob("first*")
    path.write_bytes(path.read_bytes()[:-20])
    assert runs_gpu.gpu(Request(device="cpu"), tmp_path).steps[0].state == "done"
    assert order == ["first", "second", "third", "first"]


def test_when_the_time_is_over_no_step_starts_and_what_was_kept_counts(planned, tmp_path):
    order, _ = planned
    runs_gpu.gpu(Request(device="cpu", only=("first",)), tmp_path)
    done = runs_gpu.gpu(Request(device="cpu", budget_seconds=1e-9), tmp_path)
    assert order == ["first"]
    assert [step.state for step in done.steps] == ["kept", "not run", "not run", "not run"]
    assert "the same command goes on" in done.steps[2].why


@pytest.mark.parametrize(
    ("request_", "error", "why"),
    [
        (Request(networks="vgg"), UsageError, "known are D, all"),
        (Request(only=("fourth",)), UsageError, "Known: first, engine, second, third"),
        (Request(device="cpu", only=("engine",)), BackendUnavailable, "No step gave a record: engine: "),
    ],
)
def test_what_cannot_be_is_one_line(planned, tmp_path, request_, error, why):
    with pytest.raises(error, match=why) as raised:
        runs_gpu.gpu(request_, tmp_path)
    assert "\n" not in str(raised.value)


def test_the_command_ends_with_the_steps_and_the_targets(planned, tmp_path):
    result = CliRunner().invoke(app, ["gpu", "--device", "cpu", "--out", str(tmp_path)])
    assert result.exit_code == 0, result.output
    assert result.stdout.count("\ndone ") + result.stdout.startswith("done ") == 3
    assert "not run  FP16 engine / eager FP16, best batch" in result.stdout
    document = json.loads(CliRunner().invoke(app, ["gpu", "--device", "cpu", "--out", str(tmp_path), "--json"]).stdout)
    assert {step["state"] for step in document["steps"]} == {"kept", "not run"}
    assert len(document["targets"]) == len(runs_gpu_targets._TARGETS)


def test_a_step_that_reaches_for_the_network_fails_where_that_is_forbidden():
    code = (
        "import socket, vggbench.runs_fresh as r; r.refuse_networks()\n"
        "from vggbench.errors import BackendUnavailable\n"
        "for go in (lambda: socket.create_connection(('127.0.0.1', 9), 1), lambda: socket.getaddrinfo('a.test', 1)):\n"
        "    try: go()\n"
        "    except BackendUnavailable as error: print(error)\n"
    )
    path = f"{ROOT}:{ROOT / 'reference'}"
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", code], capture_output=True, text=True, timeout=120,
                          env={"PYTHONPATH": path, "PATH": ""})  # fmt: skip
    assert done.stdout.count("--no-network: something tried to reach") == 2, done.stderr


def test_the_steps_of_a_cpu_and_of_a_gpu(monkeypatch):
    here = [step.name for step in runs_gpu_steps.steps_of(Request(device="cpu"))]
    assert here[:2] == ["copy bandwidth", "peak fp32"]
    assert "time D int8 onnxruntime" in here
    monkeypatch.setattr(runs_gpu_steps, "resolve_device", lambda device, cuda: "cuda:0")
    there = [step.name for step in runs_gpu_steps.steps_of(Request(networks="all"))]
    for name in ("peak fp8", "time D fp16 tensorrt", "time E int8 torch-tensorrt", "int8 of tensorrt beside the CPU's",
                 "time D fp16 torch-tensorrt in the native runner", "open again tensorrt"):  # fmt: skip
        assert name in there
    assert len(set(there)) == len(there)
    place = {name: number for number, name in enumerate(there)}
    assert place["open and close tensorrt"] < place["time D tf32 tensorrt"]
    assert place["numerics E int8 tensorrt"] < place["time D bf16 pytorch"], "what targets need comes first"
    assert len([name for name in there if name.startswith("time D ")]) == len(runs_peers.GPU_PEERS) + 2


def test_tiny_networks_go_the_whole_way_on_this_cpu(monkeypatch, tmp_path):
    monkeypatch.setattr(runs_gpu_steps, "in_fresh_process", lambda work, *arguments: work(*arguments))
    small = lambda *arguments: runs_peak.time_copy(*arguments, SMALL)  # noqa: E731
    monkeypatch.setattr(runs_gpu_steps, "time_copy", small)
    monkeypatch.setattr(runs_gpu_steps, "OPENINGS", 3)
    monkeypatch.setattr(runs_gpu_steps, "SETTLED", 1)
    monkeypatch.setattr(runs_gpu_steps, "PEAK_SECONDS", 0.0)
    only = ("copy", "time D fp32 pytorch", "time D fp32 onnxruntime", "open", "numerics A bf16 onnxruntime",
            "numerics A fp16 onnxruntime")  # fmt: skip
    request = Request(
        weights="sample", batches=(1, 2), min_seconds=0.0, images=4, device="cpu", threads=1, only=only[:5]
    )
    with pytest.raises(UsageError, match="No step 'numerics A bf16 onnxruntime'"):
        runs_gpu.gpu(request, tmp_path)
    request = dataclasses.replace(request, only=(*only[:4], only[5]))
    done = runs_gpu.gpu(request, tmp_path)
    assert [step.state for step in done.steps] == ["done"] * len(done.steps), done.steps
    kinds = [record.kind for record in done.records]
    assert (kinds.count("peak"), kinds.count("numerics")) == (1, 1)
    (grown,) = [record for record in done.records if "bytes_after" in record.conditions]
    assert grown.conditions["openings"] == 3
    assert [record.conditions["again"] for record in done.records if "again" in record.conditions] == [0, 1]
    assert {target.state for target in runs_gpu_targets.targets(done.records)} == {"not run"}, "this is no GPU"


def test_a_report_is_named_by_machine_and_day():
    folder = runs_gpu.default_folder()
    assert folder.parent == Path("reports")
    assert folder.name.rpartition("-20")[2][2:].count("-") == 2


# An engine's Python of its own

ENGINE_PYTHON = """#!{python}
import json, sys
import numpy as np
arguments = dict(zip(sys.argv[4::2], sys.argv[5::2]))
assert sys.argv[1:3] == ["-m", "vggbench.engines.cli_engine"] and sys.argv[3].endswith(".onnx")
if arguments["--precision"] == "int8":
    sys.exit("vggbench: TensorRT does not load (no such library).")
info = {{"tensorrt": "8.6.0", "gpu": "A GPU", "clock": "CUDA events", "wait": "spinning", "cuda_graph": "captured"}}
seconds = [0.001] * 10 if float(arguments["--seconds"]) else []
if "--images" in arguments:
    import onnxruntime
    session = onnxruntime.InferenceSession(sys.argv[3], providers=["CPUExecutionProvider"])
    np.savez(arguments["--scores"], scores=session.run(None, {{"images": np.load(arguments["--images"])}})[0])
json.dump({{"info": info, "layers": [], "shape": [], "seconds": seconds}}, open(arguments["--json"], "w"))
"""


@pytest.mark.parametrize("precision", ["fp16", "int8"])
def test_tensorrt_in_another_python_is_timed_and_checked_over_files(tmp_path, precision):
    python = tmp_path / "python8"
    python.write_text(ENGINE_PYTHON.format(python=sys.executable))
    python.chmod(0o755)
    names = (f"time D {precision} tensorrt in another", f"numerics A {precision} tensorrt in another")
    request = Request(
        weights="sample", batches=(1, 4), images=4, device="cpu", threads=1, engine_python=python, only=names
    )
    steps = [step for step in runs_gpu_steps.steps_of(request) if step.name.startswith(names)]
    assert len(steps) == 2
    if precision == "int8":
        for step in steps:
            with pytest.raises(BackendUnavailable, match=r"^In python8: TensorRT does not load"):
                step.work()
        return
    timings, (checked,) = (step.work() for step in steps)
    assert [record.workload.batch for record in timings] == [1, 4]
    session = timings[0].networks[0].session
    assert (session["tensorrt"], session["runner"], session["device"]) == ("8.6.0", "another Python", "cuda:0")
    assert shares.weight_bytes(timings[0]) > 0
    assert checked.numerics.images == 4
    assert max(checked.samples.values) < 0.01


# Peers and the floor under a call


def test_a_copy_counts_the_bytes_it_reads_and_writes():
    samples, library, size = time_copies("cpu", 1, 0.0, SMALL)
    assert len(samples.values) >= 5
    record = copy_record(samples, library, size, 1, "cpu", environment={})
    middle = sorted(samples.values)[len(samples.values) // 2]
    assert shares.operations_per_second(record) == pytest.approx(2 * SMALL / middle, rel=0.5)


@pytest.mark.parametrize(("stored", "bytes_each"), [("fp32", 4), ("fp16", 2), ("int8, per channel", 1), ("bf16", 2)])
def test_the_floor_is_the_weights_bytes_over_the_bandwidth(stored, bytes_each):
    record = timed("fp16", "tensorrt", weights_stored=stored)
    assert shares.weight_bytes(record) == 138_357_544 * bytes_each
    copies = [copied(0.001, 10**9, "cuda:0"), copied(0.002, 10**9, "cuda:0"), copied(0.0001, 10**9, "cpu")]
    assert shares.floor_seconds(record, copies) == pytest.approx(138_357_544 * bytes_each / 2e12)
    assert shares.floor_seconds(record, copies[2:]) is None


def test_peers_have_a_ratio_to_eager_fp16_and_at_batch_1_a_share_of_the_floor():
    records = [timed("fp16", "pytorch"), timed("fp16", "tensorrt", seconds=0.004, cuda_graph="captured"),
               timed("fp16", "tensorrt", 8, 0.02), copied(0.001, 10**9, "cuda:0")]  # fmt: skip
    one, fast, eight = runs_peers.peer_rows(records)
    assert (one["ratio_to_eager_fp16"], fast["ratio_to_eager_fp16"], eight["ratio_to_eager_fp16"]) == (1.0, 2.5, None)
    assert fast["share_of_floor"] == pytest.approx(138_357_544 * 2 / 2e12 / 0.004)
    assert eight["share_of_floor"] is None


def test_the_preset_runs_with_what_is_there_on_a_cpu(monkeypatch, tmp_path):
    monkeypatch.setattr(runs_latency, "in_fresh_process", lambda work, *arguments: work(*arguments))
    monkeypatch.setattr(runs_latency, "time_variant", latency_workers.fake)
    monkeypatch.setattr(runs_latency, "time_peak", lambda *arguments: [])
    monkeypatch.setattr(runs_latency, "time_copy", lambda *arguments: [copied()])
    monkeypatch.setattr(runs_latency, "_quantization", lambda *arguments: None)
    arguments = ["latency", "--network", "A", "--weights", "sample", "--peers", "--batch", "1,2", "--processes", "1",
                 "--min-seconds", "0", "--device", "cpu"]  # fmt: skip
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 0, result.output
    assert max(len(line) for line in result.stdout.split("\n\n")[1].splitlines() if "Timed by" not in line) <= 100
    assert "x eager fp16" in result.stdout
    assert "fp32 onnxruntime" in result.stdout.replace("  ", " ").replace("  ", " ")
    assert "GB/s read and written" in result.stdout
    rows = json.loads(CliRunner().invoke(app, [*arguments, "--json"]).stdout)["rows"]
    assert {row["backend"] for row in rows} >= {"pytorch", "onnxruntime"}
    assert all("perf_counter" in row["mode"] for row in rows)


def test_a_bandwidth_is_no_matrix_peak():
    from vggbench.report.speed import peak_rows

    assert peak_rows([copied()]) == []


# Targets


def peak(operations_per_second):
    return Record(
        kind="peak", networks=[], workload=Workload(), samples=Samples(unit="seconds", values=[1.0] * 5),
        environment={"gpu": "A GPU"}, process=1, conditions={"device": "cuda:0"},
        peak=Peak(precision="fp16", library="l", threads=1, m=1, n=1, k=1, operations=int(operations_per_second)),
    )  # fmt: skip


def drifted(precision, reference, ratio, flips, images=1000):
    run = NetworkRun(network="A", weights={"name": "w"}, passes=[], backend="tensorrt", precision=precision)
    base = run.model_copy(update={"precision": reference})
    numerics = Numerics(reference=base, images=images, reference_errors=0, variant_errors=0, flips=flips, lost=0,
                        gained=0, p_value=1.0, layers=[], changed=[])  # fmt: skip
    return Record(kind="numerics", networks=[run], workload=Workload(), environment={}, numerics=numerics,
                  samples=Samples(unit="ratio", values=[ratio] * 3))  # fmt: skip


def fast_machine(scale=1.0):
    """Records that meet every target that records can meet; scale above 1 makes engines slower and coarser."""
    engine = 0.001 * scale
    return [
        timed("fp16", "pytorch", 8, 0.0014),
        timed("fp16", "torch-compile", 8, 0.0011),
        timed("fp16", "tensorrt", 8, engine),
        timed("fp16", "tensorrt", 1, 0.0004 * scale, cuda_graph="captured"),
        timed("int8", "tensorrt", 8, 0.0006),
        peak(8 * 2 * 15_470_264_320 / 0.001 / 0.8),
        copied(0.001, 10**9, "cuda:0"),
        drifted("fp16", "fp32", 0.002 * scale**3, int(4 * scale**3)),
        drifted("int8", "int8", 0.015 * scale, 0),
        timed("fp16", "tensorrt", 1, 0.01, conditions={"again": 1, "open_seconds": 2.0 * scale**3}),
        timed("fp16", "tensorrt", 1, 0.01, conditions={"bytes_settled": 10**9, "bytes_after": int(10**9 * scale)}),
    ]


def test_each_target_is_met_not_met_or_not_run():
    found = {target.name: target.state for target in runs_gpu_targets.targets(fast_machine())}
    assert [name for name, state in found.items() if state != "met"] == ["evaluation loop / engine's own throughput"]
    slow = runs_gpu_targets.targets(fast_machine(1.8))
    states = {target.name: target.state for target in slow}
    assert states.pop("INT8 engine / FP16 engine, best batch") == "met"
    assert states.pop("evaluation loop / engine's own throughput") == "not run"
    assert set(states.values()) == {"not met"}, slow
    assert {target.state for target in runs_gpu_targets.targets([])} == {"not run"}
    assert all(target.why for target in runs_gpu_targets.targets([]))


def test_targets_are_of_the_papers_network_on_a_gpu():
    on_cpu = [timed("fp16", "pytorch", device="cpu"), timed("fp16", "tensorrt", device="cpu")]
    assert {target.state for target in runs_gpu_targets.targets(on_cpu)} == {"not run"}


# What has run


def test_the_documentation_holds_the_support_matrix():
    text = (ROOT / "docs" / "gpu.md").read_text(encoding="utf-8")
    assert runs_gpu_support.markdown_table() in text


def test_hardware_is_only_claimed_with_a_report_or_an_error():
    for entry in runs_gpu_support.SUPPORT:
        assert entry.hardware == runs_gpu_support.NOT_RUN or entry.report or entry.error
        assert not entry.report or (ROOT / entry.report).is_dir()


def test_a_fresh_process_is_kept_from_the_network_too(monkeypatch):
    from vggbench import runs_fresh

    monkeypatch.setenv(runs_fresh.NO_NETWORK, "1")
    with pytest.raises(BackendUnavailable, match="--no-network: something tried to reach"):
        runs_fresh.in_fresh_process(latency_workers.reach_out)
