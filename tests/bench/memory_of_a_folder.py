"""Resident memory over a folder of photographs: python tests/bench/memory_of_a_folder.py FOLDER [random]

One pass of a small network with a fresh cache over every image, in the order of evaluation or in one drawn at random:
in the order of evaluation the largest classes come last, and with them, in Caltech 101, nearly all photographs of over
0.3 million pixels, two of over 10 million among them. Printed are MB in the mean of each tenth, for single looks differ
by 5 percent with what is being decoded at the moment, and the growth over the second half, which is to stay under 5
percent.
"""

import dataclasses
import random
import statistics
import sys
import tempfile
from pathlib import Path

import psutil

from vgg_reference.weights import random_weights
from vggbench.images import Dataset, open_dataset
from vggbench.measure.accuracy import run_passes
from vggbench.protocols import Pass


def shuffled(dataset: Dataset) -> Dataset:
    order = random.Random(0).sample(range(len(dataset.images)), len(dataset.images))
    picked = {name: tuple(getattr(dataset, name)[i] for i in order) for name in ("images", "digests", "stamps")}
    return dataclasses.replace(dataset, **picked)


def main() -> int:
    process = psutil.Process()
    marks: list[float] = []
    looks: list[float] = []

    def progress(done: int, of: int, what: str) -> None:
        looks.append(process.memory_info().rss / 1e6)
        if len(marks) < 10 and done >= of * (len(marks) + 1) / 10:
            marks.append(statistics.mean(looks))
            looks.clear()
            print(f"{done:6} of {of} images: {marks[-1]:7.1f} MB", flush=True)

    with tempfile.TemporaryDirectory() as scratch:
        dataset = open_dataset(sys.argv[1], cache_root=Path(scratch))
        if sys.argv[2:] == ["random"]:
            dataset = shuffled(dataset)
        weights = random_weights("A", width=1 / 8, hidden_width=1 / 16, num_classes=len(dataset.classes), crop_size=64)
        passes = [Pass("crop", 73, "center", False)]
        run_passes(
            dataset, weights, passes, backend="onnxruntime", device="cpu", cache_root=Path(scratch), on_bad="skip",
            progress=progress,
        )  # fmt: skip
    growth = 100 * (marks[-1] / marks[4] - 1)
    print(f"growth over the second half: {growth:+.2f} %")
    return growth >= 5


if __name__ == "__main__":
    sys.exit(main())
