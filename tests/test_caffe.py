"""The reader of .caffemodel files: the right numbers, and one kind of error for every other file."""

import subprocess
import sys
import tracemalloc
from pathlib import Path

import caffe_files as caffe
import numpy as np
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from vgg_reference import caffe as reader
from vgg_reference.caffe import BadCaffemodel, read_caffemodel

ROOT = Path(__file__).parents[1]


def arrays(*shapes):
    generator = np.random.default_rng(0)
    return tuple(generator.normal(size=shape).astype(np.float32) for shape in shapes)


def made(version):
    """Two layers of weights with one without between them."""
    convolution, product = arrays((4, 3, 3, 3), (4,)), arrays((5, 36), (5,))
    return caffe.field(1, "net") + b"".join(
        (
            caffe.layer("conv1_1", "Convolution", convolution, version),
            caffe.layer("relu", "ReLU", (), version) if version else b"",
            caffe.layer("fc6", "InnerProduct", product, version),
        )
    )


def read(tmp_path, data):
    path = tmp_path / "net.caffemodel"
    path.write_bytes(data)
    return read_caffemodel(path)


@pytest.mark.parametrize("version", [0, 1, 2])
def test_layers_of_every_version_are_read_bit_for_bit(tmp_path, version):
    first, second = read(tmp_path, made(version))
    assert (first.name, second.name) == ("conv1_1", "fc6")
    for blob, array in zip(
        (*first.blobs, *second.blobs), (*arrays((4, 3, 3, 3), (4,)), *arrays((5, 36), (5,))), strict=True
    ):
        assert np.array_equal(blob.reshape(array.shape), array)
        assert blob.dtype == np.float32
    shapes = [blob.shape for blob in (*first.blobs, *second.blobs)]
    padded = [(4, 3, 3, 3), (1, 1, 1, 4), (1, 1, 5, 36), (1, 1, 1, 5)]
    assert shapes == ([(4, 3, 3, 3), (4,), (5, 36), (5,)] if version == 2 else padded)


def test_unknown_fields_of_every_wire_type_are_stepped_over(tmp_path):
    odd = caffe.number(77, 2**63) + caffe.varint(78 << 3 | 1) + b"12345678" + caffe.varint(79 << 3 | 5) + b"1234"
    assert len(read(tmp_path, odd + caffe.field(80, b"\xff" * 9) + made(2) + odd)) == 2


def test_doubles_are_weights_too(tmp_path):
    data = np.array([1.5, -2.25])
    blob = caffe.field(7, caffe.field(1, caffe.varint(2))) + caffe.field(8, data.tobytes())
    (layer,) = read(tmp_path, caffe.field(100, caffe.field(1, "x") + caffe.field(7, blob)))
    assert layer.blobs[0].tolist() == [1.5, -2.25]


def with_blob(blob, name="fc6"):
    return caffe.field(100, caffe.field(1, name) + caffe.field(7, blob))


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", "0 bytes"),
        (b"\x0a\x03abc", "no layer has any"),
        (b"<!doctype html><html>", "not a .caffemodel"),
        (made(2)[:-1], "where"),
        (made(1)[: len(made(1)) // 2], "where"),
        (b"\xff" * 12, "more than ten bytes"),
        (b"\x80", "ends inside a number"),
        (caffe.varint(100 << 3 | 2) + caffe.varint(2**63), "9,223,372,036,854,775,808 bytes"),
        (caffe.varint(100 << 3 | 3), "wire type 3"),
        (with_blob(caffe.floats([1.0, 2.0])), "not packed"),
        (with_blob(caffe.field(5, b"123")), "3 bytes, 4 each"),
        (with_blob(caffe.field(7, caffe.field(1, caffe.varint(9))) + caffe.field(5, b"1234")), "9 for 1 weights"),
        (with_blob(caffe.number(1, -1) + caffe.field(5, b"1234")), "for 1 weights"),
        (with_blob(caffe.field(7, caffe.field(1, caffe.varint(2**31 - 1) * 32))), "for 0 weights"),
        (with_blob(caffe.field(7, caffe.field(1, b"\x01" * 40))), "more than 32 sides"),
        (with_blob(b"", name="n" * 300), "name of more than 200 bytes"),
        (with_blob(b"", name=b"\xff\xfe"), "no text"),
        (made(2) + made(2), "two layers of one name"),
    ],
)
def test_what_is_no_caffemodel_is_refused_in_one_line(tmp_path, data, words):
    with pytest.raises(BadCaffemodel) as error:
        read(tmp_path, data)
    assert words in str(error.value)
    assert "\n" not in str(error.value)


def test_a_file_of_empty_fields_ends_soon(tmp_path, monkeypatch):
    monkeypatch.setattr(reader, "MAX_FIELDS", 1000)
    with pytest.raises(BadCaffemodel, match="more than 1,000 fields"):
        read(tmp_path, caffe.number(9, 0) * 1001)
    assert len(read(tmp_path, caffe.number(9, 0) * 900 + made(2))) == 2


def test_a_file_beyond_protobufs_end_is_refused_unread(tmp_path):
    path = tmp_path / "huge.caffemodel"
    with open(path, "wb") as file:
        file.truncate(2**31)
    with pytest.raises(BadCaffemodel, match="2,147,483,648 bytes"):
        read_caffemodel(path)


BASES = [made(version) for version in (0, 1, 2)]
EDITS = st.lists(
    st.tuples(st.sampled_from(["set", "cut", "double", "insert"]), st.integers(0, 10**6), st.binary(max_size=12)),
    min_size=1,
    max_size=6,
)


@settings(max_examples=400, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.sampled_from(BASES), EDITS)
@example(BASES[1], [("insert", 0, b"\x12\xff\xff\xff\xff\xff\xff\xff\x7f")])
def test_a_mutated_file_is_read_or_refused_and_takes_little_memory(tmp_path, base, edits):
    data = bytearray(base)
    for kind, place, content in edits:
        at = place % (len(data) + 1)
        if kind == "set":
            data[at : at + len(content)] = content
        elif kind == "cut":
            del data[at:]
        elif kind == "double":
            data[at:at] = data[max(at - 20, 0) : at]
        else:
            data[at:at] = content
    refusal = ""
    tracemalloc.start()
    try:
        layers = read(tmp_path, bytes(data))
        assert sum(blob.nbytes for layer in layers for blob in layer.blobs) <= 2 * len(data)
    except BadCaffemodel as error:
        refusal = str(error)
    finally:
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    assert peak < 2**20
    assert "\n" not in refusal


def test_the_reader_needs_no_torch():
    code = "import sys, vgg_reference.caffe; assert 'torch' not in sys.modules"
    done = subprocess.run([sys.executable, "-c", code], env={"PYTHONPATH": str(ROOT / "reference")}, timeout=600)
    assert done.returncode == 0
