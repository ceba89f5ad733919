"""Tar archives as if they were unpacked: ImageNet's own archive, any archive of images, shards with NAME.cls labels."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from vggbench.errors import DataError
from vggbench.images.source import Member
from vggbench.images.tar_index import Entry, index_file
from vggbench.images.tree import IMAGE_SUFFIXES, File, Tree

#: A member is read whole. No photograph has so many bytes.
MAX_IMAGE_BYTES = 1 << 28
_MAX_LABEL_BYTES = 64
_THREADS = 4


def is_tar(path: Path) -> bool:
    return path.suffix.lower() == ".tar"


def scan_archives(root: Path, archives: Sequence[Path]) -> Tree:
    """The images in archives, sorted by id. root: the one archive, or the folder of them. Raises DataError.

    An id is the member's name; below the name of its archive only where several archives hold the same name. One
    folder around everything is left away.
    """
    tree = Tree(root, archives_read=tuple(archives))
    with ThreadPoolExecutor(_THREADS) as pool:  # shards may lie on a slow disk
        indices = list(pool.map(index_file, archives))
    counts = Counter(entry.name for index in indices for entry in index)
    is_unique = not counts or max(counts.values()) == 1
    for archive, index in zip(archives, indices, strict=True):
        _add(tree, archive, index, "" if is_unique else f"{archive.stem}/")
    _strip_common_folder(tree)
    tree.images.sort(key=lambda file: file.id)
    tree.folders = sorted({file.id.partition("/")[0] for file in tree.images if "/" in file.id})
    tree.others.sort()
    return tree


def _add(tree: Tree, archive: Path, index: list[Entry], prefix: str) -> None:
    mtime_ns = os.stat(archive).st_mtime_ns
    images: dict[str, list[File]] = {}
    written: dict[str, Entry] = {}
    for entry in index:
        folder, _, last = entry.name.rpartition("/")
        if last.startswith(".") or "__MACOSX" in folder.split("/"):
            tree.hidden += 1
        elif last.endswith(".cls"):
            written[_key(entry.name)] = entry
        elif Path(last).suffix.lower() not in IMAGE_SUFFIXES:
            tree.others.append(prefix + entry.name)
        else:
            if entry.size > MAX_IMAGE_BYTES:
                raise DataError(
                    f"{archive}: {entry.name!r} has {entry.size:,} bytes; accepted are {MAX_IMAGE_BYTES:,} an image."
                )
            member = Member(archive, entry.name, entry.offset, entry.size)
            file = File(prefix + entry.name, member, entry.size, mtime_ns)
            images.setdefault(_key(entry.name), []).append(file)
            tree.images.append(file)
    if written:
        _add_labels(tree, archive, images, written)


def _key(name: str) -> str:
    """What the files of one sample share: the name up to the first dot."""
    folder, slash, last = name.rpartition("/")
    return folder + slash + last.partition(".")[0]


def _add_labels(tree: Tree, archive: Path, images: dict[str, list[File]], written: dict[str, Entry]) -> None:
    bare = [files[0].id for key, files in images.items() if key not in written]
    if bare:
        raise DataError(
            f"{archive}: {bare[0]!r} has no label beside it, {_key(bare[0])}.cls ({len(bare)} of {len(images)} "
            "images). Pack it anew."
        )
    for key, entry in written.items():
        if key not in images:
            tree.others.append(entry.name)
            continue
        if entry.size > _MAX_LABEL_BYTES:
            raise DataError(f"{archive}: {entry.name!r} has {entry.size:,} bytes; accepted is one number from 0 on.")
        text = Member(archive, entry.name, entry.offset, entry.size).read_bytes().strip()
        if not text.isdigit():
            raise DataError(f"{archive}: {entry.name!r} holds {text[:40]!r}; accepted is one number from 0 on.")
        if len(images[key]) > 1:
            raise DataError(
                f"{archive}: {images[key][0].id!r} and {images[key][1].id!r} share one label, {entry.name!r}. Pack it "
                "anew."
            )
        tree.labels[images[key][0].id] = str(int(text))


def _strip_common_folder(tree: Tree) -> None:
    """A folder can be named without the one around it; an archive cannot."""
    while tree.images:
        first = tree.images[0].id.partition("/")[0] + "/"
        if not all(file.id.startswith(first) for file in tree.images):
            return
        tree.images = [File(f.id.removeprefix(first), f.path, f.size, f.mtime_ns) for f in tree.images]
        tree.labels = {name.removeprefix(first): label for name, label in tree.labels.items()}
