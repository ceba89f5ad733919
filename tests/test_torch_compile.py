"""torch.compile: the contract on one small network, because each compilation takes seconds."""

import types

import numpy as np
import pytest
import torch
from backend_inputs import images, make, reference, relative

from vggbench.backends import made_for_a_batch, open_session, torch_compile
from vggbench.backends.pytorch import TorchSession
from vggbench.errors import BackendUnavailable, UsageError
from vggbench.runs_timing import Task, time_variant

missing = torch_compile.available()


@pytest.mark.filterwarnings("ignore:.torch.jit:DeprecationWarning")  # torch's own, while it compiles
@pytest.mark.skipif(missing is not None, reason=str(missing))
@pytest.mark.parametrize(
    ("form", "graphs", "sizes"),
    [("crop", 1, ((64, 64),)), ("dense", 5, ((75, 133), (96, 64), (70, 99), (131, 64)))],
)
def test_compiled_scores_are_the_reference_networks_and_compilation_is_recorded(form, graphs, sizes):
    variant = make("torch-compile", "shallow-B", form)
    session = open_session(variant, "cpu", 2)
    assert (session.info["compilations"], session.info["compile_seconds"]) == (0, 0.0)
    for sides in sizes:
        batch = images(2, *sides)
        scores = session(batch)
        assert (scores.shape, scores.dtype, scores.flags.owndata) == ((2, 60), np.float32, True)
        assert relative(scores, reference(variant, batch)) <= 1e-4
        assert session.info["compilations"] == graphs, "other sizes and a second call need no other graphs"
    assert session.info["compile_seconds"] > 0
    assert (session.info["backend"], session.info["arithmetic"], session.info["threads"]) == (
        "torch-compile",
        "fp32",
        2,
    )
    with pytest.raises(UsageError, match="accepted are"):
        session(images(1, 63, 64))
    before = torch.get_num_threads()
    session.close()
    session.close()
    assert torch.get_num_threads() <= before
    with pytest.raises(ValueError, match="closed"):
        session(batch)


@pytest.mark.filterwarnings("ignore:.torch.jit:DeprecationWarning")
@pytest.mark.skipif(missing is not None, reason=str(missing))
def test_a_second_batch_is_timed_on_kernels_of_its_own():
    """In one session it would get kernels for any batch, chosen by the first one's."""
    assert made_for_a_batch("torch-compile")
    variant = make("torch-compile", "shallow-B")
    task = Task(variant, (2, 3), (64, 64), device="cpu", threads=2, min_seconds=0.0, max_seconds=0.0, min_iterations=1)
    assert [record.networks[0].session["compilations"] for record in time_variant(task)] == [1, 1]


class OnAGpu(TorchSession):
    """Times and takes pixels as on a GPU, on the CPU."""

    def __init__(self, *given):
        super().__init__(*given)
        self.time_calls = lambda images, calls, back_to_back: [float(self(images).shape[0])] * calls
        self.submit = lambda pixels: lambda: self(pixels)
        self._clock = types.SimpleNamespace(forget=lambda: None)


@pytest.mark.filterwarnings("ignore:.torch.jit:DeprecationWarning")
@pytest.mark.skipif(missing is not None, reason=str(missing))
def test_compilation_is_recorded_and_fails_in_one_line_where_a_gpus_clock_times_too(monkeypatch):
    monkeypatch.setattr(torch_compile, "TorchSession", OnAGpu)
    session = open_session(make("torch-compile", "shallow-B"), "cpu", 2)
    assert session.time_calls(images(2), 3, False) == [2.0] * 3
    assert session.info["compilations"] == 1
    assert session.info["compile_seconds"] > 0
    assert session.submit(images(2))().shape == (2, 60), "an evaluation on a GPU hands over pixels, as to eager PyTorch"
    session.close()
    assert not hasattr(session, "submit")

    def fail(*_, **__):
        raise RuntimeError("the compiler\ncrashed")

    monkeypatch.setattr("torch._inductor.compile_fx.compile_fx", fail)
    session = open_session(make("torch-compile", "shallow-B"), "cpu", 2)
    with pytest.raises(BackendUnavailable, match="Use --backend pytorch"):
        session.time_calls(images(2), 1, False)
    session.close()


@pytest.mark.skipif(missing is not None, reason=str(missing))
def test_a_compiler_that_fails_is_one_line(monkeypatch):
    def fail(*_, **__):
        raise RuntimeError("the compiler\ncrashed")

    monkeypatch.setattr("torch._inductor.compile_fx.compile_fx", fail)
    session = open_session(make("torch-compile", "shallow-B"), "cpu", 2)
    with pytest.raises(BackendUnavailable, match="Use --backend pytorch") as error:
        session(images(1))
    assert "\n" not in str(error.value)
    session.close()


def test_the_search_for_kernels_prints_no_tables(monkeypatch):
    from torch._inductor import config

    monkeypatch.setattr(config, "autotune_num_choices_displayed", 10)
    monkeypatch.delenv("TORCHINDUCTOR_AUTOTUNE_NUM_CHOICES_DISPLAYED", raising=False)
    torch_compile._compile(None, lambda x: x, mode="max-autotune", dense=False)
    assert config.autotune_num_choices_displayed == 0


def test_without_a_compiler_or_headers_it_says_how_to_get_them(monkeypatch, tmp_path):
    monkeypatch.setattr(torch_compile.sysconfig, "get_paths", lambda: {"include": str(tmp_path)})
    monkeypatch.setattr(torch_compile.shutil, "which", lambda name: "/usr/bin/g++")
    assert "apt-get install python3-dev" in torch_compile.available()
    monkeypatch.setattr(torch_compile.shutil, "which", lambda name: None)
    assert "apt-get install g++" in torch_compile.available()
