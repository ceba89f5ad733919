"""One folder for everything that can be computed again; files are named by a digest of what decides their content.

Every file appears whole or not at all: it is written under a temporary name and then renamed. So a killed run, or two
runs at once, leave nothing half-written under a final name. Journals alone are appended to: see measure.journal.
"""

from __future__ import annotations

import fcntl
import itertools
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Literal

from vggbench.errors import StorageError, UsageError

#: Folders of the cache. Only these are ever listed or pruned, whatever else lies where VGGBENCH_CACHE points.
KINDS = {
    "posteriors": "class posteriors of passes, by what decides them",
    "graphs": "ONNX graphs",
    "ranges": "calibration ranges",
    "numerics": "which layers INT8 costs most",
    "timings": "how fast networks were on this machine",
    "sample": "images of the built-in sample set",
    "datasets": "content digests of image folders",
    "weights": "published models, downloaded or converted",
    "latency": "finished processes of interrupted timings",
    "engines": "TensorRT plans, by version, GPU, driver, graph, profile and options",
    "timing-caches": "timings of TensorRT's kernels, by version, GPU and driver",
}
#: A temporary file younger than this may belong to a run that is still writing it.
STALE_SECONDS = 3600.0
#: Ends the names of files that one process appends to, under a lock for as long as it lives.
JOURNAL = ".journal"

_DAY_SECONDS = 86400.0
_counter = itertools.count()


@dataclass(frozen=True)
class Entry:
    """One thing in the cache: a file, or a folder taken as a whole. used: when last read or written (Unix time).

    journals: how many of its files are journals, of runs that go on or were killed.
    """

    kind: str
    name: str
    bytes: int
    used: float
    journals: int = 0


def root() -> Path:
    """The cache's folder: VGGBENCH_CACHE, else the user's cache folder. It need not exist."""
    chosen = os.environ.get("VGGBENCH_CACHE")
    if chosen:
        return Path(chosen).expanduser().absolute()
    import platformdirs  # not at the top: engines keep their plans here in a Python that has little more than TensorRT

    return platformdirs.user_cache_path("vggbench")


@contextmanager
def storage_errors(path: Path) -> Iterator[None]:
    """Turns an OSError inside into a StorageError of one line naming the path and the way out."""
    try:
        yield
    except OSError as error:
        why = reason(path, error)
        raise StorageError(
            f"The cache cannot use {path}: {why[0].lower()}{why[1:]}. Free space or grant access there, or name "
            "another folder: VGGBENCH_CACHE=/another/folder."
        ) from error


def reason(path: Path, error: OSError) -> str:
    """Why a path cannot be written, in words: what the system says, but a file in the place of a folder by its name."""
    above = next((folder for folder in path.absolute().parents if folder.is_file()), None)
    if above is not None:
        return f"{above} is a file, not a folder"
    return error.strerror or type(error).__name__


def write_atomic(path: Path, data: bytes) -> None:
    """Write a file that is at any moment absent, old or complete; the last of several writers wins.

    Raises StorageError where the folder cannot take it (full, read-only, no access), and leaves nothing behind.
    """
    # Unique over processes and threads: both may write the same name at once.
    temporary = path.with_name(f".{path.name}.{os.getpid()}.{next(_counter)}.tmp")
    with storage_errors(path):
        try:
            with created(temporary) as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())  # some file systems tell only now that they are full
            os.replace(temporary, path)
        except BaseException:
            remove(temporary)
            raise


def created(path: Path, mode: Literal["wb", "ab"] = "wb", buffering: int = -1) -> BinaryIO:
    """A new file in a folder that another process may be pruning: an empty folder can vanish once made."""
    for _ in range(5):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            return open(path, mode, buffering)
        except FileNotFoundError:
            continue
    return open(path, mode, buffering)


def lock(file: int) -> bool | None:
    """Takes the lock of an open file, which is held until that is closed or the process ends, however it ends.

    Whether it could be had; None where the file system has no locks.
    """
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        return None
    return True


@contextmanager
def abandoned(path: Path) -> Iterator[bool]:
    """Whether no living process appends to a journal; inside, no other process finds that it is so.

    Where the file system has no locks, what was not written to for STALE_SECONDS is abandoned. Raises OSError.
    """
    try:
        file = _opened(path)
    except FileNotFoundError:
        yield False
        return
    try:
        locked, status = lock(file), os.fstat(file)
        if locked is None:
            locked = time.time() - status.st_mtime > STALE_SECONDS
        yield locked and status.st_nlink > 0
    finally:
        os.close(file)


