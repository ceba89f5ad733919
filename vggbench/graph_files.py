"""Graphs as files: written whole or not at all, checked before they appear, weights beside the model where asked."""

from __future__ import annotations

import hashlib
import itertools
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

import onnx
from google.protobuf.message import DecodeError  # type: ignore[import-untyped]
from onnx import TensorProto, helper

from vggbench import cache
from vggbench.errors import CalibrationError, StorageError

#: A protobuf message ends at 2 GiB; the rest is for nodes and metadata.
MAX_MODEL_BYTES = 2**31 - 2**24
#: Smaller constants stay in the model: shape inference reads some of them.
_LEAST_EXTERNAL_BYTES = 1024
#: Whole memory pages, so that a runtime can map a tensor instead of reading it.
_ALIGNMENT = 4096

_counter = itertools.count()


def weight_bytes(model: onnx.ModelProto) -> int:
    """Bytes of all constants; a message beyond 2 GiB cannot say its own size."""
    return sum(_bytes(tensor) for tensor in model.graph.initializer)


def write_model(model: onnx.ModelProto, path: Path, external_weights: bool = False) -> None:
    """Write a model, checked by onnx.checker with strict shape inference, or leave everything as it was.

    external_weights: in a file beside it, named by its content: weights-<digest>.bin; always so beyond 2 GB. Models of
    the same weights share it. The model is emptied of those weights. Raises StorageError.
    """
    data, made = None, False
    try:
        with _storage_errors(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            if external_weights or weight_bytes(model) > MAX_MODEL_BYTES:
                data, made = _write_weights(model, path.parent)
            with _temporary(path) as (file, temporary):
                file.write(model.SerializeToString(deterministic=True))
                file.flush()
                onnx.checker.check_model(str(temporary), full_check=True)
                _publish(file, temporary, path)
    except BaseException:
        if data is not None and made:
            cache.remove(data)
        raise


def describe_graph(path: Path) -> dict[str, Any]:
    """What one of our graphs is: path, sha256 (of the model's file), bytes, weights_file (or None), opset, ir_version,
    inputs and outputs (name, type, shape), metadata.

    Raises CalibrationError for a file that is no graph of vggbench, or that lacks its weights.
    """
    model = read_model(path)
    outside = {entry.value for tensor in model.graph.initializer for entry in tensor.external_data if _places(entry)}
    files = [path, *(path.parent / name for name in sorted(outside))]
    for file in files[1:]:
        if not file.is_file():
            raise CalibrationError(f"{path}: its weights, {file.name}, are not beside it. Export it anew.")
    return {
        "path": str(path),
        "sha256": sha256_of(path),
        "bytes": sum(file.stat().st_size for file in files),
        "weights_file": str(files[1]) if files[1:] else None,
        "opset": next(entry.version for entry in model.opset_import if not entry.domain),
        "ir_version": model.ir_version,
        "inputs": [_value(value) for value in model.graph.input],
        "outputs": [_value(value) for value in model.graph.output],
        "metadata": {entry.key: entry.value for entry in model.metadata_props},
    }


def read_model(path: Path) -> onnx.ModelProto:
    """One of our graphs, without weights that lie outside. Raises CalibrationError for any other file."""
    try:
        model = onnx.load(str(path), format="protobuf", load_external_data=False)  # by itself it goes by the name
    except OSError as error:
        raise CalibrationError(
            f"{path}: cannot read the graph ({error.strerror}). Name one of vggbench export."
        ) from error
    except DecodeError as error:
        raise CalibrationError(
            f"{path}: not an ONNX graph, or one that was cut short. Make it with: vggbench export."
        ) from error
    if model.producer_name != "vggbench":
        by = f"made by {model.producer_name!r}" if model.producer_name else "of an unknown maker"
        raise CalibrationError(f"{path}: a graph {by}; accepted are those of vggbench export.")
    return model


def sha256_of(path: Path) -> str:
    sha = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(1 << 22):
            sha.update(chunk)
    return sha.hexdigest()


def _write_weights(model: onnx.ModelProto, folder: Path) -> tuple[Path, bool]:
    """Moves the model's large constants into a file of the folder; returns it, and whether it was not there before."""
    large = [tensor for tensor in model.graph.initializer if _bytes(tensor) >= _LEAST_EXTERNAL_BYTES]
    sha = hashlib.sha256()
    with _temporary(folder / "weights.bin") as (file, temporary):
        places = []
        for tensor in large:
            data = tensor.raw_data
            padding = bytes(-file.tell() % _ALIGNMENT)
            for part in (padding, data):
                file.write(part)
                sha.update(part)
            places.append((file.tell() - len(data), len(data)))
        path = folder / f"weights-{sha.hexdigest()[:16]}.bin"
        made = not path.exists()
        _publish(file, temporary, path)
    for tensor, (offset, length) in zip(large, places, strict=True):
        tensor.ClearField("raw_data")
        tensor.data_location = TensorProto.EXTERNAL
        for key, value in (("location", path.name), ("offset", str(offset)), ("length", str(length))):
            tensor.external_data.add(key=key, value=value)
    return path, made


@contextmanager
def _temporary(path: Path) -> Iterator[tuple[BinaryIO, Path]]:
    """A file beside ``path`` to be written and published, gone after an error."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.{next(_counter)}.tmp")
    try:
        with temporary.open("wb") as file:
            yield file, temporary
    except BaseException:
        cache.remove(temporary)
        raise


def _publish(file: BinaryIO, temporary: Path, path: Path) -> None:
    file.flush()
    os.fsync(file.fileno())  # some file systems tell only now that they are full
    os.replace(temporary, path)


@contextmanager
def _storage_errors(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        why = cache.reason(path, error)
        raise StorageError(f"{path}: cannot write the graph ({why}). Free space or name another folder.") from error


def _bytes(tensor: TensorProto) -> int:
    size: int = helper.tensor_dtype_to_np_dtype(tensor.data_type).itemsize
    for side in tensor.dims:
        size *= side
    return size


def _value(value: onnx.ValueInfoProto) -> dict[str, Any]:
    kind = value.type.tensor_type
    return {
        "name": value.name,
        "type": str(helper.tensor_dtype_to_np_dtype(kind.elem_type)),
        "shape": [dim.dim_param or dim.dim_value for dim in kind.shape.dim],
    }


def _places(entry: onnx.StringStringEntryProto) -> bool:
    return bool(entry.key == "location")
