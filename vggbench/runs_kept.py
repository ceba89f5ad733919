"""Finished processes of a timing run, kept on disk until the run is whole, so that the same command goes on."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from vggbench import cache
from vggbench.errors import RecordError
from vggbench.interrupts import sigint_blocked
from vggbench.results import Record, write_records
from vggbench.results_files import read_whole_part


@dataclass(frozen=True)
class Kept:
    """records: of finished processes, each with conditions "run" (the key) and "step" (what the process timed).

    notes: what was found on disk, in words.
    """

    key: str
    path: Path
    records: list[Record]
    notes: tuple[str, ...] = ()

    def has(self, process: int, step: str) -> bool:
        return any(each.process == process and each.conditions["step"] == step for each in self.records)

    def with_records(self, step: str, found: Sequence[Record]) -> Kept:
        """The same with one more process, on disk before this returns. Raises StorageError."""
        marked = [
            record.model_copy(update={"conditions": {**record.conditions, "run": self.key, "step": step}})
            for record in found
        ]
        # The whole file anew: at any moment it is the old one or the new one, also for a kill.
        with sigint_blocked():
            write_records(self.path, [*self.records, *marked])
        return dataclasses.replace(self, records=[*self.records, *marked])

    def done(self) -> None:
        """The run is whole and saved: nothing is left to go on with. Raises StorageError."""
        with cache.storage_errors(self.path):
            self.path.unlink(missing_ok=True)


def keep(key: str, out: Path | None) -> Kept:
    """What an interrupted run of this key left beside ``out`` (FILE.partial) or in the cache. Raises StorageError.

    A process counts when all that it measured is there; of a file that was cut the whole lines are used.
    """
    path = cache.root() / "latency" / f"{key}.jsonl" if out is None else out.with_name(f"{out.name}.partial")
    found: list[Record] = []
    cut, unread = None, None
    if _present(path):
        try:
            found, cut = read_whole_part(path)
        except RecordError as error:
            unread = f"{str(error).rstrip('.')}: begun anew."
    mine = [record for record in found if record.conditions.get("run") == key and "step" in record.conditions]
    notes = [text for text in (cut, unread, _note(path, found, mine)) if text]
    return Kept(key, path, _whole(mine, cut is not None), tuple(notes))


def _whole(records: list[Record], cut: bool) -> list[Record]:
    """Without the last process of a file that was cut: some of its records may be what is missing."""
    if not cut or not records:
        return records
    last = (records[-1].process, records[-1].conditions["step"])
    return [each for each in records if (each.process, each.conditions["step"]) != last]


def _note(path: Path, found: list[Record], mine: list[Record]) -> str | None:
    if mine:
        count = len({(each.process, each.conditions["step"]) for each in mine})
        since = min(each.started for each in mine)
        return f"Went on with an interrupted run: {count} of its processes were timed before, the first at {since}."
    return f"{path} is of another command, version or machine: begun anew." if found else None


def _present(path: Path) -> bool:
    with cache.storage_errors(path):
        return path.is_file()
