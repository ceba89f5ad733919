"""Fresh processes: answers, errors, deaths, Ctrl-C, and no network where it is forbidden."""

import os
import subprocess
import sys
import time
from pathlib import Path

import latency_workers
import pytest

from vggbench import runs_fresh
from vggbench.errors import BackendUnavailable, WeightsError
from vggbench.runs_fresh import WorkerDied, in_fresh_process

ROOT = Path(__file__).parents[1]


def test_a_fresh_process_answers_and_its_errors_are_raised_here():
    assert in_fresh_process(latency_workers.double, 21) == 42
    with pytest.raises(WeightsError, match=r"^other network$"):
        in_fresh_process(latency_workers.complain, "other network")


@pytest.mark.parametrize(
    ("end", "why"),
    [
        ("die", "killed by SIGKILL, for want of memory as a rule"),
        ("leave", "ended with status 3 and no answer"),
        ("run_out_of_memory", "out of memory"),
        ("fill_the_gpu", "out of the GPU's memory"),
        ("fail_peculiarly", "Peculiar: no kernel at line 3"),
        ("fail_with_a_frame", "RuntimeError: no kernel"),
    ],
)
def test_a_process_that_dies_says_how(end, why):
    with pytest.raises(WorkerDied, match=f"^{why}$"):
        in_fresh_process(getattr(latency_workers, end))


def test_a_process_is_ended_when_its_time_is_over():
    assert runs_fresh.seconds_left() is None
    with runs_fresh.ending_at(time.monotonic() + 600):
        assert 0 < runs_fresh.seconds_left() <= 600
        assert in_fresh_process(latency_workers.double, 2) == 4
    with runs_fresh.ending_at(time.monotonic() + 0.1), pytest.raises(runs_fresh.TimeIsOver):
        in_fresh_process(latency_workers.stay)
    assert runs_fresh.seconds_left() is None


def test_ctrl_c_does_not_reach_the_fresh_process_and_this_one_hears_it_again():
    assert in_fresh_process(latency_workers.signals_blocked)
    assert not latency_workers.signals_blocked()


def test_ctrl_c_does_not_reach_the_first_fresh_process_either():
    """In an interpreter of its own: what Python starts beside the first process unblocked the signal again."""
    code = (
        "import signal; from vggbench.runs_fresh import in_fresh_process as f\n"
        "print(signal.SIGINT in f(signal.pthread_sigmask, signal.SIG_BLOCK, []))"
    )
    environment = {**os.environ, "PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'reference'}"}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment, check=False)
    assert done.stdout == "True\n", done.stderr


def test_a_step_that_reaches_for_the_network_fails_where_that_is_forbidden():
    code = (
        "import socket, vggbench.runs_fresh as r; r.refuse_networks()\n"
        "from vggbench.errors import BackendUnavailable\n"
        "for go in (lambda: socket.create_connection(('127.0.0.1', 9), 1), lambda: socket.getaddrinfo('a.test', 1)):\n"
        "    try: go()\n"
        "    except BackendUnavailable as error: print(error)\n"
    )
    path = f"{ROOT}:{ROOT / 'reference'}"
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", code], capture_output=True, text=True, timeout=600,
                          env={"PYTHONPATH": path, "PATH": ""})  # fmt: skip
    assert done.stdout.count("--no-network: something tried to reach") == 2, done.stderr


def test_a_fresh_process_is_kept_from_the_network_too(monkeypatch):
    monkeypatch.setenv(runs_fresh.NO_NETWORK, "1")
    with pytest.raises(BackendUnavailable, match="--no-network: something tried to reach"):
        in_fresh_process(latency_workers.reach_out)
