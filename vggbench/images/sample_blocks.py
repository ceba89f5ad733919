"""Blocks of the sample set, 300 images each: drawing them, their recorded digests, and their files on disk."""

from __future__ import annotations

import hashlib
import io
import json
import os
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import PIL
from numpy.typing import NDArray
from PIL import Image, features

from vggbench.errors import DataError
from vggbench.images.sample_drawing import CLASSES, Annotation, draw

#: Images per recorded digest, and per unit of work.
BLOCK = 300

MANIFEST = Path(__file__).with_name("sample_manifest.json")

#: Its number and its rows of annotations.csv.
Block = tuple[int, list[str]]


def prepare_block(folder: Path, split: str, block: int, count: int) -> Block:
    """Makes the first `count` files of a block right on disk. Returns their rows of annotations.csv."""
    recorded = recorded_block(split, block)
    part = folder / ".blocks" / f"{block:03d}.csv"
    files = [folder / _file_name(index) for index in _indices(block)]
    kept = _kept_rows(part, files, recorded)
    if kept is not None:
        return block, kept[:count]

    images, rows, digests = _draw_block(split, block)
    _compare(split, block, digests, recorded)
    for file, image in zip(files[:count], images, strict=False):
        replace_file(file, image, part.parent)
    if count == BLOCK:
        replace_file(part, "\n".join(rows).encode(), part.parent)
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
            f"{where}: the pixels are as recorded, only the JPEG encoder differs ({encoder()}; recorded with "
            f"{manifest()['encoder']}). Install a Pillow with that encoder."
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


def block_digests(split: str, block: int) -> dict[str, str]:
    return _draw_block(split, block)[2]


def _jpeg(pixels: NDArray[np.uint8]) -> bytes:
    """Quality 90 without chroma subsampling: 13 % more bytes than 4:2:0, and 4 dB less error on the objects."""
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "JPEG", quality=90, subsampling=0)
    return buffer.getvalue()


def _row(index: int, annotation: Annotation) -> str:
    box = ",".join(f"{edge:.0f}" for edge in annotation.box)
    return f"{_file_name(index)},{annotation.label},{CLASSES[annotation.label]},{box},{annotation.diameter:.2f}"


def _indices(block: int) -> range:
    return range(block * BLOCK, (block + 1) * BLOCK)


def _file_name(index: int) -> str:
    return f"{index:05d}.jpg"


def replace_file(path: Path, content: bytes, scratch: Path) -> None:
    """Writes a file that is at any moment absent, old or complete, also when two processes write it at once."""
    if path.exists() and path.read_bytes() == content:
        return
    temporary = scratch / f".{path.name}.{os.getpid()}.tmp"
    temporary.write_bytes(content)
    os.replace(temporary, path)


def encoder() -> str:
    turbo = features.version("libjpeg_turbo")
    library = f"libjpeg-turbo {turbo}" if turbo else f"libjpeg {features.version('jpg')}"
    return f"Pillow {PIL.__version__} with {library}"


@cache
def manifest() -> Any:
    return json.loads(MANIFEST.read_text())


def recorded_block(split: str, block: int) -> dict[str, str]:
    digests: dict[str, str] = manifest()["splits"][split][block]
    return digests
