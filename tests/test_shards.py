"""Shards of images with labels beside them, as webdataset writes them."""

from __future__ import annotations

import pytest
from image_folders import labels, text
from imagenet_layouts import pack

from vggbench.errors import DataError
from vggbench.images.folder import open_folder


def shard(path, *samples: tuple[str, bytes]):
    members = {}
    for name, label in samples:
        members |= {f"{name}.cls": label, f"{name}.jpg": name.encode()}
    return pack(path, members)


def test_shards_have_labels_beside_their_images(tmp_path):
    shard(tmp_path / "a.tar", ("k1", b"2\n"), ("k2", b"0"))
    shard(tmp_path / "b.tar", ("k3", b" 1"))
    dataset = open_folder(tmp_path)
    assert labels(dataset) == {"k1.jpg": 2, "k2.jpg": 0, "k3.jpg": 1}
    assert dataset.layout == "2 shards of images with NAME.cls labels"
    text(tmp_path, "classes.txt", "x\ny\nz\n")
    assert open_folder(tmp_path).classes == ("x", "y", "z")
    one = open_folder(tmp_path / "b.tar", split="test")
    assert labels(one) == {"k3.jpg": 1}


def test_shards_of_several_splits_give_the_one_asked_for(tmp_path):
    shard(tmp_path / "set-train-000.tar", ("t", b"0"))
    shard(tmp_path / "set-validation-000.tar", ("v", b"1"))
    assert labels(open_folder(tmp_path)) == {"v.jpg": 1}
    assert labels(open_folder(tmp_path, split="train")) == {"t.jpg": 0}


def test_names_that_shards_share_get_the_shards_name(tmp_path):
    shard(tmp_path / "a.tar", ("0", b"0"))
    shard(tmp_path / "b.tar", ("0", b"1"))
    assert labels(open_folder(tmp_path)) == {"a/0.jpg": 0, "b/0.jpg": 1}


@pytest.mark.parametrize(
    ("members", "message"),
    [
        ({"1.jpg": b"x", "2.jpg": b"x", "1.cls": b"0"}, r"'2.jpg' has no label beside it, 2.cls \(1 of 2 images\)"),
        ({"1.jpg": b"x", "1.cls": b"cat"}, "'1.cls' holds b'cat'; accepted is one number"),
        ({"1.jpg": b"x", "1.cls": b"-1"}, "'1.cls' holds b'-1'"),
        ({"1.jpg": b"x", "1.cls": b""}, "'1.cls' holds b''"),
        ({"1.jpg": b"x", "1.cls": b"0" * 10**6}, "'1.cls' has 1,000,000 bytes"),
        ({"1.a.jpg": b"x", "1.b.jpg": b"x", "1.cls": b"0"}, "'1.a.jpg' and '1.b.jpg' share one label, '1.cls'"),
        ({"1.jpg": b"x", "1.cls": b"999999999"}, "label 999999999 is out of range"),
    ],
)
def test_labels_of_shards_that_are_wrong_are_named(tmp_path, members, message):
    with pytest.raises(DataError, match=message) as caught:
        open_folder(pack(tmp_path / "a.tar", members))
    assert "\n" not in str(caught.value)


def test_a_shard_without_labels_among_others_is_named(tmp_path):
    shard(tmp_path / "a.tar", ("k1", b"2"))
    pack(tmp_path / "b.tar", {"k2.jpg": b"x"})
    with pytest.raises(DataError, match=r"b.tar: k2.jpg: has no label beside it"):
        open_folder(tmp_path)
