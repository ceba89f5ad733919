"""Readers of other people's weights files: each gives plain tensors by the file's own names, and executes nothing.

Sizes that a file states are held against the file's own size before anything is allocated.
"""

from __future__ import annotations

import importlib
import io
import math
import re
import warnings
import zipfile
import zlib
from collections.abc import Callable, Mapping
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import torch
from numpy.lib import format as npy
from safetensors import SafetensorError, safe_open
from torch import Tensor

from vgg_reference.caffe import BadCaffemodel, read_caffemodel
from vgg_reference.weights import METADATA_KEY
from vggbench.errors import BackendUnavailable, WeightsError

#: VGG's largest file has 0.6 GB. Also of what a compressed file unfolds to.
MAX_BYTES = 2**31
ACCEPTED = ".safetensors, .caffemodel, .pth, .npz and .h5"

#: Name in the file -> tensor. .caffemodel: "conv1_1/0" for weights, "conv1_1/1" for biases.
Tensors = dict[str, Tensor]


def sniff(path: Path) -> str:
    """A file's format by its first bytes: safetensors, pth, npz, h5, caffemodel. Raises WeightsError for others."""
    try:
        with open(path, "rb") as file:
            head = file.read(512)
    except OSError as error:
        raise WeightsError(f"{path}: no such weights file, or it cannot be read ({error.strerror}).") from error
    if head[8:9] == b"{" and int.from_bytes(head[:8], "little") < MAX_BYTES:
        return "safetensors"
    if head.startswith(b"PK\x03\x04"):
        names = _zip_names(path)
        return "npz" if all(name.endswith(".npy") for name in names) else "pth"
    if head.startswith(b"\x89HDF\r\n\x1a\n"):
        return "h5"
    if head.startswith(b"MATLAB 5.0 MAT-file"):
        raise WeightsError(f"{path}: MatConvNet's .mat is not read. The same weights: vggbench weights fetch D, or E.")
    if head[257:262] == b"ustar" or head.startswith(b"\x1f\x8b"):
        raise WeightsError(f"{path}: an archive. Unpack it and name the weights file. Accepted are {ACCEPTED}.")
    if head.startswith(b"\x80"):
        return "pth"
    return "caffemodel"


def read(path: Path) -> tuple[str, Tensors]:
    """A file's format and its tensors, FP32. Raises WeightsError, BackendUnavailable where a reader is missing."""
    kind = sniff(path)
    if path.stat().st_size > MAX_BYTES:
        raise WeightsError(f"{path}: {path.stat().st_size:,} bytes are more than any VGG network has.")
    found = READERS[kind](path)
    if not found:
        raise WeightsError(f"{path}: holds no tensors.")
    return kind, found


def _caffemodel(path: Path) -> Tensors:
    try:
        layers = read_caffemodel(path)
    except BadCaffemodel as error:
        raise WeightsError(f"{error} Accepted are {ACCEPTED} files.") from error
    return {f"{layer.name}/{i}": _tensor(blob) for layer in layers for i, blob in enumerate(layer.blobs)}


def _tensor(array: Any) -> Tensor:
    """A copy of its own: views into a mapped file are read-only and stand at odd addresses."""
    return torch.from_numpy(np.array(array, np.float32, order="C"))


