"""Images through sessions: decoded, rescaled and cut on threads ahead of the inference on the caller's thread.

Threads and not processes: Pillow and simplejpeg let go of the interpreter while they decode and rescale, and arrays of
several MB an image need not be sent from one process to another.
"""

from __future__ import annotations

import threading
import time
from collections import OrderedDict, deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing

import numpy as np
import numpy.typing as npt

from vgg_reference.weights import Weights
from vggbench.backends import Session
from vggbench.environment import usable_cores
from vggbench.images import Dataset, read_image
from vggbench.images.decode import BadImage, Picture, decode_picture, picture_bytes
from vggbench.measure.ahead import Ahead
from vggbench.measure.heaps import Trimmer
from vggbench.measure.shards import Stored
from vggbench.measure.stages import Stages
from vggbench.measure.stored import Job
from vggbench.protocols import Choices
from vggbench.resample import Worth
from vggbench.views import make_views, rescale_all, to_input

Pixels = npt.NDArray[np.uint8]
Floats = npt.NDArray[np.float32]
#: The views of one image for each of its jobs, or why there are none.
Prepared = list[Pixels | str]

#: Views waiting for the inference may take about this much, and so may the images that are kept decoded.
AHEAD_BYTES, DECODED_BYTES = 256 << 20, 768 << 20
#: Pixels of a batch, in crops: enough to keep the device busy, few enough that whole images at large scales fit.
BATCH_CROPS = {"cpu": 16, "cuda": 128}
#: Blocks that are on a device at once, so that the next one's upload overlaps with this one's network.
IN_FLIGHT = 2
#: No more threads decode than this, however many cores there are: they share one interpreter.
MAX_WORKERS = 32


class DecodedImages:
    """Decoded images by file content, EXIF choice and decoder, the least recently used dropped beyond ``limit`` bytes.

    Handed to several evaluations of the same images, it saves decoding them again. Any thread may use it.
    """

    def __init__(self, limit: int = DECODED_BYTES) -> None:
        self.limit = limit
        self.bytes = 0
        self._images: OrderedDict[tuple[str, str, str], Picture] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, digest: str, exif: str, decoder: str = "pillow") -> Picture | None:
        if not self._images:
            return None
        with self._lock:
            image = self._images.get((digest, exif, decoder))
            if image is not None:
                self._images.move_to_end((digest, exif, decoder))
            return image

    def put(self, digest: str, exif: str, image: Picture, decoder: str = "pillow") -> None:
        """An image over the limit is not kept, nor are others dropped for it."""
        size = picture_bytes(image)
        if size > self.limit:
            return
        with self._lock:
            if (digest, exif, decoder) in self._images:
                return
            self._images[digest, exif, decoder] = image
            self.bytes += size
            while self.bytes > self.limit:
                _, dropped = self._images.popitem(last=False)
                self.bytes -= picture_bytes(dropped)


