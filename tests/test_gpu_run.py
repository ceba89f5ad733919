"""The one command for a GPU machine, run on this CPU: steps kept, failed, left out; an engine's Python of its own."""

import dataclasses
import json
import sys
from pathlib import Path

import pytest
from gpu_records import SMALL, copied
from typer.testing import CliRunner

from vggbench import (
    runs_calibrate,
    runs_fresh,
    runs_gpu,
    runs_gpu_elsewhere,
    runs_gpu_steps,
    runs_gpu_targets,
    runs_peak,
    runs_peers,
    shares,
)
from vggbench.cli import app
from vggbench.errors import BackendUnavailable, UsageError
from vggbench.results import read_records
from vggbench.runs_fresh import TimeIsOver
from vggbench.runs_gpu import Request, Step

pytestmark = pytest.mark.usefixtures("own_cache")


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


def test_a_step_that_the_end_of_the_time_breaks_off_is_left_for_the_next_run(planned, tmp_path):
    order, fails = planned
    fails |= {"second": TimeIsOver("ended, for its time was over")}
    done = runs_gpu.gpu(Request(device="cpu", budget_seconds=500.0), tmp_path)
    assert [step.state for step in done.steps] == ["done", "not run", "not run", "done"]
    assert "ended before it did; the same command goes on" in done.steps[2].why
    fails.clear()
    assert runs_gpu.gpu(Request(device="cpu"), tmp_path).steps[2].state == "done"
    assert order == ["first", "second", "third", "second"]


def test_steps_know_the_end_of_the_time_and_leave_some_for_the_page(monkeypatch, tmp_path):
    left = []
    work = lambda: left.append(runs_fresh.seconds_left()) or [copied()]  # noqa: E731
    monkeypatch.setattr(runs_gpu_steps, "steps_of", lambda request: [Step("one", work)])
    runs_gpu.gpu(Request(device="cpu", budget_seconds=1000.0), tmp_path)
    assert 0 < left[0] <= 950
    assert runs_fresh.seconds_left() is None


def test_a_library_that_breaks_when_it_is_asked_for_ends_its_step_alone(planned, tmp_path, monkeypatch):
    def broken(*asked):
        raise RuntimeError("CUDA driver initialization failed")

    monkeypatch.setattr(runs_gpu, "missing", broken)
    done = runs_gpu.gpu(Request(device="cpu"), tmp_path)
    assert [step.state for step in done.steps] == ["done", "failed", "done", "done"]
    assert done.steps[1].why == "RuntimeError: CUDA driver initialization failed"


def test_a_gpu_that_torch_cannot_use_is_not_passed_over_for_the_cpu(planned, tmp_path, monkeypatch):
    monkeypatch.setattr(runs_gpu.environment, "has_cuda", lambda: True)
    monkeypatch.setattr(runs_gpu.environment, "environment", lambda command=None: {"gpu": "NVIDIA Old", "cpu": "x"})
    monkeypatch.setattr(runs_gpu, "has_cuda", lambda: False)
    with pytest.raises(BackendUnavailable, match=r"^The driver shows NVIDIA Old, and torch .* cannot use it") as raised:
        runs_gpu.gpu(Request(), tmp_path)
    assert "\n" not in str(raised.value)
    assert planned[0] == []


def test_what_touches_the_gpu_runs_in_a_fresh_process(monkeypatch):
    """A crash there would end the whole run, and this process' context would stand beside every timing."""
    monkeypatch.setattr(runs_gpu_steps, "resolve_device", lambda device, cuda: "cuda:0")
    for name in ("_quantization", "_prepared"):
        monkeypatch.setattr(runs_gpu_steps, name, lambda *asked: None)
    asked = []
    monkeypatch.setattr(runs_gpu_steps, "in_fresh_process", lambda work, *more: asked.append(work.__name__) or [])
    for step in runs_gpu_steps.steps_of(Request(weights="sample", images=4)):
        step.work()
        assert asked, step.name
        asked.clear()


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
import os
ours = os.environ["PYTHONPATH"].split(os.pathsep)[0]
assert os.listdir(ours) == ["vggbench"], "what lies beside the package is this Python's, not that one's"
assert os.path.isfile(os.path.join(ours, "vggbench", "engines", "cli_engine.py"))
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


def test_an_int8_engine_elsewhere_has_the_ranges_of_what_it_is_compared_with(monkeypatch):
    taken, given = [], []

    def ranges_for(weights, **asked):
        taken.append(asked)
        return ranges_of(weights, **asked, images=8)

    ranges_of = runs_calibrate.ranges_for
    monkeypatch.setattr(runs_calibrate, "ranges_for", ranges_for)
    monkeypatch.setattr(runs_gpu_elsewhere, "numerics_elsewhere", lambda *asked: given.append(asked) or [])
    steps = runs_gpu_steps.steps_of(Request(device="cpu", threads=1, images=4, engine_python=Path("python8")))
    next(step for step in steps if step.name.startswith("numerics A int8 tensorrt in another")).work()
    ((_, variant, images, device, _, reference),) = given
    assert (variant.precision, images, device, reference) == ("int8", 4, "cpu", "int8@onnxruntime/tensorrt")
    assert taken == [{"threads": 1}], "as `numerics` takes its reference's, and not from the few images of a timing"
    assert variant.quantization.layout == "tensorrt"
