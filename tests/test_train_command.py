"""`vggbench train`: what an option says is done or refused in one line, never left aside."""

import json
import signal

import measuring
import pytest
import torchrun
from typer.testing import CliRunner

from vggbench.cli import app
from vggbench.train import loop

pytestmark = pytest.mark.usefixtures("own_cache")
TINY = ["--network=A", "--width=0.015625", "--crop-size=32", "--epochs=1", "--initialization=he", "--threads=1"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return torchrun.two_classes(tmp_path_factory.mktemp("images"), 6)


def train(folder, out, *more):
    return CliRunner().invoke(app, ["train", f"--data={folder}", f"--out={out}", *TINY, *more])


@pytest.mark.parametrize(
    ("option", "words"),
    [
        ("--batch=0", "batch 0: at least 1"),
        ("--width=0", "width 0.0: accepted are numbers above 0"),
        ("--crop-size=0", "Crop size 0 px: accepted are multiples of 32"),
        ("--crop-size=50", "Crop size 50 px: accepted are multiples of 32"),
        ("--momentum=-1", "momentum -1.0: accepted are"),
        ("--seed=-1", "seed -1: accepted are"),
        ("--network=F", "No network 'F'. Known: A, A-LRN"),
        ("--device=cpu:3", "No device 'cpu:3'. Known: cpu, cuda, cuda:N."),
        ("--device=cuda:x", "No device 'cuda:x'"),
    ],
)
def test_what_no_run_can_do_is_one_line_and_nothing_is_written(folder, tmp_path, option, words):
    result = train(folder, tmp_path / "out", option)
    assert result.exit_code == 2, result.output
    assert words in result.stderr
    assert result.stderr.count("\n") == 1
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("option", ["--threads=0", "--workers=-1", "--images=0"])
def test_counts_below_their_least_are_refused(folder, tmp_path, option):
    assert train(folder, tmp_path / "out", option).exit_code == 2


def test_a_tuning_set_of_other_classes_is_refused(folder, tmp_path):
    some = tmp_path / "some"
    measuring.make_dataset(some / "dogs", 3, 0)
    result = train(folder, tmp_path / "out", f"--tuning-data={some}")
    assert result.exit_code == 4
    assert "some are missing, and labels would be shifted" in result.stderr
    measuring.make_dataset(some / "ants", 3, 0)
    assert "class 'ants' is not in it" in train(folder, tmp_path / "out", f"--tuning-data={some}").stderr


def test_ctrl_c_says_where_it_goes_on(folder, tmp_path, monkeypatch):
    def interrupted(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(loop, "train", interrupted)
    result = train(folder, tmp_path / "out", "--batch=4")
    assert result.exit_code == 130
    last = result.stderr.splitlines()[-1]
    assert last == "vggbench: Interrupted. The same command goes on from the last checkpoint, if there is one."


def test_the_command_trains_and_says_where_the_weights_are(folder, tmp_path):
    result = train(folder, tmp_path / "out", "--batch=4", "--json")
    assert result.exit_code == 0, result.output
    document = json.loads(result.stdout)
    assert (tmp_path / "out" / "weights.safetensors").samefile(document["weights"])
    assert [row["epoch"] for row in document["history"]] == [1]
    assert (
        "<svg" in (tmp_path / "out" / "curve.html").read_text()
        or "vega" in (tmp_path / "out" / "curve.html").read_text()
    )


def test_a_file_where_the_folder_should_be_is_found_before_the_training(folder, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setattr(loop, "train", lambda *_, **__: pytest.fail("trained"))
    result = train(folder, tmp_path / "file")
    assert (result.exit_code, result.stdout) == (7, "")
    assert result.stderr == f"vggbench: {tmp_path / 'file'}: cannot be made (a file is there). Name another --out.\n"


def test_ctrl_c_ends_a_training_in_one_line_however_often_it_is_pressed(folder, tmp_path, monkeypatch):
    def interrupted(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(loop, "train", interrupted)
    result = train(folder, tmp_path / "out")
    assert (result.exit_code, signal.getsignal(signal.SIGINT)) == (130, signal.SIG_IGN)
    assert len(result.stderr.splitlines()) == 1
