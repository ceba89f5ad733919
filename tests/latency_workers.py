"""What fresh processes do in tests of timing: a module of its own, so that they can import it."""

from __future__ import annotations

import os
import signal
import sys
import time
from pathlib import Path


def double(number: int) -> int:
    return 2 * number


def complain(message: str) -> None:
    from vggbench.errors import WeightsError

    raise WeightsError(message)


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def leave() -> None:
    os._exit(3)


def run_out_of_memory() -> None:
    raise MemoryError


class OutOfMemoryError(RuntimeError):
    """As torch has one."""


class Peculiar(Exception):
    """Cannot be made again from what it says."""

    def __init__(self, what, where):
        super().__init__(f"{what}\nat {where}")


def fill_the_gpu() -> None:
    raise OutOfMemoryError("CUDA out of memory")


def fail_peculiarly() -> None:
    raise Peculiar("no kernel", "line 3")


def fail_with_a_frame() -> None:
    """As torch's compiler does."""
    error = RuntimeError("no kernel")
    error.first_useful_frame = sys._getframe()
    raise error


def stay() -> None:
    time.sleep(600)


def fail_for_memory() -> None:
    raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 19267584000 bytes.")


def signals_blocked() -> bool:
    return signal.SIGINT in signal.pthread_sigmask(signal.SIG_BLOCK, [])


def fake(task):
    """The records of a fake session."""
    from vggbench.backends.fake import FakeSession
    from vggbench.runs_timing import time_session

    return time_session(FakeSession(task.variant, threads=task.threads), task, 0.5)


def stuck_in_the_second(task):
    """As fake, but the second process says that it is there, and stays."""
    if task.process == 2:
        Path(os.environ["LATENCY_MARKER"]).write_text(str(os.getpid()))
        time.sleep(600)
    return fake(task)


def main() -> None:
    """The command line with that worker: python -c "import latency_workers; latency_workers.main()" latency ..."""
    from vggbench import cli, runs_latency

    runs_latency.time_variant = stuck_in_the_second
    cli.main(sys.argv[1:])


def reach_out() -> None:
    import socket

    socket.create_connection(("127.0.0.1", 9), 1)
