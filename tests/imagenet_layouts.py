"""The same images of ImageNet's validation set, made up, laid out in every way that people have them.

Pictures are drawn here; only names and numbers are ImageNet's. Images 1 to 20 are left out: their labels are known.
"""

from __future__ import annotations

import gzip
import io
import json
import tarfile
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from PIL import Image

from vggbench.images.imagenet import CLASSES, DEVKIT, FIRST_LABELS
from vggbench.images.truth import GROUND_TRUTH

FIRST = len(FIRST_LABELS) + 1


def val_name(number: int, suffix: str = ".JPEG") -> str:
    return f"ILSVRC2012_val_{number:08d}{suffix}"


@dataclass(frozen=True)
class Made:
    """labels: image's number -> label in WordNet order; pictures: its JPEG. listed: all labels from image 1 on."""

    labels: dict[int, int]
    pictures: dict[int, bytes]
    listed: list[int] = field(default_factory=list)


def make(count: int, side: int = 40) -> Made:
    """Small pictures of labels that follow no pattern of their numbers, in all 1000 classes by and by."""
    dice = np.random.default_rng(7)
    numbers = range(FIRST, FIRST + count)
    order = dice.permutation(1000)
    labels = {number: int(order[number % 1000]) for number in numbers}
    pictures = {}
    for number in numbers:
        buffer = io.BytesIO()
        pixels = dice.integers(0, 256, (5, 6, 3), np.uint8)
        Image.fromarray(pixels).resize((side + number % 9, side)).save(buffer, "JPEG", quality=80)
        pictures[number] = buffer.getvalue()
    return Made(labels, pictures, [*FIRST_LABELS, *labels.values()])


def devkit_id(label: int) -> int:
    return DEVKIT.index(CLASSES[label]) + 1


def ground_truth(made: Made) -> str:
    return "".join(f"{devkit_id(label)}\n" for label in made.listed)


def write_meta(path: Path | io.BytesIO, order=DEVKIT) -> None:
    """As the devkit's: 1000 leaves in its order, then inner nodes."""
    from scipy.io import savemat

    kind = [("ILSVRC2012_ID", object), ("WNID", object), ("words", object), ("num_children", object)]
    leaves = [(number, wnid, "words", 0) for number, wnid in enumerate(order, start=1)]
    inner = [(1001 + i, f"n{9_000_000 + i:08d}", "inner node", 2) for i in range(3)]
    savemat(path, {"synsets": np.array(leaves + inner, dtype=kind).reshape(-1, 1)})


def pack(path: Path, members: dict[str, bytes], **options) -> Path:
    """A tar as tar and webdataset write it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w", **options) as archive:
        for name, data in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return path


def _flat(root: Path, made: Made) -> Path:
    root.mkdir(parents=True)
    for number, data in made.pictures.items():
        (root / val_name(number)).write_bytes(data)
    return root


def _write(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def flat_with_devkit(root: Path, made: Made) -> Path:
    data = root / "ILSVRC2012_devkit_t12" / "data"
    _write(data / GROUND_TRUTH, ground_truth(made))
    write_meta(data / "meta.mat")
    return _flat(root / "val", made)


def flat_with_text_mapping(root: Path, made: Made) -> Path:
    flat = _flat(root / "val", made)
    _write(flat / GROUND_TRUTH, ground_truth(made))
    _write(flat / "map_clsloc.txt", "".join(f"{wnid} {i} words\n" for i, wnid in enumerate(DEVKIT, start=1)))
    return flat


def flat_with_ground_truth_alone(root: Path, made: Made) -> Path:
    flat = _flat(root / "pictures", made)
    _write(flat / GROUND_TRUTH, ground_truth(made))
    return flat


def flat_with_caffes_list(root: Path, made: Made) -> Path:
    flat = _flat(root / "ilsvrc", made)
    lines = "".join(f"{val_name(number)} {label}\n" for number, label in enumerate(made.listed, start=1))
    _write(flat / "val.txt", lines)
    return flat


def flat_with_wordnet_ids(root: Path, made: Made) -> Path:
    flat = _flat(root / "val", made)
    lines = "".join(f"{CLASSES[label]}\n" for label in made.listed)
    _write(root / "imagenet_2012_validation_synset_labels.txt", lines)
    return flat


def kaggle(root: Path, made: Made) -> Path:
    _write(root / "ILSVRC/Data/CLS-LOC/train/n01440764/n01440764_1.JPEG", "")
    _flat(root / "ILSVRC/Data/CLS-LOC/val", made)
    rows = (f"{val_name(n, '')},{CLASSES[label]} 1 2 3 4 \n" for n, label in enumerate(made.listed, start=1))
    _write(root / "LOC_val_solution.csv", "ImageId,PredictionString\n" + "".join(rows))
    return root


def class_folders(root: Path, made: Made) -> Path:
    for wnid in CLASSES:
        (root / "val" / wnid).mkdir(parents=True)
    for number, data in made.pictures.items():
        (root / "val" / CLASSES[made.labels[number]] / val_name(number)).write_bytes(data)
    return root / "val"


def tar_with_devkit(root: Path, made: Made) -> Path:
    """As downloaded: two archives side by side, neither unpacked."""
    pack(root / "ILSVRC2012_img_val.tar", {val_name(number): data for number, data in made.pictures.items()})
    meta = io.BytesIO()
    write_meta(meta)
    folder = "ILSVRC2012_devkit_t12/data"
    kit = pack(
        root / "kit.tar",
        {f"{folder}/{GROUND_TRUTH}": ground_truth(made).encode(), f"{folder}/meta.mat": meta.getvalue()},
    )
    (root / "ILSVRC2012_devkit_t12.tar.gz").write_bytes(gzip.compress(kit.read_bytes()))
    kit.unlink()
    return root


def tar_with_list(root: Path, made: Made) -> Path:
    """In a folder inside the archive, with pax headers; the list lies beside the archive."""
    members = {f"./val/{val_name(number)}": data for number, data in made.pictures.items()}
    path = pack(root / "images.tar", members, format=tarfile.PAX_FORMAT, pax_headers={"comment": "made"})
    lines = "".join(f"{val_name(number)} {label}\n" for number, label in made.labels.items())
    _write(root / "val.txt", lines)
    return path


def tar_of_class_folders(root: Path, made: Made) -> Path:
    members = {f"imagenet/val/{CLASSES[made.labels[n]]}/{val_name(n)}": data for n, data in made.pictures.items()}
    return pack(root / "val.tar", members, format=tarfile.GNU_FORMAT)


def shards(root: Path, made: Made) -> Path:
    """As webdataset's writer leaves them: NAME.cls beside NAME.jpg, in three archives."""
    numbers = sorted(made.pictures)
    for shard in range(3):
        members: dict[str, bytes] = {}
        for number in numbers[shard::3]:
            members[val_name(number, ".cls")] = str(made.labels[number]).encode()
            members[val_name(number, ".jpg")] = made.pictures[number]
            members[val_name(number, ".json")] = json.dumps({"made": True}).encode()
        pack(root / f"imagenet-val-{shard:06d}.tar", members)
    return root


#: Each makes a layout below a folder and returns what is named to the command line.
LAYOUTS = (
    flat_with_devkit,
    flat_with_text_mapping,
    flat_with_ground_truth_alone,
    flat_with_caffes_list,
    flat_with_wordnet_ids,
    kaggle,
    class_folders,
    tar_with_devkit,
    tar_with_list,
    tar_of_class_folders,
    shards,
)
