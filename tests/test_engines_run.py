"""Engines run as every backend must, free what they took, and meet their errors in one line."""

from __future__ import annotations

import sys

import numpy as np
import pytest
import test_backend_contract as contract
from backend_inputs import images, make, reference, relative
from fake_tensorrt import MAJORS

from vggbench import backends
from vggbench.backends import BACKENDS, tensorrt
from vggbench.engines import buffers, buffers_cuda
from vggbench.engines.opening import Settings
from vggbench.engines.profile import Profile, profile_for
from vggbench.errors import BackendUnavailable, UsageError
from vggbench.measure.latency import Timed, clock_of, measure_latency
from vggbench.modes import LIKE, Mode
from vggbench.sizes import parse

SMALL = Profile((1, 2, 4), (64, 64, 64), (64, 64, 64))


pytestmark = pytest.mark.usefixtures("own_cache")


@pytest.fixture
def opened(engines):
    return engines


class CpuNamed:
    """A session under another device's name: the contract's tests are written for one on the CPU."""

    def __init__(self, session):
        self._session, self.device, self.info = session, "cpu", {**session.info, "device": "cpu"}

    def __call__(self, batch):
        return self._session(batch)


CONTRACT = [name for name in dir(contract.TestEveryPrecision) if name.startswith("test_")]


@pytest.mark.parametrize(("version", "precision"), list(zip(MAJORS, ("fp16", "int8", "fp32"), strict=True)))
def test_the_contract_of_every_backend_holds(version, precision, machine, opened):
    machine(version)
    sessions = {}

    def once(*args, **kwargs):
        key = str((args, kwargs))
        if key not in sessions:
            sessions[key] = CpuNamed(opened(*args, **kwargs))
        return sessions[key]

    assert len(CONTRACT) >= 6
    for name in CONTRACT:
        getattr(contract.TestEveryPrecision(), name)("tensorrt", precision, once)


@pytest.mark.parametrize(("network", "precision"), [("A-LRN", "fp32"), ("A-LRN", "fp16"), ("C", "int8"), ("C", "tf32")])
def test_scores_are_the_reference_networks(network, precision, machine, opened):
    machine("10.16.1")
    for form, sides, more in (
        ("crop", (64, 64), {}),
        ("dense", (75, 133), {"pool_rounding": "ceil"}),
        ("dense", (75, 133), {"pool_rounding": "floor", "score_pool": "mean_probs"}),
    ):
        batch = images(3, *sides)
        found = opened("tensorrt", network, form, precision, **more)(batch)
        expected = reference(make("tensorrt", network, form, precision, **more), batch)
        assert relative(found, expected) <= {"int8": 0.15, "fp16": 5e-3}.get(precision, 1e-4)


