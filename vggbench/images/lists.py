"""Lists that say which image has which label: "file label" lines, CSV, ImageNet's and Kaggle's."""

from __future__ import annotations

import csv
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from vggbench.errors import DataError
from vggbench.images import imagenet

Box = tuple[float, float, float, float]

#: Looked for in this order in the folder of images and above it; --labels names any other.
LIST_NAMES = ("annotations.csv", "labels.txt", "labels.csv", "val.txt", "val.csv", "LOC_val_solution.csv")

#: A larger label is a mistake, and would ask for as many class names.
MAX_LABEL = 99_999

#: More than any label or id has, and far fewer than int() refuses.
_MAX_DIGITS = 12

WNID = re.compile(r"n\d{8}")
IMAGENET_CLASSES = 1000

_FILE_HEADS = ("file", "filename", "file_name", "image", "imageid", "image_id", "path")
_LABEL_HEADS = ("label", "class_id", "class_index", "target", "predictionstring", "class")
_INTEGER = re.compile(r"[+-]?[0-9]+")


@dataclass(frozen=True)
class Row:
    """One line of a list: label as written, a class name and a box where the list has them."""

    line: int
    file: str
    label: str
    name: str | None = None
    box: Box | None = None


@dataclass(frozen=True)
class Labelled:
    """Labels from 0 of each row, and the classes they index. note: how labels were made, in words."""

    labels: list[int]
    classes: tuple[str, ...]
    note: str


def read_text(path: Path) -> str:
    """A small text file. Raises DataError."""
    try:
        return path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror}. Grant access, or name another file.") from error
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: is not text in UTF-8. A list has lines of 'file label'.") from error


def whole(text: str) -> int | None:
    """A number from 0 on in ASCII digits; None for all else, and for one too long for any label or id."""
    return int(text) if text.isascii() and text.isdigit() and len(text) <= _MAX_DIGITS else None


def read_list(path: Path) -> list[Row]:
    """The rows of a list. Raises DataError naming the line."""
    text = read_text(path)
    first = text.split("\n", 1)[0]
    if path.suffix.lower() == ".csv" or first.lower().startswith(tuple(f"{head}," for head in _FILE_HEADS)):
        rows = _csv_rows(path, text, next((mark for mark in ",;\t" if mark in first), ","))
    else:
        rows = _plain_rows(path, text)
    if not rows:
        raise DataError(f"{path}: names no image. A list has lines of 'file label'.")
    return rows


def _plain_rows(path: Path, text: str) -> list[Row]:
    """Lines "file label"; the file's name may hold spaces, the label none."""
    rows = []
    for number, line in enumerate(text.split("\n"), start=1):
        parts = line.strip().rsplit("\t" if "\t" in line.strip() else None, 1)
        if not parts or not parts[0]:
            continue
        if len(parts) == 1:
            raise DataError(
                f"{path}, line {number}: {line.strip()[:80]!r} has no label. A list has lines of 'file label'."
            )
        rows.append(Row(number, parts[0].strip().rstrip(","), parts[1].strip()))
    return rows


def _csv_rows(path: Path, text: str, mark: str) -> list[Row]:
    try:
        table = [row for row in enumerate(csv.reader(text.splitlines(), delimiter=mark), start=1) if any(row[1])]
    except csv.Error as error:
        raise DataError(f"{path}: is not a CSV file ({error}).") from error
    heads = [cell.strip().lower() for cell in table[0][1]] if table else []
    file_at = next((heads.index(head) for head in _FILE_HEADS if head in heads), None)
    label_at = next((heads.index(head) for head in _LABEL_HEADS if head in heads), None)
    if file_at is None or label_at is None:  # no header: file, label
        heads, file_at, label_at = [], 0, 1
    name_at = heads.index("class") if "class" in heads and heads.index("class") != label_at else None
    box_at = [heads.index(edge) for edge in ("x0", "y0", "x1", "y1") if edge in heads]
    rows = []
    for number, cells in table[1:] if heads else table:
        try:
            box = tuple(float(cells[at]) for at in box_at)
            label = cells[label_at].strip()
            if heads and heads[label_at] == "predictionstring":  # Kaggle: "n01751748 111 108 431 379 ..."
                label = label.split()[0]
            name = None if name_at is None else cells[name_at].strip()
            file = cells[file_at].strip()
        except (IndexError, ValueError) as error:
            raise DataError(
                f"{path}, line {number}: {mark.join(cells)[:80]!r} does not fit the columns above."
            ) from error
        if not file or not label:
            raise DataError(f"{path}, line {number}: {mark.join(cells)[:80]!r} lacks a file or a label. Add it.")
        rows.append(Row(number, file, label, name, (box[0], box[1], box[2], box[3]) if len(box) == 4 else None))
    return rows


