"""Where an image's bytes lie: in a file, or in a tar archive that is never unpacked."""

from __future__ import annotations

import errno
import hashlib
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
        with open(self.archive, "rb") as stream:
            stream.seek(self.offset)
            data = stream.read(self.size)
        if len(data) != self.size:
            raise OSError(errno.EIO, "the archive ends before it does")
        return data

    def __str__(self) -> str:
        return f"{self.archive}: {self.name}"


Source: TypeAlias = Path | Member


def read_image(dataset: Dataset, index: int) -> bytes:
    """The bytes of an image, as they were when the dataset was opened. Raises DataError where they are not.

    Posteriors are stored under the digest taken then.
    """
    image = dataset.images[index]
    try:
        data = image.path.read_bytes()
    except OSError as error:
        raise DataError(f"{image.id}: cannot be read: {error.strerror}. Restore it and run again.") from error
    if hashlib.sha256(data).hexdigest() != dataset.digests[index]:
        raise DataError(f"{image.id}: was changed while the run was on, or since its digest was taken. Run again.")
    return data
