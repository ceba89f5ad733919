"""Ctrl-C pressed twice, at awkward moments, and lost by what it broke off."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time

import cli_runs
import pytest
import typer
from cli_runs import assert_one_line

from vggbench import __main__, cli, interrupts, runs

EVALUATE = ["evaluate", "--network", "A"]


@pytest.fixture
def raising():
    with interrupts.raising_once():
        yield


def press() -> None:
    os.kill(os.getpid(), signal.SIGINT)


def pressed() -> bool:
    """Whether a press raised."""
    try:
        press()
    except KeyboardInterrupt:
        return True
    return False


def test_two_presses_raise_once_and_a_late_one_again(raising, monkeypatch):
    monkeypatch.setattr(interrupts, "ONCE_SECONDS", 600.0)  # however long the machine takes between them
    assert [pressed(), pressed(), pressed()] == [True, False, False]
    assert interrupts.heard()
    monkeypatch.setattr(interrupts, "ONCE_SECONDS", -1.0)
    assert pressed()


def test_behind_all_work_ctrl_c_is_ignored_and_forgotten():
    with interrupts.raising_once():
        assert pressed()
    assert not pressed()
    assert not interrupts.heard()


def test_a_process_that_was_started_deaf_stays_deaf():
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    with interrupts.raising_once():
        assert not pressed()


def test_what_a_destructor_lost_is_raised_again(raising, capsys):
    class Loses:
        def __del__(self) -> None:
            press()

    def lose() -> None:
        Loses()
        for _ in range(600):
            time.sleep(0.1)

    with pytest.raises(KeyboardInterrupt):
        lose()
    assert capsys.readouterr().err == ""


def test_a_ctrl_c_while_it_is_blocked_is_heard_afterwards():
    def interrupted():
        with interrupts.sigint_blocked():
            press()
            reached.append(True)

    reached = []
    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert reached


def test_ctrl_c_at_the_interpreters_end_changes_neither_status_nor_output():
    code = (
        "import atexit, os, signal, sys\n"
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"
        "from vggbench.__main__ import main\n"
        "atexit.register(os.kill, os.getpid(), signal.SIGINT)\n"
        "sys.argv = ['vggbench', '--version']\n"
        "main()"
    )
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, capture_output=True, text=True, env=cli_runs.environment(), check=False)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("parser", ["raises its own exception", "gives a status"])
def test_ctrl_c_while_the_command_line_is_read_is_one_line(parser, monkeypatch, capsys):
    """Outside of a command the parser takes it, by its version in one way or the other."""

    def parse(*_: object, **__: object) -> int:
        if parser == "gives a status":
            return 130
        raise typer.Abort

    monkeypatch.setattr(cli, "app", parse)
    with pytest.raises(SystemExit) as ended:
        __main__.main()
    assert (ended.value.code, capsys.readouterr().err) == (130, "vggbench: Interrupted.\n")


def test_a_library_that_says_it_is_broken_after_a_ctrl_c_is_no_mistake_of_the_program(monkeypatch):
    """As onnxruntime, whose import turns a Ctrl-C into an ImportError."""

    def broken(**_: object) -> None:
        raise ImportError("initialization failed")

    monkeypatch.setattr(interrupts, "_raised", [0.0])
    monkeypatch.setattr(runs, "evaluate", broken)
    assert_one_line(cli_runs.run(*EVALUATE), 130, "Interrupted. Nothing is lost")


def test_a_command_that_lost_a_ctrl_c_does_not_end_as_if_there_had_been_none(monkeypatch):
    monkeypatch.setattr(interrupts, "_raised", [0.0])
    monkeypatch.setattr(runs, "evaluate", lambda **_: None)
    assert_one_line(cli_runs.run(*EVALUATE), 130, "Interrupted. Nothing is lost")
