"""Folders of labelled images: what each layout is taken for, the order, digests, and hints for near misses."""

from __future__ import annotations

import hashlib
import os
import shutil
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from vggbench.errors import DataError, UsageError
from vggbench.images import open_dataset, sample
from vggbench.images.folder import fingerprint, open_folder, stratified_order
from vggbench.images.lists import GROUND_TRUTH

PIXEL = b"\xff\xd8\xff\xe0 not decoded here: "
WNIDS = [f"n{1440764 + i:08d}" for i in range(999)] + ["n15075141"]


def files(root: Path, *names: str, data: bytes = PIXEL) -> Path:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(data + name.encode())
    return root


def text(root: Path, name: str, content: str) -> Path:
    (root / name).parent.mkdir(parents=True, exist_ok=True)
    (root / name).write_text(content)
    return root / name


def labels(dataset) -> dict[str, int]:
    return {image.id: image.label for image in dataset.images}


def classes_of(root: Path, *, classes: int, each: int) -> Path:
    return files(root, *(f"c{label:02d}/{i}.jpg" for label in range(classes) for i in range(each)))


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


def test_a_second_opening_reads_no_file_and_a_changed_file_is_read_again(tmp_path, monkeypatch):
    from vggbench.images import folder

    root, cache = classes_of(tmp_path / "set", classes=3, each=3), tmp_path / "cache"
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


@pytest.mark.parametrize("damage", [b"", b"junk", b"0" * 64 + b"\n{}"])
def test_a_damaged_cache_of_digests_is_ignored(tmp_path, damage):
    root, cache = classes_of(tmp_path / "set", classes=2, each=2), tmp_path / "cache"
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


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("labels.txt", "x.jpg 1\n\ny z.jpg 0\n"),
        ("labels.txt", "\ufeffx.jpg\t1\r\ny z.jpg\t0\r\n"),
        ("val.txt", "./x.jpg 1\nflat/y z.jpg 0"),
        ("labels.csv", 'file,label\nx.jpg,1\n"y z.jpg",0\n'),
        ("anything.csv", "x.jpg;1\ny z.jpg;0\n"),
        ("labels.csv", "label,filename\n1,x.jpg\n0,y z.jpg\n"),
    ],
)
def test_flat_images_with_a_list(tmp_path, name, content):
    root = files(tmp_path / "flat", "x.jpg", "y z.jpg", "unlisted.jpg")
    text(root, name, content)
    dataset = open_folder(root)
    assert labels(dataset) == {"x.jpg": 1, "y z.jpg": 0}
    assert dataset.classes == ("0", "1")
    assert "1 image not in the list" in dataset.layout
    assert "other" not in dataset.layout


def test_labels_that_are_names_are_indexed_in_sorted_order(tmp_path):
    root = files(tmp_path, "x.jpg", "y.jpg", "z.jpg")
    text(root, "labels.txt", "x.jpg dog\ny.jpg cat\nz.jpg dog\n")
    dataset = open_folder(root)
    assert dataset.classes == ("cat", "dog")
    assert labels(dataset) == {"x.jpg": 1, "y.jpg": 0, "z.jpg": 1}


def test_names_of_classes_come_from_classes_txt(tmp_path):
    root = files(tmp_path, "x.jpg")
    text(root, "labels.txt", "x.jpg 2\n")
    text(root, "classes.txt", "ant\nbee\ncat\n")
    assert open_folder(root).classes == ("ant", "bee", "cat")
    text(root, "labels.txt", "x.jpg 3\n")
    with pytest.raises(DataError, match=r"labels.txt, line 1: label 3 is out of range; accepted are 0 to 2\."):
        open_folder(root)


def test_our_annotations_bring_class_names_and_boxes(tmp_path):
    root = files(tmp_path, "0.jpg", "1.jpg")
    text(
        root,
        "annotations.csv",
        "file,label,class,x0,y0,x1,y1,diameter\n0.jpg,0,ant,1,2,3,4,9.5\n1.jpg,1,bee,5,6,7,8,2\n",
    )
    dataset = open_folder(root)
    assert dataset.classes == ("ant", "bee")
    assert dataset.boxes == {"0.jpg": (1.0, 2.0, 3.0, 4.0), "1.jpg": (5.0, 6.0, 7.0, 8.0)}
    assert list(open_folder(root, count=1).boxes) == [open_folder(root, count=1).images[0].id]


def test_a_list_given_overrides_class_folders(tmp_path):
    root = files(tmp_path / "set", "a/1.jpg", "b/1.jpg", "b/2.jpg")
    given = text(tmp_path, "mine.txt", "b/1.jpg 0\na/1.jpg 1\n")
    assert labels(open_folder(root, given)) == {"b/1.jpg": 0, "a/1.jpg": 1}


def test_names_of_classes_in_a_labels_txt_do_not_make_it_a_list(tmp_path):
    root = files(tmp_path, "a/1.jpg", "b/1.jpg")
    text(root, "labels.txt", "a\nb\n")
    assert "2 class folders" in open_folder(root).layout


