"""ReaL labels: several right answers an image, from the file to the record."""

from __future__ import annotations

import json

import imagenet_layouts
import numpy as np
import pytest
from image_folders import files

from vggbench import runs, runs_numerics
from vggbench.errors import DataError, UsageError
from vggbench.images import imagenet, open_dataset
from vggbench.images.folder import open_folder
from vggbench.measure.multilabel import best_labels, ranks_of_best
from vggbench.measure.posteriors import ranks
from vggbench.runs_inputs import Setting


def real_file(path, rows: dict[int, list[int]], **changes):
    """real.json with known first labels, the given rows, and no label elsewhere."""
    every = [[label] for label in imagenet.FIRST_LABELS] + [[] for _ in range(50_000 - len(imagenet.FIRST_LABELS))]
    for number, row in (rows | changes).items():
        every[number - 1] = row
    path.write_text(json.dumps(every))
    return path


def slow_is_right(posteriors, labels, top):
    """As public evaluators count: any of the best ``top`` answers is among the labels; ties are broken against them."""
    right = []
    for row, each in zip(posteriors, labels, strict=True):
        order = sorted(range(len(row)), key=lambda index: (-row[index], index in each))
        right.append(any(index in each for index in order[:top]))
    return right


@pytest.mark.parametrize("seed", range(20))
def test_ranks_count_as_public_evaluators_do(seed):
    dice = np.random.default_rng(seed)
    posteriors = dice.integers(0, 6, (60, 12)) / 6  # many ties
    labels = [tuple(dice.choice(12, dice.integers(1, 6), replace=False).tolist()) for _ in range(60)]
    found, best = ranks_of_best(posteriors, labels)
    for top in (1, 2, 5):
        assert (found < top).tolist() == slow_is_right(posteriors, labels, top)
    for row, each, label in zip(posteriors, labels, best, strict=True):
        assert label in each
        assert row[label] == max(row[index] for index in each)


def test_one_label_an_image_ranks_as_without_real():
    dice = np.random.default_rng(1)
    posteriors, labels = dice.random((50, 9)), dice.integers(0, 9, 50)
    found, best = ranks_of_best(posteriors, [(int(label),) for label in labels])
    assert (found == ranks(posteriors, labels)).all()
    assert (best == labels).all()


def test_another_right_label_never_makes_an_answer_worse():
    posteriors = np.array([[0.5, 0.3, 0.2], [0.4, 0.4, 0.2], [0.2, 0.3, 0.5]])
    assert ranks_of_best(posteriors, [(1,), (1,), (0,)])[0].tolist() == [1, 1, 2]
    assert ranks_of_best(posteriors, [(1, 0), (1, 0), (0, 1)])[0].tolist() == [0, 0, 1]


def test_labels_beyond_the_classes_and_posteriors_that_are_no_numbers_are_refused():
    with pytest.raises(DataError, match="Label 3 is out of range; these weights have classes 0 to 2"):
        best_labels(np.ones((1, 3)), [(0, 3)])
    for bad in (np.nan, np.inf):
        with pytest.raises(DataError, match="not finite"):
            ranks_of_best(np.array([[0.5, bad, 0.1]]), [(0, 1)])


def test_images_without_a_label_are_left_out_and_counted(tmp_path):
    root = files(tmp_path / "val", *(imagenet_layouts.val_name(number) for number in (30, 31, 32, 33)))
    real = real_file(tmp_path / "real.json", {30: [7, 2, 7], 31: [], 32: [5], 33: [999, 0, 1]})
    dataset = open_folder(root, real)
    assert {image.id[-7:-5]: image.labels for image in dataset.images} == {"30": (7, 2), "32": (5,), "33": (999, 0, 1)}
    assert (dataset.name, dataset.split, dataset.label_set, dataset.total) == ("ILSVRC-2012", "val", "ReaL", 3)
    assert "with ReaL labels (1 without one left out)" in dataset.layout
    assert any("not those published" in note for note in dataset.notes)
    other = real_file(tmp_path / "other.json", {30: [7], 31: [], 32: [5], 33: [999, 0, 1]})
    assert open_folder(root, other).fingerprint != dataset.fingerprint


