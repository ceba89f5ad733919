"""Folders of labelled images: the fixed order, digests and fingerprints, odd files; the built-in set."""

from __future__ import annotations

import hashlib
import os
import shutil
from collections import Counter
from pathlib import Path

import pytest
from image_folders import PIXEL, classes_of, files, labels
from PIL import Image

from vggbench.errors import DataError, UsageError
from vggbench.images import folder, open_dataset, read_image, sample, source
from vggbench.images.folder import fingerprint, open_folder, stratified_order


def test_class_folders_are_classes_in_sorted_order(tmp_path):
    dataset = open_folder(files(tmp_path, "b/1.jpg", "a/1.JPEG", "a/deep/2.png", "C/x.webp"))
    assert dataset.classes == ("C", "a", "b")
    assert labels(dataset) == {"C/x.webp": 0, "a/1.JPEG": 1, "a/deep/2.png": 1, "b/1.jpg": 2}
    assert dataset.total == 4
    assert "3 class folders" in dataset.layout


def test_hidden_and_other_files_are_left_out_and_counted_in_words(tmp_path):
    files(tmp_path, "a/1.jpg", "b/1.jpg", "a/.hidden.jpg", ".git/x.jpg", "__MACOSX/a/1.jpg", "README.md", "a/Thumbs.db")
    (tmp_path / "empty").mkdir()
    dataset = open_folder(tmp_path)
    assert list(labels(dataset)) == ["a/1.jpg", "b/1.jpg"] or list(labels(dataset)) == ["b/1.jpg", "a/1.jpg"]
    assert "2 other files" in dataset.layout
    assert "3 hidden files" in dataset.layout
    assert "1 without images" in dataset.layout


def test_an_image_of_a_format_that_is_not_accepted_is_not_left_out_in_silence(tmp_path):
    assert len(open_folder(files(tmp_path, "a/1.jpg", "b/1.tif")).images) == 2


def test_the_order_has_every_class_once_then_every_class_again(tmp_path):
    dataset = open_folder(classes_of(tmp_path, classes=7, each=5))
    rounds = [image.label for image in dataset.images]
    for start in range(0, 35, 7):
        assert sorted(rounds[start : start + 7]) == list(range(7))
    assert rounds[:7] != rounds[7:14]


def test_the_first_n_are_a_prefix_and_fair_where_classes_are_uneven():
    ids = [f"{label}/{i}" for label in range(4) for i in range(3**label)]
    marks = [int(name[0]) for name in ids]
    order = stratified_order(ids, marks)
    assert sorted(order) == list(range(len(ids)))
    assert Counter(marks[index] for index in order[:10]) == {0: 1, 1: 3, 2: 3, 3: 3}


def test_the_order_does_not_depend_on_the_order_of_listing():
    ids = [f"{label}/{i}" for label in range(5) for i in range(9)]
    marks = [int(name[0]) for name in ids]
    one = [ids[index] for index in stratified_order(ids, marks)]
    two = [ids[::-1][index] for index in stratified_order(ids[::-1], marks[::-1])]
    assert one == two
    # Recorded: another order would be another "first 100 images" of every record made so far.
    assert one[:6] == ["0/5", "4/1", "1/3", "2/4", "3/4", "0/4"]


def test_a_count_takes_a_prefix_and_its_own_fingerprint(tmp_path):
    root = classes_of(tmp_path, classes=3, each=4)
    every, some = open_folder(root), open_folder(root, count=5)
    assert some.images == every.images[:5]
    assert some.fingerprint == every.first(5).fingerprint != every.fingerprint
    assert some.total == every.total == 12
    assert open_folder(root, count=99) == every
    with pytest.raises(UsageError, match="1 to 12"):
        open_folder(root, count=0)


def test_the_fingerprint_follows_content_label_and_id_but_not_the_place(tmp_path):
    here = classes_of(tmp_path / "here" / "set", classes=2, each=2)
    there = Path(shutil.copytree(here, tmp_path / "there" / "set"))
    first = open_folder(here)
    assert open_folder(there).fingerprint == first.fingerprint
    assert fingerprint(first.images[::-1], first.digests[::-1]) == first.fingerprint
    (there / "c00" / "0.jpg").write_bytes(b"other")
    assert open_folder(there).fingerprint != first.fingerprint
    (here / "c00" / "0.jpg").rename(here / "c01" / "9.jpg")
    assert open_folder(here).fingerprint != first.fingerprint


