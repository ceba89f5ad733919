"""The torch-tensorrt session against the recorded interface: what is asked of the library, and what it says."""

import sys
import types

import pytest
import torch
from backend_inputs import TOLERANCE, images, make, reference, relative
from fake_torch_tensorrt import SURFACE, install, install_modelopt

from vggbench import backends, environment
from vggbench.backends import open_session, torch_tensorrt
from vggbench.engines.profile import Profile
from vggbench.errors import BackendUnavailable, UsageError
from vggbench.measure.latency import Moded, Timed, measure_latency
from vggbench.modes import LIKE
from vggbench.sizes import parse


@pytest.fixture
def session(monkeypatch, tmp_path):
    """Makes a session on a machine whose GPU is this CPU."""
    return install(monkeypatch, tmp_path)


@pytest.fixture
def modelopt(monkeypatch):
    return install_modelopt(monkeypatch)


@pytest.mark.parametrize("version", sorted(SURFACE))
def test_every_version_takes_what_is_asked_of_it_and_the_scores_are_the_references(session, version):
    opened, library = session(version)
    batch = images(3)
    assert relative(opened(batch), reference(make("torch-tensorrt"), batch)) <= TOLERANCE["fp32"]
    (options,) = library.calls
    assert (options["require_full_compilation"], options["min_block_size"], options["disable_tf32"]) == (True, 1, True)
    assert "enabled_precisions" not in options
    (given,) = options["arg_inputs"]
    assert [given[name][0] for name in ("min_shape", "opt_shape", "max_shape")] == [1, 32, 64]
    assert given["opt_shape"][1:] == (3, 64, 64)
    assert set(options) <= set.intersection(*(set(each["compile"]) for each in SURFACE.values()))


def test_one_engine_serves_every_batch_of_any_size_whatever_came_before(session):
    opened, library = session(sizes=parse("2:3:4", None))
    whole = images(9)
    expected = reference(make("torch-tensorrt"), whole)
    for count in (4, 1, 9, 5, 3):
        found = opened(whole[:count])
        assert found.shape == (count, 60)
        assert relative(found, expected[:count]) <= TOLERANCE["fp32"], "larger ones in pieces, smaller ones filled up"
    assert len(library.calls) == opened.info["compilations"] == 1
    assert opened.info["profile"] == "batch 2:3:4 height 64:64:64 width 64:64:64"
    with pytest.raises(UsageError, match=r"A batch of 5 is outside the engine's profile: 2 to 4"):
        opened.time_calls(whole[:5], 1, False)


def test_dense_images_get_the_engine_of_their_size_and_others_than_asked_for_are_refused(session):
    opened, library = session(network="C", form="dense", sizes=parse("1", "64:80:96"))
    variant = make("torch-tensorrt", "C", "dense")
    for height, width in ((64, 90), (80, 80), (64, 70), (96, 66)):
        some = images(1, height, width)
        assert relative(opened(some), reference(variant, some)) <= TOLERANCE["fp32"]
    assert len(library.calls) == 2, "a side of 64 has one row of scores, and so an engine of its own"
    with pytest.raises(UsageError, match=r"Images of 64x97 .*--sizes 64:80:97\.$"):
        opened(images(1, 64, 97))


def test_what_is_timed_gets_an_engine_for_its_batch_alone_which_is_there_once_it_is_open(session, monkeypatch):
    opened, library = session()
    on_cpu = lambda variant, device, threads, asked: type(opened)(variant, "cpu", threads, asked)  # noqa: E731
    monkeypatch.setattr(torch_tensorrt, "TrtTorchSession", on_cpu)
    monkeypatch.setattr(torch_tensorrt, "available", lambda: None)
    monkeypatch.setattr(torch_tensorrt, "precisions", lambda device: {"fp32": None})
    assert backends.made_for_a_batch("torch-tensorrt")
    timed = backends.open_for(make("torch-tensorrt"), "cuda", 1, 5, (64, 64))
    (options,) = library.calls
    assert options["arg_inputs"][0]["shape"] == (5, 3, 64, 64)
    assert timed.info["compile_seconds"] > 0
    assert len(timed.time_calls(images(5), 2, False)) == 2


