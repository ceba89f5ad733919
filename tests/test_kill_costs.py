"""What a kill costs, counted in views: the block that the killed worker had in work, and nothing that was finished."""

import json
from collections import Counter

import measuring
import pytest
from measuring import MIXED, WEIGHTS

from vggbench.measure.accuracy import SHARD_SECONDS
from vggbench.measure.shards import block_length

IMAGES = 96
VIEWS = IMAGES * sum(step.views for step in MIXED.passes)
#: A worker has one block in work: on a CPU, where a call of the session ends with its scores.
LARGEST_BLOCK = max(block_length(step, WEIGHTS.crop_size) * step.views for step in MIXED.passes)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("images")
    measuring.make_dataset(folder, IMAGES)
    return folder


@pytest.fixture(scope="module")
def undisturbed(processes, folder, tmp_path_factory):
    scratch = tmp_path_factory.mktemp("undisturbed")
    task = {"folder": folder, "cache": scratch / "cache", "output": scratch / "record.json"}
    assert processes.run(world=1, log=scratch / "log", **task) == [0]
    ran, finished = counted(scratch / "log")
    assert (ran[0], finished[0]) == (VIEWS, VIEWS)
    return json.loads((scratch / "record.json").read_text())["record"]


def counted(log):
    """Of a log: the views that each rank ran, and those of the blocks that it finished."""
    ran, finished = Counter(), Counter()
    for line in log.read_text().splitlines():
        rank, what, views = line.split()
        if what == "ran":
            ran[int(rank)] += int(views)
        else:
            finished[int(rank)] = int(views)
    return ran, finished


@pytest.mark.parametrize(("first", "then", "blocks"), [(1, 2, 5), (2, 1, 3), (3, 2, 3)])
def test_a_kill_costs_the_block_in_work_and_nothing_that_was_finished(
    processes, folder, undisturbed, tmp_path, first, then, blocks
):
    task = {"folder": folder, "cache": tmp_path / "cache", "output": tmp_path / "record.json"}
    task["shard_seconds"] = SHARD_SECONDS
    killed = first - 1
    kill = {"kill": (killed, 0), "after_blocks": blocks, "seconds_per_image": 0.005}
    assert processes.run(world=first, log=tmp_path / "first", **kill, **task)[killed] == -9
    assert not (tmp_path / "record.json").exists(), "it was killed too late to show anything"
    assert list((tmp_path / "cache").rglob("*.journal")), "it was killed with blocks that were in no shard"
    ran, finished = counted(tmp_path / "first")
    assert finished[killed] > 0
    assert all(ran[rank] - finished[rank] <= LARGEST_BLOCK for rank in range(first))

    assert processes.run(world=then, log=tmp_path / "second", **task) == [0] * then
    again, _ = counted(tmp_path / "second")
    assert 0 < sum(again.values()) <= VIEWS - sum(finished.values()), "a finished block was computed again"
    assert json.loads((tmp_path / "record.json").read_text())["record"] == undisturbed
    assert not list((tmp_path / "cache").rglob("*.journal"))
