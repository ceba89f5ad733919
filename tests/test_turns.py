"""Two processes that time slices in turn: never both at once, and none waits for one that is gone."""

from __future__ import annotations

import socket
import sys
import tempfile
from pathlib import Path

import pytest
from running_processes import running
from test_latency import SIZE, Clock, Scripted

from vggbench.errors import StorageError
from vggbench.measure import conditions, latency, turns
from vggbench.measure.conditions import Look
from vggbench.measure.latency import measure_latency
from vggbench.measure.turns import CALLS, SLICE_SECONDS, TURNS, Slices, Turns, joined
from vggbench.runs_turns import run_in_turn

#: Notes in a file when it works, asks for its turn as a member does, and needs no library, so that it starts at once.
MEMBER = """
import os, signal, socket, sys, time
log, name, slices, mode = sys.argv[1], sys.argv[2], int(sys.argv[3]), sys.argv[4]
def note(what):
    with open(log, "a") as file:
        file.write(f"{name} {what}\\n")
note("starts")
if mode != "never asks":
    channel = socket.socket(socket.AF_UNIX)
    channel.connect(os.environ["VGGBENCH_TURNS"])
    for number in range(slices):
        channel.sendall(b"?")
        if mode == "killed waiting":
            os.kill(os.getpid(), signal.SIGKILL)
        assert channel.recv(1) == b"!"
        note(number)
        if mode == "killed working" and number == 1:
            os.kill(os.getpid(), signal.SIGKILL)
if mode == "leaves a worker" and not os.fork():
    time.sleep(60)
    note("has left a worker")
note("ends")
sys.exit("it broke" if mode == "fails" else 0)
"""


@pytest.fixture
def log(tmp_path):
    (tmp_path / "member.py").write_text(MEMBER)
    return tmp_path / "log"


def member(log, name, slices, mode="asks"):
    return [sys.executable, "-S", str(log.with_name("member.py")), str(log), name, str(slices), mode]


def noted(log):
    return [tuple(line.split(" ", 1)) for line in Path(log).read_text().splitlines()]


def test_both_open_alone_and_then_work_in_turn_until_each_ends(log):
    ended = list(run_in_turn({"a": member(log, "a", 3), "b": member(log, "b", 5)}))
    assert ended == [("a", ""), ("b", "")]
    assert noted(log) == [
        ("a", "starts"), ("b", "starts"), ("a", "0"), ("b", "0"), ("a", "1"), ("b", "1"), ("a", "2"), ("a", "ends"),
        ("b", "2"), ("b", "3"), ("b", "4"), ("b", "ends"),
    ]  # fmt: skip


@pytest.mark.parametrize("silent", ["a", "b"])
def test_a_command_that_never_asks_runs_to_its_end_while_the_other_waits(log, silent):
    modes = {name: "never asks" if name == silent else "asks" for name in "ab"}
    assert dict(run_in_turn({name: member(log, name, 2, mode) for name, mode in modes.items()})) == {"a": "", "b": ""}
    found = noted(log)
    starts = found.index((silent, "starts"))
    assert found[starts + 1] == (silent, "ends")


@pytest.mark.parametrize("mode", ["killed working", "killed waiting"])
def test_one_that_is_killed_is_told_and_the_other_goes_on_to_its_end(log, mode):
    ended = dict(run_in_turn({"a": member(log, "a", 4, mode), "b": member(log, "b", 4)}))
    assert ended == {"a": "killed by SIGKILL, for want of memory as a rule", "b": ""}
    assert ("b", "ends") in noted(log)


def test_what_went_wrong_is_the_last_line_of_its_error_output(log):
    ended = dict(run_in_turn({"a": member(log, "a", 1, "fails"), "b": member(log, "b", 1)}))
    assert ended == {"a": "exit status 1: it broke", "b": ""}


def test_a_worker_that_outlives_its_command_and_holds_its_error_output_ends_with_it(log):
    ended = dict(run_in_turn({"a": member(log, "a", 1, "leaves a worker"), "b": member(log, "b", 1)}))
    assert ended == {"a": "", "b": ""}
    assert noted(log).count(("a", "ends")) == 1
    assert running(log) == []


def test_closing_it_stops_the_one_that_waits(log):
    ended = run_in_turn({"a": member(log, "a", 1), "b": member(log, "b", 0, "never asks")})
    assert next(ended) == ("b", "")
    ended.close()
    assert noted(log) == [("a", "starts"), ("b", "starts"), ("b", "ends")]
    assert running(log) == []


