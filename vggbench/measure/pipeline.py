"""Images through sessions: decoded, rescaled and cut on a few threads ahead of the inference on the caller's thread."""

from __future__ import annotations

import hashlib
import os
import threading
from collections import OrderedDict, deque
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from itertools import islice

import numpy as np
import numpy.typing as npt

from vgg_reference.weights import Weights
from vggbench.backends import Session
from vggbench.errors import DataError
from vggbench.images import Dataset
from vggbench.images.decode import BadImage, decode
from vggbench.measure.shards import Stored, crop_equivalents
from vggbench.measure.stored import Job
from vggbench.protocols import Choices
from vggbench.views import make_views, to_input

Pixels = npt.NDArray[np.uint8]
Floats = npt.NDArray[np.float32]

#: Views waiting for the inference may take about this much, and so may the images that are kept decoded.
AHEAD_BYTES, DECODED_BYTES = 256 << 20, 768 << 20
#: Pixels of a batch, in crops: enough to keep the device busy, few enough that whole images at large scales fit.
BATCH_CROPS = {"cpu": 16, "cuda": 128}


class DecodedImages:
    """Decoded images by file content and EXIF choice, the least recently used dropped beyond ``limit`` bytes.

    Handed to several evaluations of the same images, it saves decoding them again. Any thread may use it.
    """

    def __init__(self, limit: int = DECODED_BYTES) -> None:
        self.limit = limit
        self.bytes = 0
        self._images: OrderedDict[tuple[str, str], Pixels] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, digest: str, exif: str) -> Pixels | None:
        with self._lock:
            image = self._images.get((digest, exif))
            if image is not None:
                self._images.move_to_end((digest, exif))
            return image

    def put(self, digest: str, exif: str, image: Pixels) -> None:
        with self._lock:
            if (digest, exif) in self._images:
                return
            self._images[digest, exif] = image
            self.bytes += image.nbytes
            while self.bytes > self.limit:
                _, dropped = self._images.popitem(last=False)
                self.bytes -= dropped.nbytes


def default_workers() -> int:
    """Threads that decode: half of the usable cores, the others compute."""
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, min(16, usable // 2))


def compute(
    dataset: Dataset,
    jobs: Sequence[Job],
    sessions: Mapping[str, Session],
    weights: Weights,
    choices: Choices,
    decoded: DecodedImages,
    workers: int | None = None,
    on_image: Callable[[int, str | None], None] | None = None,
) -> Iterator[tuple[Job, Stored]]:
    """The posteriors of every job, as they are done; each image is decoded once for all jobs that need it.

    sessions: by form. on_image: called for each image of each job with its index in the dataset and, for a bad one,
    why; what it raises ends the computation. Raises DataError for a file that cannot be read or was changed.
    """
    by_image: dict[int, list[Job]] = {}
    for job in sorted(jobs, key=lambda job: job.block.start):
        for index in range(job.block.start, job.block.stop):
            by_image.setdefault(index, []).append(job)
    waiting: dict[Job, list[Pixels | str]] = {}

    def prepare(index: int) -> list[Pixels | str]:
        """The views of one image for each of its jobs, or why there are none. Runs on a worker."""
        try:
            image = _image(dataset, index, choices.exif, decoded)
            return [make_views(image, job.step, weights.crop_size, choices) for job in by_image[index]]
        except BadImage as bad:
            return [bad.why] * len(by_image[index])

    order = sorted(by_image)
    with closing(_ahead(prepare, order, _window(jobs, weights.crop_size), workers)) as results:
        for index, prepared in zip(order, results, strict=True):
            for job, views in zip(by_image[index], prepared, strict=True):
                waiting.setdefault(job, []).append(views)
                if on_image:
                    on_image(index, views if isinstance(views, str) else None)
                if index == job.block.stop - 1:
                    yield job, _posteriors(sessions[job.step.form], waiting.pop(job), weights)


def _window(jobs: Sequence[Job], crop_size: int) -> int:
    """How many images may be prepared ahead."""
    crops = sum(crop_equivalents(step, crop_size) for step in {job.step for job in jobs})
    return max(4, min(64, int(AHEAD_BYTES / (max(crops, 1.0) * crop_size**2 * 3))))


def _ahead(
    prepare: Callable[[int], list[Pixels | str]], order: Sequence[int], window: int, workers: int | None
) -> Generator[list[Pixels | str], None, None]:
    """prepare(index) in order, up to ``window`` of them ahead of the consumer.

    A result that no worker has begun when it is asked for is prepared at once by who asks: where preparing is the
    slower part, or nothing is there yet, waiting for the workers would leave a core idle.
    """
    pool = ThreadPoolExecutor(workers or default_workers(), thread_name_prefix="prepare")
    running: deque[tuple[int, Future[list[Pixels | str]]]] = deque()
    waiting = iter(order)
    try:
        while True:
            running.extend((index, pool.submit(prepare, index)) for index in islice(waiting, window - len(running)))
            if not running:
                return
            index, future = running.popleft()
            yield prepare(index) if future.cancel() else future.result()
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _image(dataset: Dataset, index: int, exif: str, decoded: DecodedImages) -> Pixels:
    """The decoded image. Raises BadImage for its content, DataError for a file that is not there as it was."""
    image, digest = dataset.images[index], dataset.digests[index]
    pixels = decoded.get(digest, exif)
    if pixels is None:
        try:
            data = image.path.read_bytes()
        except OSError as error:
            raise DataError(f"{image.id}: cannot be read: {error.strerror}. Restore it and run again.") from error
        # Posteriors are stored under the digest taken when the folder was opened.
        if hashlib.sha256(data).hexdigest() != digest:
            raise DataError(f"{image.id}: was changed while the run was on, or since its digest was taken. Run again.")
        pixels = decode(data, exif)
        decoded.put(digest, exif, pixels)
    return pixels


def _posteriors(session: Session, prepared: list[Pixels | str], weights: Weights) -> Stored:
    """The mean posterior over the views of each image of a block.

    Views of one size share batches, whichever image they are of; none is padded.
    """
    posteriors = np.zeros((len(prepared), weights.num_classes), np.float32)
    by_size: dict[tuple[int, ...], list[int]] = {}
    for index, views in enumerate(prepared):
        if not isinstance(views, str):
            by_size.setdefault(views.shape[1:3], []).append(index)
    for (height, width), members in by_size.items():
        views = np.concatenate([image for image in (prepared[m] for m in members) if not isinstance(image, str)])
        limit = BATCH_CROPS[session.device.split(":")[0]] * weights.crop_size**2
        batch = max(1, limit // (height * width))
        starts = range(0, len(views), batch)
        scores = np.concatenate([session(to_input(views[at : at + batch], weights.preprocess)) for at in starts])
        posteriors[members] = softmax(scores).reshape(len(members), -1, weights.num_classes).mean(axis=1)
    bad = tuple((index, views) for index, views in enumerate(prepared) if isinstance(views, str))
    return Stored(posteriors, bad, {**session.info, "device": session.device})


def softmax(scores: Floats) -> npt.NDArray[np.float64]:
    """Of scores (n, classes), in double precision."""
    shifted = np.exp(scores.astype(np.float64) - scores.max(axis=1, keepdims=True))
    posteriors: npt.NDArray[np.float64] = shifted / shifted.sum(axis=1, keepdims=True)
    return posteriors