def test_digests_are_those_of_the_files_with_and_without_the_cache(tmp_path):
    root, cache = classes_of(tmp_path / "set", classes=3, each=3), tmp_path / "cache"
    for place in (None, cache, cache):
        dataset = open_folder(root, cache_root=place)
        for image, digest in zip(dataset.images, dataset.digests, strict=True):
            assert digest == hashlib.sha256(image.path.read_bytes()).hexdigest()


def aged(root, seconds=60):
    """The folder with every file changed so long ago."""
    for path in root.rglob("*.*"):
        before = path.stat().st_mtime - seconds
        os.utime(path, (before, before))
    return root


def test_a_second_opening_reads_no_file_and_a_changed_file_is_read_again(tmp_path, monkeypatch):
    root, cache = aged(classes_of(tmp_path / "set", classes=3, each=3)), tmp_path / "cache"
    first = open_folder(root, cache_root=cache)
    read = []
    original = folder._digest
    monkeypatch.setattr(folder, "_digest", lambda file: read.append(file.id) or original(file))
    assert open_folder(root, cache_root=cache) == first
    assert read == []
    (root / "c01" / "1.jpg").write_bytes(b"changed")
    changed = open_folder(root, cache_root=cache)
    assert read == ["c01/1.jpg"]
    assert changed.fingerprint != first.fingerprint


def hashed(monkeypatch):
    """Counts how often an image's bytes are hashed when it is read."""
    taken = []
    monkeypatch.setattr(source.hashlib, "sha256", lambda data: taken.append(len(data)) or hashlib.new("sha256", data))
    return taken


def test_a_file_as_it_was_is_not_hashed_again_and_one_that_changed_is_refused(tmp_path, monkeypatch):
    root = aged(classes_of(tmp_path / "set", classes=2, each=2))
    dataset = open_folder(root)
    taken = hashed(monkeypatch)
    first, second = dataset.images[0].path, dataset.images[1].path
    assert read_image(dataset, 0) == first.read_bytes()
    assert taken == []
    second.touch()
    assert read_image(dataset, 1) == second.read_bytes()
    assert taken == [second.stat().st_size]
    first.write_bytes(first.read_bytes()[::-1])
    with pytest.raises(DataError, match="was changed while the run was on"):
        read_image(dataset, 0)


def test_a_file_that_changed_just_now_may_change_unseen_and_is_neither_trusted_nor_remembered(tmp_path, monkeypatch):
    root = aged(classes_of(tmp_path / "set", classes=1, each=2), -3600)  # however long this takes
    dataset = open_folder(root, cache_root=tmp_path / "cache")
    path = dataset.images[0].path
    status, data = path.stat(), path.read_bytes()
    path.write_bytes(data[::-1])
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))  # as within one tick of the file system's clock
    with pytest.raises(DataError, match="was changed"):
        read_image(dataset, 0)
    assert open_folder(root, cache_root=tmp_path / "cache").digests != dataset.digests


def test_a_file_that_could_not_be_read_is_not_known_by_its_size_and_time(tmp_path, monkeypatch):
    root = aged(classes_of(tmp_path / "set", classes=1, each=2))
    monkeypatch.setattr(folder, "_digest", lambda file: None)
    dataset = open_folder(root)
    with pytest.raises(DataError, match="since its digest was taken"):
        read_image(dataset, 0)


def test_the_first_images_keep_what_they_are_known_by(tmp_path, monkeypatch):
    dataset = open_folder(aged(classes_of(tmp_path / "set", classes=2, each=2))).first(2)
    taken = hashed(monkeypatch)
    assert [read_image(dataset, index) for index in range(2)] == [each.path.read_bytes() for each in dataset.images]
    assert len(dataset.stamps) == 2
    assert taken == []


@pytest.mark.parametrize("damage", [b"", b"junk", b"0" * 64 + b"\n{}"])
def test_a_damaged_cache_of_digests_is_ignored(tmp_path, damage):
    root, cache = aged(classes_of(tmp_path / "set", classes=2, each=2)), tmp_path / "cache"
    first = open_folder(root, cache_root=cache)
    (place,) = (cache / "datasets").iterdir()
    good = place.read_bytes()
    place.write_bytes(damage)
    assert open_folder(root, cache_root=cache) == first
    place.write_bytes(good.replace(first.digests[0].encode(), b"0" * 64))
    assert open_folder(root, cache_root=cache) == first


