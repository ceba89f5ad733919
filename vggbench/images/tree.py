"""What lies in a folder: image files by name, and a count of everything else."""

from __future__ import annotations

import os
import stat
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from vggbench.errors import DataError
from vggbench.images.lists import Box
from vggbench.images.source import Source

#: Taken for images by name. Those that decode() does not take (TIFF, ...) are here so that they are named as bad
#: images when their turn comes, and never left out in silence.
ACCEPTED_SUFFIXES = (".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".webp", ".bmp", ".gif")
IMAGE_SUFFIXES = frozenset((*ACCEPTED_SUFFIXES, ".tif", ".tiff", ".ppm", ".pgm", ".jp2", ".avif", ".heic", ".heif"))

ARCHIVE_SUFFIXES = frozenset((".tar", ".tgz", ".gz", ".bz2", ".xz", ".zst", ".zip", ".7z", ".rar"))


#: Folders in folders; no set of images has more than a few.
MAX_DEPTH = 100


@dataclass(frozen=True)
class File:
    """An image file, or a member of an archive. id: its path below the folder with "/"; a broken link has size -1.

    mtime_ns: of the archive for a member.
    """

    id: str
    path: Source
    size: int
    mtime_ns: int


@dataclass
class Tree:
    """All image files below a folder or in archives, sorted by id. root: the folder, or the one archive.

    folders: top-level ones, empty ones too. others: by name. labels: id -> label, where a file NAME.cls stands beside
    NAME.jpg in an archive. archives_read: those that were read as if they were folders.
    """

    root: Path
    images: list[File] = field(default_factory=list)
    folders: list[str] = field(default_factory=list)
    others: list[str] = field(default_factory=list)
    hidden: int = 0
    loops: int = 0
    labels: dict[str, str] = field(default_factory=dict)
    archives_read: tuple[Path, ...] = ()

    @property
    def folder(self) -> Path:
        """Where lists lie beside the images."""
        return self.root if self.root.is_dir() else self.root.parent

    @property
    def archives(self) -> list[str]:
        return [name for name in self.others if Path(name).suffix.lower() in ARCHIVE_SUFFIXES]

    def left_out(self, unlisted: int = 0) -> str:
        """What was left out, in words."""
        counts = (
            (unlisted, "image", " not in the list"),
            (len(self.others), "other file", ""),
            (self.hidden, "hidden file", ""),
            (self.loops, "link", " to a folder above it"),
        )
        told = [f"{count} {what}{'' if count == 1 else 's'}{more}" for count, what, more in counts if count]
        return f"; left out: {', '.join(told)}" if told else ""


@dataclass(frozen=True)
class Layout:
    """Files and their labels, not yet ordered.

    split: "train", "val", "test" where a folder's name says so. truth: validation image's number -> label, of more
    images than are here, from truth_file. also: further right labels of each file (ReaL). label_set: "ReaL" or "".
    notes: what was checked, in sentences.
    """

    root: Path
    words: str
    classes: tuple[str, ...]
    files: list[File]
    labels: list[int]
    split: str | None = None
    boxes: dict[str, Box] = field(default_factory=dict)
    name: str | None = None
    truth: Mapping[int, int] = field(default_factory=dict)
    truth_file: str = ""
    also: list[tuple[int, ...]] | None = None
    label_set: str = ""
    notes: tuple[str, ...] = ()


def scan(root: Path) -> Tree:
    """Every image file below a folder; links are followed, except into a folder that holds them. Raises DataError."""
    tree = Tree(root)
    try:
        _scan(tree, root, "", (_identity(os.stat(root)),))
    except OSError as error:
        raise DataError(
            f"{error.filename}: cannot be read: {error.strerror}. Grant access, or name another folder."
        ) from error
    tree.images.sort(key=lambda file: file.id)
    tree.folders.sort()
    tree.others.sort()
    return tree


def _scan(tree: Tree, folder: Path, prefix: str, above: tuple[tuple[int, int], ...]) -> None:
    with os.scandir(folder) as entries:
        for entry in entries:
            name = prefix + os.fsencode(entry.name).decode("utf-8", "backslashreplace")
            if entry.name.startswith(".") or entry.name == "__MACOSX":
                tree.hidden += 1
                continue
            is_image = Path(entry.name).suffix.lower() in IMAGE_SUFFIXES
            try:
                status = entry.stat()
            except OSError:  # a broken link: bad when its turn comes
                if is_image:
                    tree.images.append(File(name, Path(entry.path), -1, 0))
                else:
                    tree.others.append(name)
                continue
            if stat.S_ISDIR(status.st_mode):
                if not prefix:
                    tree.folders.append(name)
                if _identity(status) in above:
                    tree.loops += 1
                elif len(above) > MAX_DEPTH:
                    raise DataError(f"{tree.root}: folders lie more than {MAX_DEPTH} deep in each other. Name another.")
                else:
                    _scan(tree, Path(entry.path), f"{name}/", (*above, _identity(status)))
            elif is_image and stat.S_ISREG(status.st_mode):  # reading a pipe would wait for ever
                tree.images.append(File(name, Path(entry.path), status.st_size, status.st_mtime_ns))
            else:
                tree.others.append(name)


def _identity(status: os.stat_result) -> tuple[int, int]:
    return status.st_dev, status.st_ino
