"""What a folder of labelled images is taken for: lists, class folders, splits, and hints for near misses."""

from __future__ import annotations

import pytest
from image_folders import files, labels, text

from vggbench.errors import DataError
from vggbench.images.folder import open_folder


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


def test_folders_deeper_than_any_set_has_are_one_line(tmp_path):
    root = files(tmp_path, f"a/{'d/' * 99}x.jpg", "b/x.jpg")
    assert len(open_folder(root).images) == 2
    files(root, f"a/{'d/' * 100}x.jpg")
    with pytest.raises(DataError, match=r"folders lie more than 100 deep in each other\. Name another\.$"):
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
        (f"x.jpg {'9' * 5000}\n", "line 1: label 9{40} is out of range"),
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
        (("ILSVRC2012_img_val.tgz",), r"only the archive 'ILSVRC2012_img_val.tgz'\. Unpack it"),
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
