"""Passes over a dataset: what the cache holds is read, the rest is computed and stored (section 3.2)."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from vgg_reference.weights import Weights
from vggbench import backends, cache
from vggbench.backends import Session
from vggbench.errors import DataError, UsageError, memory_errors
from vggbench.images import Bad, Dataset, check_on_bad
from vggbench.images.decode import decoder_name
from vggbench.measure import shards
from vggbench.measure.pipeline import DecodedImages, compute, default_workers
from vggbench.measure.stages import Stages, total
from vggbench.measure.stored import How, Job, Options, StoredPass, open_passes, settle
from vggbench.protocols import Choices, Pass, check_choices
from vggbench.ranges import Quantization
from vggbench.sizes import Sizes
from vggbench.variants import Variant

if TYPE_CHECKING:
    from typing_extensions import Unpack  # of typing from Python 3.11 on

Array = npt.NDArray[np.float32]
#: Called with views done, views in all (of those to be computed) and what is going on, in words.
Progress = Callable[[int, int, str], None]

#: Posteriors wait in the journal at most this long; so much work can be lost to a power failure, none to a kill.
SHARD_SECONDS = 5.0


@dataclass(frozen=True)
class Counts:
    """What a run took, in image-passes: one image in one pass. seconds: of the loop, without opening sessions; the
    slowest of several processes.

    stages: seconds by stage over all threads and processes, see measure.stages.
    """

    cached: int
    computed: int
    computed_views: int
    seconds: float
    stages: dict[str, float] = field(default_factory=dict)

    @property
    def views_per_second(self) -> float:
        return self.computed_views / self.seconds if self.seconds else 0.0


@dataclass(frozen=True)
class PassResults:
    """Posteriors of one network on one dataset of ``images`` images.

    posteriors: pass -> (kept images, classes). kept: their indices in the dataset's order; an image that is bad in
    any pass is in none. session: what ran; a key that differs between parts of the results has the list of its values.
    """

    weights: Weights
    backend: str
    precision: str
    images: int
    posteriors: Mapping[Pass, Array]
    kept: npt.NDArray[np.int64]
    bad: tuple[Bad, ...]
    session: dict[str, Any]
    counts: Counts
    quantization: Quantization | None = None
    decoder: str = ""


def run_passes(
    dataset: Dataset,
    weights: Weights,
    passes: Sequence[Pass],
    *,
    threads: int | None = None,
    on_bad: str = "stop",
    progress: Progress | None = None,
    workers: int | None = None,
    decoded: DecodedImages | None = None,
    **options: Unpack[Options],
) -> PassResults:
    """The posteriors of every pass on every image; what is stored is not computed again.

    A session is opened only for a form of which something is missing. Interrupted at any moment, it continues at the
    next call. on_bad: an image that cannot be decoded ends the run ("stop") or is left out and named ("skip").
    workers: threads that decode. decoded: keeps decoded images between calls. options: see ``checked``. Raises
    UsageError, DataError, WeightsError, CalibrationError, BackendUnavailable, StorageError.
    """
    how = checked(weights, passes, on_bad, **options)
    opened = open_passes(dataset, weights, passes, how)
    refuse_bad(dataset, opened, on_bad)
    settle(opened)
    jobs = [job for each in opened for job in each.missing()]
    stages = Stages()
    run_jobs(dataset, weights, how, opened, jobs, stages, threads, workers, decoded, on_bad, progress)
    return results_of(dataset, weights, how, opened, [stages.seconds()])


def run_jobs(
    dataset: Dataset,
    weights: Weights,
    how: How,
    opened: Sequence[StoredPass],
    jobs: Sequence[Job],
    stages: Stages,
    threads: int | None,
    workers: int | None,
    decoded: DecodedImages | None,
    on_bad: str,
    progress: Progress | None,
) -> None:
    """Computes missing blocks of opened passes and puts them on the disk."""
    if not jobs:
        return
    by_step = {each.step: each for each in opened}
    for step in dict.fromkeys(job.step for job in jobs):
        shards.announce(by_step[step].folder, by_step[step].identity)

    def on_image(index: int, why: str | None) -> None:
        if why is not None and on_bad == "stop":
            raise _bad_image(dataset, index, why)

    workers = workers or default_workers(how.device)
    decoded = decoded or DecodedImages(0)
    variants = [by_step[job.step].variant for job in jobs]
    with memory_errors(_of(weights, how, jobs)), _sessions(variants, how.device, threads) as sessions:
        started = time.perf_counter()
        blocks = compute(dataset, jobs, sessions, weights, how.choices, decoded, workers, on_image, how.decoder, stages)
        _collect(blocks, by_step, sum(job.views for job in jobs), weights.network, progress, stages)
        stages.add("total", time.perf_counter() - started)


def _of(weights: Weights, how: How, jobs: Sequence[Job]) -> str:
    """What is computed, for an error."""
    scales = ", ".join(map(str, sorted({job.step.scale for job in jobs})))
    return f"{weights.network} in {how.precision} on {how.backend}, images at scale {scales}"


def refuse_bad(dataset: Dataset, opened: Sequence[StoredPass], on_bad: str) -> None:
    """Raises DataError for an image known to be bad, unless such are skipped."""
    bad = _bad(opened)
    if bad and on_bad == "stop":
        index = min(bad)
        raise _bad_image(dataset, index, bad[index])


def missing_views(
    dataset: Dataset, weights: Weights, passes: Sequence[Pass], **options: Unpack[Options]
) -> dict[Pass, int]:
    """How many views of each pass run_passes would compute; opens no session and no image."""
    how = checked(weights, passes, **options)
    return {each.step: sum(job.views for job in each.missing()) for each in open_passes(dataset, weights, passes, how)}


def checked(
    weights: Weights,
    passes: Sequence[Pass],
    on_bad: str = "stop",
    *,
    backend: str,
    precision: str = "fp32",
    quantization: Quantization | None = None,
    choices: Choices = Choices(),  # noqa: B008 - frozen
    device: str = "auto",
    cache_root: Path | None = None,
    decoder: str = "pillow",
    sizes: Sizes | None = None,
) -> How:
    """What decides the posteriors. quantization: of int8 and fp8; its images must not be among the dataset's.

    decoder: of JPEGs. sizes: what engines are built for. Raises UsageError, CalibrationError, BackendUnavailable for a
    decoder that is not here.
    """
    check_on_bad(on_bad)
    decoder_name(decoder)
    for step in passes:
        if step.scale < weights.crop_size:
            raise UsageError(
                f"Scale {step.scale} is below the crop size of {weights.name}. "
                f"Take scales from {weights.crop_size} on, or weights of a smaller crop size."
            )
    root, on = cache_root or cache.root(), shards.resolve(backend, device)
    if quantization is not None:
        quantization.ranges.check(weights.network, weights.digest)
    return How(backend, precision, check_choices(choices), on, root, quantization, decoder, sizes)


def _collect(
    blocks: Iterator[tuple[Job, shards.Stored]],
    by_step: Mapping[Pass, StoredPass],
    total_views: int,
    network: str,
    progress: Progress | None,
    stages: Stages,
) -> None:
    """Takes what is computed to its pass and, every few seconds and at the end, however it comes, to a shard."""
    done = 0
    try:
        for job, stored in blocks:
            with stages.timed("store"):
                by_step[job.step].add(job.block, stored)
                for each in by_step.values():
                    each.save(SHARD_SECONDS)
            done += job.views
            if progress:
                progress(done, total_views, f"{network} {job.step.form} at {job.step.scale}")
    finally:
        with stages.timed("store"), ExitStack() as closing:
            for each in by_step.values():
                closing.callback(each.close)


@contextmanager
def _sessions(variants: list[Variant], device: str, threads: int | None) -> Iterator[dict[str, Session]]:
    """One session for each form among the variants."""
    sessions: dict[str, Session] = {}
    try:
        for variant in variants:
            if variant.form not in sessions:
                sessions[variant.form] = backends.open_session(variant, device, threads)
        yield sessions
    finally:
        for session in sessions.values():
            session.close()


def _bad(opened: Sequence[StoredPass]) -> dict[int, str]:
    """Index -> why, of the images that are bad in any pass."""
    return {index: why for each in opened for index, why in each.bad().items()}


def _bad_image(dataset: Dataset, index: int, why: str) -> DataError:
    return DataError(
        f"{dataset.images[index].id}: {why} (image {index + 1} of {len(dataset.images)}). Repair or remove it, or "
        "leave such images out, named in the record: --on-bad skip."
    )


def results_of(
    dataset: Dataset, weights: Weights, how: How, opened: list[StoredPass], taken: Sequence[Mapping[str, float]]
) -> PassResults:
    """Once nothing is missing. taken: seconds by stage of each process."""
    images = len(dataset.images)
    bad = _bad(opened)
    kept = np.array([index for index in range(images) if index not in bad], np.int64)
    counts = Counts(
        cached=sum(each.images_held() for each in opened),
        computed=sum(images - each.images_held() for each in opened),
        computed_views=sum((images - each.images_held()) * each.step.views for each in opened),
        seconds=max(each.get("total", 0.0) for each in taken),
        stages=total(taken),
    )
    return PassResults(
        weights=weights,
        backend=how.backend,
        precision=how.precision,
        images=images,
        posteriors={each.step: each.posteriors()[kept] for each in opened},
        kept=kept,
        bad=tuple(Bad(dataset.images[index].id, bad[index]) for index in sorted(bad)),
        session=_merged([stored.session for each in opened for stored in each.stored.values()]),
        counts=counts,
        quantization=next((each.variant.quantization for each in opened), None),
        decoder=decoder_name(how.decoder),
    )


def _merged(sessions: list[dict[str, Any]]) -> dict[str, Any]:
    """One flat description of what ran."""
    values: dict[str, list[Any]] = {}
    for session in sessions:
        for key, value in session.items():
            if value not in values.setdefault(key, []):
                values[key].append(value)
    return {key: found[0] if len(found) == 1 else sorted(found, key=str) for key, found in sorted(values.items())}
