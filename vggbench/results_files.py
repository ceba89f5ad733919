"""Records of files as they are found: cut in the middle, in folders, among files of other things."""

from __future__ import annotations

import gzip
import json
import zlib
from collections.abc import Iterable
from pathlib import Path

from vggbench.errors import RecordError
from vggbench.results import ACCEPTED, Record, records_of

ENDINGS = (".jsonl", ".jsonl.gz")


def files_of(path: Path, below: bool = False) -> list[Path]:
    """The file itself, or by name those of a folder: its records.jsonl, else all in it; ``below`` takes all below it.

    Raises RecordError where a folder has none.
    """
    if not path.is_dir():
        return [path]
    named = [path / f"records{ending}" for ending in ENDINGS if (path / f"records{ending}").is_file()]
    found = path.rglob("*") if below else named[:1] or path.iterdir()
    files = sorted(file for file in found if file.name.endswith(ENDINGS) and file.is_file())
    if not files:
        raise RecordError(f"{path} holds no records. Accepted are *.jsonl and *.jsonl.gz, or a folder with them.")
    return files


def read_set(paths: Iterable[Path]) -> tuple[list[Record], list[str]]:
    """Records of files and folders, and what was cut or passed over, a line each. Raises RecordError."""
    records: list[Record] = []
    remarks: list[str] = []
    for path in paths:
        for file in files_of(path):
            found, remark = read_found(file) if path.is_dir() else read_whole_part(file)
            records += found
            remarks += [remark] if remark else []
    return records, remarks


def read_found(path: Path) -> tuple[list[Record], str | None]:
    """As read_whole_part, but what lies in a folder and begins with no record is passed over, and named."""
    try:
        return read_whole_part(path)
    except RecordError:
        if _begins_with_a_record(path):
            raise
        return [], f"{path}: its first line is no record; passed over."


def read_whole_part(path: Path) -> tuple[list[Record], str | None]:
    """The records before a cut, and the cut named in one line, or None where nothing is missing.

    A cut is a .gz that breaks off, or a last line without its end that is no JSON. Whatever else is wrong raises
    RecordError, as read_records does.
    """
    try:
        data = path.read_bytes()
        data, broken = _unpacked(data) if path.suffix == ".gz" else (data, False)
        lines, end = data.count(b"\n"), data.rfind(b"\n") + 1
        cut = f"{path}: cut in the middle of the compressed data" if broken else None
        if data[end:].strip() and _is_cut(data[end:]):
            cut, data = f"{path}: cut in the middle of line {lines + 1}", data[:end]
        text = data.decode()
    except (OSError, zlib.error, UnicodeDecodeError) as error:
        raise RecordError(f"{path}: cannot read records ({error}). {ACCEPTED}") from error
    records = records_of(path, text)
    return records, cut and f"{cut}; the {len(records)} records before it are used."


def _unpacked(data: bytes) -> tuple[bytes, bool]:
    """All members of a gzip file as far as they reach, and whether the last one breaks off."""
    found, broken = b"", not data
    while data:
        member = zlib.decompressobj(31)
        found += member.decompress(data)
        broken, data = not member.eof, member.unused_data
    return found, broken


def _is_cut(line: bytes) -> bool:
    try:
        json.loads(line)
    except (ValueError, RecursionError):
        return True
    return False


def _begins_with_a_record(path: Path) -> bool:
    """Of any format, for all have these two fields. A file that cannot be read may."""
    try:
        with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as file:
            first = json.loads(next((line for line in file if line.strip()), b"null"))
    except (OSError, EOFError, zlib.error):
        return True
    except (ValueError, RecursionError):
        return False
    return isinstance(first, dict) and {"format", "kind"} <= first.keys()
