"""Which processes there are."""

from pathlib import Path


def running(word: object) -> list[str]:
    """The command lines that name it."""
    found = [_read(path) for path in Path("/proc").glob("[0-9]*/cmdline")]
    return [line for line in found if str(word) in line]


def _read(path: Path) -> str:
    try:
        return path.read_bytes().replace(b"\0", b" ").decode(errors="replace")
    except OSError:  # it ended meanwhile
        return ""
