"""Posteriors on disk: what names them, in which units they are computed, and how they are read and written.

The unit of computation is a block: a fixed number of consecutive images, named by their contents. Batches never cross
a block, so its posteriors depend on its images alone: not on how many more were asked for, nor on where an earlier run
was interrupted. A shard is a file with some blocks of one pass, as many as were done when it was written.
"""

from __future__ import annotations

import dataclasses
import hashlib
import importlib
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from vggbench import backends, cache
from vggbench.protocols import Choices, Pass
from vggbench.variants import Variant, digest_of
from vggbench.views import resized_by

Array = npt.NDArray[np.float32]

#: To be raised when a change of the harness gives other posteriors for the same pass.
NUMERICS = 2
#: The library whose version is part of what decides a backend's scores.
LIBRARIES = {
    "pytorch": "torch",
    "onnxruntime": "onnxruntime",
    "openvino": "openvino",
    "torch-compile": "torch",
    "tensorrt": "tensorrt",
    "torch-tensorrt": "torch_tensorrt",
}
#: Work of a block, in crops; within the bounds on its images.
BLOCK_CROPS, BLOCK_IMAGES = 128, (8, 32)
#: Choices that decide the pixels of every pass, and those that place the crops of a grid.
_PIXEL_CHOICES = ("resize_filter", "side_rounding", "exif")
_GRID_CHOICES = {"center": ("grid_rounding",), "corners": ("grid_rounding",), "5x5": ("grid_rounding", "grid_extent")}


@dataclass(frozen=True)
class Block:
    """Images start to stop (excluded) of a dataset's order. name: digest over their contents."""

    start: int
    stop: int
    name: str


@dataclass(frozen=True)
class Stored:
    """A block's posteriors, (images, classes); rows of bad images are zero. bad: (image in the block, why)."""

    posteriors: Array
    bad: tuple[tuple[int, str], ...]
    session: dict[str, Any]


def resolve(backend: str, device: str) -> str:
    """ "cpu" or "cuda" for "auto", as the backend would choose, without opening a session."""
    module = backends.module(backend)
    has_cuda = module.has_cuda() if hasattr(module, "has_cuda") else torch.cuda.is_available()
    return backends.resolve_device(device, has_cuda).split(":")[0]


def identity(variant: Variant, step: Pass, choices: Choices, decoder: str, device: str) -> dict[str, Any]:
    """Everything that decides a pass's posteriors, flat; choices that change nothing in this pass are left out.

    On a GPU that is the GPU too, and what an engine was asked to be: with another profile or option it has other
    kernels, and other last bits. Raises UsageError for sizes that the network cannot have.

    The number of threads is not part of it: it can change the last bits of a sum, and would make every result of one
    machine useless on the next. It stands with each shard instead.
    """
    names = _PIXEL_CHOICES + _GRID_CHOICES.get(step.grid, ())
    library = LIBRARIES.get(variant.backend)
    return {
        "numerics": NUMERICS,
        **variant.identity,
        **{f"pass_{key}": value for key, value in dataclasses.asdict(step).items()},
        **{name: getattr(choices, name) for name in names},
        "decoder": decoder,
        **resized_by(choices),
        "device": device,
        "library": f"{library} {importlib.import_module(library).__version__}" if library else "",
        **backends.identity(variant, device),
    }


def folder(root: Path, identity: Mapping[str, Any]) -> Path:
    """Where the shards of a pass lie."""
    return root / "posteriors" / digest_of(dict(identity))


def crop_equivalents(step: Pass, crop_size: int) -> float:
    """Work of a pass for one image, in crops; a whole image is taken to be 4:3."""
    area = 1.0 if step.form == "crop" else (step.scale / crop_size) ** 2 * 4 / 3
    return step.views * area


def block_length(step: Pass, crop_size: int) -> int:
    """Images of a pass's blocks, which depends on the pass alone; of two passes' lengths one divides the other."""
    low, high = BLOCK_IMAGES
    length = high
    while length > low and length * crop_equivalents(step, crop_size) > BLOCK_CROPS:
        length //= 2
    return length


