"""A small data set of ragged images and a small network, for tests of measuring; as a script, it serves evaluations.

The script imports once and forks for every evaluation, so that a test can kill many of them at moments of its choice.
"""

from __future__ import annotations

import hashlib
import json
import os
import signal
import sys
import time
import types
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image

from vgg_reference.weights import random_weights
from vggbench import backends
from vggbench.backends import fake
from vggbench.images import Dataset, LabelledImage
from vggbench.measure import accuracy
from vggbench.measure.records import accuracy_record
from vggbench.protocols import Choices, Pass, Protocol, dense

CLASSES = 7
WEIGHTS = random_weights("A", 0, width=1 / 64, hidden_width=1 / 256, num_classes=CLASSES, crop_size=32)
CENTER = Pass("crop", 40, "center", False)
MIXED = Protocol("mixed", (Pass("crop", 36, "corners", True), dense(48), CENTER))
SIZES = ((40, 52), (52, 40), (44, 44), (61, 40))


def make_dataset(folder: Path, count: int, seed: int = 0, bad: str = "") -> Dataset:
    """``count`` JPEG files of four sizes, no two alike, with labels in turn. bad: one that is no image after all."""
    folder.mkdir(parents=True, exist_ok=True)
    generator = np.random.default_rng(seed)
    for index in range(count):
        height, width = SIZES[int(generator.integers(len(SIZES)))]
        coarse = generator.integers(0, 256, (5, 5, 3), dtype=np.uint8)
        Image.fromarray(coarse).resize((width, height)).save(folder / f"{index:03d}.jpg", quality=90)
    if bad:
        (folder / bad).write_bytes(b"no image")
    return open_dataset(folder)


def open_dataset(folder: Path) -> Dataset:
    """The files of a folder in order of their names."""
    files = sorted(folder.glob("*.jpg"))
    digests = tuple(hashlib.sha256(file.read_bytes()).hexdigest() for file in files)
    images = tuple(LabelledImage(file.name, file, index % CLASSES) for index, file in enumerate(files))
    names = tuple(f"class {label}" for label in range(CLASSES))
    return Dataset("small", "test", names, images, digests, "0" * 64, "flat", len(images))


def simplejpeg(decode_jpeg: Callable, colours: str = "YCbCr") -> types.ModuleType:
    """What stands for the library of that name."""
    module = types.ModuleType("simplejpeg")
    module.__version__ = "9.9"
    module.decode_jpeg = decode_jpeg
    module.decode_jpeg_header = lambda data, **_: (1, 1, colours, "420")
    return module


def evaluate(folder: Path, cache_root: Path, told: int) -> str:
    """The record of one evaluation, as JSON. told: a pipe that gets a byte for every block that is finished."""
    dataset, blocks = open_dataset(folder), []

    def progress(*done: object) -> None:
        blocks.append(done)
        os.write(told, b".")

    results = accuracy.run_passes(
        dataset, WEIGHTS, MIXED.passes, backend="fake", device="cpu", cache_root=cache_root, on_bad="skip",
        progress=progress,
    )  # fmt: skip
    record = accuracy_record(dataset, [(results, MIXED)], choices=Choices(), environment={})
    found = {"record": json.loads(record.model_dump_json()), "cached": results.counts.cached, "blocks": len(blocks)}
    return json.dumps(found)


def serve() -> None:
    """A line "folder<TAB>cache<TAB>output<TAB>blocks<TAB>seconds" on stdin starts an evaluation and kills it so many
    seconds after so many blocks.

    Without blocks it runs to its end. "killed" or "done" is answered.
    """
    backends.BACKENDS["fake"] = "vggbench.backends.fake"
    fake.open_session = lambda variant, device, threads: fake.FakeSession(variant, seconds_per_image=5e-5)
    accuracy.SHARD_SECONDS = 0.02
    for line in sys.stdin:
        folder, cache_root, output, blocks, seconds = line.rstrip("\n").split("\t")
        hears, tells = os.pipe()
        child = os.fork()
        if child == 0:
            Path(output).write_text(evaluate(Path(folder), Path(cache_root), tells))
            os._exit(0)
        os.close(tells)
        if blocks:
            # Not seconds alone: on a machine with other work they say nothing of how far it is.
            while int(blocks) > 0 and os.read(hears, 1):
                blocks = str(int(blocks) - 1)
            time.sleep(float(seconds))
            os.kill(child, signal.SIGKILL)
        os.close(hears)
        _, status = os.waitpid(child, 0)
        print("killed" if os.WIFSIGNALED(status) else "done", flush=True)


if __name__ == "__main__":
    serve()