def read(path: Path) -> bytes | None:
    """A file's bytes, None if it is not there. Marks it as used. Raises StorageError."""
    with storage_errors(path):
        try:
            data = path.read_bytes()
        except FileNotFoundError:
            return None
    touch(path)
    return data


def touch(path: Path) -> None:
    """Note that a file was used, to the hour; a cache that cannot be written to is served all the same."""
    try:
        if time.time() - path.stat().st_mtime > STALE_SECONDS:
            os.utime(path)
    except OSError:
        pass


def _opened(path: Path) -> int:
    """For its lock, which NFS has only for what is open for writing. Raises OSError."""
    try:
        return os.open(path, os.O_RDWR | os.O_CLOEXEC)
    except PermissionError:  # another user's, in a folder for both
        return os.open(path, os.O_RDONLY | os.O_CLOEXEC)


def entries(root: Path) -> list[Entry]:
    """What the cache holds, temporary files included, by kind and name. Raises StorageError."""
    found = []
    for kind in KINDS:
        for path in _children(root / kind):
            files = _files(path)
            used = max((stat.st_mtime for _, stat in files), default=0.0)
            journals = sum(file.suffix == JOURNAL for file, _ in files)
            found.append(Entry(kind, path.name, sum(stat.st_size for _, stat in files), used, journals))
    return found


def prune(
    root: Path,
    *,
    older_than_days: float | None = None,
    max_bytes: int | None = None,
    kinds: tuple[str, ...] | None = None,
    everything: bool = False,
) -> int:
    """Remove entries; returns the bytes freed. What killed runs left half-written is always removed.

    older_than_days: entries not used since. max_bytes: the least recently used until the rest fits. everything: all.
    kinds: only these. Safe beside a running evaluation: a file being written stays, what it misses it computes again.
    A journal of a killed run is finished work, and goes with its entry.
    Raises UsageError for an unknown kind, StorageError.
    """
    for kind in kinds or ():
        if kind not in KINDS:
            raise UsageError(f"No kind {kind!r} in the cache. Known: {', '.join(KINDS)}.")
    present = sorted((e for e in entries(root) if kinds is None or e.kind in kinds), key=lambda e: e.used)
    excess = sum(entry.bytes for entry in present) - max_bytes if max_bytes is not None else 0
    freed = 0
    for entry in present:
        old = older_than_days is not None and entry.used < time.time() - older_than_days * _DAY_SECONDS
        gone = _prune_entry(root / entry.kind / entry.name, everything or old or freed < excess)
        freed += gone
    return freed


def _prune_entry(path: Path, whole: bool) -> int:
    """Removes an entry, or only what is stale or empty of it; returns the bytes freed."""
    freed = 0
    with storage_errors(path):
        for file, stat in _files(path):
            if _may_go(file, stat, whole) and _remove_unheld(file):
                freed += stat.st_size
        if path.is_dir() and not path.is_symlink():
            for folder, _, _ in os.walk(path, topdown=False):
                try:
                    os.rmdir(folder)
                except OSError:  # not empty: something stays, or is being written
                    continue
    return freed


def _may_go(file: Path, stat: os.stat_result, whole: bool) -> bool:
    if file.name.startswith(".") and file.suffix == ".tmp":
        return time.time() - stat.st_mtime > STALE_SECONDS
    return whole or (file.suffix == JOURNAL and not stat.st_size)


def _remove_unheld(file: Path) -> bool:
    """Removes a file, but no journal that a living process appends to; whether it did. Raises OSError."""
    if file.suffix != JOURNAL:
        return remove(file, strict=True)
    with abandoned(file) as free:
        return free and remove(file, strict=True)


def _children(folder: Path) -> list[Path]:
    with storage_errors(folder):
        return sorted(folder.iterdir()) if folder.is_dir() else []


def _files(path: Path) -> list[tuple[Path, os.stat_result]]:
    """All files of an entry; one that vanishes meanwhile is left out, links are not followed."""
    found = []
    paths = (Path(folder, name) for folder, _, names in os.walk(path) for name in names)
    for file in paths if path.is_dir() and not path.is_symlink() else [path]:
        try:
            found.append((file, file.lstat()))
        except FileNotFoundError:
            continue
    return found


def remove(path: Path, strict: bool = False) -> bool:
    """Removes a file; whether it did. With strict, an error other than its absence is raised."""
    try:
        path.unlink()
    except FileNotFoundError:
        return False
    except OSError:
        if strict:
            raise
        return False
    return True
