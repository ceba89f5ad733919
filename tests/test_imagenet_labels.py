"""Label order, ground truths that are wrong, and sets drawn from ImageNet: V2, Imagenette."""

from __future__ import annotations

import hashlib

import numpy as np
import pytest
from image_folders import files, labels, text
from imagenet_layouts import FIRST, devkit_id, val_name, write_meta

from vggbench.errors import DataError
from vggbench.images import imagenet, layouts
from vggbench.images.folder import open_folder
from vggbench.images.imagenet import CLASSES, DEVKIT, FIRST_LABELS
from vggbench.images.truth import GROUND_TRUTH

#: The first lines of the devkit's ground-truth file, and of Caffe's val.txt.
DEVKIT_FIRST = [490, 361, 171, 822, 297, 482, 13, 704, 599, 164]
CAFFE_FIRST = [65, 970, 230, 809, 516, 57, 334, 415, 674, 332]


def test_the_two_orders_are_those_of_public_lists():
    assert (CLASSES[0], CLASSES[1], CLASSES[65], CLASSES[999]) == ("n01440764", "n01443537", "n01751748", "n15075141")
    assert (DEVKIT[0], DEVKIT[1], DEVKIT[489], DEVKIT[999]) == ("n02119789", "n02100735", "n01751748", "n03255030")
    assert len(set(DEVKIT)) == 1000
    assert sum(a == b for a, b in zip(CLASSES, DEVKIT, strict=True)) < 10
    # Recorded from the devkit's list; a swap of any two lines changes it.
    assert (
        hashlib.sha256("\n".join(DEVKIT).encode()).hexdigest()
        == "930a31901625f2149f8bab016254025ad225daf9efafa3f00011daf6f5f919f9"
    )


def test_the_devkits_ids_become_wordnet_labels_and_no_other(tmp_path):
    root = files(tmp_path, *(val_name(number) for number in range(1, 11)))
    text(root, GROUND_TRUTH, "".join(f"{number}\n" for number in DEVKIT_FIRST))
    write_meta(root / "meta.mat")
    found = labels(open_folder(root))
    assert [found[val_name(number)] for number in range(1, 11)] == CAFFE_FIRST
    assert [number - 1 for number in DEVKIT_FIRST] != CAFFE_FIRST


def test_a_list_in_the_devkits_order_is_named_as_such(tmp_path):
    root = files(tmp_path, *(val_name(number) for number in range(1, 11)))
    text(root, "val.txt", "".join(f"{val_name(i)} {number - 1}\n" for i, number in enumerate(DEVKIT_FIRST, start=1)))
    with pytest.raises(DataError, match="labels are the devkit's ids less one, which are not in WordNet order"):
        open_folder(root)


def test_a_synset_file_of_another_order_or_year_is_refused(tmp_path):
    root = files(tmp_path, val_name(1))
    text(root, GROUND_TRUTH, "490\n")
    write_meta(root / "meta.mat", CLASSES)  # sorted: the order that it does not have
    with pytest.raises(DataError, match=r"meta.mat: id 1 is n01440764, in ILSVRC-2012's devkit n02119789"):
        open_folder(root)
    (root / "meta.mat").unlink()
    text(root, "map_clsloc.txt", "".join(f"{wnid} {i} words\n" for i, wnid in enumerate(DEVKIT[:999], start=1)))
    with pytest.raises(DataError, match="id 1000 is missing"):
        open_folder(root)
    text(root, "map_clsloc.txt", "n02119789 ² words\n")
    with pytest.raises(DataError, match="id 1 is missing"):
        open_folder(root)
    (root / "map_clsloc.txt").write_text("")
    with pytest.raises(DataError, match="id 1 is missing"):
        open_folder(root)
    text(root, "meta.mat", "junk")
    with pytest.raises(DataError, match=r"is not the devkit's meta.mat"):
        open_folder(root)


def test_without_a_synset_file_the_known_order_is_taken_and_said_so(tmp_path):
    root = files(tmp_path, val_name(2))
    text(root, GROUND_TRUTH, "490\n361\n")
    dataset = open_folder(root)
    assert labels(dataset) == {val_name(2): 970}
    assert "no meta.mat lies beside it" in dataset.layout


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("490\n", "has 1 lines, .* needs line 2"),
        ("490\n0\n", "line 2: '0' is out of range; accepted are 1 to 1000"),
        ("490\ncat\n", "line 2: 'cat' is out of range"),
        ("490\n²\n", "line 2: '²' is out of range"),
        (f"490\n{'9' * 5000}\n", "line 2: '9{40}' is out of range"),
        ("361\n490\n", r"val_00000002.JPEG has label 65, which should be 970 \(n09193705\); 1 of 1 known"),
    ],
)
def test_a_ground_truth_that_is_short_out_of_range_or_exchanged_is_named(tmp_path, content, message):
    root = files(tmp_path, val_name(2))
    text(root, GROUND_TRUTH, content)
    if content.startswith("361"):
        message = r"val_00000001.JPEG has label 970, which should be 65 \(n01751748\); 2 of 2 known labels are wrong"
    with pytest.raises(DataError, match=message) as caught:
        open_folder(root)
    assert "\n" not in str(caught.value)


