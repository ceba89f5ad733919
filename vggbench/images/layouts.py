"""What a folder of labelled images is taken for, and how to repair one that is nearly right."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

from vggbench.errors import DataError
from vggbench.images.lists import (
    GROUND_TRUTH,
    IMAGENET_CLASSES,
    LIST_NAMES,
    WNID,
    Box,
    by_names,
    devkit_order,
    label_rows,
    read_list,
    read_text,
    wordnet_note,
)
from vggbench.images.tree import ACCEPTED_SUFFIXES, ARCHIVE_SUFFIXES, File, Tree, scan

_TRAIN = ("train", "training")
_VAL = ("val", "valid", "validation")
_TEST = ("test", "testing")
#: Names of folders that are hardly a class.
_NO_CLASS = (*_TRAIN, *_VAL, *_TEST, "images", "image", "img", "jpeg", "data", "jpegimages")
_VAL_NUMBER = re.compile(r"ILSVRC2012_val_(\d{8})\.\w+", re.IGNORECASE)
_DEVKIT = "ILSVRC2012_devkit_t12"


@dataclass(frozen=True)
class Layout:
    """Files and their labels, not yet ordered. split: "train", "val", "test" where a folder's name says so."""

    root: Path
    words: str
    classes: tuple[str, ...]
    files: list[File]
    labels: list[int]
    split: str | None = None
    boxes: dict[str, Box] = field(default_factory=dict)


def sniff(home: Path, labels: Path | None, split: str) -> Layout:
    """The labelled images of a folder. Raises DataError with a hint."""
    _check_folder(home)
    root = _descend(home, split)
    tree = scan(root)
    if not tree.images:
        raise DataError(_why_empty(tree))
    if labels is not None:
        return _listed(tree, labels)
    groups = sorted({file.id.partition("/")[0] for file in tree.images if "/" in file.id})
    loose = [file for file in tree.images if "/" not in file.id]
    listing = _find_list(tree, home, sure=bool(groups) and not (len(groups) == 1 and not loose))
    if listing is not None:
        return _listed(tree, listing)
    if not groups:
        return _devkit(tree, home)
    if loose:
        raise DataError(
            f"{root}: {len(groups)} class folders ({groups[0]!r}, ...) and {len(loose)} loose images "
            f"({loose[0].id!r}, ...) are mixed. Move the loose ones away, or label all in a list: --labels FILE."
        )
    return _class_folders(tree, groups)


def split_of(root: Path) -> str | None:
    """The split that a folder's name says."""
    name = root.name.lower()
    return next((names[0] for names in (_TRAIN, _VAL, _TEST) if name in names), None)


def _check_folder(home: Path) -> None:
    if home.is_file():
        what = "an archive; unpack it and name the folder" if home.suffix.lower() in ARCHIVE_SUFFIXES else "a file"
        raise DataError(f"{home}: is {what}. Accepted is a folder of images, or 'sample'.")
    if not home.is_dir():
        raise DataError(f"{home}: no such folder. Accepted is a folder of images, or 'sample' for the built-in set.")


def _descend(home: Path, split: str) -> Path:
    """The folder of one split, where ``home`` holds several (ImageNet's, and Kaggle's ILSVRC/Data/CLS-LOC)."""
    for inner in ("ILSVRC/Data/CLS-LOC", "Data/CLS-LOC", "."):
        folder = home / inner
        if not folder.is_dir():
            continue
        found = {path.name.lower(): path for path in sorted(folder.iterdir()) if path.is_dir()}
        train, val, test = (
            next((found[name] for name in names if name in found), None) for names in (_TRAIN, _VAL, _TEST)
        )
        if train is None or (val is None and test is None):
            continue
        if split == "train":
            return train
        # ImageNet's own test images have no labels: they lie flat, without class folders.
        if test is not None and (val is None or (split == "test" and any(path.is_dir() for path in test.iterdir()))):
            return test
        return val or train
    return home


def _why_empty(tree: Tree) -> str:
    if tree.archives:
        more = f" and {len(tree.archives) - 1} more" if len(tree.archives) > 1 else ""
        return f"{tree.root}: holds no images, only the archive {tree.archives[0]!r}{more}. Unpack it there."
    return (
        f"{tree.root}: holds no images ({len(tree.others)} other files, {len(tree.folders)} folders). "
        f"Accepted are class folders of {' '.join(ACCEPTED_SUFFIXES)} files, or such files and a list labels.txt."
    )


def _extras(tree: Tree, unlisted: int = 0) -> str:
    """What was left out, in words."""
    counts = (
        (unlisted, "image", " not in the list"),
        (len(tree.others), "other file", ""),
        (tree.hidden, "hidden file", ""),
        (tree.loops, "link", " to a folder above it"),
    )
    told = [f"{count} {what}{'' if count == 1 else 's'}{more}" for count, what, more in counts if count]
    return f"; left out: {', '.join(told)}" if told else ""


def _class_folders(tree: Tree, groups: list[str]) -> Layout:
    only = groups[0]
    if len(groups) == 1 and (only.lower() in _NO_CLASS or all(file.id.count("/") > 1 for file in tree.images)):
        inner = len({file.id.rpartition("/")[0] for file in tree.images})
        what = f"{inner} class folders" if any(file.id.count("/") > 1 for file in tree.images) else "all images"
        raise DataError(f"{tree.root}: its one folder {only!r} holds {what}. Name that one: {tree.root / only}")
    wordnet = all(WNID.fullmatch(name) for name in groups)
    # With WordNet ids an empty folder still is a class; elsewhere it may be anything.
    names = sorted({*groups, *filter(WNID.fullmatch, tree.folders)}) if wordnet else groups
    note = wordnet_note(tuple(names), "folder") if wordnet else f"{len(names)} class folders"
    empty = len(tree.folders) - len(groups)
    words = f"one folder per class: {note}" + (f"; {empty} without images" if empty else "") + _extras(tree)
    index = {name: label for label, name in enumerate(names)}
    labels = [index[file.id.partition("/")[0]] for file in tree.images]
    return Layout(tree.root, words, tuple(names), tree.images, labels, split_of(tree.root))


