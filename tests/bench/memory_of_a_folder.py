"""Resident memory over a folder of photographs, image by image: python tests/bench/memory_of_a_folder.py FOLDER

One pass of a small network with a fresh cache over every image. Printed are MB at each tenth, and the growth over the
second half, which is to stay under 5 percent.
"""

import sys
import tempfile
from pathlib import Path

import psutil

from vgg_reference.weights import random_weights
from vggbench.images import open_dataset
from vggbench.measure.accuracy import run_passes
from vggbench.protocols import Pass


def main() -> int:
    process, marks = psutil.Process(), []

    def progress(done: int, of: int, what: str) -> None:
        while len(marks) < 10 and done >= of * (len(marks) + 1) / 10:
            marks.append(process.memory_info().rss / 1e6)
            print(f"{done:6} of {of} images: {marks[-1]:7.1f} MB", flush=True)

    with tempfile.TemporaryDirectory() as scratch:
        dataset = open_dataset(sys.argv[1], cache_root=Path(scratch))
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