def default_workers(device: str = "cpu", processes: int = 1) -> int:
    """Threads that decode in each of so many processes on this machine.

    Beside a network on the CPU half of the usable cores, the others compute; beside one on a GPU all but one.
    """
    usable = max(1, usable_cores() // processes)
    return max(1, min(MAX_WORKERS, usable // 2 if device == "cpu" else usable - 1))


def compute(
    dataset: Dataset,
    jobs: Sequence[Job],
    sessions: Mapping[str, Session],
    weights: Weights,
    choices: Choices,
    decoded: DecodedImages,
    workers: int | None = None,
    on_image: Callable[[int, str | None], None] | None = None,
    decoder: str = "pillow",
    stages: Stages | None = None,
) -> Iterator[tuple[Job, Stored]]:
    """The posteriors of every job, as they are done; each image is decoded once for all jobs that need it.

    sessions: by form. on_image: called for each image of each job with its index in the dataset and, for a bad one,
    why; what it raises ends the computation. stages: takes up where the time goes. Raises DataError for a file that
    cannot be read or was changed.
    """
    by_image: dict[int, list[Job]] = {}
    for job in sorted(jobs, key=lambda job: job.block.start):
        for index in range(job.block.start, job.block.stop):
            by_image.setdefault(index, []).append(job)
    stages = stages or Stages()

    def prepare(index: int) -> Prepared:
        """Runs on a worker."""
        try:
            image = decoded_image(dataset, index, choices.exif, decoded, decoder, stages)
        except BadImage as bad:
            return [bad.why] * len(by_image[index])
        started = time.perf_counter()
        with stages.timed("resize"):
            scaled = rescale_all(image, list(dict.fromkeys(job.step.scale for job in by_image[index])), choices)
            views: Prepared = [
                make_views(scaled[job.step.scale], job.step, weights.crop_size, choices) for job in by_image[index]
            ]
        worth.took(time.perf_counter() - started)
        used = picture_bytes(image)
        del image, scaled
        trimmer.look(used)
        return views

    order, trimmer = sorted(by_image), Trimmer()
    worth = Worth(len(order), choices.resize_filter)
    count = workers or default_workers()
    stages.add("threads", count)
    ahead = Ahead(prepare, order, count, AHEAD_BYTES, bytes_of, stages)
    waiting: dict[Job, Prepared] = {}
    running: deque[tuple[Job, Callable[[], Stored]]] = deque()
    with closing(ahead.results()) as results:
        for index, prepared in zip(order, results, strict=True):
            for job, views in zip(by_image[index], prepared, strict=True):
                waiting.setdefault(job, []).append(views)
                if on_image:
                    on_image(index, views if isinstance(views, str) else None)
                if index == job.block.stop - 1:
                    session = sessions[job.step.form]
                    running.append((job, _start(session, waiting.pop(job), weights, stages)))
                    if len(running) > (IN_FLIGHT if hasattr(session, "submit") else 0):
                        yield _finished(running)
    while running:
        yield _finished(running)


def _finished(running: deque[tuple[Job, Callable[[], Stored]]]) -> tuple[Job, Stored]:
    job, finish = running.popleft()
    return job, finish()


def bytes_of(prepared: Prepared) -> int:
    return sum(views.nbytes for views in prepared if not isinstance(views, str))


def decoded_image(
    dataset: Dataset, index: int, exif: str, decoded: DecodedImages, decoder: str, stages: Stages
) -> Picture:
    """Raises BadImage for its content, DataError for a file that is not there as it was."""
    digest = dataset.digests[index]
    image = decoded.get(digest, exif, decoder)
    if image is None:
        with stages.timed("read"):
            data = read_image(dataset, index)
        with stages.timed("decode"):
            image = decode_picture(data, exif, decoder)
        decoded.put(digest, exif, image, decoder)
    return image


def _start(session: Session, prepared: Prepared, weights: Weights, stages: Stages) -> Callable[[], Stored]:
    """Begins the mean posterior over the views of each image of a block; what is returned waits for it.

    Views of one size share batches, whichever image they are of; none is padded.
    """
    by_size: dict[tuple[int, ...], list[int]] = {}
    for index, views in enumerate(prepared):
        if not isinstance(views, str):
            by_size.setdefault(views.shape[1:3], []).append(index)
    parts = []
    for (height, width), members in by_size.items():
        views = np.concatenate([image for image in (prepared[m] for m in members) if not isinstance(image, str)])
        limit = BATCH_CROPS[session.device.split(":")[0]] * weights.crop_size**2
        batch = max(1, limit // (height * width))
        starts = range(0, len(views), batch)
        parts.append((members, [_submit(session, views[at : at + batch], weights, stages) for at in starts]))
    bad = tuple((index, views) for index, views in enumerate(prepared) if isinstance(views, str))

    def finish() -> Stored:
        posteriors = np.zeros((len(prepared), weights.num_classes), np.float32)
        for members, batches in parts:
            with stages.timed("compute"):
                scores = np.concatenate([scores() for scores in batches])
            posteriors[members] = softmax(scores).reshape(len(members), -1, weights.num_classes).mean(axis=1)
        return Stored(posteriors, bad, {**session.info, "device": session.device})

    return finish


def _submit(session: Session, views: Pixels, weights: Weights, stages: Stages) -> Callable[[], Floats]:
    """Begins the scores of views (n, h, w, 3); what is returned waits for them.

    A session with ``submit`` (backends.uploads.PixelSession) takes them as they are, and works while others are made
    ready; any other takes floats, and has worked when it returns.
    """
    submit: Callable[[Pixels], Callable[[], Floats]] | None = getattr(session, "submit", None)
    if submit is not None:
        with stages.timed("upload"):
            return submit(views)
    with stages.timed("upload"):
        images = to_input(views, weights.preprocess)
    with stages.timed("compute"):
        scores = session(images)
    return lambda: scores


def softmax(scores: Floats) -> npt.NDArray[np.float64]:
    """Of scores (n, classes), in double precision."""
    shifted = np.exp(scores.astype(np.float64) - scores.max(axis=1, keepdims=True))
    posteriors: npt.NDArray[np.float64] = shifted / shifted.sum(axis=1, keepdims=True)
    return posteriors
