"""Labels of ImageNet's validation images by their numbers: the devkit's ground truth, a synset list, ReaL."""

from __future__ import annotations

import gzip
import hashlib
import json
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path

from vggbench.errors import DataError
from vggbench.images import imagenet
from vggbench.images.lists import read_text, whole
from vggbench.images.tar_index import index

GROUND_TRUTH = "ILSVRC2012_validation_ground_truth.txt"
#: A WordNet id for each image, in the order of their names.
SYNSET_LABELS = ("imagenet_2012_validation_synset_labels.txt", "val_synsets.txt", "synset_labels.txt")
#: Of the labels as published, each image's sorted, as JSON.
REAL_SHA256 = "b76c626f6d2d49e481d9acda8e9334c186a6f78466ee298a7868187674620ca3"

_DEVKIT = "ILSVRC2012_devkit_t12"
_ARCHIVE = f"{_DEVKIT}.tar.gz"
#: The devkit's archive takes 2.5 MB and 20 MB unpacked; more is not it.
_MAX_DEVKIT_BYTES = 1 << 27


@dataclass(frozen=True)
class Truth:
    """Labels in WordNet order by the image's number. where: the file. words: what it is."""

    labels: dict[int, int]
    where: str
    words: str


def find_truth(folders: Sequence[Path]) -> Truth | None:
    """The first ground truth in the folders or in a devkit beside them. Raises DataError for one that is wrong."""
    inner = ("", "data", f"{_DEVKIT}/data", _DEVKIT)
    for path in (folder / name / GROUND_TRUTH for folder in folders for name in inner):
        if path.is_file():
            return from_given(path)
    for path in (folder / name for folder in folders for name in SYNSET_LABELS):
        if path.is_file():
            return synset_truth(path)
    for path in (folder / _ARCHIVE for folder in folders):
        if path.is_file():
            return _from_archive(path)
    return None


def from_given(path: Path) -> Truth:
    """A devkit's ground truth wherever it lies. Raises DataError naming the line."""
    return _devkit(str(path), read_text(path), *_order_beside(path.parent))


def synset_truth(path: Path) -> Truth:
    """A WordNet id a line, the first of image 1. Raises DataError naming the line."""
    wnids = read_text(path).split()
    for line, wnid in enumerate(wnids, start=1):
        if wnid not in imagenet.INDEX:
            raise DataError(f"{path}, line {line}: {wnid[:40]!r} is none of ImageNet's 1000 WordNet ids.")
    labels = {number: imagenet.INDEX[wnid] for number, wnid in enumerate(wnids, start=1)}
    return Truth(labels, str(path), f"the list of WordNet ids {path.name}")


def _devkit(where: str, text: str, order: Sequence[str], of: str) -> Truth:
    """order: WordNet ids by the devkit's id less one."""
    labels = {}
    for line, word in enumerate(text.split(), start=1):
        number = whole(word)
        if number is None or not 1 <= number <= len(order):
            raise DataError(f"{where}, line {line}: {word[:40]!r} is out of range; accepted are 1 to {len(order)}.")
        labels[line] = imagenet.INDEX[order[number - 1]]
    return Truth(labels, where, f"the devkit's ground truth, its ids put into WordNet order by {of}")


def _order_beside(folder: Path) -> tuple[Sequence[str], str]:
    """WordNet ids in the devkit's order, from meta.mat or map_clsloc.txt, else the known one; and what told it."""
    for place in (folder, folder.parent, folder.parent.parent):
        if (place / "meta.mat").is_file():
            return _known_order(
                str(place / "meta.mat"), from_meta(str(place / "meta.mat"), place / "meta.mat")
            ), "meta.mat"
        if (place / "map_clsloc.txt").is_file():
            words = [line.split() for line in read_text(place / "map_clsloc.txt").split("\n") if line.strip()]
            numbers = [(whole(line[1]), line[0]) for line in words if len(line) > 1]
            found = {number: wnid for number, wnid in numbers if number is not None}
            return _known_order(str(place / "map_clsloc.txt"), found), "map_clsloc.txt"
    return imagenet.DEVKIT, "the devkit's known order (no meta.mat lies beside it)"


