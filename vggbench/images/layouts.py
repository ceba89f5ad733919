"""What images are taken for - a folder, an archive, shards - and how to repair a layout that is nearly right."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path

from vggbench.errors import DataError
from vggbench.images import imagenet
from vggbench.images.archives import is_tar, scan_archives
from vggbench.images.class_folders import class_folders, with_classes
from vggbench.images.listed import find_list, listed, numbered, shards, with_real
from vggbench.images.lists import WNID, read_text
from vggbench.images.tree import ACCEPTED_SUFFIXES, ARCHIVE_SUFFIXES, Layout, Tree, scan
from vggbench.images.truth import GROUND_TRUTH, find_truth, from_given, synset_truth

_TRAIN = ("train", "training")
_VAL = ("val", "valid", "validation")
_TEST = ("test", "testing")
_VAL_ARCHIVE, _TRAIN_ARCHIVE = "ILSVRC2012_img_val.tar", "ILSVRC2012_img_train.tar"
#: So many training images by their names, and it is not some set drawn from them, as Imagenette is.
_MANY = imagenet.VAL_IMAGES
#: Fewer validation images than this are a subset made on purpose; more are a copy that broke off.
_NEARLY_ALL = 49_000


def sniff(home: Path, labels: Path | None, split: str) -> Layout:
    """The labelled images of a folder or an archive. Raises DataError with a hint.

    WordNet ids that are some of ImageNet's are labelled as among its 1000, except for training.
    """
    tree = _tree(home, split)
    if not tree.images:
        raise DataError(_why_empty(tree))
    layout = _labelled(tree, home, labels, split in ("train", "tune"))
    if layout.split is None:
        layout = dataclasses.replace(layout, split=split_of(layout.root))
    return _recognized(layout, split, is_listed=labels is not None)


def split_of(root: Path) -> str | None:
    """The split that a folder's or an archive's name says."""
    words = {root.name.lower(), *re.split(r"[^a-z]+", root.stem.lower())} if is_tar(root) else {root.name.lower()}
    return next((names[0] for names in (_TRAIN, _VAL, _TEST) if words & set(names)), None)


def _labelled(tree: Tree, home: Path, labels: Path | None, own: bool) -> Layout:
    groups = sorted({file.id.partition("/")[0] for file in tree.images if "/" in file.id})
    if labels is not None:
        return _given(tree, groups, labels, own)
    if tree.labels:
        return shards(tree)
    loose = [file for file in tree.images if "/" not in file.id]
    listing = find_list(tree, home, sure=bool(groups) and not (len(groups) == 1 and not loose))
    if listing is not None:
        return listed(tree, listing, own)
    if not groups:
        return _flat(tree, home)
    if loose:
        raise DataError(
            f"{tree.root}: {len(groups)} class folders ({groups[0]!r}, ...) and {len(loose)} loose images "
            f"({loose[0].id!r}, ...) are mixed. Move the loose ones away, or label all in a list: --labels FILE."
        )
    return class_folders(tree, groups, own)


def _given(tree: Tree, groups: list[str], path: Path, own: bool) -> Layout:
    """By the file of --labels: ReaL's JSON, the devkit's ground truth, WordNet ids, or a list of 'file label'."""
    if path.suffix.lower() == ".json":
        _check_complete(tree, path)
        return with_real(tree, path)
    if path.name == GROUND_TRUTH:
        return numbered(tree, from_given(path))
    lines = [line.split() for line in read_text(path).split("\n") if line.strip()]
    if lines and all(WNID.fullmatch(words[0]) for words in lines):
        wnids = [words[0] for words in lines]
        if len(wnids) > len(set(wnids)) or (not groups and len(wnids) == len(tree.images)):
            return numbered(tree, synset_truth(path))
        return with_classes(tree, groups, path, wnids)
    return listed(tree, path, own)


def _tree(home: Path, split: str) -> Tree:
    """What lies there: files, else the members of archives. Raises DataError."""
    if home.is_file():
        if is_tar(home):
            return scan_archives(home, [home])
        what = "an archive; unpack it and name the folder" if home.suffix.lower() in ARCHIVE_SUFFIXES else "a file"
        raise DataError(f"{home}: is {what}. Accepted is a folder of images, a tar archive of them, or 'sample'.")
    if not home.is_dir():
        raise DataError(f"{home}: no such folder. Accepted is a folder of images, or 'sample' for the built-in set.")
    root = _descend(home, split)
    tree = scan(root)
    found = sorted(root / name for name in tree.others if "/" not in name and is_tar(Path(name)))
    if tree.images or not found:
        return tree
    if (root / _VAL_ARCHIVE) in found and split != "train":
        return scan_archives(root / _VAL_ARCHIVE, [root / _VAL_ARCHIVE])
    if (root / _TRAIN_ARCHIVE) in found:
        raise DataError(
            f"{root / _TRAIN_ARCHIVE}: ImageNet's training archive holds an archive a class. Unpack those into folders "
            "of their names; for the validation images add ILSVRC2012_img_val.tar."
        )
    wanted = _TRAIN[0] if split == "train" else _VAL[0]
    splits = {path: split_of(path) for path in found}
    chosen = [path for path in found if splits[path] == wanted] if len(set(splits.values())) > 1 else []
    return scan_archives(root, chosen or found)


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
    if tree.archives_read:
        inner = next((name for name in tree.others if is_tar(Path(name))), None)
        what = f"archives in an archive ({inner!r}, ...)" if inner else "no images"
        return f"{tree.archives_read[0]}: holds {what}. Accepted is a tar of images: unpack it and name the folder."
    if tree.archives:
        more = f" and {len(tree.archives) - 1} more" if len(tree.archives) > 1 else ""
        return f"{tree.root}: holds no images, only the archive {tree.archives[0]!r}{more}. Unpack it there."
    return (
        f"{tree.root}: holds no images ({len(tree.others)} other files, {len(tree.folders)} folders). "
        f"Accepted are class folders of {' '.join(ACCEPTED_SUFFIXES)} files, or such files and a list labels.txt."
    )


def _flat(tree: Tree, home: Path) -> Layout:
    """ImageNet's validation images as the archive has them, with a ground truth from a folder near by."""
    places = [tree.folder, home if home.is_dir() else home.parent, tree.folder.parent]
    strange = next((file.id for file in tree.images if imagenet.val_number(file.id) is None), None)
    truth = find_truth(list(dict.fromkeys(places))) if strange is None or len(tree.images) >= _NEARLY_ALL else None
    if strange is None and truth is not None:
        return numbered(tree, truth)
    if strange is None:
        raise DataError(
            f"{tree.root}: ImageNet's validation images without labels. Add {GROUND_TRUTH} from the devkit's data "
            "folder (or ILSVRC2012_devkit_t12.tar.gz), or val.txt with lines of 'file label' (0 to 999 in WordNet "
            "order)."
        )
    if imagenet.is_training_name(strange):
        raise DataError(
            f"{tree.root}: {strange!r} and others are ImageNet's training images by their names, in one folder. Name "
            "the folder of the validation images; for training sort these into a folder for each WordNet id."
        )
    if truth is not None:
        raise DataError(
            f"{tree.root}: {strange!r} is not named as ImageNet's validation images are ({imagenet.val_id(1)}), so the "
            f"ground truth in {truth.where} does not say its label. Rename the images, or give a list: --labels FILE."
        )
    raise DataError(
        f"{tree.root}: {len(tree.images)} images without labels. Add a list labels.txt with lines of 'file label' "
        "(labels from 0), name one with --labels FILE, or sort the images into one folder per class."
    )