def _find_list(tree: Tree, home: Path, sure: bool) -> Path | None:
    """The list beside the images or in ``home``. sure: only one whose first row names an image that is there, as a
    labels.txt among class folders may be anything."""
    places = [tree.root] if home == tree.root else [tree.root, home]
    found = [place / name for place in places for name in LIST_NAMES if (place / name).is_file()]
    if not found and not sure:
        found = [path for place in places for path in sorted(place.glob("*.csv")) if not path.name.startswith(".")]
        if len(found) > 1:
            raise DataError(f"{tree.root}: {found[0].name} and {found[1].name} may be lists. Name one: --labels FILE.")
    if not sure:
        return found[0] if found else None
    finder = _Finder(tree)
    for path in found:
        try:
            first = read_list(path)[0]
        except DataError:
            continue
        if finder.find(first.file) is not None:
            return path
    return None


class _Finder:
    """A list's name for a file -> the file: by its path, below the folder's own name, or by a name that is unique."""

    def __init__(self, tree: Tree) -> None:
        self._root = tree.root.name
        self._by_id = {file.id: file for file in tree.images}
        counts = Counter(file.id.rpartition("/")[2] for file in tree.images)
        alone = [file for file in tree.images if counts[file.id.rpartition("/")[2]] == 1]
        self._by_name = {file.id.rpartition("/")[2]: file for file in alone}
        self._by_stem = {name.rpartition(".")[0]: file for name, file in self._by_name.items()}

    def find(self, name: str) -> File | None:
        name = name.replace("\\", "/").removeprefix("./")
        inner, last = name.removeprefix(f"{self._root}/"), name.rpartition("/")[2]
        found = self._by_id.get(name) or self._by_id.get(inner) or self._by_name.get(last)
        return found or self._by_stem.get(last)  # Kaggle's ImageId has no suffix


def _listed(tree: Tree, path: Path) -> Layout:
    rows = read_list(path)
    finder = _Finder(tree)
    found = [finder.find(row.file) for row in rows]
    missing = [row for row, file in zip(rows, found, strict=True) if file is None]
    if missing:
        raise DataError(
            f"{path}, line {missing[0].line}: {missing[0].file!r} is not in {tree.root} ({len(missing)} of {len(rows)} "
            "files of the list are not). Add them, or take their lines out."
        )
    files = [file for file in found if file is not None]
    twice = [file_id for file_id, count in Counter(file.id for file in files).items() if count > 1]
    if twice:
        raise DataError(f"{path}: names {twice[0]!r} more than once ({len(twice)} such files). Keep one line of each.")
    labelled = label_rows(path, rows)
    boxes = {file.id: row.box for file, row in zip(files, rows, strict=True) if row.box is not None}
    unlisted = len(tree.images) - len(files)
    tree.others = [name for name in tree.others if name != path.name]
    words = f"images with the list {path.name}: {labelled.note}{_extras(tree, unlisted)}"
    return Layout(tree.root, words, labelled.classes, files, labelled.labels, split_of(tree.root), boxes)


def _devkit(tree: Tree, home: Path) -> Layout:
    """ImageNet's validation images as the archive unpacks them, with the devkit's ground truth."""
    numbers = [_VAL_NUMBER.fullmatch(file.id) for file in tree.images]
    if not all(numbers):
        raise DataError(
            f"{tree.root}: {len(tree.images)} images without labels. Add a list labels.txt with lines of 'file label' "
            "(labels from 0), name one with --labels FILE, or sort the images into one folder per class."
        )
    roots = dict.fromkeys((tree.root, home, tree.root.parent))
    inner = ("", "data", f"{_DEVKIT}/data", _DEVKIT)
    truths = [root / name / GROUND_TRUTH for root in roots for name in inner]
    truth = next((path for path in truths if path.is_file()), None)
    if truth is None:
        raise DataError(
            f"{tree.root}: ImageNet's validation images without labels. Add {GROUND_TRUTH} and meta.mat from the "
            "devkit's data folder, or val.txt with lines of 'file label' (0 to 999 in WordNet order)."
        )
    ids = read_text(truth).split()
    order = devkit_order(truth.parent)
    wnids = []
    for file, number in zip(tree.images, numbers, strict=True):
        line = int(number[1]) if number else 0
        if not 1 <= line <= len(ids):
            raise DataError(
                f"{truth}: has {len(ids):,} lines, {file.id!r} needs line {line:,}. Unpack the devkit anew."
            )
        if not ids[line - 1].isdigit() or int(ids[line - 1]) not in order:
            raise DataError(f"{truth}, line {line}: {ids[line - 1]!r} is out of range; accepted are 1 to 1000.")
        wnids.append(order[int(ids[line - 1])])
    every = by_names(order.values(), "devkit")
    index = {wnid: label for label, wnid in enumerate(every.classes)}
    assert len(index) == IMAGENET_CLASSES
    words = f"ImageNet's flat validation images with the devkit's ground truth: {every.note}{_extras(tree)}"
    return Layout(tree.root, words, every.classes, tree.images, [index[wnid] for wnid in wnids], "val")
