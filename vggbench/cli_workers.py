"""What the commands that torchrun may start share: the group of processes, one voice, and one line where one fails."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import typer

from vggbench import interrupts
from vggbench.cli_common import EXIT_INTERRUPTED, fail
from vggbench.errors import VggbenchError

if TYPE_CHECKING:
    from vggbench.distributed import Group


@contextmanager
def workers() -> Iterator[Group]:
    """The processes of this run. What one of them cannot do ends all, in one line that names it."""
    from vggbench import distributed

    with distributed.joined() as group:
        try:
            yield group
        except distributed.Ended as error:
            raise typer.Exit(error.exit_code) from None
        except VggbenchError as error:
            if group.alone:
                raise
            if not group.fail(error.exit_code):
                raise typer.Exit(error.exit_code) from None
            fail(f"Worker {group.rank} of {group.world}: {error}", error.exit_code)
        except KeyboardInterrupt:
            if group.rank:
                interrupts.ignore()
                raise typer.Exit(EXIT_INTERRUPTED) from None
            raise


def threads_each(group: Group, threads: int | None) -> int | None:
    """As given, or a process's share of the machine's cores. None where it is alone: the backend's default."""
    if threads is not None or group.local_world == 1:
        return threads
    from vggbench.backends import default_threads

    return max(1, default_threads() // group.local_world)


def let_waiting_threads_sleep() -> None:
    """OpenMP's threads give up their cores while they wait, unless the user says how they shall wait.

    Beside threads that decode, spinning ones take the cores from those that have work: two-threaded PyTorch was ten
    times as slow so on two cores. The library reads the variable once, when torch is loaded; so it is set only for
    that, and the processes that are started to time networks do not get it.
    """
    if "OMP_WAIT_POLICY" in os.environ:
        return
    os.environ["OMP_WAIT_POLICY"] = "passive"
    try:
        import torch  # noqa: F401
    finally:
        del os.environ["OMP_WAIT_POLICY"]
