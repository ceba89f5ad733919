"""Any number of processes, killed and replaced by another number, ends in the record of one process."""

import json
import random

import measuring
import pytest
import torch
import worker_processes

IMAGES = 96
RECIPE = {
    "network": "A", "width": 1 / 16, "hidden_width": 1 / 64, "crop_size": 32, "batch": 10, "input_scale": 1 / 64,
    "epochs": 3, "drop_after": [3], "dropout": 0.5, "initialization": "he",
}  # fmt: skip


@pytest.fixture(scope="module")
def processes():
    with worker_processes.server() as found:
        yield found


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("images")
    measuring.make_dataset(folder, IMAGES)
    (folder / "030.jpg").write_bytes(b"no image")
    return folder


@pytest.fixture(scope="module")
def alone(processes, folder, tmp_path_factory):
    """The record of one process."""
    scratch = tmp_path_factory.mktemp("alone")
    assert processes.run(world=1, folder=folder, cache=scratch / "cache", output=scratch / "record.json") == [0]
    return json.loads((scratch / "record.json").read_text())["record"]


@pytest.mark.parametrize("world", [2, 3])
def test_more_workers_give_the_record_of_one(processes, folder, alone, tmp_path, world):
    task = {"folder": folder, "cache": tmp_path / "cache", "output": tmp_path / "record.json"}
    assert processes.run(world=world, **task) == [0] * world
    assert json.loads((tmp_path / "record.json").read_text())["record"] == alone
    assert len(alone["samples"]["values"]) == IMAGES - 1
    shards = list((tmp_path / "cache").rglob("*.safetensors"))
    assert len(shards) >= 3 * world, "every worker writes its own shards of the three passes"
    assert processes.run(world=1, **task) == [0]
    assert json.loads((tmp_path / "record.json").read_text())["cached"] == 3 * IMAGES


@pytest.mark.parametrize(("first", "then"), [(3, 2), (2, 3), (3, 1), (2, 2)])
def test_a_worker_killed_and_a_restart_with_another_number_give_the_same_record(
    processes, folder, alone, tmp_path, first, then
):
    task = {"folder": folder, "cache": tmp_path / "cache", "output": tmp_path / "record.json"}
    killed = random.Random(first * 10 + then).randrange(first)
    statuses = processes.run(world=first, kill=(killed, 1.2), seconds_per_image=0.01, **task)
    assert statuses[killed] == -9
    assert not (tmp_path / "record.json").exists(), "it was killed too late to show anything"
    assert processes.run(world=then, **task) == [0] * then
    found = json.loads((tmp_path / "record.json").read_text())
    assert found["record"] == alone
    assert 0 < found["cached"] < 3 * IMAGES, "what was done is not done again"


def weights(folder):
    return torch.load(folder / "checkpoint.pt", weights_only=True)["model"]


def distance(one, other):
    return max(float((one[name] - other[name]).abs().max()) for name in one)


@pytest.fixture(scope="module")
def good_folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("good")
    measuring.make_dataset(folder, 95)  # the last batch of an epoch is half as large as the others
    return folder


def test_two_workers_train_as_one_and_resume_what_one_began(processes, good_folder, tmp_path):
    # In FP32 a rounding now and then turns a ReLU or the maximum of a pool over, after which two runs drift apart;
    # what is shown here is that nothing else does.
    task = {"folder": good_folder, "recipe": RECIPE, "dtype": "float64"}
    assert processes.run(world=1, steps=20, output=tmp_path / "one", **task) == [0]
    assert processes.run(world=2, steps=20, output=tmp_path / "two", **task) == [0, 0]
    for world, steps in ((1, 7), (2, 13)):
        assert processes.run(world=world, steps=steps, output=tmp_path / "both", **task) == [0] * world
    one, two, both = (weights(tmp_path / name) for name in ("one", "two", "both"))
    assert processes.run(world=1, steps=1, output=tmp_path / "first", **task) == [0]
    assert distance(one, weights(tmp_path / "first")) > 1e-3, "20 steps lead somewhere"
    assert distance(one, two) < 1e-9
    assert distance(one, both) < 1e-9
    states = [torch.load(tmp_path / name / "checkpoint.pt", weights_only=True)["state"] for name in ("one", "two")]
    assert states[0]["batch"] == states[1]["batch"]
    assert states[0]["history"][0]["training_loss"] == pytest.approx(states[1]["history"][0]["training_loss"], 1e-5)


@pytest.mark.parametrize("world", [2, 3])
def test_a_step_of_several_workers_is_the_step_of_one(processes, good_folder, tmp_path, world):
    task = {"folder": good_folder, "recipe": RECIPE, "dtype": "float32", "steps": 1}
    assert processes.run(world=1, output=tmp_path / "one", **task) == [0]
    assert processes.run(world=world, output=tmp_path / "many", **task) == [0] * world
    assert distance(weights(tmp_path / "one"), weights(tmp_path / "many")) < 1e-6