def from_meta(where: str, source: Path | BytesIO) -> dict[int, str]:
    """The devkit's id -> WordNet id, inner nodes too. Raises DataError."""
    from scipy.io import loadmat  # type: ignore[import-untyped]

    try:
        synsets = loadmat(source, squeeze_me=True)["synsets"]
        return {int(row["ILSVRC2012_ID"]): str(row["WNID"]) for row in synsets}
    except Exception as error:  # loadmat raises nearly anything on a damaged file
        reason = str(error).split("\n", 1)[0] or type(error).__name__
        raise DataError(f"{where}: is not the devkit's meta.mat ({reason}). Unpack the devkit anew.") from error


def _known_order(where: str, found: dict[int, str]) -> Sequence[str]:
    """Raises DataError for any other order than that of the devkit of 2012."""
    for number, wnid in enumerate(imagenet.DEVKIT, start=1):
        if found.get(number) != wnid:
            raise DataError(
                f"{where}: id {number} is {found.get(number, 'missing')}, in ILSVRC-2012's devkit {wnid}. It is "
                "damaged or of another year: take that of ILSVRC2012_devkit_t12, or move it away (the order is known "
                "without it)."
            )
    return imagenet.DEVKIT


def _from_archive(path: Path) -> Truth:
    """From the devkit's archive, in memory. Raises DataError."""
    try:
        with gzip.open(path) as stream:
            data = stream.read(_MAX_DEVKIT_BYTES + 1)
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(f"{path}: cannot be decompressed ({error}). Download it anew.") from error
    if len(data) > _MAX_DEVKIT_BYTES:
        raise DataError(
            f"{path}: holds more than {_MAX_DEVKIT_BYTES:,} bytes, which the devkit does not. Download it anew."
        )
    entries = index(lambda position, count: data[position : position + count], len(data), str(path))
    files = {e.name.rpartition("/")[2]: data[e.offset : e.offset + e.size] for e in entries}
    if GROUND_TRUTH not in files:
        raise DataError(f"{path}: holds no {GROUND_TRUTH}. Download it anew.")
    order: tuple[Sequence[str], str] = (imagenet.DEVKIT, "the devkit's known order (no meta.mat lies in it)")
    if "meta.mat" in files:
        where = f"{path}: meta.mat"
        order = _known_order(where, from_meta(where, BytesIO(files["meta.mat"]))), "meta.mat"
    return _devkit(f"{path}: {GROUND_TRUTH}", files[GROUND_TRUTH].decode("utf-8", "replace"), *order)


def read_real(path: Path) -> tuple[list[tuple[int, ...]], str]:
    """ReaL labels of image 1, 2, ... (none, one or several each), and what was checked. Raises DataError.

    The published file has no names: its order is that of the images' names. It is checked on the first 20, whose single
    labels are known: nearly always one of ReaL's.
    """
    try:
        rows = json.loads(read_text(path))
    except (ValueError, RecursionError) as error:
        raise DataError(
            f"{path}: is not JSON ({error}). Accepted are ReaL labels, a list of lists (real.json)."
        ) from error
    if not isinstance(rows, list) or len(rows) != imagenet.VAL_IMAGES:
        count = f"{len(rows):,} entries" if isinstance(rows, list | dict) else "one value"
        raise DataError(f"{path}: has {count}; ReaL labels are a list of {imagenet.VAL_IMAGES:,} lists, one an image.")
    for number, row in enumerate(rows, start=1):
        if not isinstance(row, list) or not all(type(label) is int and 0 <= label < 1000 for label in row):
            raise DataError(f"{path}: entry {number} is {str(row)[:60]}; accepted are lists of labels 0 to 999.")
    known = [(row, label) for row, label in zip(rows, imagenet.FIRST_LABELS, strict=False) if row]
    agreeing = sum(label in row for row, label in known)
    if 2 * agreeing < len(known) or not known:
        raise DataError(
            f"{path}: of the first 20 images only {agreeing} have their known label among those of the file. It is "
            "shifted, shuffled or not in WordNet order: take the published real.json."
        )
    digest = hashlib.sha256(json.dumps([sorted(row) for row in rows]).encode()).hexdigest()
    checked = (
        "as published, by their digest"
        if digest == REAL_SHA256
        else (f"not those published in 2020, or edited; {agreeing} of the first {len(known)} fit the known labels")
    )
    return [tuple(dict.fromkeys(row)) for row in rows], checked
