"""Two installations on one machine, in turn (ABAB), so that what the machine does meets both alike."""

from __future__ import annotations

import json
import os
import shlex
from collections.abc import Generator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from vggbench.environment import huge_pages
from vggbench.errors import RecordError, StorageError, UsageError
from vggbench.gate import Comparison, Limits, compare
from vggbench.gate_rows import NOT_COMPARABLE
from vggbench.progress import Report, silent
from vggbench.results import Record, read_records, write_output, write_records
from vggbench.results_files import read_set
from vggbench.runs_turns import run_in_turn

SIDES = ("base", "head")
#: Appended to each command: one fresh process, no peak, its records in a file.
OPTIONS = ("--processes", "1", "--no-peak")


@dataclass(frozen=True)
class Measured:
    """What a run of `ab` left: DIR/base.jsonl and DIR/head.jsonl, and what failed, named."""

    base: Path
    head: Path
    failed: tuple[str, ...]
    comparison: Comparison


def ab(
    base: str,
    head: str,
    out: Path,
    processes: int = 7,
    *,
    turns: bool = True,
    pages: bool = True,
    limits: Limits = Limits(),  # noqa: B008 - frozen
    across: Sequence[str] = (),
    progress: Report = silent,
) -> Measured:
    """Rounds of both commands until each has ``processes`` runs, then the gate.

    turns: both processes of a round are there at once and time slices in turn, where the commands can; else each runs
    to its end before the other starts, which takes half the memory. pages: both get huge pages where the system has
    them, for where small ones come to lie makes processes differ (environment.huge_pages).
    A finished round stays in DIR/runs and is not run again; half a one is, both its sides, for they are compared as
    what the machine did to both at once. A run that fails or is killed is named, and the others count.
    Raises UsageError, RecordError, StorageError; KeyboardInterrupt with everything finished on disk.
    """
    commands = {side: _words(side, text) for side, text in zip(SIDES, (base, head), strict=True)}
    _same_commands(out, {**commands, "turns": turns, "huge_pages": pages})
    before = [record for side in SIDES for record in _collected(out, side)]
    failed: list[str] = []
    for number in range(1, processes + 1):
        progress("Running base and head in turn", number - 1, processes, f"round {number}")
        paths = {side: out / "runs" / f"{side}-{number:03d}.jsonl" for side in SIDES}
        missing = {} if all(map(_is_whole, paths.values())) else {side: _begun(path) for side, path in paths.items()}
        with closing(_run(commands, missing, turns, pages)) as ended:
            for side, why in ended:
                why = why or _keep(missing[side], paths[side])
                failed += [f"{side}, run {number} of {processes}: {why}"] if why else []
                _stop_if_hopeless(out, side, number, failed)
        _stop_if_not_comparable(out, number, limits, across)
    progress("Running base and head in turn", processes, processes, "")
    return _judged(out, failed, _remark(out, before), limits, across)


def _remark(out: Path, before: Sequence[Record]) -> list[str]:
    """That runs were there already: a folder that is kept would judge the same ones for ever."""
    if not before:
        return []
    runs = len({(each.conditions["ab_side"], each.conditions["ab_round"]) for each in before})
    since = min(each.started for each in before)
    return [f"{runs} runs were in {out} before, the first of {since}. To measure anew, name another --out."]


def _run(
    commands: dict[str, list[str]], missing: dict[str, Path], turns: bool, pages: bool
) -> Generator[tuple[str, str], None, None]:
    """One round of what is missing: each side as it ends, with "" or what went wrong."""
    whole = {side: [*commands[side], *OPTIONS, "--out", str(path)] for side, path in missing.items()}
    for together in [whole] if turns else [{side: command} for side, command in whole.items()]:
        yield from run_in_turn(together, huge_pages(os.environ) if pages else {})