def _recognized(layout: Layout, split: str, is_listed: bool) -> Layout:
    """The same with its name, split and ids where it is one of the known sets. Raises DataError for a wrong one."""
    files, present = layout.files, {layout.classes[label] for label in set(layout.labels)}
    if all(imagenet.val_number(file.id) for file in files):
        return _validation(layout, is_listed)
    variant = imagenet.v2_variant([layout.root.name, layout.root.parent.name])
    if variant is not None and len(layout.classes) == len(imagenet.CLASSES):
        return dataclasses.replace(layout, name="ImageNet-V2", split=variant or "test")
    if present == imagenet.IMAGENETTE:
        return dataclasses.replace(layout, name="Imagenette")
    if split != "train" and len(files) > _MANY and all(map(imagenet.is_training_name, (files[0].id, files[-1].id))):
        raise DataError(
            f"{layout.root}: {len(files):,} training images by their names ({files[0].id!r}, ...). Name the folder of "
            f"the {imagenet.VAL_IMAGES:,} validation images, or the one that holds train/ and val/."
        )
    return layout


def _validation(layout: Layout, is_listed: bool) -> Layout:
    """ILSVRC-2012's validation images: ids as in every layout, labels checked."""
    numbers = [imagenet.val_number(file.id) or 0 for file in layout.files]
    by_number = dict(zip(numbers, layout.files, strict=True))
    if len(by_number) < len(numbers):
        twice = next(file for file, number in zip(layout.files, numbers, strict=True) if by_number[number] is not file)
        other = by_number[imagenet.val_number(twice.id) or 0]
        raise DataError(f"{layout.root}: {twice.id!r} and {other.id!r} are the same image by their names. Keep one.")
    notes = layout.notes
    if layout.label_set == "" and len(layout.classes) == len(imagenet.CLASSES):
        labels = layout.truth or dict(zip(numbers, layout.labels, strict=True))
        notes = (*notes, imagenet.check_labels(labels, layout.truth_file or str(layout.root)))
    if not is_listed:
        _check_numbers(set(numbers), layout.root)
    words = layout.words
    if len(numbers) < imagenet.VAL_IMAGES and layout.label_set == "":
        words += f"; {len(numbers):,} of the {imagenet.VAL_IMAGES:,} validation images"
    files = [
        dataclasses.replace(file, id=imagenet.val_id(number))
        for file, number in zip(layout.files, numbers, strict=True)
    ]
    boxes = {files[at].id: layout.boxes[file.id] for at, file in enumerate(layout.files) if file.id in layout.boxes}
    return dataclasses.replace(
        layout, files=files, words=words, boxes=boxes, name=imagenet.NAME, split="val", notes=notes
    )


def _check_complete(tree: Tree, path: Path) -> None:
    numbers = {imagenet.val_number(file.id) for file in tree.images}
    _check_numbers({number for number in numbers if number is not None}, tree.root)


def _check_numbers(numbers: set[int], root: Path) -> None:
    """Raises DataError for a copy that broke off."""
    if not _NEARLY_ALL < len(numbers) < imagenet.VAL_IMAGES:
        return
    missing = [number for number in range(1, imagenet.VAL_IMAGES + 1) if number not in numbers]
    raise DataError(
        f"{root}: holds {len(numbers):,} of ImageNet's {imagenet.VAL_IMAGES:,} validation images; missing: "
        f"{imagenet.val_id(missing[0])}{f' and {len(missing) - 1} more' if len(missing) > 1 else ''}. Copy them again, "
        "or list the images to take: --labels FILE."
    )
