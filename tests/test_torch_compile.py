"""torch.compile: the contract on one small network, because each compilation takes seconds."""

import numpy as np
import pytest
import torch
from backend_inputs import images, make, reference, relative

from vggbench.backends import open_session, torch_compile
from vggbench.errors import BackendUnavailable, UsageError

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


def test_without_a_compiler_or_headers_it_says_how_to_get_them(monkeypatch, tmp_path):
    monkeypatch.setattr(torch_compile.sysconfig, "get_paths", lambda: {"include": str(tmp_path)})
    monkeypatch.setattr(torch_compile.shutil, "which", lambda name: "/usr/bin/g++")
    assert "apt-get install python3-dev" in torch_compile.available()
    monkeypatch.setattr(torch_compile.shutil, "which", lambda name: None)
    assert "apt-get install g++" in torch_compile.available()