def test_a_list_may_name_images_in_folders(tmp_path):
    root = files(tmp_path, "images/1.jpg", "images/2.jpg")
    text(root, "labels.txt", "1.jpg 0\nimages/2.jpg 1\n")
    assert labels(open_folder(root)) == {"images/1.jpg": 0, "images/2.jpg": 1}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("x.jpg 0\nx.jpg 0\n", "names 'x.jpg' more than once"),
        ("x.jpg 0\nmissing.jpg 1\n", r"line 2: 'missing.jpg' is not in .* \(1 of 2 files"),
        ("../../etc/passwd 0\n", "line 1: '../../etc/passwd' is not in"),
        ("x.jpg -1\n", r"line 1: label -1 is out of range; accepted are 0 to 99999"),
        ("x.jpg 1000000000000\n", "line 1: label 1000000000000 is out of range"),
        ("x.jpg 0\ny.jpg cat\n", "line 2: label 'cat'; the other labels are integers"),
        ("x.jpg\n", "line 1: 'x.jpg' has no label"),
        ("\n\n", "names no image"),
    ],
)
def test_a_wrong_list_is_one_line_that_names_the_line(tmp_path, content, message):
    root = files(tmp_path, "x.jpg", "y.jpg")
    text(root, "labels.txt", content)
    with pytest.raises(DataError, match=message) as caught:
        open_folder(root)
    assert "\n" not in str(caught.value)
    assert caught.value.exit_code == 4


def test_a_list_that_is_no_text_is_named(tmp_path):
    root = files(tmp_path, "x.jpg")
    (root / "labels.txt").write_bytes(b"\xff\xfe\0\x80")
    with pytest.raises(DataError, match="is not text"):
        open_folder(root)
    with pytest.raises(DataError, match="cannot be read"):
        open_folder(root, tmp_path / "no list.txt")


def test_1000_wordnet_folders_are_imagenet_even_where_some_are_empty(tmp_path):
    files(tmp_path, *(f"{wnid}/x.JPEG" for wnid in WNIDS[:990]))
    for wnid in WNIDS[990:]:
        (tmp_path / wnid).mkdir()
    dataset = open_folder(tmp_path)
    assert dataset.classes == tuple(WNIDS)
    assert labels(dataset)[f"{WNIDS[500]}/x.JPEG"] == 500
    assert "ImageNet's 1000 WordNet ids; 10 without images" in dataset.layout
    (tmp_path / WNIDS[995]).rmdir()
    with pytest.raises(DataError, match="999 of ImageNet's 1000"):
        open_folder(tmp_path)


def test_a_subset_of_imagenets_folders_says_what_its_labels_are(tmp_path):
    dataset = open_folder(files(tmp_path, f"{WNIDS[3]}/x.JPEG", f"{WNIDS[7]}/x.JPEG"))
    assert labels(dataset) == {f"{WNIDS[3]}/x.JPEG": 0, f"{WNIDS[7]}/x.JPEG": 1}
    assert "index among these" in dataset.layout


def val_name(number: int) -> str:
    return f"ILSVRC2012_val_{number:08d}.JPEG"


def write_meta(path: Path, wnid_of_id: dict[int, str]) -> None:
    from scipy.io import savemat

    kind = [("ILSVRC2012_ID", object), ("WNID", object), ("words", object), ("num_children", object)]
    inner = [(1001 + i, f"n{9_000_000 + i:08d}", "inner node", 2) for i in range(3)]
    rows = [(number, wnid, "words", 0) for number, wnid in wnid_of_id.items()]
    path.parent.mkdir(parents=True, exist_ok=True)
    savemat(path, {"synsets": np.array(rows + inner, dtype=kind).reshape(-1, 1)})


@pytest.mark.parametrize("place", [".", "ILSVRC2012_devkit_t12/data", "../ILSVRC2012_devkit_t12/data"])
def test_imagenets_flat_images_get_wordnet_labels_from_the_devkits_ids(tmp_path, place):
    root = files(tmp_path / "val", *(val_name(number) for number in (1, 2, 3)))
    devkit = {number: WNIDS[-number] for number in range(1, 1001)}
    text(root / place, GROUND_TRUTH, "1000\n1\n990\n")
    write_meta(root / place / ("meta.mat"), devkit)
    dataset = open_folder(root)
    assert labels(dataset) == {val_name(1): 0, val_name(2): 999, val_name(3): 10}
    assert dataset.classes == tuple(WNIDS)
    assert dataset.split == "val"
    assert "devkit's ground truth" in dataset.layout


def test_the_devkits_ids_without_their_order_are_not_guessed(tmp_path):
    root = files(tmp_path, val_name(1))
    with pytest.raises(DataError, match=f"Add {GROUND_TRUTH} and meta.mat"):
        open_folder(root)
    text(root, GROUND_TRUTH, "1000\n")
    text(root, "synset_words.txt", "n01440764 tench\n")
    with pytest.raises(DataError, match=r"not in WordNet order. Add meta.mat"):
        open_folder(root)
    text(root, "meta.mat", "junk")
    with pytest.raises(DataError, match=r"is not the devkit's meta.mat"):
        open_folder(root)
    text(root, "meta.mat", "").unlink()
    text(root, "map_clsloc.txt", "".join(f"{wnid} {i + 1} words\n" for i, wnid in enumerate(WNIDS)))
    assert labels(open_folder(root)) == {val_name(1): 999}


