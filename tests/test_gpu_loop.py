"""The evaluation loop beside the session it feeds: what is measured, what the record says, when the target is met."""

from __future__ import annotations

import os
import time

import numpy as np
import pytest
from fake_tensorrt import install

from vgg_reference.weights import random_weights
from vggbench import backends, runs_gpu, runs_gpu_loop, runs_gpu_steps, runs_gpu_targets
from vggbench.backends import fake, tensorrt
from vggbench.measure import pipeline
from vggbench.protocols import Choices
from vggbench.results import NetworkRun, Record, Samples, Workload
from vggbench.runs_gpu import Request
from vggbench.runs_gpu_loop import Loop, in_memory, sleeping_threads, time_loop
from vggbench.variants import Variant

WEIGHTS = random_weights("D", 0, width=1 / 8, hidden_width=1 / 16, num_classes=60, crop_size=64)
NAME = "evaluation loop / engine's own throughput"


@pytest.fixture(autouse=True)
def _own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("VGGBENCH_CACHE", str(tmp_path / "cache"))


def loop(backend, precision="fp32", device="cpu", images=40, rounds=2):
    return Loop(Variant(WEIGHTS, "crop", backend, precision), device, 1, images, rounds)


def as_vgg16(record, backend="tensorrt", precision="fp16"):
    """A record of a small network's loop as if it were VGG-16's on a GPU."""
    run = record.networks[0]
    changed = {"weights": {**run.weights, "width": 1.0}, "backend": backend, "precision": precision}
    return record.model_copy(
        update={"networks": [run.model_copy(update={**changed, "session": {**run.session, "device": "cuda:0"}})]}
    )


def made(loop_seconds, session_seconds, backend="tensorrt", device="cuda:0", **conditions):
    run = NetworkRun(network="D", weights={"width": 1.0}, passes=[], backend=backend, precision="fp16",
                     session={"device": device})  # fmt: skip
    return Record(
        kind="loop",
        networks=[run],
        workload=Workload(data={"images": 100}),
        samples=Samples(unit="seconds", values=loop_seconds),
        conditions={"session_seconds": session_seconds, "limiting": "upload", **conditions},
    )


def target(*records):
    (found,) = [each for each in runs_gpu_targets.targets(records) if each.name == NAME]
    return found


# What is measured


def test_images_lie_in_memory_each_as_an_entry_of_its_own():
    dataset, decoded = in_memory(600, 64, Choices())
    assert len(set(dataset.digests)) == len(dataset.images) == 600
    found = [decoded.get(digest, "ignore") for digest in dataset.digests]
    assert {image.shape for image in found} == {(107, 142, 3)}
    assert len({id(image) for image in found}) == runs_gpu_loop.DISTINCT
    assert not dataset.images[0].path.exists()
    full, _ = in_memory(1, 224, Choices())
    assert full.total == 1
    assert runs_gpu_loop.DISTINCT * np.prod(runs_gpu_loop.PHOTOGRAPH) * 3 < 200e6


def test_it_runs_in_a_fresh_process_on_this_cpu_and_stands_in_the_report(monkeypatch, tmp_path):
    monkeypatch.setitem(runs_gpu_steps.IMAGES, "cpu", 40)
    monkeypatch.setattr(runs_gpu_steps, "ROUNDS", 2)
    request = Request(weights="sample", device="cpu", threads=1, only=("loop",))
    done = runs_gpu.gpu(request, tmp_path)
    assert [(step.name, step.state) for step in done.steps] == [("loop D fp32 onnxruntime", "done")], done.steps
    (record,) = done.records
    said, run = record.conditions, record.networks[0]
    assert (record.kind, record.samples.unit, len(record.samples.values)) == ("loop", "seconds", 2)
    assert len(said["session_seconds"]) == len(said["stage_compute_seconds"]) == 2
    assert min(*record.samples.values, *said["session_seconds"]) > 0
    assert said["session_measured"].startswith("floats of up to 16 images ready in host memory")
    assert said["limiting"] in ("compute", "upload", "resize", "store")
    assert said["omp_wait_policy"] == os.environ.get("OMP_WAIT_POLICY", "passive")
    assert "stage_decode_seconds" not in said, "nothing is decoded: it lies in memory"
    assert run.session["transfers"] == "host to host"
    assert run.passes == [{"form": "crop", "scale": 73, "grid": "center", "flip": False}]
    assert (record.workload.batch, record.workload.data["images"]) == (16, 40)
    assert target(record).state == "not run", "this is no GPU"
    assert f"{NAME}: not run".replace("'", "&#39;") in (tmp_path / "index.html").read_text(encoding="utf-8")