def test_an_unreadable_file_stays_in_the_list_and_stops_nothing(tmp_path):
    root = files(tmp_path, "a/1.jpg", "b/1.jpg")
    (root / "a" / "gone.jpg").symlink_to("nowhere.jpg")
    dataset = open_folder(root)
    by_id = dict(zip(labels(dataset), dataset.digests, strict=True))
    assert by_id["a/gone.jpg"] == hashlib.sha256(b"unreadable:a/gone.jpg").hexdigest()


def test_links_are_followed_but_not_in_circles_and_pipes_are_not_read(tmp_path):
    root = files(tmp_path / "set", "a/1.jpg", "b/1.jpg")
    files(tmp_path, "elsewhere/2.jpg")
    (root / "c").symlink_to(tmp_path / "elsewhere")
    (root / "a" / "up").symlink_to(root)
    os.mkfifo(root / "a" / "pipe.jpg")
    dataset = open_folder(root)
    assert labels(dataset) == {"a/1.jpg": 0, "b/1.jpg": 1, "c/2.jpg": 2}
    assert "1 link to a folder above it" in dataset.layout


def test_names_that_are_not_utf8_or_hold_markup_make_usable_ids(tmp_path):
    root = files(tmp_path, "a/<img src=x onerror=alert(1)>.jpg")
    with open(os.fsencode(root / "a") + b"/\xff.jpg", "wb") as file:
        file.write(PIXEL)
    ids = sorted(labels(open_folder(root)))
    assert ids == ["a/<img src=x onerror=alert(1)>.jpg", "a/\\xff.jpg"]
    assert [name.encode("utf-8") for name in ids]


def test_progress_ends_at_the_number_of_files(tmp_path):
    told = []
    open_folder(classes_of(tmp_path, classes=3, each=3), progress=lambda done, total: told.append((done, total)))
    assert told[-1] == (9, 9)


def test_the_sample_set_keeps_its_order_and_a_second_opening_checks_nothing_anew(tmp_path, monkeypatch):
    first = open_dataset("sample", split="tune", cache_root=tmp_path, count=300)
    assert [image.id for image in first.images[:3]] == ["00000.jpg", "00001.jpg", "00002.jpg"]
    assert [image.label for image in first.images] == [index % 60 for index in range(300)]
    assert (first.name, first.split, first.total, len(first.classes)) == ("sample", "tune", 1200, 60)
    assert set(first.boxes) == {image.id for image in first.images}
    with Image.open(first.images[5].path) as image:
        x0, y0, x1, y1 = first.boxes["00005.jpg"]
        assert 0 <= x0 < x1 <= image.width
        assert 0 <= y0 < y1 <= image.height
    prepare = sample.prepare

    def unwanted(*_, **__):
        raise AssertionError("the sample images were checked again")

    monkeypatch.setattr(sample, "prepare", unwanted)
    assert open_dataset("sample", split="tune", cache_root=tmp_path, count=300) == first
    monkeypatch.setattr(sample, "prepare", prepare)
    first.images[7].path.write_bytes(b"damaged")
    assert open_dataset("sample", split="tune", cache_root=tmp_path, count=300) == first
    some = open_dataset("sample", split="tune", cache_root=tmp_path, count=50)
    assert some == first.first(50)


def test_the_sample_set_names_a_wrong_split_and_takes_no_list(tmp_path):
    with pytest.raises(UsageError, match=r"No split 'val' in the sample set. Known: train, tune, test"):
        open_dataset("sample", split="val", cache_root=tmp_path)
    with pytest.raises(UsageError, match=r"--labels"):
        open_dataset("sample", cache_root=tmp_path, labels=tmp_path / "x.txt")


@pytest.mark.skipif("VGGBENCH_TEST_PHOTOS" not in os.environ, reason="VGGBENCH_TEST_PHOTOS names no folder of photos")
def test_all_photos_are_there_each_exactly_once(tmp_path):
    root = Path(os.environ["VGGBENCH_TEST_PHOTOS"])
    dataset = open_dataset(str(root), cache_root=tmp_path)
    on_disk = {f"{path.parent.name}/{path.name}" for path in root.glob("*/*.jpg")}
    assert {image.id for image in dataset.images} == on_disk
    assert len(dataset.images) == len(on_disk) == dataset.total
    assert len({image.label for image in dataset.images}) == len(dataset.classes)
    if root.name == "101_ObjectCategories":
        assert (len(dataset.images), len(dataset.classes)) == (9144, 102)
