"""Work dealt over processes and merged by image, each image once, whoever does it."""

import threading
import time

import caffe_files
import pytest
import torch
import torchrun
from group_threads import in_threads
from hypothesis import given, settings
from hypothesis import strategies as st
from measuring import CENTER, MIXED, WEIGHTS, make_dataset

from vgg_reference.weights import random_weights, state_dict
from vggbench import backends, runs, weights_convert
from vggbench.distributed import Group
from vggbench.errors import DataError, StorageError
from vggbench.measure import shards
from vggbench.measure.accuracy import run_passes
from vggbench.measure.shards import Block, crop_equivalents
from vggbench.measure.stored import How, Job, open_passes
from vggbench.measure.together import check_whole, deal, first_double, run_passes_together
from vggbench.protocols import Choices, crops, dense
from vggbench.runs_inputs import Setting
from vggbench.train.parallel import rows_of

STEPS = (crops(256), dense(256), dense(512))


def jobs_of(images: int, steps=STEPS) -> list[Job]:
    digests = [f"{index:05d}" for index in range(images)]
    return [Job(step, block) for step in steps for block in shards.blocks(step, 224, digests)]


def images_of(jobs, step) -> list[int]:
    return [i for job in jobs if job.step == step for i in range(job.block.start, job.block.stop)]


def test_fifty_thousand_images_over_seven_workers_are_each_done_once():
    dealt = deal(jobs_of(50_000), 7, 224)
    for step in STEPS:
        assert sorted(index for part in dealt for index in images_of(part, step)) == list(range(50_000))
    loads = [sum((j.block.stop - j.block.start) * crop_equivalents(j.step, 224) for j in part) for part in dealt]
    assert max(loads) / min(loads) < 1.01


def test_a_short_last_block_does_not_part_an_image_from_itself():
    jobs = [job for job in jobs_of(41, STEPS[:2]) if job.block.stop - job.block.start < 32]
    owners = [{index for step in STEPS[:2] for index in images_of(part, step)} for part in deal(jobs, 4, 224)]
    assert sum(map(len, owners)) == len(set().union(*owners)) == 41


@settings(max_examples=60, deadline=None)
@given(
    st.integers(0, 400),
    st.integers(1, 12),
    st.sets(st.integers(0, 2), min_size=1).map(lambda found: tuple(STEPS[i] for i in sorted(found))),
    st.randoms(use_true_random=False),
)
def test_any_rest_of_a_run_is_dealt_once_and_no_image_to_two_workers(images, workers, steps, random):
    left = [job for job in jobs_of(images, steps) if random.random() < 0.6]
    dealt = deal(left, workers, 224)
    assert len(dealt) == workers
    assert sorted(map(repr, (job for part in dealt for job in part))) == sorted(map(repr, left))
    owners = [{index for step in steps for index in images_of(part, step)} for part in dealt]
    assert sum(map(len, owners)) == len(set().union(*owners))


@settings(deadline=None)
@given(st.integers(0, 300), st.integers(1, 9))
def test_rows_of_a_batch_belong_to_one_rank_each(count, world):
    rows = [index for rank in range(world) for index in range(count)[rows_of(count, rank, world)]]
    assert rows == list(range(count))


@pytest.fixture
def opened(tmp_path, with_fake):
    dataset = make_dataset(tmp_path / "images", 40)
    how = How("fake", "fp32", Choices(), "cpu", tmp_path / "cache")
    passes = open_passes(dataset, WEIGHTS, [CENTER], how)
    for each in passes:
        for job in each.missing():
            each.stored[job.block.name] = None
    return dataset, passes


def test_an_image_done_twice_is_refused(opened):
    dataset, passes = opened
    parts = [[Job(CENTER, passes[0].blocks[0])], [Job(CENTER, passes[0].blocks[1])]]
    check_whole(dataset, passes, parts)
    name = dataset.images[0].id
    with pytest.raises(DataError, match=rf"{name} \(crop pass at 40\): done by workers 0 and 2"):
        check_whole(dataset, passes, [*parts, [Job(CENTER, passes[0].blocks[0])]])
    assert first_double([("a", 0), ("b", 1), ("a", 1)]) == ("a", 0, 1)
    assert first_double([("a", 0), ("b", 1)]) is None