def test_an_engine_is_also_timed_by_its_own_clock(monkeypatch):
    _, cuda, _ = install(monkeypatch, "10.16.1")
    (record,) = time_loop(loop("tensorrt", "fp16", "cuda"))
    said = record.conditions
    session = record.networks[0].session
    assert (session["device"], session["engine_input"]) == ("cuda:0", "pixels")
    assert said["session_measured"].startswith("pixels of up to 32 images ready in host memory")
    assert said["session_measured"].endswith(f"{pipeline.IN_FLIGHT + 1} calls under way")
    assert len(said["engine_call_seconds"]) == 2 * runs_gpu_loop.CALLS
    assert (said["engine_batch"], said["engine_transfers"], said["engine_cuda_graph"]) == (32, "excluded", "captured")
    found = target(as_vgg16(record))
    assert found.state in ("met", "not met")
    assert "images/s, transfers included; the engine by itself does" in found.found
    assert not any(cuda.live.values())


def test_the_loop_and_the_session_beside_it_open_one_engine_and_no_floats_are_made(monkeypatch):
    install(monkeypatch, "11.0.0")
    found, opened = [], tensorrt.open_session
    monkeypatch.setattr(tensorrt, "open_session", lambda *given: found.append(opened(*given)) or found[-1])
    monkeypatch.setattr(pipeline, "to_input", None)
    monkeypatch.setattr(runs_gpu_loop, "to_input", None)
    time_loop(loop("tensorrt", "fp16", "cuda", rounds=1))
    assert len({session.info["engine_key"] for session in found}) == 1
    assert [session.info["engine_source"] for session in found] == ["built", "cache", "cache"]


@pytest.fixture
def sessions(monkeypatch):
    """Fake sessions, instant unless a test says otherwise."""
    opened = []

    def open_session(variant, device, threads):
        opened.append(fake.FakeSession(variant, threads=1))
        return opened[-1]

    monkeypatch.setitem(backends.BACKENDS, "fake", "vggbench.backends.fake")
    monkeypatch.setattr(fake, "open_session", open_session)
    return opened


def test_loop_and_session_take_turns_on_the_same_batches(sessions, monkeypatch):
    order = []
    for name in ("loop_once", "session_once"):
        work = getattr(runs_gpu_loop, name)
        monkeypatch.setattr(runs_gpu_loop, name, lambda *given, n=name, w=work: (order.append(n), w(*given))[1])
    time_loop(loop("fake", rounds=2))
    assert order == ["loop_once", "session_once", "session_once", "loop_once"]
    assert sessions[0].calls == 0, "only asked what it takes"
    assert [(each.calls, each.images) for each in sessions[1:]] == [(3, 40)] * 4


def test_a_slow_pipeline_does_not_meet_the_target_and_is_named(sessions, monkeypatch):
    make_views = pipeline.make_views

    def slow(*given):
        time.sleep(0.02)
        return make_views(*given)

    monkeypatch.setattr(pipeline, "make_views", slow)
    (record,) = time_loop(loop("fake", images=64))
    assert record.conditions["limiting"] == "resize"
    found = target(as_vgg16(record))
    assert found.state == "not met"
    assert found.found.endswith("limited by rescaling and cutting")


