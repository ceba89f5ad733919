"""`train` started by torchrun: the parts of a batch by default, by option and from a checkpoint."""

import json
from pathlib import Path

import pytest
import torchrun

OPTIONS = ["train", "--network=A", "--width=0.015625", "--crop-size=32", "--batch=6", "--initialization=he"]
OPTIONS += ["--train-scale=[256;512]", "--epochs=2", "--drop-after=1", "--json"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return torchrun.two_classes(tmp_path_factory.mktemp("images"), 8)


def train(world: int, folder: Path, out: Path, *more: str):
    """As it comes: with one thread a worker unless the command asks for more."""
    return torchrun.started(world, out.parent / "cache", *OPTIONS, f"--data={folder}", f"--out={out}", *more)


def test_two_workers_by_default_are_one_worker_with_two_parts(folder, tmp_path):
    outs = [tmp_path / name / "a" for name in ("one", "two")]
    one, two = train(1, folder, outs[0], "--parts=2"), train(2, folder, outs[1])
    found = []
    for done in (one, two):
        assert done.returncode == 0, done.stderr
        document = json.loads(done.stdout)
        assert document["parts"] == 2
        found.append((document["digest"], document["history"]))
    assert found[0] == found[1]
    weights = [(out / "weights.safetensors").read_bytes() for out in outs]
    assert b"parts 2; threads a part: " in weights[0]
    assert weights[0] == weights[1]
    again = train(1, folder, outs[1])
    assert json.loads(again.stdout)["digest"] == found[0][0], "without --parts it goes on with those it began with"
    other = train(1, folder, outs[1], "--parts=3")
    assert (other.returncode, other.stdout) == (2, "")
    assert len(other.stderr.splitlines()) == 1
    assert "differs in recipe: parts 2, here 3" in other.stderr


def test_parts_that_two_workers_cannot_share_end_both_in_one_line(folder, tmp_path):
    done = train(2, folder, tmp_path / "out", "--parts=3")
    ours = [line for line in done.stderr.splitlines() if line.startswith("vggbench:")]
    assert len(ours) == 1, done.stderr
    assert " of 2: 3 parts of a batch cannot be dealt to 2 workers alike." in ours[0]
    assert "exitcode  : 2" in done.stderr
    assert not (tmp_path / "out").exists()
