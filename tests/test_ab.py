"""Two commands in turn: order, resuming, Ctrl-C, and commands that fail or are killed."""

from __future__ import annotations

import json
import os
import re
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path

import gate_records as make
import pytest
from running_processes import running
from typer.testing import CliRunner

from vggbench.cli import app
from vggbench.errors import UsageError
from vggbench.results import read_records
from vggbench.runs_ab import ab

TREE = Path(__file__).parents[1]
#: Takes latency's options, notes that it ran, and leaves a record; needs no library, so that it starts at once.
SCRIPT = """
import json, os, pathlib, random, signal, sys, time
folder, side, median = pathlib.Path(sys.argv[1]), sys.argv[2], float(sys.argv[3])
options = sys.argv[4:]
assert options[-5:-1] == ["--processes", "1", "--no-peak", "--out"], options
with open(folder / "order", "a") as log:
    log.write(side + "\\n")
runs = (folder / "order").read_text().split().count(side)
mode = options[0] if len(options) > 5 else ""
if mode == "dies" and runs == 2:
    os.kill(os.getpid(), signal.SIGKILL)
if mode == "fails":
    sys.exit("something is wrong here")
if mode == "sleeps" and runs == 2 and not (folder / "awake").exists():
    (folder / "sleeping").touch()
    time.sleep(600)
record = json.loads((folder / "record.json").read_text())
record["samples"]["values"] = [median * random.uniform(0.995, 1.005) for _ in range(9)]
record["conditions"] = {"may_ask": "VGGBENCH_TURNS" in os.environ}
record["environment"]["vggbench"] = side if mode == "version" else "0.1.0"
pathlib.Path(options[-1]).write_text(json.dumps(record) + "\\n")
"""


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "script.py").write_text(SCRIPT)
    (tmp_path / "record.json").write_text(make.timing().model_dump_json())
    return tmp_path


def command(folder, side, median=0.1, mode=""):
    return shlex.join(
        [sys.executable, "-S", str(folder / "script.py"), str(folder), side, str(median), *([mode] if mode else [])]
    )


def order(folder):
    return (folder / "order").read_text().split()


def test_base_and_head_run_in_turn_seven_times_and_are_compared(folder):
    done = ab(command(folder, "base"), command(folder, "head", 0.13), folder / "out")
    assert order(folder) == ["base", "head"] * 7
    assert done.comparison.verdict == "regressed"
    assert done.comparison.rows[0].detail["interleaved"] is True
    assert [record.conditions["ab_round"] for record in read_records(done.head)] == list(range(1, 8))


def test_the_same_command_again_runs_nothing_and_judges_the_same(folder):
    arguments = (command(folder, "base"), command(folder, "head"), folder / "out")
    first = ab(*arguments)
    again = ab(*arguments)
    assert len(order(folder)) == 14
    assert again.comparison.rows == first.comparison.rows
    assert first.comparison.notes == ()
    assert re.fullmatch(
        r"14 runs were in .*/out before, the first of .*\. To measure anew.*", again.comparison.notes[0]
    )
    with pytest.raises(UsageError, match="runs of other commands"):
        ab(command(folder, "base", 0.2), command(folder, "head"), folder / "out")
    with pytest.raises(UsageError, match="or run in another way"):
        ab(*arguments, turns=False)


def test_a_killed_run_is_named_the_others_count_and_its_round_is_taken_again(folder):
    arguments = (command(folder, "base"), command(folder, "head", mode="dies"), folder / "out", 7)
    done = ab(*arguments)
    assert done.failed == ("head, run 2 of 7: killed by SIGKILL, for want of memory as a rule",)
    assert done.comparison.notes == done.failed
    assert done.comparison.rows[0].counts == (7, 6)
    assert "1 more of HEAD" in done.comparison.reason
    row = ab(*arguments).comparison.rows[0]
    assert row.counts == (7, 7)
    assert row.detail["interleaved"] is True
    assert order(folder)[14:] == ["base", "head"], "of a round that is judged as one both sides are of one time"


def test_a_command_that_never_works_stops_the_run_with_its_last_line(folder):
    with pytest.raises(UsageError, match=r"--head gives no records.*exit status 1: something is wrong here") as caught:
        ab(command(folder, "base"), command(folder, "head", mode="fails"), folder / "out")
    assert "\n" not in str(caught.value)
    assert len(order(folder)) == 4
    with pytest.raises(UsageError, match="cannot be started"):
        ab("/no/such/program latency", command(folder, "head"), folder / "other")


