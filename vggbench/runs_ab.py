"""Two installations on one machine, run in turn (ABAB), so that what the machine does meets both alike."""

from __future__ import annotations

import contextlib
import json
import os
import shlex
import signal
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from vggbench.errors import RecordError, StorageError, UsageError
from vggbench.gate import Comparison, Limits, compare, read_set
from vggbench.gate_rows import NOT_COMPARABLE
from vggbench.progress import Report, silent
from vggbench.results import Record, read_records, write_output, write_records
from vggbench.runs_fresh import cause

SIDES = ("base", "head")
#: Appended to each command: one fresh process, no peak, its records in a file.
OPTIONS = ("--processes", "1", "--no-peak")
#: A command that is asked to stop gets so long before it is killed.
STOP_SECONDS = 10.0


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
    limits: Limits = Limits(),  # noqa: B008 - frozen
    across: Sequence[str] = (),
    progress: Report = silent,
) -> Measured:
    """Rounds of both commands until each has ``processes`` runs, then the gate.

    A finished run stays in DIR/runs and is not run again. A run that fails or is killed is named, and the others count.
    Raises UsageError, RecordError, StorageError; KeyboardInterrupt with everything finished on disk.
    """
    commands = {side: _words(side, text) for side, text in zip(SIDES, (base, head), strict=True)}
    _same_commands(out, commands)
    failed: list[str] = []
    for number in range(1, processes + 1):
        for place, side in enumerate(SIDES):
            progress("Running base and head in turn", 2 * (number - 1) + place, 2 * processes, f"{side} {number}")
            path = out / "runs" / f"{side}-{number:03d}.jsonl"
            if not _is_whole(path):
                why = _run(commands[side], path)
                failed += [f"{side}, run {number} of {processes}: {why}"] if why else []
                _stop_if_hopeless(out, side, number, failed)
        _stop_if_not_comparable(out, number, limits, across)
    progress("Running base and head in turn", 2 * processes, 2 * processes, "")
    return _judged(out, failed, limits, across)


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


def _same_commands(out: Path, commands: dict[str, list[str]]) -> None:
    """What lies in the folder must be of these commands. Raises UsageError, StorageError."""
    path = out / "ab.json"
    asked = json.dumps(commands, indent=1)
    try:
        known = path.read_text(encoding="utf-8") if path.exists() else None
    except OSError as error:
        raise StorageError(f"{path}: cannot be read ({error.strerror}). Name another --out.") from error
    if known is not None and known != asked:
        raise UsageError(f"{out} holds runs of other commands ({path}). Name another --out, or remove it.")
    if known is None:
        write_output(path, asked.encode(), "the commands")


def _is_whole(path: Path) -> bool:
    try:
        return bool(_timings(read_records(path)))
    except RecordError:
        return False


def _timings(records: Sequence[Record]) -> list[Record]:
    return [record for record in records if record.kind == "latency" and record.origin == "measured"]


def _run(command: Sequence[str], path: Path) -> str:
    """One run; "" or why it gave no records. The file appears under its name only when it is whole."""
    running = path.with_name(f".{path.name}.running")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        running.unlink(missing_ok=True)
    except OSError as error:
        raise StorageError(f"{path.parent}: cannot be written ({error.strerror}). Name another --out.") from error
    why = _finish([*command, *OPTIONS, "--out", str(running)])
    if why:
        return why
    try:
        found = _timings(read_records(running))
    except RecordError as error:
        return f"it left no records ({error})"
    if not found:
        return "it timed nothing"
    os.replace(running, path)
    return ""


def _finish(command: Sequence[str]) -> str:
    """Runs it to its end; "" or what went wrong. Ctrl-C stops the command first, and a second one changes nothing."""
    try:
        # Of its own session: the terminal's Ctrl-C reaches only us, and all its workers end with it.
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
            errors="replace", start_new_session=True,
        )  # fmt: skip
    except OSError as error:
        raise UsageError(
            f"{command[0]} cannot be started ({error.strerror}). Name the command of an environment."
        ) from error
    try:
        _, complaints = process.communicate()
    except BaseException:
        _stop(process)
        raise
    if process.returncode == 0:
        return ""
    last = next((line.strip() for line in reversed(complaints.splitlines()) if line.strip()), "")
    if process.returncode < 0:
        return cause(process.returncode)
    return f"exit status {process.returncode}" + (f": {last[:300]}" if last else "")


def _stop(process: subprocess.Popen[str]) -> None:
    before = signal.getsignal(signal.SIGINT)
    with contextlib.suppress(ValueError):  # not in the main thread
        signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        for how in (signal.SIGINT, signal.SIGKILL):
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, how)
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(STOP_SECONDS)
                break
        with contextlib.suppress(ProcessLookupError):  # workers that outlived it
            os.killpg(process.pid, signal.SIGKILL)
        if process.stderr is not None:
            process.stderr.close()
    finally:
        with contextlib.suppress(ValueError):
            signal.signal(signal.SIGINT, before)


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
            found.append(record.model_copy(update={"conditions": {**record.conditions, "ab_round": round_}}))
    return found


def _judged(out: Path, failed: Sequence[str], limits: Limits, across: Sequence[str]) -> Measured:
    paths = tuple(out / f"{side}.jsonl" for side in SIDES)
    for side, path in zip(SIDES, paths, strict=True):
        write_records(path, _collected(out, side))
    (base, _), (head, _) = (read_set([path]) for path in paths)
    found = compare(base, head, limits=limits, across=across, names=SIDES, notes=failed)
    return Measured(paths[0], paths[1], tuple(failed), found)
