"""Passes over a dataset: what the cache holds is read, the rest is computed and stored (section 3.2)."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from vgg_reference.weights import Weights
from vggbench import backends, cache
from vggbench.backends import Session
from vggbench.errors import DataError, UsageError
from vggbench.images import Bad, Dataset
from vggbench.images.decode import DECODER
from vggbench.measure import shards
from vggbench.measure.pipeline import DecodedImages, Job, compute
from vggbench.measure.shards import Block, Stored
from vggbench.protocols import Choices, Pass, check_choices
from vggbench.variants import Variant

Array = npt.NDArray[np.float32]
#: Called with views done, views in all (of those to be computed) and what is going on, in words.
Progress = Callable[[int, int, str], None]

ON_BAD = ("stop", "skip")
#: Posteriors wait at most this long before they are written; so much work can be lost to a kill.
SHARD_SECONDS = 5.0


@dataclass(frozen=True)
class Counts:
    """What a run took. Image-passes: one image in one pass. seconds: of the loop, without opening sessions."""

    cached: int
    computed: int
    computed_views: int
    seconds: float

    @property
    def views_per_second(self) -> float:
        return self.computed_views / self.seconds if self.seconds else 0.0


@dataclass(frozen=True)
class PassResults:
    """Posteriors of one network on one dataset.

    posteriors: pass -> (kept images, classes). kept: their indices in the dataset's order; an image that is bad in
    any pass is in none. session: what ran; where shards differ, the list of their values.
    """

    weights: Weights
    backend: str
    precision: str
    posteriors: Mapping[Pass, Array]
    kept: npt.NDArray[np.int64]
    bad: tuple[Bad, ...]
    session: dict[str, Any]
    counts: Counts


@dataclass
class _Plan:
    """One pass: where its shards lie, its blocks, and which of them are there."""

    variant: Variant
    step: Pass
    folder: Path
    identity: dict[str, Any]
    blocks: list[Block]
    stored: dict[str, Stored]
    unsaved: dict[str, Stored] = field(default_factory=dict)
    waiting_since: float = 0.0

    def missing(self) -> list[Job]:
        """Blocks of the same contents are computed once."""
        first = {block.name: block for block in reversed(self.blocks)}
        return [Job(self.step, block) for block in first.values() if block.name not in self.stored]

    def add(self, block: Block, stored: Stored) -> None:
        if not self.unsaved:
            self.waiting_since = time.monotonic()
        self.stored[block.name] = self.unsaved[block.name] = stored

    def save(self, patience_seconds: float = 0.0) -> None:
        """Writes what is not on disk, if it has waited so long."""
        if self.unsaved and time.monotonic() - self.waiting_since >= patience_seconds:
            unsaved, self.unsaved = self.unsaved, {}
            shards.write(self.folder, unsaved)


def run_passes(
    dataset: Dataset,
    weights: Weights,
    passes: Sequence[Pass],
    *,
    backend: str,
    precision: str = "fp32",
    choices: Choices = Choices(),  # noqa: B008 - frozen
    device: str = "auto",
    threads: int | None = None,
    cache_root: Path | None = None,
    on_bad: str = "stop",
    progress: Progress | None = None,
    workers: int | None = None,
    decoded: DecodedImages | None = None,
) -> PassResults:
    """The posteriors of every pass on every image; what is stored is not computed again.

    A session is opened only for a form of which something is missing. Interrupted at any moment, it continues at the
    next call. on_bad: an image that cannot be decoded ends the run ("stop") or is left out and named ("skip").
    workers: threads that decode. decoded: keeps decoded images between calls. Raises UsageError, DataError,
    WeightsError, BackendUnavailable, StorageError.
    """
    _check(weights, passes, choices, on_bad)
    root = cache_root or cache.root()
    device = shards.resolve(backend, device)
    plans = [_plan(dataset, weights, step, backend, precision, choices, device, root) for step in dict.fromkeys(passes)]
    held = {plan.step: set(plan.stored) for plan in plans}
    if on_bad == "stop":
        for bad in _bad(dataset, plans):
            raise _bad_image(bad, dataset)
    seconds = _compute_missing(
        dataset, plans, device, threads, choices, on_bad, progress, workers, decoded or DecodedImages()
    )
    return _results(dataset, weights, backend, precision, plans, held, seconds)


def missing_views(
    dataset: Dataset,
    weights: Weights,
    passes: Sequence[Pass],
    *,
    backend: str,
    precision: str = "fp32",
    choices: Choices = Choices(),  # noqa: B008 - frozen
    device: str = "auto",
    cache_root: Path | None = None,
) -> dict[Pass, int]:
    """How many views of each pass run_passes would compute; opens no session and no image."""
    _check(weights, passes, choices, "stop")
    device = shards.resolve(backend, device)
    root = cache_root or cache.root()
    plans = [_plan(dataset, weights, step, backend, precision, choices, device, root) for step in dict.fromkeys(passes)]
    return {plan.step: sum(_views(job) for job in plan.missing()) for plan in plans}


def _check(weights: Weights, passes: Sequence[Pass], choices: Choices, on_bad: str) -> None:
    check_choices(choices)
    if on_bad not in ON_BAD:
        raise UsageError(f"No on-bad {on_bad!r}. Known: {', '.join(ON_BAD)}.")
    for step in passes:
        if step.scale < weights.crop_size:
            raise UsageError(f"Scale {step.scale} is below the crop size {weights.crop_size} of {weights.name}.")


def _plan(
    dataset: Dataset,
    weights: Weights,
    step: Pass,
    backend: str,
    precision: str,
    choices: Choices,
    device: str,
    root: Path,
) -> _Plan:
    variant = Variant(weights, step.form, backend, precision, choices.pool_rounding, choices.score_pool)
    identity = shards.identity(variant, step, choices, DECODER, device)
    folder = shards.folder(root, identity)
    blocks = shards.blocks(step, weights.crop_size, dataset.digests)
    stored = shards.read(folder, {block.name for block in blocks}, weights.num_classes)
    return _Plan(variant, step, folder, identity, blocks, stored)


def _compute_missing(
    dataset: Dataset,
    plans: list[_Plan],
    device: str,
    threads: int | None,
    choices: Choices,
    on_bad: str,
    progress: Progress | None,
    workers: int | None,
    decoded: DecodedImages,
) -> float:
    """Fills the plans; returns the seconds that the loop took."""
    jobs = [job for plan in plans for job in plan.missing()]
    if not jobs:
        return 0.0
    by_step = {plan.step: plan for plan in plans}
    for step in {job.step for job in jobs}:
        shards.announce(by_step[step].folder, by_step[step].identity)
    total, done = sum(map(_views, jobs)), 0
    weights = plans[0].variant.weights

    def on_image(job: Job, index: int, why: str | None) -> None:
        if why is not None and on_bad == "stop":
            raise _bad_image(Bad(dataset.images[index].id, why), dataset)

    with _sessions([by_step[job.step].variant for job in jobs], device, threads) as sessions:
        started = time.perf_counter()
        try:
            for job, stored in compute(dataset, jobs, sessions, weights, choices, decoded, workers, on_image):
                by_step[job.step].add(job.block, stored)
                for plan in plans:
                    plan.save(SHARD_SECONDS)
                done += _views(job)
                if progress:
                    progress(done, total, f"{weights.network} {job.step.form} at {job.step.scale}")
        finally:
            for plan in plans:
                plan.save()
        return time.perf_counter() - started


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


def _views(job: Job) -> int:
    return (job.block.stop - job.block.start) * job.step.views


def _bad(dataset: Dataset, plans: list[_Plan]) -> Iterator[Bad]:
    """Bad images in what is there, in the dataset's order, each once."""
    found: dict[int, str] = {}
    for plan in plans:
        for block in plan.blocks:
            if block.name in plan.stored:
                found.update({block.start + index: why for index, why in plan.stored[block.name].bad})
    for index in sorted(found):
        yield Bad(dataset.images[index].id, found[index])


