"""One folder a class: by name, by WordNet id, by label index (ImageNet-V2), or by a list of classes."""

from __future__ import annotations

from pathlib import Path

from vggbench.errors import DataError
from vggbench.images import imagenet
from vggbench.images.lists import WNID, Labelled, by_names, whole
from vggbench.images.tree import Layout, Tree

#: Names of folders that are hardly a class.
NO_CLASS = (
    *("train", "training", "val", "valid", "validation", "test", "testing"),
    *("images", "image", "img", "jpeg", "data", "jpegimages", "ilsvrc2012_img_val"),
)


def class_folders(tree: Tree, groups: list[str], own: bool) -> Layout:
    """groups: the folders with images. own: WordNet ids are indexed among themselves. Raises DataError with a hint."""
    only = groups[0]
    is_nested = all(file.id.count("/") > 1 for file in tree.images)
    if len(groups) == 1 and not tree.archives_read and (only.lower() in NO_CLASS or is_nested or _are_val(tree)):
        inner = len({file.id.rpartition("/")[0] for file in tree.images})
        what = f"{inner} class folders" if any(file.id.count("/") > 1 for file in tree.images) else "all images"
        raise DataError(f"{tree.root}: its one folder {only!r} holds {what}. Name that one: {tree.root / only}")
    names = [file.id.partition("/")[0] for file in tree.images]
    labelled = _label_indices(tree, names, groups)
    if labelled is None:
        is_wordnet = all(WNID.fullmatch(name) for name in groups)
        # With WordNet ids an empty folder still is a class; elsewhere it may be anything.
        labelled = by_names(names, "folder", own, filter(WNID.fullmatch, tree.folders) if is_wordnet else ())
        if not is_wordnet:
            labelled = Labelled(labelled.labels, labelled.classes, _note(groups))
    empty = len(tree.folders) - len(groups)
    words = f"one folder per class: {labelled.note}" + (f"; {empty} without images" if empty else "") + tree.left_out()
    return Layout(tree.root, words, labelled.classes, tree.images, labelled.labels)


def with_classes(tree: Tree, groups: list[str], path: Path, classes: list[str]) -> Layout:
    """Labels are the places of the folders' names in a list of classes. Raises DataError."""
    if not groups or len(set(classes)) != len(classes):
        raise DataError(
            f"{path}: is a list of classes, which goes with one folder a class, each class once. For flat images give "
            "a list of 'file label'."
        )
    index = {name: label for label, name in enumerate(classes)}
    names = [file.id.partition("/")[0] for file in tree.images]
    strange = sorted({name for name in names if name not in index})
    if strange:
        raise DataError(f"{path}: does not name the folder {strange[0]!r} ({len(strange)} such folders). Add them.")
    words = f"one folder per class, in the order of the {len(classes)} classes of {path.name}{tree.left_out()}"
    return Layout(tree.root, words, tuple(classes), tree.images, [index[name] for name in names])


def _are_val(tree: Tree) -> bool:
    return all(imagenet.val_number(file.id) for file in tree.images)


def _label_indices(tree: Tree, names: list[str], groups: list[str]) -> Labelled | None:
    """Folders "0", "1", ... named by label: sorted as text, 10 comes before 2, and nearly all labels are wrong."""
    if not all(str(whole(name)) == name for name in groups):
        return None
    present = {int(name) for name in groups}
    is_v2 = imagenet.v2_variant([tree.root.name, tree.root.parent.name]) is not None
    are_all = present == set(range(len(present)))
    most = len(imagenet.CLASSES)
    if is_v2 or (len(present) > 900 and max(present) < most):
        if max(present) >= most:
            raise DataError(f"{tree.root}: folder {max(present)!r}; ImageNet-V2 has folders '0' to '999'.")
        classes = imagenet.CLASSES if is_v2 else tuple(str(label) for label in range(most))
        note = f"{len(present)} of 1000 folders named by label index, taken as numbers (not in the order of text)"
        return Labelled([int(name) for name in names], classes, f"ImageNet-V2, {note}" if is_v2 else note)
    if are_all and len(present) > 1:
        note = f"{len(present)} folders named by label index, taken as numbers (not in the order of text)"
        return Labelled([int(name) for name in names], tuple(str(label) for label in range(len(present))), note)
    return None


def _note(groups: list[str]) -> str:
    if len(groups) > 1 and None not in map(whole, groups) and sorted(groups) != sorted(groups, key=int):
        return f"{len(groups)} class folders, named by numbers but not 0 to {len(groups) - 1}, so in the order of text"
    return f"{len(groups)} class folders"