def test_a_process_alone_gets_no_socket_and_inherits_none(log, monkeypatch):
    monkeypatch.setenv(TURNS, "/of/another")
    tells = [sys.executable, "-S", "-c", f"import os, sys; sys.exit(os.environ.get({TURNS!r}))"]
    assert list(run_in_turn({"a": tells})) == [("a", "")]


def test_a_temporary_folder_too_deep_for_a_socket_is_one_line(log, tmp_path, monkeypatch):
    deep = tmp_path / ("d" * 120)
    deep.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(deep))
    with pytest.raises(StorageError, match=r"no place for a socket .* shorter folder: TMPDIR"):
        list(run_in_turn({"a": member(log, "a", 1), "b": member(log, "b", 1)}))
    assert not log.exists()


def test_variables_reach_every_command():
    tells = [sys.executable, "-S", "-c", "import os, sys; sys.exit(os.environ['MADE_UP'] != 'x')"]
    assert dict(run_in_turn({"a": tells, "b": tells}, {"MADE_UP": "x"})) == {"a": "", "b": ""}


def test_without_a_conductor_nobody_waits(monkeypatch, tmp_path):
    monkeypatch.delenv(TURNS, raising=False)
    assert joined() is None
    monkeypatch.setenv(TURNS, str(tmp_path / "gone"))
    assert joined() is None


def test_a_conductor_that_ends_leaves_its_members_to_go_on_alone():
    mine, other = socket.socketpair()
    end = Turns(mine)
    other.close()
    end.give_way()
    end.give_way()
    assert len(end.waits) == 1


class Pausing(Turns):
    """Waits without anybody: the clock moves on by ``pause`` seconds."""

    def __init__(self, clock, pause):
        super().__init__(socket.socket())
        self.close()
        self.clock, self.pause = clock, pause

    def give_way(self):
        before = seen(self.clock.now)
        self.clock.now += self.pause
        self.waits.append((before, seen(self.clock.now)))


def seen(wall, own=0.0, busy=0.0):
    return Look(wall, own, busy, 0.0, 0.0, 0, {"gpu_energy_joules": 10 * wall})


def test_a_wait_is_in_no_time_and_each_slices_first_call_is_a_warm_up(monkeypatch):
    clock = Clock()
    monkeypatch.setattr(latency.time, "perf_counter", clock.perf_counter)
    paused = Pausing(clock, 5.0)
    samples = measure_latency(Scripted(clock, [0.02]), 1, SIZE, 1.0, warmup_seconds=0.2, turns=paused)
    assert sum(samples.values) + sum(samples.warmups[11:]) == pytest.approx(1.0, rel=0.15)
    assert {round(seconds, 6) for seconds in samples.values + samples.warmups} == {0.02}
    slice_calls = round(SLICE_SECONDS / 0.02)
    assert len(paused.waits) == pytest.approx(len(samples.values) / slice_calls, abs=1)
    assert len(samples.warmups) == 11 + len(paused.waits)


def test_long_calls_get_two_counted_ones_a_slice():
    taken = []

    def take(calls):
        taken.append(calls)
        return [10 * SLICE_SECONDS] * calls

    slices = Slices(take, Pausing(Clock(), 1.0))
    assert len(slices(5)) == 5
    assert taken == [1, CALLS, 1, CALLS, 1, 1]
    assert len(slices.firsts) == 3


def test_what_the_other_did_in_its_turns_is_no_foreign_load_and_no_energy_of_ours():
    before, after = seen(0.0), seen(10.0, own=5.0, busy=11.0)
    waits = [(seen(2.0, 1.0, 1.0), seen(7.0, 1.0, 6.0))]
    found = conditions.between(before, after, 1, waits)
    assert found["wall_seconds"] == 5.0
    assert found["own_cores"] == 1.0
    assert found["foreign_cores"] == pytest.approx(0.2)
    assert found["turns"] == 1
    assert "gpu_joules_per_image" not in found
    assert conditions.between(before, after, 1)["gpu_joules_per_image"] == 100.0


def test_a_timing_counts_its_own_waits_only():
    mine, other = socket.socketpair()
    end = Turns(mine)
    other.sendall(b"!!")
    end.give_way()
    end.fresh()
    assert end.waited_seconds == 0
    end.give_way()
    assert len(end.waits) == 1
    end.close()
    other.close()
    assert turns.joined() is None