def _bad_image(bad: Bad, dataset: Dataset) -> DataError:
    return DataError(
        f"{bad.id}: {bad.why} (1 bad so far, of {len(dataset.images)} images). Repair or remove it, or leave such "
        "images out, named in the record: --on-bad skip."
    )


def _results(
    dataset: Dataset,
    weights: Weights,
    backend: str,
    precision: str,
    plans: list[_Plan],
    held: dict[Pass, set[str]],
    seconds: float,
) -> PassResults:
    bad = tuple(_bad(dataset, plans))
    names = {each.id for each in bad}
    kept = np.array([index for index, image in enumerate(dataset.images) if image.id not in names], np.int64)
    posteriors = {}
    cached = computed = views = 0
    for plan in plans:
        rows = [plan.stored[block.name].posteriors for block in plan.blocks]
        posteriors[plan.step] = np.concatenate(rows)[kept]
        from_cache = sum(b.stop - b.start for b in plan.blocks if b.name in held[plan.step])
        cached += from_cache
        computed += len(dataset.images) - from_cache
        views += (len(dataset.images) - from_cache) * plan.step.views
    session = _merged([stored.session for plan in plans for stored in plan.stored.values()])
    return PassResults(
        weights, backend, precision, posteriors, kept, bad, session, Counts(cached, computed, views, seconds)
    )


def _merged(sessions: list[dict[str, Any]]) -> dict[str, Any]:
    """One flat description of what ran; a key with several values has the list of them."""
    values: dict[str, list[Any]] = {}
    for session in sessions:
        for key, value in session.items():
            if value not in values.setdefault(key, []):
                values[key].append(value)
    return {key: found[0] if len(found) == 1 else sorted(found, key=str) for key, found in sorted(values.items())}