def test_batches_beyond_the_profile_run_in_pieces_in_order(machine, opened):
    _, cuda, _ = machine()
    whole, split = opened("tensorrt"), opened("tensorrt", profile=SMALL)
    for count in (1, 4, 5, 8, 19):
        batch = images(count)
        before = cuda.calls.count("cudaMemcpyAsync")
        scores = split(batch)
        assert cuda.calls.count("cudaMemcpyAsync") - before == 2 * -(-count // 4)
        assert relative(scores, whole(batch)) < 1e-6
        assert scores.shape == (count, 60)


def test_a_rest_smaller_than_the_least_batch_is_filled_up(machine, opened):
    machine()
    session = opened("tensorrt", profile=Profile((3, 3, 4), (64, 64, 64), (64, 64, 64)))
    batch = images(5)
    assert relative(session(batch), opened("tensorrt")(batch)) < 1e-6
    assert session(batch[:1]).shape == (1, 60)


def test_a_size_outside_the_profile_is_one_line_that_names_the_range_and_the_option(machine, opened):
    machine()
    session = opened("tensorrt", form="dense", profile=profile_for(64, True, parse("1:2:2", "64:80:96")))
    assert session(images(3, 64, 96)).shape == (3, 60)
    with pytest.raises(UsageError, match=r"64x97 .*width 64 to 96.*--sizes 64:80:97\.$") as error:
        session(images(1, 64, 97))
    assert "\n" not in str(error.value)
    with pytest.raises(UsageError, match=r"A batch of 3 .*1 to 2.*--batch 1:3:3\.$"):
        session.time_calls(images(3, 64, 64), 1, False)
    assert session(images(1, 64, 96)).shape == (1, 60)


@pytest.mark.parametrize("version", MAJORS)
def test_a_full_gpu_is_one_line_wherever_it_fills_up(version, machine, opened):
    _, cuda, faults = machine(version)
    session = opened("tensorrt")
    cuda.memory_bytes = cuda.used + 1000
    with pytest.raises(BackendUnavailable, match=r"no room for \d+ MiB.*--batch, --sizes \(of latency: ") as error:
        session(images(40))
    assert "\n" not in str(error.value)
    cuda.memory_bytes = 1 << 34
    assert session(images(40)).shape == (40, 60)
    faults.context = True
    with pytest.raises(BackendUnavailable, match=r"no room for 1 MiB"):
        opened("tensorrt", precision="fp16")


def test_an_engine_that_cannot_run_is_one_line_and_frees_everything(machine, opened):
    _, _, faults = machine()
    session = opened("tensorrt")
    faults.enqueue = True
    with pytest.raises(BackendUnavailable, match="could not run the engine: enqueueV3 failed"):
        session(images(1))
    faults.enqueue = False
    assert session(images(1)).shape == (1, 60)


def test_a_plan_that_tensorrt_refuses_is_built_anew_once(machine, opened, caplog):
    trt, _, faults = machine()
    opened("tensorrt")
    real, refusals = trt.Runtime.deserialize_cuda_engine, ["Serialization assertion stdVersionRead == kVERSION failed"]

    def refuse_once(self, plan):
        faults.deserialize = refusals.pop() if refusals else ""
        return real(self, plan)

    trt.Runtime.deserialize_cuda_engine = refuse_once
    session = opened("tensorrt")
    assert session.info["engine_source"].startswith("rebuilt: TensorRT 11.0.0.114 does not take this plan")
    assert "is built anew" in caplog.text
    assert session(images(1)).shape == (1, 60)
    trt.Runtime.deserialize_cuda_engine = real
    assert opened("tensorrt").info["engine_source"] == "cache"
    faults.deserialize = "always"
    with pytest.raises(BackendUnavailable, match="does not take"):
        opened("tensorrt")


@pytest.mark.parametrize(
    "said",
    [
        "1: [defaultAllocator.cpp::allocate::19] Error Code 1: Cuda Runtime (out of memory)",
        "2: [safeDeserialize.cpp::load::300] Error Code 2: OutOfMemory (no further information)",
        "Requested amount of GPU memory (1073741824 bytes) could not be allocated.",
    ],
)
def test_a_plan_that_has_no_room_is_not_built_anew(said, machine, opened):
    _, _, faults = machine()
    opened("tensorrt").close()
    faults.deserialize = said
    with pytest.raises(BackendUnavailable, match=r"^The GPU has no room for \d+ MiB"):
        opened("tensorrt")
    faults.deserialize = ""
    assert opened("tensorrt").info["engine_source"] == "cache"


def test_openings_leave_nothing_on_the_gpu(machine):
    _, cuda, _ = machine()
    variant, settings = make("tensorrt"), Settings(profile=SMALL)
    for _ in range(20):
        session = tensorrt.open_session(variant, "cuda", 1, settings)
        session(images(5))
        session.time_calls(images(2), 3, True)
        session.close()
        session.close()
        assert not any(cuda.live.values())
    with pytest.raises(ValueError, match="closed"):
        session(images(1))
    with pytest.raises(ValueError, match="closed"):
        session.time_calls(images(1), 1, False)


@pytest.mark.parametrize("back_to_back", [False, True])
def test_calls_are_timed_by_events_around_one_launch_of_a_cuda_graph(back_to_back, machine, opened):
    _, cuda, _ = machine()
    session = opened("tensorrt")
    assert isinstance(session, Timed)
    for calls in (1, 2, 300):
        taken = session.time_calls(images(2), calls, back_to_back)
        assert len(taken) == calls
        assert min(taken) > 0
    assert cuda.calls.count("cudaGraphInstantiate") == 1
    assert cuda.calls.count("cudaGraphLaunch") == 303
    assert session.info["cuda_graph"] == "captured"
    assert session.info["transfers"] == "excluded"
    assert clock_of(session) == "CUDA events around one enqueue"


def test_a_graph_is_captured_anew_after_a_change_of_shape_or_mode(machine, opened):
    _, cuda, _ = machine()
    session = opened("tensorrt")
    for batch in (1, 2, 2, 1):
        session.time_calls(images(batch), 2, False)
    assert cuda.calls.count("cudaGraphInstantiate") == 3
    session(images(30))
    session.time_calls(images(1), 2, False)
    assert cuda.calls.count("cudaGraphInstantiate") == 4
    session.use(Mode(cuda_graph=False))
    launched = cuda.calls.count("cudaGraphLaunch")
    session.time_calls(images(1), 5, False)
    assert cuda.calls.count("cudaGraphLaunch") == launched
    assert session.info["cuda_graph"] == "off"


def test_a_capture_that_fails_is_said_and_plain_enqueues_are_timed(machine, opened, caplog):
    from fake_cuda import cudaError_t

    _, cuda, _ = machine()
    session = opened("tensorrt")
    cuda.fail["cudaGraphInstantiate"] = cudaError_t.cudaErrorStreamCaptureUnsupported
    assert len(session.time_calls(images(1), 3, False)) == 3
    assert session.info["cuda_graph"].startswith("capture failed (CUDA's cudaGraphInstantiate failed")
    assert "plain enqueues are timed" in caplog.text


@pytest.mark.parametrize(("like", "copies"), [("trtexec-10", 2), ("trtexec-11", 0)])
def test_trtexecs_two_sets_of_defaults_are_modes(like, copies, machine, opened):
    _, cuda, _ = machine()
    session = opened("tensorrt")
    session.use(LIKE[like])
    session.time_calls(images(1), 1, False)
    before = cuda.calls.count("cudaMemcpyAsync")
    assert len(session.time_calls(images(1), 20, False)) == 20
    assert cuda.calls.count("cudaMemcpyAsync") - before == 20 * copies + 2  # two for the images themselves
    assert session.info["in_flight"] == 2
    assert session.info["transfers"] == LIKE[like].said["transfers"]


def test_the_harness_times_a_session_by_its_own_clock(machine, opened):
    machine()
    found = measure_latency(opened("tensorrt"), 2, (64, 64), min_seconds=0.02, max_seconds=0.05, warmup_seconds=0.0)
    assert len(found.values) >= 10


@pytest.mark.parametrize("version", MAJORS)
def test_a_layer_that_falls_back_is_named_in_the_record_and_warned_of(version, machine, opened, caplog):
    machine(version, fall_back={"block2.conv1", "fc8"})
    session = opened("tensorrt", precision="int8", profile=SMALL)
    assert session.info["fallbacks"] == "block2.conv1 in fp32, fc8 in fp32"
    assert session.info["arithmetic"] == "mixed: 2 of 11 layers fell back"
    assert session.info["layers_unseen"] == ""
    assert "2 of 11 layers wider than int8: block2.conv1 in fp32, fc8 in fp32" in caplog.text
    assert '["block3.conv1","int8"' in session.info["layers"]


def test_buffers_come_from_what_is_there_in_order_and_by_name(machine, monkeypatch):
    machine()
    monkeypatch.undo()
    monkeypatch.setattr(buffers_cuda, "_cuda", lambda: None)
    monkeypatch.setitem(sys.modules, "pycuda", None)
    with pytest.raises(BackendUnavailable, match=r"torch: .*; cuda-python: not installed; pycuda: not") as error:
        buffers.provider()
    assert str(error.value).endswith("pip install cuda-python")
    with pytest.raises(UsageError, match="Known: torch, cuda-python, pycuda"):
        buffers.provider("cupy")


def test_an_error_of_cudas_is_one_line(machine, opened):
    from fake_cuda import cudaError_t

    _, cuda, _ = machine()
    session = opened("tensorrt")
    cuda.fail["cudaMemcpyAsync"] = cudaError_t.cudaErrorInvalidValue
    with pytest.raises(BackendUnavailable, match=r"^CUDA's cudaMemcpyAsync failed \(cudaErrorInvalidValue\)"):
        session(images(1))
    cuda.fail.clear()


def test_the_backends_table_opens_it(machine):
    machine()
    session = backends.open_session(make("tensorrt", precision="fp16"), "auto", 1)
    assert session.device == "cuda:0"
    assert np.isfinite(session(images(2))).all()
    session.close()
    assert BACKENDS["tensorrt"] == "vggbench.backends.tensorrt"
