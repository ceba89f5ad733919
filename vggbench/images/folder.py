"""Labelled images of a folder or of archives as a Dataset: a fixed order, and a digest of every image's content."""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from vggbench import cache
from vggbench.errors import DataError, StorageError, UsageError
from vggbench.images import Dataset, LabelledImage, sample
from vggbench.images.archives import is_tar
from vggbench.images.layouts import sniff
from vggbench.images.lists import read_list
from vggbench.images.sample_drawing import CLASSES
from vggbench.images.source import Member
from vggbench.images.tree import File, Layout

Progress = Callable[[int, int], None]

#: Part of the order's definition: another seed is another order.
ORDER_SEED = "vggbench-order-1"

#: A file that changed so shortly before its digest was taken may change again within what its time of change can tell
#: apart (2 s on FAT, milliseconds elsewhere): size and time then prove nothing.
SETTLED_NS = 2_000_000_000

_THREADS = 4
_BATCH = 256


def open_folder(
    root: Path,
    labels: Path | None = None,
    progress: Progress | None = None,
    *,
    split: str = "test",
    cache_root: Path | None = None,
    count: int | None = None,
) -> Dataset:
    """The labelled images of a folder, a tar archive or shards, in stratified order. Raises DataError with a hint.

    labels: a file that overrides what is found, see layouts.sniff. split: which one, where the folder holds train/ and
    val/ ("test" is the labelled one to report: val/ for ImageNet). cache_root: where content digests are kept between
    runs (None: nowhere). count: digests are taken of the first so many images only, and the rest left out.
    progress: called with (files digested, files).
    """
    opened = time.time_ns()
    layout = sniff(Path(root), None if labels is None else Path(labels), split)
    order = stratified_order([file.id for file in layout.files], layout.labels)
    chosen = _first(order, count)
    digests = content_digests([layout.files[index] for index in chosen], layout.root, cache_root, progress)
    return _dataset(layout.name or _name(layout), layout.split or "all", layout, chosen, digests, len(order), opened)


def open_sample(split: str, cache_root: Path, count: int | None = None, progress: Progress | None = None) -> Dataset:
    """A split of the built-in set, drawn where it is not there, in its natural order: each class once in every 60.

    Files that were checked against the manifest and have kept their sizes and times are trusted.
    """
    opened = time.time_ns()
    total = sample.SPLITS.get(split, 0)
    wanted = total if count is None else min(count, total)
    folder = cache_root / "sample" / split
    proof = cache_root / "datasets" / f"sample-{split}-{wanted}.checked"
    files = _sample_files(folder, wanted)
    if not files or cache.read(proof) != _proof(folder, files):
        sample.prepare(split, cache_root / "sample", wanted, progress=progress)
        files = _sample_files(folder, wanted)
        if files is None:
            raise DataError(f"{folder}: the sample images vanished while they were drawn. Run again.")
        cache.write_atomic(proof, _proof(folder, files))
    rows = read_list(folder / "annotations.csv")[:wanted]
    boxes = {row.file: row.box for row in rows if row.box is not None}
    words = f"the built-in sample set, split {split!r}"
    layout = Layout(folder, words, CLASSES, files, [int(row.label) for row in rows], split, boxes)
    digests = content_digests(files, folder, cache_root, None)
    return _dataset("sample", split, layout, range(wanted), digests, total, opened)


def _name(layout: Layout) -> str:
    """Of a set that is not a known one: the folder's, the one above where it says the split, or the archive's."""
    root = layout.root.resolve()
    if is_tar(root):
        return root.stem
    return root.name if layout.split is None else root.parent.name


def fingerprint(images: Sequence[LabelledImage], digests: Sequence[str]) -> str:
    """SHA-256 over the sorted (id, content digest, labels): what was evaluated, wherever it lies."""
    rows = sorted((image.id, digest, *image.labels) for image, digest in zip(images, digests, strict=True))
    return hashlib.sha256(json.dumps(rows).encode()).hexdigest()


def stratified_order(ids: Sequence[str], labels: Sequence[int]) -> list[int]:
    """Indices in the order of evaluation: every class once, then every class a second time, ...

    Within a class, and within a round over the classes, by SHA-256 of the id: independent of file system and locale.
    """
    keys = [hashlib.sha256(f"{ORDER_SEED}/{name}".encode()).digest() for name in ids]
    seen: Counter[int] = Counter()
    rounds = {}
    for index in sorted(range(len(ids)), key=lambda i: (keys[i], ids[i])):
        rounds[index] = seen[labels[index]]
        seen[labels[index]] += 1
    return sorted(rounds, key=lambda i: (rounds[i], keys[i], ids[i]))


