"""Passes over a dataset by several processes: images are dealt, each process stores its own, rank 0 has the results."""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from vgg_reference.weights import Weights
from vggbench.distributed import ALONE, Group
from vggbench.errors import DataError, StorageError
from vggbench.images import Dataset
from vggbench.measure import stages
from vggbench.measure.accuracy import PassResults, Progress, checked, refuse_bad, results_of, run_jobs
from vggbench.measure.pipeline import DecodedImages, default_workers
from vggbench.measure.shards import block_length, crop_equivalents
from vggbench.measure.stored import Job, Options, StoredPass, open_passes, settle
from vggbench.protocols import Pass

if TYPE_CHECKING:
    from typing_extensions import Unpack  # of typing from Python 3.11 on


def run_passes_together(
    dataset: Dataset,
    weights: Weights,
    passes: Sequence[Pass],
    *,
    group: Group = ALONE,
    threads: int | None = None,
    on_bad: str = "stop",
    progress: Progress | None = None,
    workers: int | None = None,
    decoded: DecodedImages | None = None,
    **options: Unpack[Options],
) -> PassResults | None:
    """As accuracy.run_passes, with the work dealt over the group; None on all ranks but 0.

    All ranks see one cache. What is missing is looked up once, by rank 0, so any number of processes goes on where
    others stopped. Raises what run_passes does, DataError where the parts do not make the whole, and Ended.
    """
    how = checked(weights, passes, on_bad, **options)
    opened = open_passes(dataset, weights, passes, how, read=group.rank == 0)
    parts: list[list[Job]] = []
    if group.rank == 0:
        refuse_bad(dataset, opened, on_bad)
        settle(opened)
        parts = deal([job for each in opened for job in each.missing()], group.world, weights.crop_size)
    mine = _jobs(opened, group.share([_named(opened, part) for part in parts])[group.rank])
    taken = stages.Stages()

    def tell(done: int, of: int, what: str) -> None:
        group.check()
        if progress:
            progress(done, of, what)

    workers = workers or default_workers(how.device, group.local_world)
    run_jobs(dataset, weights, how, opened, mine, taken, threads, workers, decoded, on_bad, tell)
    done = group.gather({"jobs": _named(opened, mine), "stages": taken.seconds()})
    if done is None:
        return None
    for each in opened:
        each.take_up(weights.num_classes)
    check_whole(dataset, opened, [_jobs(opened, part["jobs"]) for part in done])
    refuse_bad(dataset, opened, on_bad)
    return results_of(dataset, weights, how, opened, [part["stages"] for part in done])


def deal(jobs: Sequence[Job], workers: int, crop_size: int) -> list[list[Job]]:
    """Each job to one worker, all jobs of an image to the same one, so that it is decoded once; the work about even.

    Nothing is padded: a worker may have less to do than another, or nothing.
    """
    # Not the longest block that is left: a pass's last block may be cut to any length.
    longest = max((block_length(job.step, crop_size) for job in jobs), default=1)
    together: dict[int, list[Job]] = {}
    for job in jobs:
        # Lengths of passes divide each other, and a pass's first block starts at 0.
        together.setdefault(job.block.start // longest, []).append(job)

    def cost(part: list[Job]) -> float:
        return sum((job.block.stop - job.block.start) * crop_equivalents(job.step, crop_size) for job in part)

    dealt: list[list[Job]] = [[] for _ in range(workers)]
    loads = [(0.0, worker) for worker in range(workers)]
    for _, part in sorted(together.items(), key=lambda item: (-cost(item[1]), item[0])):
        load, worker = heapq.heappop(loads)
        dealt[worker] += part
        heapq.heappush(loads, (load + cost(part), worker))
    return dealt


def check_whole(dataset: Dataset, opened: Sequence[StoredPass], done: Sequence[Sequence[Job]]) -> None:
    """That the workers' parts and what was there before hold every image of every pass, once.

    Raises DataError for an image that two workers did, StorageError for one that is not in the cache.
    """
    for each in opened:
        ids = (
            (dataset.images[index].id, rank)
            for rank, jobs in enumerate(done)
            for job in jobs
            if job.step == each.step
            for index in range(job.block.start, job.block.stop)
        )
        double = first_double(ids)
        where = f"{each.step.form} pass at {each.step.scale}"
        if double is not None:
            raise DataError(f"{double[0]} ({where}): done by workers {double[1]} and {double[2]}. Run again.")
        absent = [block for block in each.blocks if block.name not in each.stored]
        if absent:
            name = dataset.images[absent[0].start].id
            count = sum(block.stop - block.start for block in absent)
            raise StorageError(
                f"{count} images of the {where} are in no worker's part that this cache holds, the first {name}. "
                "All workers need one VGGBENCH_CACHE on a folder that they share; what is there is kept."
            )


def first_double(ids: Iterable[tuple[str, int]]) -> tuple[str, int, int] | None:
    """An image's id with the two workers that did it, if there is one."""
    seen: dict[str, int] = {}
    for name, rank in ids:
        if name in seen:
            return name, seen[name], rank
        seen[name] = rank
    return None


def _named(opened: Sequence[StoredPass], jobs: Iterable[Job]) -> list[list[int]]:
    """(number of the pass, first image) of each job: what processes tell each other."""
    numbers = {each.step: number for number, each in enumerate(opened)}
    return [[numbers[job.step], job.block.start] for job in jobs]


def _jobs(opened: Sequence[StoredPass], named: Iterable[Sequence[int]]) -> list[Job]:
    found: list[Mapping[int, Any]] = [{block.start: block for block in each.blocks} for each in opened]
    return [Job(opened[number].step, found[number][start]) for number, start in named]