def test_fp16_is_the_networks_own_type_between_fp32_in_and_out(session):
    opened, library = session(precision="fp16")
    batch = images(2)
    assert relative(opened(batch), reference(make("torch-tensorrt"), batch)) <= TOLERANCE["fp16"]
    assert {each.dtype for each in library.opened[0].program.parameters()} == {torch.float16}


@pytest.mark.parametrize(("precision", "off"), [("fp32", True), ("tf32", False)])
def test_tf32_is_said_to_the_builder(session, precision, off):
    opened, library = session(precision=precision)
    opened(images(1))
    assert library.calls[0]["disable_tf32"] is off
    assert opened.info["tf32"] is not off


def test_int8_runs_through_the_session(session, modelopt):
    opened, _ = session(precision="int8")
    batch = images(4)
    assert relative(opened(batch), reference(make("torch-tensorrt"), batch)) <= TOLERANCE["int8"]
    assert "ranges" in opened.info


def test_a_partial_compilation_is_refused_and_its_nodes_are_named(session):
    opened, library = session(left=(torch.relu, torch.neg))
    with pytest.raises(BackendUnavailable, match=r"leave a part of the network in torch \(.*relu.*neg.*\)") as error:
        opened(images(1))
    assert "\n" not in str(error.value)
    assert [call.get("dryrun") for call in library.calls] == [None, True]


def test_a_partial_compilation_that_the_library_does_not_notice_is_refused_too(session, monkeypatch):
    opened, _ = session(left=(torch.relu,))
    real = sys.modules["torch_tensorrt"].dynamo.compile

    def lax(program, **options):
        return real(program, **{**options, "require_full_compilation": False})

    monkeypatch.setattr(sys.modules["torch_tensorrt"], "dynamo", types.SimpleNamespace(compile=lax))
    with pytest.raises(BackendUnavailable, match="leave a part"):
        opened(images(1))


def test_the_plan_is_the_engine_that_ran(session):
    opened, library = session()
    opened(images(2))
    assert opened.plan(64, 64) == library.opened[0].serialized_engine
    assert len(library.calls) == 1


def test_it_times_itself_in_a_mode_and_closes_twice(session):
    opened, _ = session(profile=Profile((1, 1, 1), (64, 64, 64), (64, 64, 64)))
    assert isinstance(opened, Timed)
    assert isinstance(opened, Moded)
    opened.use(LIKE["trtexec-10"])
    assert len(measure_latency(opened, 1, (64, 64), 0.0).values) >= 10
    assert opened.info["transfers"] == "host to device and back, pinned memory"
    opened.close()
    opened.close()
    with pytest.raises(ValueError, match="closed"):
        opened(images(1))


def test_without_a_driver_it_is_one_line_and_its_import_costs_nothing(monkeypatch):
    monkeypatch.setattr(environment, "has_cuda", lambda: False)
    with pytest.raises(BackendUnavailable, match="pip install torch-tensorrt") as error:
        open_session(make("torch-tensorrt"))
    assert error.value.exit_code == 6
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("raised", [AssertionError("Torch is not for CUDA"), AssertionError(), OSError("no lib")])
def test_whatever_its_import_raises_it_is_not_available_and_why(monkeypatch, raised):
    class Finder:
        def find_spec(self, name, path=None, target=None):
            if name == "torch_tensorrt":
                raise raised

    monkeypatch.setattr(environment, "has_cuda", lambda: True)
    monkeypatch.setattr(sys, "meta_path", [Finder(), *sys.meta_path])
    monkeypatch.delitem(sys.modules, "torch_tensorrt", raising=False)
    assert f"does not load ({type(raised).__name__}" in torch_tensorrt.available()


def test_on_a_cpu_it_offers_nothing_and_says_why():
    assert set(torch_tensorrt.precisions("cpu").values()) == {"TensorRT runs on NVIDIA GPUs alone"}
    assert all(torch_tensorrt.precisions("cuda").values()) or torch.cuda.is_available()
    assert set(torch_tensorrt.precisions("cpu")) == set(backends.PRECISIONS)
