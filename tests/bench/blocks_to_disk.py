"""What a finished block costs until it is on the disk: PYTHONPATH=.:reference python tests/bench/blocks_to_disk.py

2,000 blocks of 16 images of 1,000 classes, once with nothing between them (a network of no cost) and once at the pace
of a small network, so that several shards are written; each with the journal and, in turn, without it.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from pathlib import Path

import numpy as np

from vgg_reference.weights import random_weights
from vggbench.backends import describe
from vggbench.measure.accuracy import SHARD_SECONDS
from vggbench.measure.journal import Journal
from vggbench.measure.shards import Block, Stored
from vggbench.measure.stored import StoredPass
from vggbench.protocols import Pass
from vggbench.variants import Variant

BLOCKS, IMAGES, CLASSES, ROUNDS = 2000, 16, 1000, 3
VARIANT = Variant(random_weights("A", width=1 / 64, hidden_width=1 / 256, num_classes=7, crop_size=32), "crop", "fake")
SESSION = {**describe(VARIANT, "cpu", 2), "device": "cpu"}
JOURNALS = {"journal": Journal.append, "no journal": lambda self, name, stored: self.blocks.update({name: stored})}


def seconds(folder: Path, pause_seconds: float) -> list[float]:
    """Of each block and, last, of the end."""
    rows = np.random.default_rng(0).random((IMAGES, CLASSES), np.float32)
    blocks = [Block(start, start + IMAGES, f"{start:064x}") for start in range(0, BLOCKS * IMAGES, IMAGES)]
    mine = StoredPass(VARIANT, Pass("crop", 40, "center", False), folder, {}, blocks, {}, frozenset())
    taken = []
    for block in blocks:
        stored = Stored(rows, (), dict(SESSION))
        started = time.perf_counter()
        mine.add(block, stored)
        mine.save(SHARD_SECONDS)
        taken.append(time.perf_counter() - started)
        time.sleep(pause_seconds)
    started = time.perf_counter()
    mine.close()
    return [*taken, time.perf_counter() - started]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", help="on the disk to be measured; default: the system's for temporary files")
    given = parser.parse_args()
    for pause_seconds in (0.0, 0.004):
        for _ in range(ROUNDS):
            for name, append in JOURNALS.items():
                Journal.append = append
                with tempfile.TemporaryDirectory(dir=given.folder) as folder:
                    taken = seconds(Path(folder) / "pass", pause_seconds)
                print(
                    f"pause {pause_seconds * 1e3:.0f} ms, {name:10}: {sum(taken) / BLOCKS * 1e6:4.0f} us a block; "
                    f"median {statistics.median(taken) * 1e6:.0f} us, 99 of 100 under "
                    f"{statistics.quantiles(taken, n=100)[-1] * 1e6:.0f} us, longest {max(taken) * 1e3:.0f} ms"
                )


if __name__ == "__main__":
    main()
