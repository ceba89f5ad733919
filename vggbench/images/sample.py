"""The built-in labelled set on disk: its splits, writing them as JPEG files, and the check against recorded digests.

After the drawing was changed on purpose, `python -m vggbench.images.sample --write-manifest` records new digests.
"""

from __future__ import annotations

import hashlib
import io
import json
import multiprocessing
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Generator, Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import closing, contextmanager
from functools import cache
from multiprocessing.connection import wait
from pathlib import Path
from typing import Any

import numpy as np
import PIL
from numpy.typing import NDArray
from PIL import Image, features

from vggbench.errors import DataError, StorageError, UsageError
from vggbench.images.sample_drawing import CLASSES, Annotation, draw

#: Images per split. "train" trains, "tune" steers, "test" is reported and never steers anything.
SPLITS = {"train": 18000, "tune": 1200, "test": 2400}

#: Images per recorded digest, and per unit of work.
BLOCK = 300

COLUMNS = ("file", "label", "class", "x0", "y0", "x1", "y1", "diameter")

_MANIFEST = Path(__file__).with_name("sample_manifest.json")
_STALE_SECONDS = 3600.0

Block = tuple[int, list[str]]


def prepare(
    split: str,
    root: Path,
    count: int | None = None,
    workers: int | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Path:
    """The folder <root>/<split> holding the first `count` images of a split (default: all) and annotations.csv.

    What is there and matches the recorded digests is kept, so an interrupted or smaller run is continued; the folder
    and annotations.csv never shrink. Images come in blocks of 300; a block that is cut by `count` is drawn whole to be
    checked. workers: processes, default one per usable core; with 1 the caller's process draws. progress: called with
    (images ready, images wanted). Raises DataError where this machine's images are not the recorded ones.
    """
    wanted = _wanted(split, count)
    folder = Path(root) / split
    with _storage_errors(folder):
        _make_folder(folder)
    blocks = range(-(-wanted // BLOCK))
    rows: dict[int, list[str]] = {}
    jobs = [(folder, split, block, min(BLOCK, wanted - block * BLOCK)) for block in blocks]
    with closing(_run(jobs, workers)) as results:  # so that Ctrl-C stops the workers at once, not at the exit
        for block, block_rows in results:
            rows[block] = block_rows
            if progress:
                progress(sum(map(len, rows.values())), wanted)
    with _storage_errors(folder):
        _write_annotations(folder, [row for block in blocks for row in rows[block]])
    return folder


def write_manifest(path: Path = _MANIFEST, workers: int | None = None) -> None:
    """Draws every image and records the digests that `prepare` checks. Developers run this, users never do."""
    jobs = [(split, block) for split, size in SPLITS.items() for block in range(size // BLOCK)]
    with _pool(workers, len(jobs)) as pool:
        digests = list(pool.map(_block_digests, *zip(*jobs, strict=True)))
    manifest = {
        "block": BLOCK,
        "encoder": _encoder(),
        "splits": {
            split: [digest for job, digest in zip(jobs, digests, strict=True) if job[0] == split] for split in SPLITS
        },
    }
    _replace(path, (json.dumps(manifest, indent=1) + "\n").encode(), path.parent)


def _wanted(split: str, count: int | None) -> int:
    if split not in SPLITS:
        raise UsageError(f"No split {split!r} in the sample set. Known: {', '.join(SPLITS)}.")
    if count is None:
        return SPLITS[split]
    if not 1 <= count <= SPLITS[split]:
        raise UsageError(f"{count} images of split {split!r} were asked for. Possible: 1 to {SPLITS[split]}.")
    return count


def _run(jobs: list[tuple[Path, str, int, int]], workers: int | None) -> Generator[Block, None, None]:
    if _worker_count(workers, len(jobs)) == 1:
        for job in jobs:
            with _storage_errors(job[0]):
                done = _prepare_block(*job)
            yield done
        return
    with _pool(workers, len(jobs)) as pool:
        try:
            for future in as_completed([pool.submit(_prepare_block, *job) for job in jobs]):
                with _storage_errors(jobs[0][0]):
                    done = future.result()
                yield done
        except BrokenProcessPool:
            raise DataError(
                "A process that draws sample images died. In a script, call from below `if __name__ == '__main__':`, "
                "or pass workers=1."
            ) from None


@contextmanager
def _storage_errors(folder: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        reason = error.strerror or type(error).__name__
        raise StorageError(f"The sample images cannot be kept in {folder}: {reason}. Choose another place.") from error


def _worker_count(workers: int | None, jobs: int) -> int:
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, min(usable if workers is None else workers, jobs))


@contextmanager
def _pool(workers: int | None, jobs: int) -> Iterator[ProcessPoolExecutor]:
    context = multiprocessing.get_context("spawn")
    pool = ProcessPoolExecutor(_worker_count(workers, jobs), mp_context=context, initializer=_start_worker)
    try:
        yield pool
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _start_worker() -> None:
    """Ctrl-C reaches the whole process group: the parent handles it, a worker finishes its block. A worker whose
    parent was killed would wait for work for ever, so it watches the parent and leaves with it."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    parent = multiprocessing.parent_process()
    if parent is None:
        return

    def leave_with_parent(sentinel: int) -> None:
        wait([sentinel])
        os._exit(1)

    threading.Thread(target=leave_with_parent, args=(parent.sentinel,), daemon=True).start()


def _prepare_block(folder: Path, split: str, block: int, count: int) -> Block:
    """Makes the first `count` files of a block right on disk. Returns their rows of annotations.csv."""
    recorded = _recorded(split, block)
    part = folder / ".blocks" / f"{block:03d}.csv"
    files = [folder / _file_name(index) for index in _indices(block)]
    kept = _kept_rows(part, files, recorded)
    if kept is not None:
        return block, kept[:count]

    images, rows, digests = _draw_block(split, block)
    _compare(split, block, digests, recorded)
    for file, image in zip(files[:count], images, strict=False):
        _replace(file, image, part.parent)
    if count == BLOCK:
        _replace(part, "\n".join(rows).encode(), part.parent)
    return block, rows[:count]


def _kept_rows(part: Path, files: list[Path], recorded: dict[str, str]) -> list[str] | None:
    """The rows of a block whose files on disk match the recorded digests, else None."""
    try:
        text = part.read_bytes()
        if hashlib.sha256(text).hexdigest() != recorded["annotations"]:
            return None
        jpeg = hashlib.sha256()
        for file in files:
            jpeg.update(file.read_bytes())
    except FileNotFoundError:
        return None
    return text.decode().split("\n") if jpeg.hexdigest() == recorded["jpeg"] else None


def _compare(split: str, block: int, digests: dict[str, str], recorded: dict[str, str]) -> None:
    where = f"Block {block} of the sample split {split!r} (images {block * BLOCK} to {block * BLOCK + BLOCK - 1})"
    for kind in ("pixels", "annotations"):
        if digests[kind] != recorded[kind]:
            raise DataError(
                f"{where}: this machine draws other {kind} than recorded (NumPy {np.__version__}). "
                "Results on this set could not be compared with others. Try another NumPy, and report this."
            )
    if digests["jpeg"] != recorded["jpeg"]:
        raise DataError(
            f"{where}: the pixels are as recorded, only the JPEG encoder differs ({_encoder()}; recorded with "
            f"{_manifest()['encoder']}). Install a Pillow with that encoder."
        )


def _draw_block(split: str, block: int) -> tuple[list[bytes], list[str], dict[str, str]]:
    """JPEG files, rows of annotations.csv, and digests of one block."""
    pixels_hash, images, rows = hashlib.sha256(), [], []
    for index in _indices(block):
        pixels, annotation = draw(split, index)
        pixels_hash.update(f"{pixels.shape}".encode())
        pixels_hash.update(pixels.tobytes())
        images.append(_jpeg(pixels))
        rows.append(_row(index, annotation))
    digests = {
        "pixels": pixels_hash.hexdigest(),
        "jpeg": hashlib.sha256(b"".join(images)).hexdigest(),
        "annotations": hashlib.sha256("\n".join(rows).encode()).hexdigest(),
    }
    return images, rows, digests


def _block_digests(split: str, block: int) -> dict[str, str]:
    return _draw_block(split, block)[2]


def _jpeg(pixels: NDArray[np.uint8]) -> bytes:
    """Quality 90 without chroma subsampling: 13 % more bytes than 4:2:0, and 4 dB less error on the objects."""
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "JPEG", quality=90, subsampling=0)
    return buffer.getvalue()


def _row(index: int, annotation: Annotation) -> str:
    box = ",".join(f"{edge:.0f}" for edge in annotation.box)
    return f"{_file_name(index)},{annotation.label},{CLASSES[annotation.label]},{box},{annotation.diameter:.2f}"


def _write_annotations(folder: Path, rows: list[str]) -> None:
    """Never shortens what another run wrote: it is the same list, only longer."""
    path = folder / "annotations.csv"
    lines = [",".join(COLUMNS), *rows]
    if path.exists() and path.read_text().splitlines()[: len(lines)] == lines:
        return
    _replace(path, ("\n".join(lines) + "\n").encode(), folder / ".blocks")


def _indices(block: int) -> range:
    return range(block * BLOCK, (block + 1) * BLOCK)


def _file_name(index: int) -> str:
    return f"{index:05d}.jpg"


def _replace(path: Path, content: bytes, scratch: Path) -> None:
    """Writes a file that is at any moment absent, old or complete, also when two processes write it at once."""
    if path.exists() and path.read_bytes() == content:
        return
    temporary = scratch / f".{path.name}.{os.getpid()}.tmp"
    temporary.write_bytes(content)
    os.replace(temporary, path)


def _make_folder(folder: Path) -> None:
    """Also removes temporary files of killed processes; a young one may belong to a run that is still writing."""
    scratch = folder / ".blocks"
    scratch.mkdir(parents=True, exist_ok=True)
    for temporary in scratch.glob(".*.tmp"):
        try:
            if time.time() - temporary.stat().st_mtime > _STALE_SECONDS:
                temporary.unlink()
        except FileNotFoundError:
            pass


def _encoder() -> str:
    turbo = features.version("libjpeg_turbo")
    library = f"libjpeg-turbo {turbo}" if turbo else f"libjpeg {features.version('jpg')}"
    return f"Pillow {PIL.__version__} with {library}"


@cache
def _manifest() -> Any:
    return json.loads(_MANIFEST.read_text())


def recorded_digest(split: str) -> str:
    """One digest over all that is recorded of a split: what names it as training data."""
    return hashlib.sha256(json.dumps(_manifest()["splits"][split], sort_keys=True).encode()).hexdigest()


def _recorded(split: str, block: int) -> dict[str, str]:
    digests: dict[str, str] = _manifest()["splits"][split][block]
    return digests


if __name__ == "__main__":
    if sys.argv[1:] != ["--write-manifest"]:
        sys.exit("usage: python -m vggbench.images.sample --write-manifest")
    write_manifest()
