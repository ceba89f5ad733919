"""Calibration images as batches of network inputs, decoded ahead."""

from __future__ import annotations

from collections import deque
from collections.abc import Generator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from vgg_reference.weights import Weights
from vggbench.errors import CalibrationError, DataError
from vggbench.images import Dataset, check_on_bad, read_image
from vggbench.images.decode import BadImage, decode_picture
from vggbench.progress import Report
from vggbench.protocols import Choices, Pass
from vggbench.ranges import CalibrationImage
from vggbench.views import make_views, to_input

Pixels = npt.NDArray[np.uint8]
Floats = npt.NDArray[np.float32]

#: Threads that decode, and images that may wait decoded.
_DECODERS, _AHEAD = 2, 16


@dataclass
class Used:
    """What became of the images. skipped: id -> why. flat: how many are of one colour all over."""

    images: list[CalibrationImage] = field(default_factory=list)
    skipped: dict[str, str] = field(default_factory=dict)
    flat: int = 0


def input_batches(
    dataset: Dataset,
    weights: Weights,
    step: Pass,
    choices: Choices,
    batch: int,
    on_bad: str,
    used: Used,
    progress: Report,
) -> Generator[Floats, None, None]:
    """Inputs (batch, 3, h, w) of all images in order, the last batch smaller; ``used`` is filled on the way.

    Raises CalibrationError if no image can be decoded or all are of one colour, DataError, UsageError.
    """
    check_on_bad(on_bad)
    total = len(dataset.images)
    waiting: list[Pixels] = []
    with closing(_views(dataset, step, weights.crop_size, choices)) as results:
        for index, views in enumerate(results):
            image = dataset.images[index]
            if not isinstance(views, str):
                waiting.append(views)
                used.images.append(CalibrationImage(image.id, dataset.digests[index]))
                used.flat += bool((views == views[:, :1, :1]).all())
            elif on_bad == "skip":
                used.skipped[image.id] = views
            else:
                raise DataError(f"{image.id}: {views}. Repair or remove it, or leave such images out: --on-bad skip.")
            if len(waiting) == batch or (waiting and index == total - 1):
                yield to_input(np.concatenate(waiting), weights.preprocess)
                waiting = []
            progress(f"Calibrating {weights.network}", index + 1, total, "")
    _check(used)


def _check(used: Used) -> None:
    if not used.images:
        first, why = next(iter(used.skipped.items()))
        raise CalibrationError(
            f"None of the {len(used.skipped)} calibration images can be decoded ({first}: {why}). Give other images."
        )
    if used.flat == len(used.images):
        raise CalibrationError(
            f"Every calibration image ({used.flat}) is of one colour all over: ranges taken from them fit no other "
            "image. Give photos."
        )


def _views(dataset: Dataset, step: Pass, crop_size: int, choices: Choices) -> Generator[Pixels | str, None, None]:
    """The views (n, h, w, 3) of each image in order, or why there are none."""

    def prepare(index: int) -> Pixels | str:
        try:
            return make_views(decode_picture(read_image(dataset, index), choices.exif), step, crop_size, choices)
        except BadImage as bad:
            return bad.why

    pool = ThreadPoolExecutor(_DECODERS, thread_name_prefix="prepare")
    waiting: deque[Future[Pixels | str]] = deque()
    try:
        for index in range(len(dataset.images)):
            waiting.append(pool.submit(prepare, index))
            if len(waiting) > _AHEAD:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        pool.shutdown(wait=True, cancel_futures=True)