@pytest.fixture
def whole(monkeypatch):
    """50,000 labels with the known first ones, and their digest as if they were the real ones."""
    order = np.random.default_rng(3).permutation(np.repeat(np.arange(1000), 50)).tolist()
    for at, label in enumerate(FIRST_LABELS):  # 50 of each class are kept
        there = order.index(label, at)
        order[at], order[there] = label, order[at]
    monkeypatch.setattr(imagenet, "LABELS_SHA256", imagenet.labels_digest(order))
    return order


def checked(labels_of_all):
    return imagenet.check_labels(dict(enumerate(labels_of_all, start=1)), "here")


def test_a_whole_ground_truth_is_checked_label_by_label(tmp_path, whole):
    assert "all 50,000 labels are those of ILSVRC-2012" in checked(whole)
    swapped = list(whole)
    other = next(at for at in range(40_001, 50_000) if whole[at] != whole[40_000])
    swapped[40_000], swapped[other] = whole[other], whole[40_000]
    with pytest.raises(DataError, match="labels were exchanged or shuffled"):
        checked(swapped)
    with pytest.raises(DataError, match="gives 49 to 51 images a class"):
        checked([*whole[:-1], (whole[-1] + 1) % 1000])
    with pytest.raises(DataError, match="20 of 20 known labels are wrong"):
        checked([(label + 1) % 1000 for label in whole])
    # The file beside two images has all lines, so all of them are checked.
    root = files(tmp_path, val_name(1), val_name(30_000))
    text(root, GROUND_TRUTH, "".join(f"{devkit_id(label)}\n" for label in swapped))
    with pytest.raises(DataError, match=f"{GROUND_TRUTH}: has 50 images a class.* labels were exchanged or shuffled"):
        open_folder(root)
    text(root, GROUND_TRUTH, "".join(f"{devkit_id(label)}\n" for label in whole))
    assert any("all 50,000" in note for note in open_folder(root).notes)


def test_where_labels_cannot_be_checked_it_is_said(tmp_path):
    some = dict.fromkeys(range(FIRST, FIRST + 9), 5)
    assert "none of images 1 to 20, whose labels are known, is here" in imagenet.check_labels(some, "here")
    assert "are right in the 1 listed; others not checked" in imagenet.check_labels({**some, 1: 65}, "here")


def test_nearly_all_validation_images_are_a_broken_copy(tmp_path, monkeypatch):
    monkeypatch.setattr(imagenet, "VAL_IMAGES", 30)
    monkeypatch.setattr(layouts, "_NEARLY_ALL", 25)
    places = [f"{CLASSES[(*FIRST_LABELS, *range(10))[number - 1]]}/{val_name(number)}" for number in range(1, 31)]
    root = files(tmp_path / "val", *(place for place in places if not place.endswith("17.JPEG")))
    given = text(tmp_path, "mine.txt", "".join(f"{val_name(i)} {FIRST_LABELS[i - 1]}\n" for i in range(1, 16)))
    with pytest.raises(
        DataError, match=r"holds 29 of ImageNet's 30 validation images; missing: .*00000017.JPEG\. Copy"
    ):
        open_folder(root)
    assert len(open_folder(root, given).images) == 15


@pytest.mark.parametrize(
    ("names", "message"),
    [
        ([val_name(1)], f"validation images without labels. Add {GROUND_TRUTH}"),
        (["n01440764_10026.JPEG", "n01440764_10027.JPEG"], "ImageNet's training images by their names, in one folder"),
        ([f"ILSVRC2012_img_val/{val_name(1)}"], "its one folder 'ILSVRC2012_img_val' holds all images. Name that one"),
        ([f"deep/{val_name(1)}", f"deep/{val_name(2)}"], "its one folder 'deep' holds all images. Name that one"),
        ([f"n01751748/{val_name(1)}", f"n02110185/{val_name(1)}"], "are the same image by their names. Keep one"),
        (
            [f"n01751748/{val_name(1)}", f"n02110185/{val_name(2)}"],
            "val_00000002.JPEG has label .*, which should be 970",
        ),
    ],
)
def test_near_misses_of_imagenet_get_one_line_with_a_hint(tmp_path, names, message):
    with pytest.raises(DataError, match=message) as caught:
        open_folder(files(tmp_path / "set", *names))
    assert "\n" not in str(caught.value)


def test_validation_images_under_other_names_and_the_training_set_are_named(tmp_path, monkeypatch):
    monkeypatch.setattr(layouts, "_NEARLY_ALL", 2)
    root = files(tmp_path / "flat", *(f"val_{number}.JPEG" for number in range(1, 4)))
    text(root, GROUND_TRUTH, "490\n361\n171\n")
    with pytest.raises(DataError, match=r"'val_1.JPEG' is not named as ImageNet's .*\(ILSVRC2012_val_00000001.JPEG\)"):
        open_folder(root)
    monkeypatch.setattr(layouts, "_MANY", 2)
    train = files(tmp_path / "pictures", *(f"{wnid}/{wnid}_{i}.JPEG" for wnid in CLASSES[:3] for i in range(2)))
    with pytest.raises(DataError, match=r"6 training images by their names .*Name the folder of the 50,000 validation"):
        open_folder(train)
    assert len(open_folder(train, split="train").classes) == 3


