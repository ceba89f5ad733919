"""The built-in labelled set on disk: its splits, and the processes that draw them.

After the drawing was changed on purpose, `python -m vggbench.images.sample --write-manifest` records new digests.
"""

from __future__ import annotations

import hashlib
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
from multiprocessing.connection import Connection, wait
from pathlib import Path

from vggbench.cache import reason
from vggbench.errors import DataError, StorageError, UsageError
from vggbench.images.sample_blocks import (
    BLOCK,
    MANIFEST,
    Block,
    block_digests,
    encoder,
    manifest,
    prepare_block,
    replace_file,
)
from vggbench.interrupts import sigint_blocked

#: Images per split. "train" trains, "tune" steers, "test" is reported and never steers anything.
SPLITS = {"train": 18000, "tune": 1200, "test": 2400}

COLUMNS = ("file", "label", "class", "x0", "y0", "x1", "y1", "diameter")

_STALE_SECONDS = 3600.0


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


def write_manifest(path: Path = MANIFEST, workers: int | None = None) -> None:
    """Draws every image and records the digests that `prepare` checks. Developers run this, users never do."""
    jobs = [(split, block) for split, size in SPLITS.items() for block in range(size // BLOCK)]
    with _pool(workers, len(jobs)) as pool:
        digests = list(pool.map(block_digests, *zip(*jobs, strict=True)))
    recorded = {
        "block": BLOCK,
        "encoder": encoder(),
        "splits": {
            split: [digest for job, digest in zip(jobs, digests, strict=True) if job[0] == split] for split in SPLITS
        },
    }
    replace_file(path, (json.dumps(recorded, indent=1) + "\n").encode(), path.parent)


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
                done = prepare_block(*job)
            yield done
        return
    with _pool(workers, len(jobs)) as pool:
        try:
            with sigint_blocked():  # else a pool that is broken off while it starts a process waits for it for ever
                futures = [pool.submit(prepare_block, *job) for job in jobs]
            for future in as_completed(futures):
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
        why = reason(folder / "new", error)
        raise StorageError(
            f"The sample images cannot be kept in {folder}: {why}. Free space or grant access there, or name "
            "another folder: VGGBENCH_CACHE=/another/folder."
        ) from error


def _worker_count(workers: int | None, jobs: int) -> int:
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, min(usable if workers is None else workers, jobs))


@contextmanager
def _pool(workers: int | None, jobs: int) -> Iterator[ProcessPoolExecutor]:
    """Left by an exception, as of Ctrl-C, it ends its processes in the middle of their blocks, which take a while."""
    context = multiprocessing.get_context("spawn")
    receiver, sender = context.Pipe(duplex=False)
    pool = ProcessPoolExecutor(_worker_count(workers, jobs), context, _start_worker, (receiver,))
    try:
        yield pool
    except BaseException:
        sender.close()
        raise
    finally:
        pool.shutdown(wait=True, cancel_futures=True)
        sender.close()
        receiver.close()


def _start_worker(receiver: Connection) -> None:
    """Ctrl-C reaches the whole process group, and the parent handles it. A worker whose parent was killed would wait
    for work for ever, so it watches the parent, and leaves with it or when the other end of ``receiver`` is closed."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    parent = multiprocessing.parent_process()
    if parent is None:
        return

    def leave_with_parent(sentinel: int) -> None:
        wait([sentinel, receiver])
        os._exit(1)

    threading.Thread(target=leave_with_parent, args=(parent.sentinel,), daemon=True).start()


def _write_annotations(folder: Path, rows: list[str]) -> None:
    """Never shortens what another run wrote: it is the same list, only longer."""
    path = folder / "annotations.csv"
    lines = [",".join(COLUMNS), *rows]
    if path.exists() and path.read_text().splitlines()[: len(lines)] == lines:
        return
    replace_file(path, ("\n".join(lines) + "\n").encode(), folder / ".blocks")


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


def recorded_digest(split: str) -> str:
    """One digest over all that is recorded of a split: what names it as training data."""
    return hashlib.sha256(json.dumps(manifest()["splits"][split], sort_keys=True).encode()).hexdigest()


if __name__ == "__main__":
    if sys.argv[1:] != ["--write-manifest"]:
        sys.exit("usage: python -m vggbench.images.sample --write-manifest")
    write_manifest()
