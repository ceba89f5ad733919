"""What every command shares: errors as one line with a documented exit code, and output as text or JSON.

Libraries are imported inside the commands, so that --help and completion answer at once.
"""

from __future__ import annotations

import functools
import json
import math
import os
import sys
import traceback
from collections.abc import Callable, Iterable
from typing import Any, NoReturn, ParamSpec, TypeVar

import typer

from vggbench import interrupts
from vggbench.errors import VggbenchError, is_out_of_memory, out_of_memory

P = ParamSpec("P")
R = TypeVar("R")

#: A mistake of the program itself (sysexits.h calls it EX_SOFTWARE), Ctrl-C (128 + SIGINT), a reader that went away.
EXIT_BUG, EXIT_INTERRUPTED, EXIT_BROKEN_PIPE = 70, 130, 141

#: Also in the README; a test compares both with errors.py.
EXIT_CODES = {
    0: "done",
    1: "a gate found that something regressed",
    2: "an option that cannot be: unknown network, protocol, scale, precision",
    3: "a gate is inconclusive, or nothing can be compared",
    4: "images or labels that cannot be used",
    5: "a weights file that is not what was asked for",
    6: "a backend, precision or device that does not work here, or too little memory",
    7: "the cache or the output folder cannot be read or written",
    8: "records that cannot be read or cannot share a table (2 in a gate)",
    9: "calibration ranges or a graph that cannot be used",
    EXIT_BUG: "a mistake of the program itself",
    EXIT_INTERRUPTED: "interrupted by Ctrl-C; the same command goes on where it stopped",
    EXIT_BROKEN_PIPE: "what read the output went away",
}


_GOES_ON = "Nothing is lost: the same command goes on where it stopped."


def guarded(command: Callable[P, R]) -> Callable[P, R]:
    """The command with every error as one line on standard error and its documented exit code."""

    @functools.wraps(command)
    def run(*args: P.args, **kwargs: P.kwargs) -> R:
        try:
            result = command(*args, **kwargs)
            sys.stdout.flush()
            if interrupts.heard():  # a library lost it
                raise KeyboardInterrupt
            return result
        except KeyboardInterrupt:
            interrupted(_GOES_ON)
        except BrokenPipeError:
            # The interpreter flushes once more at its end; that must not complain again.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            raise typer.Exit(EXIT_BROKEN_PIPE) from None
        except (typer.Exit, typer.Abort, SystemExit):
            raise
        except Exception as error:
            if type(error).__module__.startswith(("click.", "typer.")):
                raise
            if interrupts.heard():
                interrupted(_GOES_ON)
            known = _known(error)
            if known is not None:
                fail(*known)
            traceback.print_exc()
            fail(
                "This is a mistake in vggbench, not in what you typed. Please report it with the lines above and "
                "the output of: vggbench doctor --json",
                EXIT_BUG,
            )

    return run


def fail(message: str, code: int) -> NoReturn:
    """One line on standard error, then the exit."""
    typer.echo(f"vggbench: {' '.join(message.split())}", err=True)
    raise typer.Exit(code)


def interrupted(what_next: str) -> NoReturn:
    """The end of a command that a Ctrl-C broke off."""
    interrupts.ignore()
    fail(f"Interrupted. {what_next}", EXIT_INTERRUPTED)


def mistyped(error: Exception) -> int:
    """What the parser refuses, as one line like every other error; returns the exit code. Raises all else again.

    By what its errors can do and not by their class, which has moved between packages. Without a message the help has
    been shown.
    """
    message, context = getattr(error, "format_message", None), getattr(error, "ctx", None)
    if message is None:
        raise error
    if text := message():
        values = getattr(error.__cause__, "errors", None)
        given = f", given was {values()[0]['input']!r}" if values else ""
        place = getattr(context, "command_path", "vggbench")
        what = " ".join(text.split()).rstrip(".") + given
        note(f"{what}{'' if what.endswith('?') else '.'} What is accepted: {place} --help")
    return int(getattr(error, "exit_code", 2))


def _known(error: Exception) -> tuple[str, int] | None:
    """Message and exit code of what is no mistake of the program; vgg_reference knows nothing of vggbench's errors."""
    if isinstance(error, VggbenchError):
        return str(error), error.exit_code
    if is_out_of_memory(error):
        told = out_of_memory("this command needs more than there is", error)
        return str(told), told.exit_code
    if not type(error).__module__.startswith("vgg_reference"):
        return None
    return str(error), 2 if isinstance(error, KeyError) else 5


def print_json(document: Any) -> None:
    """One JSON document on standard output."""
    typer.echo(json.dumps(document, indent=2, default=str, allow_nan=False))


def say(text: str = "") -> None:
    """A line for people, on standard output."""
    typer.echo(text)


def note(text: str) -> None:
    """A remark on standard error, where it does not disturb a pipe."""
    typer.echo(f"vggbench: {text}", err=True)


def aligned(lines: list[list[str]]) -> list[str]:
    """Columns of text, the first two to the left."""
    widths = [max(len(line[column]) for line in lines) for column in range(len(lines[0]))]
    return [
        " ".join(
            text.ljust(width) if column < 2 else text.rjust(width)
            for column, (text, width) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in lines
    ]


def figure(value: float) -> str:
    """Four significant digits, no exponent."""
    digits = 0 if value <= 0 else max(0, 3 - math.floor(math.log10(value)))
    return f"{value:.{min(digits, 4)}f}"


def warn_of_fallbacks(records: Iterable[Any]) -> None:
    """One remark where layers of an engine ran in a wider type than was asked for."""
    from vggbench.results_engines import fallback_line

    line = fallback_line(records)
    if line:
        note(line)