def blocks(step: Pass, crop_size: int, digests: Sequence[str]) -> list[Block]:
    """The blocks of a pass over images with these contents; only the last may be shorter than block_length."""
    length = block_length(step, crop_size)
    bounds = [(start, min(start + length, len(digests))) for start in range(0, len(digests), length)]
    return [Block(start, stop, _name(digests[start:stop])) for start, stop in bounds]


def _name(digests: Iterable[str]) -> str:
    return hashlib.sha256("\n".join(digests).encode()).hexdigest()


def announce(folder: Path, identity: Mapping[str, Any]) -> None:
    """Writes what decides the pass beside its shards, which also shows, before any work, that the cache takes files."""
    cache.write_atomic(folder / "pass.json", json.dumps(dict(identity), indent=1, sort_keys=True).encode())


def write(folder: Path, done: Mapping[str, Stored]) -> None:
    """One shard with these blocks, by name. Raises StorageError."""
    posteriors = np.concatenate([stored.posteriors for stored in done.values()])
    parts = [{"name": name, "images": len(s.posteriors), "bad": s.bad} for name, s in done.items()]
    session = next(iter(done.values())).session
    metadata = {"blocks": json.dumps(parts), "session": json.dumps(session, default=str)}
    metadata["digest"] = _content_digest(posteriors, metadata)
    cache.write_atomic(folder / f"{_name(done)}.safetensors", save({"posteriors": posteriors}, metadata))


def read(folder: Path, wanted: set[str], classes: int) -> dict[str, Stored]:
    """The wanted blocks that the shards of a pass hold; a damaged shard is removed. Raises StorageError."""
    found: dict[str, Stored] = {}
    with cache.storage_errors(folder):
        paths = sorted(folder.glob("*.safetensors")) if folder.is_dir() else []
    for path in paths:
        if len(found) == len(wanted):
            break
        with cache.storage_errors(path):
            try:
                found.update(_read_shard(path, wanted, classes))
            except FileNotFoundError:  # pruned meanwhile
                continue
            except (SafetensorError, ValueError, KeyError, TypeError):
                cache.remove(path)
    return found


def _read_shard(path: Path, wanted: set[str], classes: int) -> dict[str, Stored]:
    """Raises ValueError, KeyError, TypeError or SafetensorError for a shard that is damaged."""
    with safe_open(path, framework="np") as file:
        metadata = file.metadata()
        parts = json.loads(metadata["blocks"])
        if wanted.isdisjoint(part["name"] for part in parts):
            return {}
        posteriors = file.get_tensor("posteriors")
    if posteriors.shape != (sum(part["images"] for part in parts), classes) or posteriors.dtype != np.float32:
        raise ValueError(f"{path}: posteriors are {posteriors.shape} {posteriors.dtype}.")
    if metadata["digest"] != _content_digest(posteriors, metadata) or not np.isfinite(posteriors).all():
        raise ValueError(f"{path}: the content does not match its digest.")
    cache.touch(path)
    session = json.loads(metadata["session"])
    return {name: Stored(rows, bad, session) for name, rows, bad in _split(posteriors, parts) if name in wanted}


def _split(posteriors: Array, parts: list[dict[str, Any]]) -> Iterator[tuple[str, Array, tuple[tuple[int, str], ...]]]:
    start = 0
    for part in parts:
        rows = posteriors[start : start + part["images"]]
        yield part["name"], rows, tuple((int(index), str(why)) for index, why in part["bad"])
        start += part["images"]


def _content_digest(posteriors: Array, metadata: Mapping[str, str]) -> str:
    sha = hashlib.sha256(f"{posteriors.shape} {metadata['blocks']} {metadata['session']}".encode())
    sha.update(np.ascontiguousarray(posteriors).data)
    return sha.hexdigest()