def label_rows(path: Path, rows: list[Row], own: bool = False) -> Labelled:
    """Labels as integers from 0, or as names in sorted order. own: see by_names. Raises DataError naming the line."""
    integers = [bool(_INTEGER.fullmatch(row.label)) for row in rows]
    if not any(integers):
        return by_names([row.label for row in rows], "list", own)
    if not all(integers):
        row = rows[integers.index(False)]
        raise DataError(
            f"{path}, line {row.line}: label {row.label[:40]!r}; the other labels are integers, which start at 0."
        )
    names = class_names(path.parent)
    top = len(names) - 1 if names else MAX_LABEL
    for row in rows:
        if len(row.label) > _MAX_DIGITS or not 0 <= int(row.label) <= top:
            raise DataError(
                f"{path}, line {row.line}: label {row.label[:40]} is out of range; accepted are 0 to {top}."
            )
    labels = [int(row.label) for row in rows]
    if min(labels) == 1 and max(labels) == IMAGENET_CLASSES:
        raise DataError(
            f"{path}: labels are 1 to 1000; accepted are 0 to 999 in WordNet order. If they are the devkit's ids, take "
            "its ILSVRC2012_validation_ground_truth.txt, which has no names; else subtract 1."
        )
    if not names:
        names = [str(label) for label in range(max(labels) + 1)]
        for row in rows:
            label = int(row.label)
            if row.name is not None and names[label] not in (str(label), row.name):
                raise DataError(
                    f"{path}, line {row.line}: label {label} is {row.name!r}, above {names[label]!r}. Name it one way."
                )
            names[label] = row.name or names[label]
    return Labelled(labels, tuple(names), "integer labels")


def by_names(names: Iterable[str], where: str, own: bool = False, empty: Iterable[str] = ()) -> Labelled:
    """Class names -> labels: the index in sorted order (by code point, independent of the locale).

    WordNet ids of ImageNet's are indexed among its 1000 classes, however few there are; own: among themselves, as a
    network trained on these classes alone counts them. empty: classes without an image.
    """
    names = list(names)
    classes = tuple(sorted({*names, *empty}))
    note = f"{len(classes)} classes by name"
    if all(WNID.fullmatch(name) for name in classes):
        if not own and imagenet.INDEX.keys() >= set(classes):
            note = imagenet_note(set(names), classes)
            classes = imagenet.CLASSES
        else:
            note = wordnet_note(classes, where)
    index = {name: label for label, name in enumerate(classes)}
    return Labelled([index[name] for name in names], classes, note)


def imagenet_note(present: set[str], classes: tuple[str, ...]) -> str:
    """What a set of ImageNet's WordNet ids is, of which some have images."""
    if len(classes) == IMAGENET_CLASSES:
        return "ImageNet's 1000 WordNet ids"
    what = "Imagenette's ten classes" if present == imagenet.IMAGENETTE else f"{len(present)} of ImageNet's WordNet ids"
    return f"{what}; labels are their index among all 1000, and an answer is sought among all 1000"


def wordnet_note(classes: tuple[str, ...], where: str) -> str:
    """What a set of other WordNet ids is. Raises DataError where it looks like ImageNet with some missing."""
    count = len(classes)
    if count == IMAGENET_CLASSES:
        return (
            "ImageNet's 1000 WordNet ids"
            if classes == imagenet.CLASSES
            else ("1000 WordNet ids, not those of ImageNet's 1000 classes")
        )
    if 900 < count < IMAGENET_CLASSES:
        raise DataError(
            f"The {where} holds {count} WordNet ids, nearly ImageNet's 1000 but not all of them: a missing one shifts "
            "all labels after it. Unpack the rest (an empty folder will do), or give a list of labels: --labels FILE."
        )
    return f"{count} WordNet ids; labels are their index among these, so weights of ImageNet's 1000 classes do not fit"


def class_names(folder: Path) -> list[str]:
    for name in ("classes.txt", "synset_words.txt", "LOC_synset_mapping.txt"):
        if (folder / name).is_file():
            return [line.strip() for line in read_text(folder / name).split("\n") if line.strip()]
    return []
