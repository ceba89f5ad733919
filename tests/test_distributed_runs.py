"""Any number of processes, killed and replaced by another number, ends in the record of one process."""

import json
import random

import measuring
import pytest

IMAGES = 96


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("images")
    measuring.make_dataset(folder, IMAGES, bad="030.jpg")
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
