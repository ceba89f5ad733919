"""Reader of .caffemodel files: the names of a network's layers and their weights, and nothing else of them.

A .caffemodel is one protocol-buffer message, NetParameter of BVLC's caffe.proto. Its wire format is a list of
(field number, length, bytes); only the fields below are looked at, all others are stepped over. Nothing is executed,
and no number in the file decides how much memory is taken: the weights are views into the mapped file.
"""

from __future__ import annotations

import math
import mmap
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

#: Protocol buffers end at 2 GiB; VGG's largest file has 0.6 GB.
MAX_BYTES = 2**31
#: The authors' files have some hundreds; without a limit a file of empty fields would be stepped through for minutes.
MAX_FIELDS = 200_000
MAX_NAME_BYTES = 200

#: NetParameter's field of its layers -> their fields (name, blobs): V1LayerParameter of 2014, LayerParameter since.
_LAYERS = {2: (4, 6), 100: (1, 7)}
#: A layer of 2013 stands inside field 1 of a V1LayerParameter.
_V0_LAYER, _V0_FIELDS = 1, (1, 50)
#: BlobProto: legacy num, channels, height, width; float data; BlobShape; double data.
_LEGACY_DIMENSIONS, _DATA, _SHAPE, _DOUBLE_DATA = (1, 2, 3, 4), 5, 7, 8
_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5

_Field = tuple[int, int, "int | memoryview"]


class BadCaffemodel(ValueError):
    """A file that is no .caffemodel or a damaged one, in one line."""


@dataclass(frozen=True)
class Layer:
    """A layer with weights. blobs: (out, in, k, k) or (out, in) weights, then biases; V1 pads shapes to four with 1."""

    name: str
    blobs: tuple[NDArray[np.floating], ...]


def read_caffemodel(path: Path) -> list[Layer]:
    """All layers that have weights, in the file's order, as read-only views. Raises BadCaffemodel, OSError."""
    with open(path, "rb") as file:
        size = file.seek(0, 2)
        if not 0 < size < MAX_BYTES:
            raise BadCaffemodel(f"{path}: {size:,} bytes cannot be a .caffemodel.")
        data = memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))
    try:
        layers = _layers(data)
    except BadCaffemodel as error:
        raise BadCaffemodel(f"{path}: not a .caffemodel, or a damaged one ({error}).") from error
    if not layers:
        raise BadCaffemodel(f"{path}: not a .caffemodel, or one without weights: no layer has any.")
    if len({layer.name for layer in layers}) < len(layers):
        raise BadCaffemodel(f"{path}: has two layers of one name.")
    return layers


def _fields(data: memoryview, budget: Iterator[int]) -> Iterator[_Field]:
    """(number, wire type, value) of a message's fields: an int for varints, else a view of the bytes.

    budget: one step a field, shared by all messages of a file.
    """
    at, end = 0, len(data)
    while at < end:
        if next(budget, None) is None:
            raise BadCaffemodel(f"more than {MAX_FIELDS:,} fields")
        key, at = _varint(data, at)
        number, wire = key >> 3, key & 7
        if wire == _VARINT:
            value, at = _varint(data, at)
            yield number, wire, value
            continue
        if wire == _BYTES:
            length, at = _varint(data, at)
        elif wire in (_FIXED64, _FIXED32):
            length = 8 if wire == _FIXED64 else 4
        else:
            raise BadCaffemodel(f"wire type {wire}")
        if number == 0 or length > end - at:
            raise BadCaffemodel(f"field {number} of {length:,} bytes where {end - at:,} are left")
        yield number, wire, data[at : at + length]
        at += length


def _varint(data: memoryview, at: int) -> tuple[int, int]:
    value = 0
    for shift in range(0, 70, 7):
        if at >= len(data):
            raise BadCaffemodel("ends inside a number")
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
    raise BadCaffemodel("a number of more than ten bytes")


def _layers(data: memoryview) -> list[Layer]:
    found, budget = [], iter(range(MAX_FIELDS))
    for number, wire, value in _fields(data, budget):
        if number in _LAYERS and wire == _BYTES and isinstance(value, memoryview):
            found.append(_layer(value, budget, *_LAYERS[number], v1=number == 2))
    return [layer for layer in found if layer.blobs]


def _layer(data: memoryview, budget: Iterator[int], name_field: int, blob_field: int, v1: bool = False) -> Layer:
    name, blobs = b"", []
    for number, wire, value in _fields(data, budget):
        if wire != _BYTES or not isinstance(value, memoryview):
            continue
        if number == name_field:
            name = bytes(value[: MAX_NAME_BYTES + 1])
        elif number == blob_field:
            blobs.append(_blob(value, budget))
        elif v1 and number == _V0_LAYER:
            return _layer(value, budget, *_V0_FIELDS)
    if len(name) > MAX_NAME_BYTES:
        raise BadCaffemodel(f"a layer's name of more than {MAX_NAME_BYTES} bytes")
    return Layer(_text(name), tuple(blobs))


def _text(name: bytes) -> str:
    try:
        return name.decode()
    except UnicodeDecodeError as error:
        raise BadCaffemodel("a layer's name that is no text") from error


def _blob(data: memoryview, budget: Iterator[int]) -> NDArray[np.floating]:
    legacy, shape, pieces = dict.fromkeys(_LEGACY_DIMENSIONS, 0), None, []
    for number, wire, value in _fields(data, budget):
        if isinstance(value, int):
            if number in legacy:
                legacy[number] = value
            continue
        if number == _SHAPE and wire == _BYTES:
            shape = _dimensions(value, budget)
        elif number in (_DATA, _DOUBLE_DATA):
            if wire != _BYTES:
                raise BadCaffemodel("weights that are not packed")
            bytes_each = 4 if number == _DATA else 8
            if len(value) % bytes_each:
                raise BadCaffemodel(f"weights of {len(value):,} bytes, {bytes_each} each")
            pieces.append(np.frombuffer(value, f"<f{bytes_each}"))
    wanted = tuple(legacy.values()) if shape is None else shape
    count = sum(piece.size for piece in pieces)
    if any(not 0 <= side < MAX_BYTES for side in wanted) or math.prod(wanted) != count:
        raise BadCaffemodel(f"a shape of {'x'.join(map(str, wanted))[:80] or 'nothing'} for {count:,} weights")
    whole = pieces[0] if len(pieces) == 1 else np.concatenate([np.zeros(0, "<f4"), *pieces])
    return whole.reshape(wanted)


def _dimensions(data: memoryview, budget: Iterator[int]) -> tuple[int, ...]:
    """Of a BlobShape: packed, as caffe writes them, or one by one. numpy has no more than 32 in all versions."""
    found: list[int] = []
    for number, _, value in _fields(data, budget):
        if number != 1:
            continue
        if isinstance(value, int):
            found.append(value)
            continue
        at = 0
        while at < len(value) and len(found) <= 32:
            side, at = _varint(value, at)
            found.append(side)
    if len(found) > 32:
        raise BadCaffemodel("a shape of more than 32 sides")
    return tuple(found)
