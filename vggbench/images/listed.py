"""Images with a list of names and labels, with labels beside them in shards, or numbered as ImageNet's are."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

from vggbench.errors import DataError
from vggbench.images import imagenet
from vggbench.images.lists import LIST_NAMES, Row, class_names, label_rows, read_list
from vggbench.images.tree import File, Layout, Tree
from vggbench.images.truth import Truth, read_real


def find_list(tree: Tree, home: Path, sure: bool) -> Path | None:
    """The list beside the images or in ``home``. sure: only one whose first row names an image that is there, as a
    labels.txt among class folders may be anything."""
    places = list(dict.fromkeys((tree.folder, home if home.is_dir() else home.parent)))
    found = [place / name for place in places for name in LIST_NAMES if (place / name).is_file()]
    if not found and not sure and not tree.archives_read:
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


def listed(tree: Tree, path: Path, own: bool) -> Layout:
    """Raises DataError naming the line. Of ImageNet's validation images, fewer may be there than the list names."""
    rows = read_list(path)
    finder = _Finder(tree)
    found = [finder.find(row.file) for row in rows]
    missing = [row for row, file in zip(rows, found, strict=True) if file is None]
    is_val = all(_number(row) for row in rows)
    if missing and not (is_val and len(missing) < len(rows)):
        raise DataError(
            f"{path}, line {missing[0].line}: {missing[0].file!r} is not in {tree.root} ({len(missing)} of {len(rows)} "
            "files of the list are not). Add them, or take their lines out."
        )
    _check_once(path, rows, found)
    labelled = label_rows(path, rows, own)
    classes, truth = labelled.classes, {}
    if is_val:
        classes = imagenet.CLASSES if _are_indices(classes) else classes
        truth = {_number(row) or 0: at for row, at in zip(rows, labelled.labels, strict=True)}
    here = [(file, row, at) for file, row, at in zip(found, rows, labelled.labels, strict=True) if file is not None]
    files, labels = [file for file, _, _ in here], [label for _, _, label in here]
    boxes = {file.id: row.box for file, row, _ in here if row.box is not None}
    unlisted = len(tree.images) - len(files)
    tree.others = [name for name in tree.others if name != path.name]
    words = f"images with the list {path.name}: {labelled.note}{tree.left_out(unlisted)}"
    return Layout(tree.root, words, classes, files, labels, boxes=boxes, truth=truth, truth_file=str(path))


def _number(row: Row) -> int | None:
    return imagenet.val_number(row.file.replace("\\", "/"))


def _check_once(path: Path, rows: list[Row], found: list[File | None]) -> None:
    counts = Counter(file.id if file else row.file for file, row in zip(found, rows, strict=True))
    twice = [name for name, count in counts.items() if count > 1]
    if twice:
        raise DataError(f"{path}: names {twice[0]!r} more than once ({len(twice)} such files). Keep one line of each.")


def _are_indices(classes: tuple[str, ...]) -> bool:
    return len(classes) <= len(imagenet.CLASSES) and classes == tuple(str(label) for label in range(len(classes)))


def shards(tree: Tree) -> Layout:
    """Labels from the NAME.cls that stands beside each NAME.jpg. Raises DataError."""
    rows = [
        Row(line, file.id, tree.labels[file.id])
        for line, file in enumerate(tree.images, start=1)
        if file.id in tree.labels
    ]
    if len(rows) < len(tree.images):
        bare = next(file for file in tree.images if file.id not in tree.labels)
        raise DataError(f"{bare.path}: has no label beside it, as images of other shards have. Pack its archive anew.")
    labelled = label_rows(tree.folder / "*.cls", rows)
    classes = labelled.classes
    if _are_indices(classes) and not class_names(tree.folder) and all(imagenet.val_number(row.file) for row in rows):
        classes = imagenet.CLASSES
    count = len(tree.archives_read)
    words = f"{count} shard{'' if count == 1 else 's'} of images with NAME.cls labels{tree.left_out()}"
    return Layout(tree.root, words, classes, tree.images, labelled.labels)


def numbered(tree: Tree, truth: Truth) -> Layout:
    """ImageNet's validation images, flat, with a ground truth in the order of their numbers. Raises DataError."""
    labels = []
    for file in tree.images:
        number = imagenet.val_number(file.id) or 0
        if number not in truth.labels:
            raise DataError(
                f"{truth.where}: has {len(truth.labels):,} lines, {file.id!r} needs line {number:,}. Take the devkit's "
                "file."
            )
        labels.append(truth.labels[number])
    words = f"ImageNet's flat validation images with {truth.words}{tree.left_out()}"
    return Layout(tree.root, words, imagenet.CLASSES, tree.images, labels, truth=truth.labels, truth_file=truth.where)


def with_real(tree: Tree, path: Path) -> Layout:
    """ImageNet's validation images with ReaL labels, in any layout; an image without one is left out."""
    rows, checked = read_real(path)
    strange = next((file.id for file in tree.images if imagenet.val_number(file.id) is None), None)
    if strange is not None:
        raise DataError(f"{path}: are labels of ImageNet's validation images; {strange!r} is none of them by its name.")
    right = [(file, rows[(imagenet.val_number(file.id) or 1) - 1]) for file in tree.images]
    kept = [(file, labels) for file, labels in right if labels]
    if not kept:
        raise DataError(f"{path}: none of the {len(tree.images)} images has a ReaL label. Add images.")
    without = len(right) - len(kept)
    words = f"ImageNet's validation images with ReaL labels ({without:,} without one left out){tree.left_out()}"
    note = f"ReaL labels {checked}; an image is right if the answer, or one of the first five, is among its labels"
    return Layout(
        tree.root,
        words,
        imagenet.CLASSES,
        [file for file, _ in kept],
        [labels[0] for _, labels in kept],
        also=[labels[1:] for _, labels in kept],
        label_set="ReaL",
        notes=(note,),
    )
