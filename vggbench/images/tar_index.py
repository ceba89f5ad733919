"""The members of a tar archive and where their bytes lie. Nothing is unpacked, and only headers are read.

Stricter than tarfile on purpose: what an archive of images never holds (links, sparse files, names that leave the
folder) is refused by name, and no header can ask for more than a few KiB of memory.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from vggbench.errors import DataError

BLOCK = 512
#: Images and labels beside them; ImageNet's training set has 1.3 million.
MAX_MEMBERS = 6_000_000
#: Of a long name or of a pax header.
MAX_HEADER_BYTES = 1 << 16

_REGULAR, _FOLDER, _LONG_NAME, _LONG_LINK, _PAX, _PAX_GLOBAL = (b"0", b"\0", b"7"), b"5", b"L", b"K", b"x", b"g"
_REFUSED = {b"1": "a hard link", b"2": "a symbolic link", b"S": "a sparse file"}
_COMPRESSED = {b"\x1f\x8b": "gzip", b"BZh": "bzip2", b"\xfd7zXZ": "xz", b"\x28\xb5\x2f\xfd": "zstd"}


@dataclass(frozen=True)
class Entry:
    """A plain file in an archive. name: with "/", without "./" before it."""

    name: str
    offset: int
    size: int


def index_file(path: Path) -> list[Entry]:
    """The plain files of an archive, in its order. Raises DataError in one line for one that cannot be trusted."""
    try:
        with open(path, "rb", buffering=0) as stream:  # a buffer would read ahead of each header
            end = stream.seek(0, 2)

            def read(position: int, count: int) -> bytes:
                stream.seek(position)
                return stream.read(count)

            return index(read, end, str(path))
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror}. Grant access, or copy it again.") from error


def index(read: Callable[[int, int], bytes], end: int, where: str) -> list[Entry]:
    """The same over anything that can be read at a place. end: its length in bytes."""
    found: list[Entry] = []
    names: set[str] = set()
    position, long_name, pax = 0, b"", dict[bytes, bytes]()
    while True:
        header = read(position, BLOCK)
        if header == b"\0" * BLOCK:
            return found
        if len(header) < BLOCK:
            raise DataError(
                f"{where}: is cut at byte {end:,}, after {len(found):,} files, without the end mark of a tar. Copy it "
                "again."
            )
        _check_header(header, position, where)
        kind, size = header[156:157], _number(header[124:136], where, position)
        name = long_name or pax.get(b"path") or _name(header)
        if kind in _REGULAR and b"size" in pax:
            size = int(pax[b"size"]) if pax[b"size"].isdigit() and len(pax[b"size"]) < 20 else -1
        data = position + BLOCK
        has_data = kind in (*_REGULAR, _LONG_NAME, _LONG_LINK, _PAX, _PAX_GLOBAL)
        position = data + (-(-size // BLOCK) * BLOCK if has_data else 0)
        if size < 0 or (has_data and data + size > end):
            raise DataError(
                f"{where}: {_text(name)!r} should have {size:,} bytes from byte {data:,} on, but the archive ends at "
                f"{end:,}. It is cut: copy it again."
            )
        if kind in (_LONG_NAME, _LONG_LINK, _PAX, _PAX_GLOBAL):
            if size > MAX_HEADER_BYTES:
                raise DataError(
                    f"{where}: a header of {size:,} bytes at byte {data:,}; accepted are {MAX_HEADER_BYTES:,}."
                )
            if kind == _LONG_NAME:
                long_name = read(data, size).partition(b"\0")[0]
            elif kind == _PAX:
                pax = _pax(read(data, size))
            continue
        entry = _entry(name, kind, data, size, pax, where)
        long_name, pax = b"", {}
        if entry is None:
            continue
        if entry.name in names:
            raise DataError(f"{where}: holds {entry.name!r} twice. Pack it anew.")
        names.add(entry.name)
        found.append(entry)
        if len(found) > MAX_MEMBERS:
            raise DataError(f"{where}: holds more than {MAX_MEMBERS:,} files. Name another archive.")


def _entry(name: bytes, kind: bytes, data: int, size: int, pax: dict[bytes, bytes], where: str) -> Entry | None:
    """None for a folder, device or pipe. Raises DataError."""
    parts = [part for part in _text(name).split("/") if part not in ("", ".")]
    if name.startswith(b"/") or ".." in parts:
        raise DataError(f"{where}: the name {_text(name)[:120]!r} leads out of the archive. Do not use or unpack it.")
    if any(key.startswith(b"GNU.sparse") for key in pax):
        kind = b"S"
    if kind in _REFUSED:
        raise DataError(
            f"{where}: {_text(name)[:120]!r} is {_REFUSED[kind]}; accepted are plain files. Pack it anew (tar "
            "--dereference)."
        )
    if kind not in _REGULAR or name.endswith(b"/") or not parts:
        return None
    return Entry("/".join(parts), data, size)


def _check_header(header: bytes, position: int, where: str) -> None:
    """Raises DataError where the checksum is wrong: the archive is damaged, or no tar at all."""
    try:
        stated = int(header[148:156].strip(b" \0") or b"-1", 8)
    except ValueError:
        stated = -1
    if stated == sum(header) - sum(header[148:156]) + 8 * ord(" "):
        return
    if position:
        raise DataError(f"{where}: is damaged at byte {position:,}: no member's header is there. Copy it again.")
    packed = next((name for magic, name in _COMPRESSED.items() if header.startswith(magic)), None)
    if packed:
        raise DataError(
            f"{where}: is compressed ({packed}), so its members cannot be read one by one. Decompress it once."
        )
    what = "a zip archive" if header.startswith(b"PK") else "not a tar archive"
    raise DataError(f"{where}: is {what}. Accepted are tar archives and folders: unpack it and name the folder.")


def _number(field: bytes, where: str, position: int) -> int:
    """Octal digits, or binary where the first bit is set (GNU, for more than 8 GiB). Raises DataError."""
    if field[0] == 0x80:
        return int.from_bytes(field[1:], "big")
    digits = field.strip(b" \0")
    try:
        return int(digits or b"0", 8)
    except ValueError:
        raise DataError(f"{where}: is damaged at byte {position:,}: {digits!r} is no size. Copy it again.") from None


def _name(header: bytes) -> bytes:
    name = header[:100].partition(b"\0")[0]
    prefix = header[345:500].partition(b"\0")[0] if header[257:263] == b"ustar\0" else b""
    return prefix + b"/" + name if prefix else name


def _pax(data: bytes) -> dict[bytes, bytes]:
    """Records "length key=value\\n"; what is not of that form ends them."""
    found = {}
    while data:
        length, _, _ = data.partition(b" ")
        if not length.isdigit() or len(length) > 9 or not len(length) < int(length) <= len(data):
            break
        record, data = data[: int(length)], data[int(length) :]
        key, equals, value = record[len(length) + 1 : -1].partition(b"=")
        if equals:
            found[key] = value
    return found


def _text(name: bytes) -> str:
    return name.decode("utf-8", "backslashreplace")
