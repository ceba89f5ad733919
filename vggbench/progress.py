"""What a run is doing and how long it will take: on standard error, and only where that is a terminal."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

#: Called with the stage in words, units done, units in all, and a detail of this moment.
Report = Callable[[str, float, float, str], None]


def silent(stage: str, done: float, total: float, detail: str = "") -> None:
    """No progress."""


@contextmanager
def shown(quiet: bool = False) -> Iterator[Report]:
    """A Report that draws one bar a stage, with the time left; silent when quiet or not on a terminal."""
    if quiet or not sys.stderr.isatty():
        yield silent
        return
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TaskID, TaskProgressColumn, TextColumn, TimeRemainingColumn

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TaskProgressColumn(),
        TimeRemainingColumn(elapsed_when_finished=True),
        TextColumn("{task.fields[detail]}", style="dim"),
    )
    with Progress(*columns, console=Console(stderr=True)) as bars:
        tasks: dict[str, TaskID] = {}

        def report(stage: str, done: float, total: float, detail: str = "") -> None:
            if stage not in tasks:
                tasks[stage] = bars.add_task(stage, total=total, detail=detail)
            ended = done >= total
            bars.update(tasks[stage], completed=done, total=total, detail="" if ended else detail)

        yield report