def test_a_ground_truth_that_is_too_short_or_out_of_range_is_named(tmp_path):
    root = files(tmp_path, val_name(1), val_name(2))
    text(root, "map_clsloc.txt", "".join(f"{wnid} {i + 1} words\n" for i, wnid in enumerate(WNIDS)))
    text(root, GROUND_TRUTH, "5\n")
    with pytest.raises(DataError, match=r"has 1 lines, .* needs line 2"):
        open_folder(root)
    text(root, GROUND_TRUTH, "5\n0\n")
    with pytest.raises(DataError, match=r"line 2: '0' is out of range; accepted are 1 to 1000"):
        open_folder(root)


def test_caffes_val_txt_is_taken_as_it_is_and_labels_from_1_to_1000_are_refused(tmp_path):
    root = files(tmp_path, *(val_name(number) for number in range(1, 1001)))
    text(root, "val.txt", "".join(f"{val_name(i + 1)} {i}\n" for i in range(1000)))
    assert labels(open_folder(root))[val_name(66)] == 65
    text(root, "val.txt", "".join(f"{val_name(i)} {i}\n" for i in range(1, 1001)))
    with pytest.raises(DataError, match="labels are 1 to 1000; accepted are 0 to 999"):
        open_folder(root)


def test_kaggles_archive_is_found_with_its_list(tmp_path):
    names = [f"ILSVRC/Data/CLS-LOC/val/{val_name(i + 1)}" for i in range(1000)]
    files(tmp_path, *names, "ILSVRC/Data/CLS-LOC/train/n01440764/x.JPEG")
    rows = "".join(f"{val_name(i + 1)[:-5]},{wnid} 1 2 3 4 {wnid} 5 6 7 8 \n" for i, wnid in enumerate(WNIDS))
    text(tmp_path, "LOC_val_solution.csv", f"ImageId,PredictionString\n{rows}")
    dataset = open_folder(tmp_path)
    assert labels(dataset)[val_name(8)] == 7
    assert "ImageNet's 1000 WordNet ids" in dataset.layout
    assert dataset.split == "val"


def test_a_folder_of_splits_gives_the_one_to_report_or_train(tmp_path):
    files(tmp_path / "set", "train/a/1.jpg", "train/b/1.jpg", "val/a/2.jpg", "val/b/2.jpg", "test/flat.jpg")
    reported, training = open_folder(tmp_path / "set"), open_folder(tmp_path / "set", split="train")
    assert (reported.split, sorted(labels(reported))) == ("val", ["a/2.jpg", "b/2.jpg"])
    assert (training.split, sorted(labels(training))) == ("train", ["a/1.jpg", "b/1.jpg"])
    assert reported.name == training.name == "set"
    files(tmp_path / "set", "test/a/3.jpg", "test/b/3.jpg")
    (tmp_path / "set" / "test" / "flat.jpg").unlink()
    assert open_folder(tmp_path / "set").split == "test"
    assert open_folder(tmp_path / "set", split="tune").split == "val"


@pytest.mark.parametrize(
    ("names", "message"),
    [
        ((), r"holds no images \(0 other files, 0 folders\)"),
        (("notes.md",), "holds no images"),
        (("ILSVRC2012_img_val.tar",), r"only the archive 'ILSVRC2012_img_val.tar'\. Unpack it"),
        (("a.zip", "b.zip"), "'a.zip' and 1 more"),
        (("1.jpg", "2.jpg"), "2 images without labels. Add a list labels.txt"),
        (("a/1.jpg", "b/1.jpg", "loose.jpg"), r"2 class folders \('a', ...\) and 1 loose images"),
        (("val/a/1.jpg", "val/b/1.jpg"), "one folder 'val' holds 2 class folders. Name that one: .*val"),
        (("data2/a/1.jpg", "data2/b/1.jpg"), "one folder 'data2' holds 2 class folders"),
        (("images/1.jpg", "images/2.jpg"), "one folder 'images' holds all images"),
        (("1.jpg", "a.csv", "b.csv"), "a.csv and b.csv may be lists. Name one: --labels"),
    ],
)
def test_near_misses_get_one_line_with_a_hint(tmp_path, names, message):
    files(tmp_path / "set", *names)
    (tmp_path / "set").mkdir(exist_ok=True)
    with pytest.raises(DataError, match=message) as caught:
        open_folder(tmp_path / "set")
    assert "\n" not in str(caught.value)


def test_what_is_no_folder_is_named(tmp_path):
    files(tmp_path, "photos.zip", "photo.jpg")
    with pytest.raises(DataError, match="no such folder"):
        open_folder(tmp_path / "nowhere")
    with pytest.raises(DataError, match="is an archive; unpack it"):
        open_folder(tmp_path / "photos.zip")
    with pytest.raises(DataError, match="is a file"):
        open_folder(tmp_path / "photo.jpg")


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
