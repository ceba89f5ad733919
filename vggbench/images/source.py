"""Where an image's bytes lie: in a file, or in a tar archive that is never unpacked."""

from __future__ import annotations

import errno
import hashlib
import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

from vggbench.errors import DataError

if TYPE_CHECKING:
    from vggbench.images import Dataset


@dataclass(frozen=True)
class Member:
    """A file inside a tar archive: its bytes start at ``offset``. Any thread or process may read it."""

    archive: Path
    name: str
    offset: int
    size: int

    def read_bytes(self) -> bytes:
        """Raises OSError."""
        return self.read()[0]

    def read(self) -> tuple[bytes, int]:
        """The bytes, and when the archive was changed last (st_mtime_ns). Raises OSError."""
        with open(self.archive, "rb") as stream:
            stream.seek(self.offset)
            data = stream.read(self.size)
            changed = os.fstat(stream.fileno()).st_mtime_ns
        if len(data) != self.size:
            raise OSError(errno.EIO, "the archive ends before it does")
        return data, changed

    def __str__(self) -> str:
        return f"{self.archive}: {self.name}"


Source: TypeAlias = Path | Member


def read_image(dataset: Dataset, index: int) -> bytes:
    """The bytes of an image, as they were when the dataset was opened. Raises DataError where they are not.

    Posteriors are stored under the digest taken then. It is taken again only where the file's size or time of change
    is not what it was (Dataset.stamps): hashing takes some percent of decoding.
    """
    image = dataset.images[index]
    try:
        data, changed = image.path.read() if isinstance(image.path, Member) else _read(image.path)
    except OSError as error:
        raise DataError(f"{image.id}: cannot be read: {error.strerror}. Restore it and run again.") from error
    if dataset.stamps and dataset.stamps[index] == (len(data), changed):
        return data
    if hashlib.sha256(data).hexdigest() != dataset.digests[index]:
        raise DataError(f"{image.id}: was changed while the run was on, or since its digest was taken. Run again.")
    return data


def _read(path: Path) -> tuple[bytes, int]:
    """Its bytes, and its time of change, asked after reading so that a change meanwhile shows. Raises OSError.

    Not by ``open``, which asks the system more often: each time other threads get the interpreter, and may keep it.
    """
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        wanted = os.fstat(descriptor).st_size + 1  # one more, so that all of a file is less
        data = part = os.read(descriptor, wanted)
        while len(data) != wanted - 1 and part:  # a network's short answer, or a file that changes
            part = os.read(descriptor, wanted)
            data += part
        return data, os.fstat(descriptor).st_mtime_ns
    finally:
        os.close(descriptor)