def _safetensors(path: Path) -> Tensors:
    try:
        with safe_open(path, framework="pt") as file:
            return {name: file.get_tensor(name).float() for name in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        raise WeightsError(f"{path}: not a safetensors file ({error}).") from error


def says_all(path: Path) -> bool:
    """Whether a safetensors file has this project's metadata, which a conversion would replace by guesses."""
    with safe_open(path, framework="pt") as file:
        return METADATA_KEY in (file.metadata() or {})


def _pth(path: Path) -> Tensors:
    """weights_only: the pickle may build tensors and plain containers, and nothing else."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of pickle protocols; what matters is raised
            loaded = torch.load(path, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(path))
    except Exception as error:  # torch raises many kinds for damaged files
        asked = re.search(r"GLOBAL ([\w.]+)", str(error))
        if asked:
            raise WeightsError(
                f"{path}: its pickle asks to run {asked[1]}, which is never done. Accepted are state dicts of tensors."
            ) from error
        raise WeightsError(f"{path}: not a .pth file with a state dict, or a damaged one.") from error
    for key in ("state_dict", "model"):
        if isinstance(loaded, dict) and isinstance(loaded.get(key), dict):
            loaded = loaded[key]
    if not isinstance(loaded, dict):
        raise WeightsError(f"{path}: holds {type(loaded).__name__} and no state dict.")
    found, left = {}, path.stat().st_size
    for name, tensor in loaded.items():
        if not isinstance(name, str) or not isinstance(tensor, Tensor):
            raise WeightsError(f"{path}: entry {str(name)[:60]!r} of its state dict is {type(tensor).__name__}.")
        left -= tensor.numel() * tensor.element_size()
        if left < 0:  # a view may repeat one number without end
            raise WeightsError(f"{path}: {name[:60]} is {tuple(tensor.shape)}, more than the file has.")
        found[name.removeprefix("module.")] = tensor.detach().float().contiguous().clone()
    return found


def _npz(path: Path) -> Tensors:
    """Arrays of a zip, read in memory; its names are never paths."""
    try:
        with zipfile.ZipFile(path) as archive:
            return {item.filename.removesuffix(".npy"): _npy(path, archive, item) for item in archive.infolist()}
    except (zipfile.BadZipFile, OSError, EOFError, ValueError, NotImplementedError, zlib.error) as error:
        raise WeightsError(f"{path}: not an .npz file, or a damaged one ({_short(error)}).") from error


def _npy(path: Path, archive: zipfile.ZipFile, item: zipfile.ZipInfo) -> Tensor:
    with archive.open(item) as file:
        head = io.BytesIO(file.read(min(item.file_size, 12_000)))
    version = npy.read_magic(head)
    reader = npy.read_array_header_1_0 if version == (1, 0) else npy.read_array_header_2_0
    shape, _, dtype = reader(head)
    if dtype.hasobject or dtype.kind != "f" or math.prod(shape) * dtype.itemsize != item.file_size - head.tell():
        raise WeightsError(f"{path}: {item.filename[:60]} is {shape} {dtype}, and has {item.file_size:,} bytes.")
    with archive.open(item) as file:
        return _tensor(npy.read_array(file, allow_pickle=False))


def _h5(path: Path) -> Tensors:
    """Datasets of the file itself; links to other files and external storage are refused."""
    try:
        h5py = importlib.import_module("h5py")
    except ImportError as error:
        raise BackendUnavailable(f"{path}: .h5 files need h5py. Install it with: pip install h5py") from error
    found: Tensors = {}
    most = path.stat().st_size

    def collect(group: Any, prefix: str, depth: int) -> None:
        for name in group:
            link = group.get(name, getlink=True)
            item = group[name] if isinstance(link, h5py.HardLink) else None
            place = f"{prefix}{name}"
            if isinstance(item, h5py.Group) and depth < 8:
                collect(item, f"{place}/", depth + 1)
            elif isinstance(item, h5py.Dataset) and not item.external and not item.is_virtual:
                if item.dtype.kind != "f" or item.size * item.dtype.itemsize > most:
                    raise WeightsError(f"{path}: {place[:60]} is {item.shape} {item.dtype}, more than the file has.")
                found[place] = _tensor(item[()])
            else:
                raise WeightsError(f"{path}: {place[:60]} leads out of the file or too deep.")

    try:
        with h5py.File(path, "r") as file:
            collect(file, "", 0)
    except (OSError, RuntimeError, KeyError, ValueError, TypeError) as error:
        raise WeightsError(f"{path}: not an .h5 file, or a damaged one ({_short(error)}).") from error
    return found


def _zip_names(path: Path) -> list[str]:
    """A zip's names; one that would lie outside of its folder is refused although nothing is ever unpacked."""
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
            unfolded = sum(item.file_size for item in archive.infolist())
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError) as error:
        raise WeightsError(f"{path}: not a safetensors file, and a damaged .pth or .npz ({_short(error)}).") from error
    if unfolded > MAX_BYTES:
        raise WeightsError(f"{path}: unfolds to {unfolded:,} bytes, more than any VGG network has.")
    for name in names:
        parts = PurePosixPath(name.replace("\\", "/"))
        if parts.is_absolute() or ".." in parts.parts or ":" in parts.parts[:1]:
            raise WeightsError(f"{path}: its entry {name[:60]!r} lies outside of its folder. Nothing was read.")
    return names


def _short(error: BaseException) -> str:
    return " ".join(str(error).split())[:120] or type(error).__name__


READERS: Mapping[str, Callable[[Path], Tensors]] = {
    "caffemodel": _caffemodel,
    "safetensors": _safetensors,
    "pth": _pth,
    "npz": _npz,
    "h5": _h5,
}
