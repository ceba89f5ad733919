"""Finished blocks on the disk at once, so that a killed process costs only the blocks that it had in work.

A process appends each block of a pass to a file of its own, one write a block, and does not wait for the disk: a kill
takes nothing that the kernel has. Every few seconds what was appended becomes a shard, which does wait, and the file is
emptied; so a power failure costs these seconds. A record carries its lengths and a digest: of a file that was cut or
damaged anywhere, the records before that place are used.

Blocks are named by their contents, so one that lies in a journal and in a shard counts once. Journals are read before
shards: a block leaves a journal only when its shard is there. Whoever removes a journal has made a shard of it first,
and takes its lock, which its process holds for life; where that fails to protect, as on a file system without locks, a
process that finds its journal gone begins another with all that is in no shard.
"""

from __future__ import annotations

import hashlib
import json
import os
import platform
import re
import secrets
import struct
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO

import numpy as np

from vggbench import cache
from vggbench.errors import StorageError
from vggbench.measure import shards
from vggbench.measure.shards import Stored

#: A record: _HEAD (magic, bytes of the description, bytes of the posteriors), the SHA-256 of all else, the description
#: as JSON, the posteriors.
_HEAD = struct.Struct("<8sIQ")
_MAGIC = b"vggblok1"
_DIGEST_BYTES = hashlib.sha256().digest_size


class Journal:
    """What this process has finished of a pass and not yet put into a shard: ``blocks``, by name. Of one thread."""

    def __init__(self, folder: Path) -> None:
        self.blocks: dict[str, Stored] = {}
        self._folder = folder
        self._path = folder
        self._file: BinaryIO | None = None

    def append(self, name: str, stored: Stored) -> None:
        """Raises StorageError."""
        self.blocks[name] = stored
        with cache.storage_errors(self._path):
            if self._file is not None and _is_there(self._file):
                _append(self._file, record(name, stored))
                return
            self._release()
            self._file = self._begun()
            for each in self.blocks.items():
                _append(self._file, record(*each))

    def empty(self) -> None:
        """Once its blocks are in a shard. Raises StorageError."""
        self.blocks = {}
        if self._file is not None:
            with cache.storage_errors(self._path):
                self._file.truncate(0)

    def close(self) -> None:
        """Lets go of the file, and removes it if all of it is in shards."""
        if self._file is not None and not self.blocks:
            cache.remove(self._path)
        self._release()

    def _begun(self) -> BinaryIO:
        """A new file, which has its name once it is locked: no other process finds it without. Raises OSError."""
        # Containers of one image share their host's name or their processes' numbers.
        owner = re.sub(r"[^A-Za-z0-9-]", "-", platform.node())[:64]
        self._path = self._folder / f"{owner}-{os.getpid()}-{secrets.token_hex(8)}{cache.JOURNAL}"
        temporary = self._path.with_name(f".{self._path.name}.tmp")
        file = cache.created(temporary, "ab", buffering=0)
        try:
            cache.lock(file.fileno())
            os.replace(temporary, self._path)
        except BaseException:
            file.close()
            cache.remove(temporary)
            raise
        return file

    def _release(self) -> None:
        file, self._file = self._file, None
        if file is not None:
            file.close()


def record(name: str, stored: Stored) -> bytes:
    """A block as it stands in a journal."""
    posteriors = np.ascontiguousarray(stored.posteriors, "<f4")
    description = {"name": name, "images": len(posteriors), "bad": stored.bad, "session": stored.session}
    text = json.dumps(description, default=str).encode()
    head = _HEAD.pack(_MAGIC, len(text), posteriors.nbytes)
    return b"".join((head, _digest(head, text, posteriors.data), text, posteriors.data))


def records(data: bytes, classes: int) -> Iterator[tuple[str, Stored]]:
    """The blocks of a journal, by name, up to the first record that is not whole; none of another class count."""
    view, start = memoryview(data), 0
    while len(view) - start >= _HEAD.size + _DIGEST_BYTES:
        magic, text_bytes, posteriors_bytes = _HEAD.unpack_from(view, start)
        text_at = start + _HEAD.size + _DIGEST_BYTES
        posteriors_at, end = text_at + text_bytes, text_at + text_bytes + posteriors_bytes
        if magic != _MAGIC or end > len(view):
            return
        head, text, posteriors = view[start : start + _HEAD.size], view[text_at:posteriors_at], view[posteriors_at:end]
        if view[start + _HEAD.size : text_at] != _digest(head, text, posteriors):
            return
        description = json.loads(bytes(text))
        rows = np.frombuffer(posteriors, "<f4").astype(np.float32).reshape(description["images"], -1)
        # As of shards: posteriors that are not finite are computed again.
        if rows.shape[1] == classes and np.isfinite(rows).all():
            bad = tuple((int(index), str(why)) for index, why in description["bad"])
            yield description["name"], Stored(rows, bad, description["session"])
        start = end


def read(folder: Path, wanted: set[str], classes: int) -> dict[str, Stored]:
    """The wanted blocks that the journals of a pass hold, of processes dead or alive. Raises StorageError."""
    found: dict[str, Stored] = {}
    for path in _journals(folder):
        # What cannot be read, as on file systems where a lock keeps readers out, is computed again.
        with suppress(OSError):
            found.update((name, stored) for name, stored in records(path.read_bytes(), classes) if name in wanted)
    return found


def settle(folder: Path, classes: int) -> None:
    """Makes shards of the journals that killed processes left. Raises StorageError of the first that it cannot, once
    it has tried all: one may be another user's.
    """
    refused: list[StorageError] = []
    for path in _journals(folder):
        try:
            _settle(path, classes)
        except StorageError as error:
            refused.append(error)
    if refused:
        raise refused[0]


def _settle(path: Path, classes: int) -> None:
    with cache.storage_errors(path), cache.abandoned(path) as left:
        if not left:
            return
        blocks = dict(records(path.read_bytes(), classes))
        if blocks:
            shards.write(path.parent, blocks)
        cache.remove(path)


def _journals(folder: Path) -> list[Path]:
    with cache.storage_errors(folder):
        return sorted(folder.glob(f"*{cache.JOURNAL}")) if folder.is_dir() else []


def _is_there(file: BinaryIO) -> bool:
    try:
        return os.fstat(file.fileno()).st_nlink > 0
    except OSError:  # removed on another machine
        return False


def _append(file: BinaryIO, data: bytes) -> None:
    """One write, unless the disk is full: then nothing of it stays, for it would hide what came after it."""
    before = os.fstat(file.fileno()).st_size
    try:
        written = 0
        while written < len(data):
            written += file.write(memoryview(data)[written:])
    except OSError:
        with suppress(OSError):
            file.truncate(before)
        raise


def _digest(head: bytes | memoryview, text: bytes | memoryview, posteriors: memoryview) -> bytes:
    sha = hashlib.sha256(head)
    sha.update(text)
    sha.update(posteriors)
    return sha.digest()
