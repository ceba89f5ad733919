"""What the processes of a run tell each other, what they say where one is gone, and which GPU each takes."""

import os

import pytest
import torch
from group_threads import in_threads

from vggbench import distributed
from vggbench.distributed import ALONE, Ended, Group
from vggbench.errors import UsageError


def test_processes_share_gather_and_wait_for_the_first():
    store, order = torch.distributed.HashStore(), []

    def worker(rank: int):
        group = Group(rank, 3, 3, store)
        group.first(lambda: order.append(rank))
        return group.share([rank, "x"] if rank == 0 else None), group.gather({"rank": rank})

    found = in_threads(worker, 3)
    assert order[0] == 0
    assert sorted(order) == [0, 1, 2]
    assert [shared for shared, _ in found] == [[0, "x"]] * 3
    assert [gathered for _, gathered in found] == [[{"rank": 0}, {"rank": 1}, {"rank": 2}], None, None]


def test_one_failure_ends_all_and_is_told_once():
    store = torch.distributed.HashStore()

    def worker(rank: int):
        group = Group(rank, 3, 3, store)
        if rank == 1:
            return group.fail(4)
        with pytest.raises(Ended) as raised:
            group.gather(rank) if rank == 0 else group._wait("never")
        return raised.value.exit_code

    assert in_threads(worker, 3) == [4, True, 4]
    assert not Group(2, 3, 3, store).fail(6)


class Gone:
    """A store whose keeper was killed."""

    def __getattr__(self, name):
        def call(*_):
            raise RuntimeError("Failed to recv, got 0 bytes. Connection was likely closed.")

        return call


@pytest.mark.parametrize(
    "call",
    [
        lambda group: group.check(),
        lambda group: group.gather(1),
        lambda group: group.share(1),
        lambda group: group.first(lambda: 1),
    ],
    ids=["check", "gather", "share", "first"],
)
@pytest.mark.parametrize("rank", [0, 1])
def test_a_store_that_is_gone_is_one_line_and_whoever_sees_it_says_so(call, rank):
    group = Group(rank, 2, 2, Gone())
    with pytest.raises(UsageError, match="Worker 0 cannot be reached any more") as raised:
        call(group)
    assert "\n" not in str(raised.value)
    assert group.fail(2)
    group.leave(0.1)


def test_a_sum_that_lost_a_process_ends_with_what_that_one_said_or_with_one_line(monkeypatch):
    monkeypatch.setattr(distributed, "FAILED_SECONDS", -1.0)  # as on a machine that was busy with other work so long
    store = torch.distributed.HashStore()
    group = Group(0, 2, 2, store)

    def lose():
        with distributed.exchanging(group):
            raise RuntimeError("pair.cc:537] Read error: Connection reset by peer.")

    with pytest.raises(UsageError, match="Another worker cannot be reached any more") as raised:
        lose()
    assert "\n" not in str(raised.value)
    Group(1, 2, 2, store).fail(4)
    with pytest.raises(Ended) as ended:
        lose()
    assert ended.value.exit_code == 4


def test_alone_needs_no_store():
    assert ALONE.alone
    assert ALONE.first(lambda: 5) == 5
    assert ALONE.share([1]) == [1]
    assert ALONE.gather(2) == [2]
    ALONE.check()
    assert ALONE.fail(2)


@pytest.fixture
def environment(monkeypatch):
    for name in (*distributed.NEEDED, "LOCAL_RANK", "LOCAL_WORLD_SIZE", "CUDA_VISIBLE_DEVICES"):
        monkeypatch.delenv(name, raising=False)
    return monkeypatch


def test_without_torchrun_a_process_is_alone(environment):
    with distributed.joined() as group:
        assert group is ALONE
    environment.setenv("WORLD_SIZE", "1")
    environment.setenv("RANK", "0")
    with distributed.joined() as group:
        assert group is ALONE


def test_variables_that_make_no_sense_are_one_line(environment):
    environment.setenv("RANK", "1")
    environment.setenv("WORLD_SIZE", "2")
    with pytest.raises(UsageError, match=r"MASTER_ADDR, MASTER_PORT not"), distributed.joined():
        pass
    environment.setenv("WORLD_SIZE", "two")
    with pytest.raises(UsageError, match=r"WORLD_SIZE='two': accepted are whole numbers"), distributed.joined():
        pass
    environment.setenv("MASTER_ADDR", "127.0.0.1")
    environment.setenv("MASTER_PORT", "1")
    for name, value in (("WORLD_SIZE", "0"), ("RANK", "2"), ("LOCAL_WORLD_SIZE", "0"), ("LOCAL_WORLD_SIZE", "3")):
        environment.setenv("RANK", "1")
        environment.setenv("WORLD_SIZE", "2")
        environment.setenv(name, value)
        with pytest.raises(UsageError, match=rf"{name}={value}\b.*: accepted are ranks"), distributed.joined():
            pass


def test_processes_that_do_not_meet_are_one_line(environment):
    environment.setattr(distributed, "MEET_SECONDS", 0.2)
    for name, value in (("RANK", "1"), ("WORLD_SIZE", "2"), ("MASTER_ADDR", "127.0.0.1"), ("MASTER_PORT", "1")):
        environment.setenv(name, value)
    with pytest.raises(UsageError, match=r"did not meet at 127\.0\.0\.1:1") as raised, distributed.joined():
        pass
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("visible", "local_rank", "taken"),
    [(None, 3, "3"), ("4,5,6", 1, "5"), ("4,5", 3, "5"), ("7", 2, "7"), ("", 1, "")],
)
def test_each_process_takes_its_own_gpu(environment, visible, local_rank, taken):
    if visible is not None:
        environment.setenv("CUDA_VISIBLE_DEVICES", visible)
    else:
        environment.setenv("CUDA_VISIBLE_DEVICES", "")  # so that it is put back
        del os.environ["CUDA_VISIBLE_DEVICES"]
    environment.setattr(distributed.ctypes, "CDLL", lambda name: None)
    distributed._take_gpu(local_rank)
    assert os.environ["CUDA_VISIBLE_DEVICES"] == taken