def test_folders_of_label_indices_are_numbers_and_not_text(tmp_path):
    root = tmp_path / "imagenetv2-matched-frequency-format-val"
    dataset = open_folder(files(root, "0/a.jpeg", "1/b.jpeg", "2/c.jpeg", "10/d.jpeg", "100/e.jpeg", "999/f.jpeg"))
    expected = {"0/a.jpeg": 0, "1/b.jpeg": 1, "2/c.jpeg": 2, "10/d.jpeg": 10, "100/e.jpeg": 100, "999/f.jpeg": 999}
    assert labels(dataset) == expected
    assert (dataset.name, dataset.split, dataset.classes) == ("ImageNet-V2", "matched-frequency", CLASSES)
    assert sorted(map(str, range(1000)))[2] == "10"  # the trap: by text, folder "10" would be class 2
    files(root, "1000/g.jpeg")
    with pytest.raises(DataError, match="ImageNet-V2 has folders '0' to '999'"):
        open_folder(root)


def test_label_indices_under_any_name_and_numbers_that_are_none(tmp_path):
    twelve = open_folder(files(tmp_path / "some", *(f"{i}/x.jpg" for i in range(12))))
    assert labels(twelve) == {f"{i}/x.jpg": i for i in range(12)}
    assert "taken as numbers" in twelve.layout
    from_one = open_folder(files(tmp_path / "other", "1/x.jpg", "2/x.jpg", "10/x.jpg"))
    assert labels(from_one) == {"1/x.jpg": 0, "10/x.jpg": 1, "2/x.jpg": 2}
    assert "so in the order of text" in from_one.layout


def test_imagenettes_ten_classes_are_labelled_among_the_thousand(tmp_path):
    names = sorted(imagenet.IMAGENETTE)
    root = files(tmp_path / "imagenette2" / "val", *(f"{wnid}/{val_name(9)}" for wnid in names[:1]))
    files(root, *(f"{wnid}/{wnid}_10.JPEG" for wnid in names))
    dataset = open_folder(root)
    assert sorted({image.label for image in dataset.images}) == [0, 217, 482, 491, 497, 566, 569, 571, 574, 701]
    assert (dataset.name, dataset.split, len(dataset.classes)) == ("Imagenette", "val", 1000)
    assert "an answer is sought among all 1000" in dataset.layout
    # For training, and for what was trained on them, they are ten.
    assert sorted({image.label for image in open_folder(root, split="train").images}) == list(range(10))
    own = text(tmp_path, "ten.txt", "\n".join(reversed(names)))
    assert labels(open_folder(root, own))[f"{names[9]}/{names[9]}_10.JPEG"] == 0
    text(tmp_path, "ten.txt", "\n".join(names[1:]))
    with pytest.raises(DataError, match="does not name the folder 'n01440764'"):
        open_folder(root, own)


def test_a_thousand_wordnet_folders_are_imagenet_even_where_some_are_empty(tmp_path):
    files(tmp_path, *(f"{wnid}/x.JPEG" for wnid in CLASSES[:990]))
    for wnid in CLASSES[990:]:
        (tmp_path / wnid).mkdir()
    dataset = open_folder(tmp_path)
    assert dataset.classes == CLASSES
    assert "ImageNet's 1000 WordNet ids; 10 without images" in dataset.layout
    (tmp_path / CLASSES[995]).rmdir()  # its index is known all the same
    assert labels(open_folder(tmp_path)) == labels(dataset)


def test_other_wordnet_ids_are_indexed_among_themselves(tmp_path):
    dataset = open_folder(files(tmp_path / "a", "n00000003/x.JPEG", "n00000007/x.JPEG"))
    assert labels(dataset) == {"n00000003/x.JPEG": 0, "n00000007/x.JPEG": 1}
    assert "index among these" in dataset.layout
    with pytest.raises(DataError, match="holds 950 WordNet ids, nearly ImageNet's 1000"):
        open_folder(files(tmp_path / "b", *(f"n{i:08d}/x.JPEG" for i in range(950))))


def test_caffes_val_txt_is_taken_as_it_is_and_labels_from_1_to_1000_are_refused(tmp_path):
    numbers = range(FIRST, FIRST + 1000)
    root = files(tmp_path, *(val_name(number) for number in numbers))
    text(root, "val.txt", "".join(f"{val_name(FIRST + i)} {i}\n" for i in range(1000)))
    assert labels(open_folder(root))[val_name(FIRST + 65)] == 65
    text(root, "val.txt", "".join(f"{val_name(FIRST + i)} {i + 1}\n" for i in range(1000)))
    with pytest.raises(DataError, match="labels are 1 to 1000; accepted are 0 to 999"):
        open_folder(root)