class Pixels:
    """A session that takes pixels, and remembers how many calls were under way at most."""

    def __init__(self, classes=60):
        self.device, self.info, self.classes = "cuda:0", {}, classes
        self.under_way, self.most, self.given = [], 0, []

    def submit(self, pixels):
        assert pixels.dtype == np.uint8
        self.given.append(pixels.shape)
        self.under_way.append(len(self.given))
        self.most = max(self.most, len(self.under_way))
        mine = len(self.given)

        def wait():
            assert self.under_way.pop(0) == mine, "they end in the order in which they began"
            return np.zeros((len(pixels), self.classes), np.float32)

        return wait

    def close(self):
        pass


def test_a_session_of_pixels_is_given_pixels_with_as_many_calls_under_way(monkeypatch):
    opened = []
    monkeypatch.setattr(backends, "open_session", lambda *given: opened.append(Pixels()) or opened[-1])
    (record,) = time_loop(loop("pytorch", images=160, rounds=1))
    looped, alone = opened[1:]
    assert looped.given == alone.given == [(32, 64, 64, 3)] * 5
    assert looped.most == alone.most == pipeline.IN_FLIGHT + 1
    assert "pixels of up to 32 images" in record.conditions["session_measured"]
    assert record.conditions["session_measured"].endswith(f"{pipeline.IN_FLIGHT + 1} calls under way")


@pytest.mark.parametrize("asked", [None, "active"])
def test_waiting_threads_sleep_unless_the_user_says_otherwise(monkeypatch, asked):
    if asked is None:
        monkeypatch.delenv("OMP_WAIT_POLICY", raising=False)
    else:
        monkeypatch.setenv("OMP_WAIT_POLICY", asked)
    with sleeping_threads():
        assert os.environ["OMP_WAIT_POLICY"] == (asked or "passive")
    assert os.environ.get("OMP_WAIT_POLICY") == asked


# The target


def test_nine_tenths_of_the_medians_meet_it():
    found = target(made([1.0, 1.1, 9.0], [0.99, 1.0, 5.0], engine_call_seconds=[0.1, 0.2, 0.1], engine_batch=20))
    assert (found.state, found.wanted) == ("met", ">= 90 %")
    assert found.found == "91 %: 91 of 100 images/s, transfers included; the engine by itself does 200"
    short = target(made([1.0], [0.89]))
    assert short.state == "not met"
    assert short.found.endswith("transfers included; limited by making inputs and copying them to the device")
    assert target(made([1.0], [0.89]), made([1.0], [0.95])).state == "met"


def test_only_an_engine_on_a_gpu_counts_and_what_eager_pytorch_does_is_said():
    assert target().state == target(made([1.0], [1.0], device="cpu")).state == "not run"
    found = target(made([1.0], [0.95], "pytorch"))
    assert found.state == "not run"
    assert "eager PyTorch's loop reaches 95 %: 100 of 105 images/s" in found.why


def test_a_gpus_steps_have_the_engines_loop_before_the_peers(monkeypatch):
    monkeypatch.setattr(runs_gpu_steps, "resolve_device", lambda device, cuda: "cuda:0")
    steps = runs_gpu_steps.steps_of(Request())
    names = [step.name for step in steps]
    assert names.index("loop D fp16 tensorrt") < names.index("time D tf32 tensorrt")
    assert {step.name: step.needs for step in steps}["loop D fp16 pytorch"] == (("fp16", "pytorch"),)
    asked = []
    monkeypatch.setattr(runs_gpu_steps, "in_fresh_process", lambda work, given: asked.append((work, given)) or [])
    next(step for step in steps if step.name == "loop D fp16 tensorrt").work()
    ((work, given),) = asked
    assert work is time_loop
    assert (given.images, given.variant.weights.width, given.variant.precision) == (4096, 1.0, "fp16")


def test_a_record_of_a_loop_is_read_back_as_it_was():
    record = made([1.0], [0.5])
    assert Record.model_validate_json(record.model_dump_json()) == record