def test_other_versions_stop_after_the_first_round_unless_they_are_allowed(folder):
    arguments = (command(folder, "base"), command(folder, "head", mode="version"), folder / "out")
    with pytest.raises(UsageError, match=r"after the first round.*--across vggbench"):
        ab(*arguments)
    assert len(order(folder)) == 2
    done = ab(*arguments, across=["vggbench"])
    assert done.comparison.labels == ("vggbench 0.1.0 \N{RIGHTWARDS ARROW} head",)


@pytest.mark.parametrize("text", ["", "vggbench latency --out x", "vggbench latency --processes=3", "'unclosed"])
def test_commands_that_cannot_be_are_refused(folder, text):
    with pytest.raises(UsageError):
        ab(text, command(folder, "head"), folder / "out")


def test_the_command_line_writes_the_outputs_and_exits_by_the_verdict(folder):
    out = folder / "out"
    arguments = ["ab", "--base", command(folder, "base"), "--head", command(folder, "head", 0.13), "--out", out,
                 "--markdown", folder / "ab.md", "--json", "--tolerance", "5%"]  # fmt: skip
    result = CliRunner().invoke(app, [str(argument) for argument in arguments])
    assert result.exit_code == 1, result.output
    assert json.loads(result.stdout)["verdict"] == "regressed"
    text = (folder / "ab.md").read_text()
    assert "Regressed" in text
    assert "change by the median of their rounds' ratios" in text


@pytest.mark.parametrize(
    "signals", [[signal.SIGINT], [signal.SIGINT] * 2, [signal.SIGTERM]], ids=["once", "twice", "told to end"]
)
def test_ctrl_c_keeps_what_was_measured_exits_130_and_the_same_command_goes_on(folder, signals):
    arguments = ["ab", "--base", command(folder, "base", mode="sleeps"), "--head", command(folder, "head"),
                 "--out", str(folder / "out")]  # fmt: skip
    environment = {**os.environ, "PYTHONPATH": f"{TREE}{os.pathsep}{TREE / 'reference'}"}
    started = subprocess.Popen([sys.executable, "-m", "vggbench", *arguments], env=environment, text=True,
                               stdout=subprocess.PIPE, stderr=subprocess.PIPE)  # fmt: skip
    deadline = time.monotonic() + 600
    while not (folder / "sleeping").exists():
        assert time.monotonic() < deadline
        assert started.poll() is None, started.stderr.read()
        time.sleep(0.02)
    for each in signals:
        started.send_signal(each)
        time.sleep(0.05)
    _, complaints = started.communicate(timeout=600)
    assert started.returncode == 130, complaints
    assert running(folder / "script.py") == []
    assert complaints.splitlines()[-1].startswith("vggbench: Interrupted. Nothing is lost")
    assert "Traceback" not in complaints
    assert sorted(path.name for path in (folder / "out" / "runs").glob("*.jsonl")) == [
        "base-001.jsonl",
        "head-001.jsonl",
    ]
    (folder / "awake").touch()
    result = CliRunner().invoke(app, [*arguments, "--json"])
    assert json.loads(result.stdout)["rows"][0]["counts"] == [7, 7]
    assert order(folder).count("head") == 7


@pytest.mark.parametrize("turns", [True, False])
def test_both_may_ask_for_turns_unless_each_runs_as_a_whole(folder, turns):
    done = ab(command(folder, "base"), command(folder, "head"), folder / "out", 1, turns=turns)
    found = [record.conditions["may_ask"] for path in (done.base, done.head) for record in read_records(path)]
    assert found == [turns] * 2


def test_two_real_runs_time_slices_in_turn(tmp_path):
    # Calls of so many images are fewer in a slice than a timing has at least, however loaded the machine.
    words = [sys.executable, "-m", "vggbench", "latency", "--network", "A", "--weights", "sample", "--batch", "64",
             "--backend", "onnxruntime", "--threads", "1", "--min-seconds", "0.4", "--max-seconds", "0.4",
             "--min-iterations", "60"]  # fmt: skip
    done = ab(shlex.join(words), shlex.join(words), tmp_path, 1)
    assert done.failed == ()
    records = [record for path in (done.base, done.head) for record in read_records(path)]
    assert all(record.conditions["turns"] >= 2 for record in records)
    # Were they not left out, what the other did in its slices would lie between.
    for mine, other in (records, records[::-1]):
        assert mine.conditions["wall_seconds"] < calls_of(mine) + sum(other.samples.values)


def calls_of(record):
    return sum(record.samples.values) + sum(record.samples.warmups)