def test_real_labels_go_with_files_archives_and_shards(tmp_path):
    made = imagenet_layouts.make(30)
    real = real_file(
        tmp_path / "real.json", {number: [label, (label + 1) % 1000] for number, label in made.labels.items()}
    )
    found = [
        open_dataset(str(layout(tmp_path / layout.__name__, made)), cache_root=tmp_path, labels=real)
        for layout in (imagenet_layouts.class_folders, imagenet_layouts.tar_with_devkit, imagenet_layouts.shards)
    ]
    assert len({dataset.fingerprint for dataset in found}) == 1
    assert len(found[0].images) == 30


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda rows: rows[:-1], "has 49,999 entries; ReaL labels are a list of 50,000 lists"),
        (lambda rows: {"a": 1}, "has 1 entries"),
        (lambda rows: 5, "has one value"),
        (lambda rows: [*rows[:7], [1000], *rows[8:]], r"entry 8 is \[1000\]; accepted are lists of labels 0 to 999"),
        (lambda rows: [*rows[:7], 3, *rows[8:]], "entry 8 is 3"),
        (lambda rows: [*rows[:7], [True], *rows[8:]], r"entry 8 is \[True\]"),
        (lambda rows: [[], *rows[:-1]], "of the first 20 images only 0 have their known label .* It is shifted"),
        (lambda rows: rows[::-1], "of the first 20 images only 0"),
    ],
)
def test_a_wrong_or_shifted_file_is_one_line(tmp_path, change, message):
    root = files(tmp_path / "val", imagenet_layouts.val_name(30))
    rows = json.loads(real_file(tmp_path / "real.json", {30: [1]}).read_text())
    (tmp_path / "real.json").write_text(json.dumps(change(rows)))
    with pytest.raises(DataError, match=message) as caught:
        open_folder(root, tmp_path / "real.json")
    assert "\n" not in str(caught.value)


def test_real_labels_for_other_images_and_broken_files_are_refused(tmp_path):
    real = real_file(tmp_path / "real.json", {30: [1]})
    with pytest.raises(DataError, match=r"'a/1.jpg' is none of them by its name"):
        open_folder(files(tmp_path / "set", "a/1.jpg", "b/2.jpg"), real)
    with pytest.raises(DataError, match="none of the 1 images has a ReaL label"):
        open_folder(files(tmp_path / "val", imagenet_layouts.val_name(40)), real)
    real.write_text("[" * 100_000)
    with pytest.raises(DataError, match="is not JSON"):
        open_folder(tmp_path / "val", real)


def test_a_record_says_real_and_counts_an_answer_among_the_labels(tmp_path, monkeypatch):
    monkeypatch.setenv("VGGBENCH_CACHE", str(tmp_path / "cache"))
    made = imagenet_layouts.make(12)
    root = imagenet_layouts.class_folders(tmp_path, made)
    how = {
        "setting": Setting("pytorch", device="cpu", threads=1),
        "data": str(root),
        "weights": "random:0",
        "protocol_name": "center",
        "scales": (32,),
        "size": {"width": 1 / 64, "hidden_width": 1 / 256, "crop_size": 32},
    }
    single, _ = runs.evaluate(**how)
    assert "labels" not in single.workload.data
    answers = {case["id"]: case["answer"] for case in single.hardest}
    assert len(answers) == 12  # random weights are wrong on all
    rows = {int(name[15:23]): [made.labels[int(name[15:23])], answer] for name, answer in answers.items()}
    first = min(rows)
    rows[first] = rows[first][:1]
    real, _ = runs.evaluate(**how, labels=real_file(tmp_path / "real.json", rows))
    assert real.workload.data["labels"] == "ReaL"
    assert sorted(real.samples.values)[:11] == [0] * 11
    assert max(real.samples.values) > 0
    assert [case["id"] for case in real.hardest] == [imagenet_layouts.val_name(first)]
    assert real.workload.data["fingerprint"] != single.workload.data["fingerprint"]


def test_errors_of_two_variants_are_not_compared_by_real_labels(tmp_path):
    root = files(tmp_path / "val", imagenet_layouts.val_name(30))
    dataset = open_folder(root, real_file(tmp_path / "real.json", {30: [1]}))
    with pytest.raises(UsageError, match="ReaL labels: errors are compared by one label an image"):
        runs_numerics.numerics(dataset, None, None)