def content_digests(files: Sequence[File], root: Path, cache_root: Path | None, progress: Progress | None) -> list[str]:
    """SHA-256 of each file, from the cache where size and time of change are as they were, and prove it.

    A file that cannot be read does not stop this: its digest is that of "unreadable:<id>", and it is a bad image later.
    """
    now = time.time_ns()
    place = None if cache_root is None else cache_root / "datasets" / f"{_sha(str(root.resolve()))}.digests"
    known = {} if place is None else _load_digests(place)
    missing = [file for file in files if known.get(file.id, ())[:2] != (file.size, file.mtime_ns)]
    fresh: dict[str, tuple[int, int, str]] = {}
    try:
        with ThreadPoolExecutor(_THREADS) as pool:
            for start in range(0, len(missing), _BATCH):
                batch = missing[start : start + _BATCH]
                for file, digest in zip(batch, pool.map(_digest, batch), strict=True):
                    known[file.id] = (file.size, file.mtime_ns, digest or _unreadable(file))
                    if digest is not None and is_settled(file, now):
                        fresh[file.id] = known[file.id]
                if progress:
                    progress(len(files) - len(missing) + start + len(batch), len(files))
    finally:  # an interrupted run keeps what it has
        if place is not None and fresh:
            _save_digests(place, {**_load_digests(place), **fresh})
    return [known[file.id][2] for file in files]


def is_settled(file: File, now_ns: int) -> bool:
    """Whether a change after ``now_ns`` must show in the file's size or time of change."""
    return now_ns - file.mtime_ns >= SETTLED_NS


def _dataset(
    name: str, split: str, layout: Layout, chosen: Sequence[int], digests: Sequence[str], total: int, opened: int
) -> Dataset:
    """opened: nanoseconds of the epoch, before any file was looked at."""
    images = tuple(
        LabelledImage(
            layout.files[index].id,
            layout.files[index].path,
            layout.labels[index],
            layout.also[index] if layout.also else (),
        )
        for index in chosen
    )
    return Dataset(
        name=name,
        split=split,
        classes=layout.classes,
        images=images,
        digests=tuple(digests),
        fingerprint=fingerprint(images, digests),
        layout=layout.words,
        total=total,
        boxes={image.id: layout.boxes[image.id] for image in images if image.id in layout.boxes},
        label_set=layout.label_set,
        notes=layout.notes,
        stamps=tuple(
            _stamp(layout.files[index], digest, opened) for index, digest in zip(chosen, digests, strict=True)
        ),
    )


def _stamp(file: File, digest: str, opened: int) -> tuple[int, int] | None:
    """What its bytes are known by; None where a change might not show, or where there is no digest of its bytes."""
    known = is_settled(file, opened) and digest != _unreadable(file)
    return (file.size, file.mtime_ns) if known else None


def _unreadable(file: File) -> str:
    return _sha(f"unreadable:{file.id}")


def _first(order: list[int], count: int | None) -> list[int]:
    if count is not None and count < 1:
        raise UsageError(f"{count} images were asked for. Accepted are 1 to {len(order)}.")
    return order[:count]


def _digest(file: File) -> str | None:
    sha = hashlib.sha256()
    try:
        if isinstance(file.path, Member):  # of limited size
            return hashlib.sha256(file.path.read_bytes()).hexdigest()
        with file.path.open("rb") as stream:
            while block := stream.read(1 << 20):
                sha.update(block)
    except OSError:
        return None
    return sha.hexdigest()


def _sha(text: str) -> str:
    return hashlib.sha256(os.fsencode(text)).hexdigest()


def _load_digests(place: Path) -> dict[str, tuple[int, int, str]]:
    """Known digests; none from a damaged file, whose first line is not the digest of the rest."""
    try:
        first, _, rest = (cache.read(place) or b"").partition(b"\n")
    except StorageError:
        return {}
    if hashlib.sha256(rest).hexdigest().encode() != first:
        return {}
    return {name: (size, mtime_ns, digest) for name, (size, mtime_ns, digest) in json.loads(rest).items()}


def _save_digests(place: Path, known: dict[str, tuple[int, int, str]]) -> None:
    rest = json.dumps(known).encode()
    cache.write_atomic(place, hashlib.sha256(rest).hexdigest().encode() + b"\n" + rest)


def _sample_files(folder: Path, count: int) -> list[File] | None:
    """The first ``count`` files of a sample split by their names, None if one is missing."""
    files = []
    for index in range(count):
        path = folder / f"{index:05d}.jpg"
        try:
            status = path.stat()
        except OSError:
            return None
        files.append(File(path.name, path, status.st_size, status.st_mtime_ns))
    return files


def _proof(folder: Path, files: Sequence[File]) -> bytes:
    """Digest over the manifest, the annotations, and names, sizes and times of the files: what was checked."""
    try:
        annotations = (folder / "annotations.csv").read_text()
    except OSError:
        annotations = ""
    rows = annotations.split("\n")[: len(files) + 1]
    listing = [(file.id, file.size, file.mtime_ns) for file in files]
    manifest = Path(sample.__file__).with_name("sample_manifest.json").read_text()
    return _sha(json.dumps([manifest, rows, listing])).encode()
