"""What is known of ILSVRC-2012: its classes in both orders, the names of its images, and digests of its labels."""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

from vggbench.errors import DataError

NAME = "ILSVRC-2012"
VAL_IMAGES = 50_000

_LINES = Path(__file__).with_name("imagenet_wnids.txt").read_text().split("\n")
#: WordNet ids by the devkit's id less one: the order of meta.mat and of the ground-truth file.
DEVKIT: tuple[str, ...] = tuple(word for line in _LINES if not line.startswith("#") for word in line.split())
#: WordNet ids in WordNet order, which is sorted order: labels 0 to 999 of Caffe, torchvision and Keras.
CLASSES: tuple[str, ...] = tuple(sorted(DEVKIT))
INDEX: Mapping[str, int] = {wnid: label for label, wnid in enumerate(CLASSES)}

#: Labels in WordNet order of validation images 1 to 20, as many public copies of val.txt begin.
FIRST_LABELS = (65, 970, 230, 809, 516, 57, 334, 415, 674, 332, 109, 286, 370, 757, 595, 147, 108, 23, 478, 517)
#: Of all 50,000 labels in WordNet order, as decimal numbers joined by line feeds.
LABELS_SHA256 = "98a8901d9451abefb286c3a7f2ac88321a17d691fa44809acbbf1e7f77187a7d"

#: Imagenette's ten: tench, springer, cassette player, chain saw, church, horn, truck, petrol pump, ball, parachute.
IMAGENETTE = frozenset(CLASSES[label] for label in (0, 217, 482, 491, 497, 566, 569, 571, 574, 701))

_VAL_NAME = re.compile(r"ILSVRC2012_val_(\d{8})(?!\d)", re.IGNORECASE)
_TRAIN_NAME = re.compile(r"n\d{8}_\d+\.\w+")
_V2 = re.compile(r"imagenet-?v2(?:-(matched-frequency|threshold-?0\.7|top-images))?", re.IGNORECASE)


def val_number(file_id: str) -> int | None:
    """1 to 50,000 from the name of a validation image, wherever it lies: folder, archive or shard; None for others."""
    found = _VAL_NAME.match(file_id.rpartition("/")[2])
    return int(found[1]) if found and 1 <= int(found[1]) <= VAL_IMAGES else None


def val_id(number: int) -> str:
    """One id in every layout, so that order, fingerprint and records do not depend on it."""
    return f"ILSVRC2012_val_{number:08d}.JPEG"


def is_training_name(file_id: str) -> bool:
    """n01440764_10026.JPEG and the like."""
    return bool(_TRAIN_NAME.fullmatch(file_id.rpartition("/")[2]))


def v2_variant(names: Sequence[str]) -> str | None:
    """By the names of folders: "matched-frequency", "threshold0.7", "top-images" or ""; None if it is not V2."""
    for name in names:
        if found := _V2.search(name):
            return (found[1] or "").lower().replace("threshold-", "threshold")
    return None


def labels_digest(labels: Sequence[int]) -> str:
    return hashlib.sha256("\n".join(map(str, labels)).encode()).hexdigest()


def check_labels(labels: Mapping[int, int], where: str) -> str:
    """What could be checked of labels (validation image's number -> label), in words. Raises DataError for wrong ones.

    All 50,000 are compared by their digest, so any exchange of two is found. Of fewer, only those of the first 20
    images are known: an exchange among the others cannot be seen.
    """
    known = [number for number in range(1, len(FIRST_LABELS) + 1) if number in labels]
    wrong = [number for number in known if labels[number] != FIRST_LABELS[number - 1]]
    if wrong:
        raise DataError(f"{where}: {_diagnosis(labels, known, wrong)}")
    if len(labels) < VAL_IMAGES:
        if not known:
            return "labels not checked: none of images 1 to 20, whose labels are known, is here"
        return f"labels of images 1 to 20, which are known, are right in the {len(known)} listed; others not checked"
    counts = Counter(labels.values())
    if any(counts[label] != 50 for label in range(len(CLASSES))):
        least, most = (choose(counts[label] for label in range(len(CLASSES))) for choose in (min, max))
        raise DataError(
            f"{where}: gives {least} to {most} images a class; the validation set has 50 of each. Take the devkit's "
            "file."
        )
    if labels_digest([labels[number] for number in range(1, VAL_IMAGES + 1)]) != LABELS_SHA256:
        raise DataError(
            f"{where}: has 50 images a class, but not in the validation set's order: labels were exchanged or "
            "shuffled. Take the devkit's file."
        )
    return f"all {VAL_IMAGES:,} labels are those of {NAME}, by their digest"


def _diagnosis(labels: Mapping[int, int], known: Sequence[int], wrong: Sequence[int]) -> str:
    devkit = [labels[number] == DEVKIT.index(CLASSES[FIRST_LABELS[number - 1]]) for number in known]
    if all(devkit):
        return (
            "labels are the devkit's ids less one, which are not in WordNet order. Take val.txt of Caffe, or the "
            "devkit's ILSVRC2012_validation_ground_truth.txt under its own name."
        )
    first = wrong[0]
    return (
        f"{val_id(first)} has label {labels[first]}, which should be {FIRST_LABELS[first - 1]} "
        f"({CLASSES[FIRST_LABELS[first - 1]]}); {len(wrong)} of {len(known)} known labels are wrong. "
        "The list is shuffled, of another order, or of another set: take the devkit's file."
    )