def test_an_image_that_no_worker_stored_is_refused(opened):
    dataset, passes = opened
    gap: Block = passes[0].blocks[1]
    del passes[0].stored[gap.name]
    with pytest.raises(StorageError, match=rf"{gap.stop - gap.start} images .* {dataset.images[gap.start].id}.*share"):
        check_whole(dataset, passes, [])


def test_workers_without_a_common_cache_are_told_so(tmp_path, monkeypatch):
    monkeypatch.setitem(backends.BACKENDS, "fake", "vggbench.backends.fake")
    dataset = make_dataset(tmp_path / "images", 70)
    store = torch.distributed.HashStore()
    errors = []

    def worker(rank: int) -> None:
        options = {"backend": "fake", "device": "cpu", "cache_root": tmp_path / f"cache{rank}"}
        try:
            run_passes_together(dataset, WEIGHTS, [CENTER], group=Group(rank, 2, 2, store), **options)
        except StorageError as error:
            errors.append((rank, str(error)))

    in_threads(worker, 2)
    assert [rank for rank, _ in errors] == [0]
    assert "one VGGBENCH_CACHE on a folder that they share" in errors[0][1]


def test_two_workers_take_the_time_of_the_slower_and_work_in_that_of_both(tmp_path, with_fake):
    dataset, store = make_dataset(tmp_path / "images", 70), torch.distributed.HashStore()

    def worker(rank: int):
        options = {"backend": "fake", "device": "cpu", "cache_root": tmp_path / "cache"}
        return run_passes_together(dataset, WEIGHTS, [CENTER], group=Group(rank, 2, 2, store), **options)

    counts = in_threads(worker, 2)[0].counts
    assert 0 < counts.seconds < counts.stages["total"]
    assert counts.views_per_second == counts.computed_views / counts.seconds


def test_one_process_alone_gives_what_run_passes_gives(tmp_path, monkeypatch):
    monkeypatch.setitem(backends.BACKENDS, "fake", "vggbench.backends.fake")
    dataset = make_dataset(tmp_path / "images", 40)
    options = {"backend": "fake", "device": "cpu"}
    one = run_passes(dataset, WEIGHTS, MIXED.passes, cache_root=tmp_path / "one", **options)
    other = run_passes_together(dataset, WEIGHTS, MIXED.passes, cache_root=tmp_path / "other", **options)
    assert all((one.posteriors[step] == other.posteriors[step]).all() for step in MIXED.passes)
    assert (one.counts.computed, one.session, one.decoder) == (other.counts.computed, other.session, other.decoder)


def test_weights_of_another_format_are_converted_by_the_first_worker_alone(tmp_path, with_fake, own_cache, monkeypatch):
    path = tmp_path / "a.caffemodel"
    state = state_dict(random_weights("A", 0, width=1 / 64, hidden_width=1 / 64, num_classes=2, crop_size=32))
    caffe_files.write_caffemodel(path, caffe_files.as_caffe(state, "A"), 2)
    torchrun.two_classes(tmp_path / "images", 4)
    converted, convert, store = [], weights_convert.convert, torch.distributed.HashStore()

    def slowly(*args, **options):
        converted.append(threading.current_thread())
        time.sleep(0.3)
        return convert(*args, **options)

    monkeypatch.setattr(weights_convert, "convert", slowly)

    def worker(rank: int):
        return runs.evaluate(
            setting=Setting("fake", device="cpu"),
            data=str(tmp_path / "images"),
            network="A",
            weights=str(path),
            protocol_name="center",
            scales=(36,),
            group=Group(rank, 2, 2, store),
        )

    found = in_threads(worker, 2)
    assert len(found[0][0].samples.values) == 8
    assert found[1] is None
    assert len(converted) == 1