def _words(side: str, text: str) -> list[str]:
    try:
        words = shlex.split(text)
    except ValueError as error:
        raise UsageError(f"--{side} {text!r}: {error}. Quote it as for a shell.") from None
    if not words:
        raise UsageError(f"--{side} is empty. Accepted is a command, as '/envA/bin/vggbench latency --batch 1'.")
    clash = [word for word in words if word.split("=")[0] in ("--processes", "--out", "--peak", "--no-peak")]
    if clash:
        raise UsageError(f"--{side} holds {clash[0]}, which `ab` adds itself. Leave it out.")
    return words


def _same_commands(out: Path, commands: Mapping[str, object]) -> None:
    """What lies in the folder must be of these commands, run the same way. Raises UsageError, StorageError."""
    path = out / "ab.json"
    asked = json.dumps(commands, indent=1)
    try:
        known = path.read_text(encoding="utf-8") if path.exists() else None
    except OSError as error:
        raise StorageError(f"{path}: cannot be read ({error.strerror}). Name another --out.") from error
    if known is not None and known != asked:
        raise UsageError(
            f"{out} holds runs of other commands, or run in another way ({path}). Name another --out, or remove it."
        )
    if known is None:
        write_output(path, asked.encode(), "the commands")


def _is_whole(path: Path) -> bool:
    try:
        return bool(_timings(read_records(path)))
    except RecordError:
        return False


def _timings(records: Sequence[Record]) -> list[Record]:
    return [record for record in records if record.kind == "latency" and record.origin == "measured"]


def _begun(path: Path) -> Path:
    """Where a run writes: its file appears under its own name only when it is whole. What was there is removed."""
    running = path.with_name(f".{path.name}.running")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        for left in (running, path):
            left.unlink(missing_ok=True)
    except OSError as error:
        raise StorageError(f"{path.parent}: cannot be written ({error.strerror}). Name another --out.") from error
    return running


def _keep(running: Path, path: Path) -> str:
    """ "" or why it gave no records."""
    try:
        found = _timings(read_records(running))
    except RecordError as error:
        return f"it left no records ({error})"
    if not found:
        return "it timed nothing"
    os.replace(running, path)
    return ""


def _stop_if_hopeless(out: Path, side: str, number: int, failed: Sequence[str]) -> None:
    """Two failures and not one record: the command is wrong, and repeating it helps nobody."""
    mine = [each for each in failed if each.startswith(f"{side},")]
    if number >= 2 and len(mine) >= 2 and not _collected(out, side):
        raise UsageError(f"The command of --{side} gives no records. {mine[-1]}")


def _stop_if_not_comparable(out: Path, number: int, limits: Limits, across: Sequence[str]) -> None:
    """Told after the first round rather than after the last. Raises UsageError."""
    sides = [_collected(out, side) for side in SIDES]
    if number != 1 or not all(sides):
        return
    found = compare(*sides, limits=limits, across=across, names=SIDES)
    if found.verdict == NOT_COMPARABLE:
        raise UsageError(f"Stopped after the first round, not comparable: {found.reason}")


def _collected(out: Path, side: str) -> list[Record]:
    """All finished runs of a side, each record with its round."""
    found: list[Record] = []
    for path in sorted((out / "runs").glob(f"{side}-*.jsonl")):
        round_ = int(path.stem.rpartition("-")[2])
        for record in _timings(read_records(path)):
            found.append(
                record.model_copy(update={"conditions": {**record.conditions, "ab_side": side, "ab_round": round_}})
            )
    return found


def _judged(
    out: Path, failed: Sequence[str], remarks: Sequence[str], limits: Limits, across: Sequence[str]
) -> Measured:
    paths = tuple(out / f"{side}.jsonl" for side in SIDES)
    for side, path in zip(SIDES, paths, strict=True):
        write_records(path, _collected(out, side))
    (base, _), (head, _) = (read_set([path]) for path in paths)
    found = compare(base, head, limits=limits, across=across, names=SIDES, notes=[*failed, *remarks])
    return Measured(paths[0], paths[1], tuple(failed), found)
