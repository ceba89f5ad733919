"""Damaged shards, bad images, changed files, full disks, interruptions: one line, and the next run is right."""

import dataclasses
import errno
import os

import measuring
import numpy as np
import pytest
from measuring import CENTER, CLASSES, MIXED

from vggbench import cache
from vggbench.backends import fake
from vggbench.errors import DataError, StorageError
from vggbench.images import Dataset
from vggbench.measure import shards
from vggbench.measure.posteriors import answer
from vggbench.measure.records import accuracy_record
from vggbench.protocols import Choices, Pass

CORNERS = Pass("crop", 36, "corners", True)


def same(a, b) -> bool:
    return a.posteriors.keys() == b.posteriors.keys() and all(
        np.array_equal(a.posteriors[step], b.posteriors[step]) for step in a.posteriors
    )


@pytest.mark.parametrize("damage", ["cut", "bit", "garbage", "empty", "other"])
def test_a_damaged_shard_is_computed_again(dataset, run, tmp_path, damage):
    first = run(dataset)
    for path in (tmp_path / "cache").rglob("*.safetensors"):
        data = bytearray(path.read_bytes())
        if damage == "bit":
            data[-5] ^= 16
        other = b"\x02\0\0\0\0\0\0\0{}"
        path.write_bytes({"cut": data[:-9], "bit": data, "garbage": b"x" * 99, "empty": b"", "other": other}[damage])
    again = run(dataset)
    assert again.counts.cached == 0
    assert same(first, again)
    assert run(dataset).counts.cached == 120


def test_a_shard_of_another_class_count_is_not_used(dataset, run, tmp_path):
    run(dataset, [CENTER])
    path = next((tmp_path / "cache").rglob("*.safetensors"))
    stored = shards.read(path.parent, {block.name for block in shards.blocks(CENTER, 32, dataset.digests)}, CLASSES)
    path.unlink()
    narrow = {
        name: dataclasses.replace(each, posteriors=np.ascontiguousarray(each.posteriors[:, 1:]))
        for name, each in stored.items()
    }
    shards.write(path.parent, narrow)
    assert run(dataset, [CENTER]).counts.cached == 0


def test_a_bad_image_ends_the_run_in_one_line_that_names_it(dataset, run):
    dataset = spoil(dataset, 17)
    with pytest.raises(DataError) as raised:
        run(dataset)
    message = str(raised.value)
    assert message.startswith("017.jpg: ")
    assert "image 18 of 40" in message
    assert "--on-bad skip" in message
    assert "\n" not in message


def test_a_skipped_bad_image_is_named_and_in_no_pass(dataset, run):
    good = run(dataset)
    dataset = spoil(dataset, 17)
    results = run(dataset, on_bad="skip")
    assert [bad.id for bad in results.bad] == ["017.jpg"]
    assert list(results.kept) == [index for index in range(40) if index != 17]
    for step, posteriors in results.posteriors.items():
        np.testing.assert_allclose(posteriors, np.delete(good.posteriors[step], 17, axis=0), rtol=0, atol=1e-6)
    record = accuracy_record(dataset, [(results, MIXED)], choices=Choices(), environment={})
    assert record.workload.data["bad"] == [{"id": "017.jpg", "why": results.bad[0].why}]
    assert record.workload.data["images"] == len(record.samples.values) == 39
    assert run(dataset, on_bad="skip").bad == results.bad
    with pytest.raises(DataError, match=r"017\.jpg"):  # also when it comes from the cache
        run(dataset)


def test_a_data_set_of_bad_images_gives_no_ranks(dataset, run):
    for index in range(40):
        dataset = spoil(dataset, index)
    results = run(dataset, on_bad="skip")
    assert len(results.bad) == 40
    assert answer([(results, MIXED)])[0].shape == (0, CLASSES)


def spoil(dataset: Dataset, index: int) -> Dataset:
    path = dataset.images[index].path
    path.write_bytes(b"\xff\xd8\xff no image %d" % index)
    return measuring.open_dataset(path.parent)


@pytest.mark.parametrize("on_bad", ["stop", "skip"])
def test_a_file_that_changed_or_vanished_ends_the_run_and_is_no_bad_image(dataset, run, on_bad):
    path = dataset.images[3].path
    content = path.read_bytes()
    path.write_bytes(dataset.images[4].path.read_bytes())
    with pytest.raises(DataError, match=r"003\.jpg: was changed"):
        run(dataset, on_bad=on_bad)
    path.unlink()
    with pytest.raises(DataError, match=r"003\.jpg: cannot be read: No such file"):
        run(dataset, on_bad=on_bad)
    path.write_bytes(content)
    assert run(dataset).bad == ()


def test_an_interrupted_run_goes_on_where_it_stopped(dataset, run, monkeypatch, tmp_path, sessions):
    def interrupted(variant, device, threads):
        return fake.FakeSession(variant, fail_at=12, error=KeyboardInterrupt)

    with monkeypatch.context() as patched:
        patched.setattr(fake, "open_session", interrupted)
        with pytest.raises(KeyboardInterrupt):
            run(dataset)
    results = run(dataset)
    assert 0 < results.counts.cached < 120
    assert same(results, run(dataset, cache_root=tmp_path / "fresh"))


@pytest.mark.parametrize("step", ["fsync", "replace", "open"])
def test_a_full_disk_is_one_line_and_the_next_run_is_right(dataset, run, monkeypatch, tmp_path, step):
    calls = []

    def full(*arguments, **options):
        calls.append(arguments)
        if len(calls) > 4:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return genuine(*arguments, **options)

    with monkeypatch.context() as patched:
        if step == "open":
            genuine = open
            patched.setattr(cache, "open", full, raising=False)
        else:
            genuine = getattr(os, step)
            patched.setattr(cache.os, step, full)
        with pytest.raises(StorageError, match=r"no space left on device.*VGGBENCH_CACHE=") as raised:
            run(dataset)
    assert "\n" not in str(raised.value)
    assert not list((tmp_path / "cache").rglob("*.tmp"))
    assert same(run(dataset), run(dataset, cache_root=tmp_path / "fresh"))


def test_a_cache_that_takes_no_files_is_told_before_any_work(dataset, run, monkeypatch, sessions):
    def read_only(*_):
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    monkeypatch.setattr(cache.os, "replace", read_only)
    with pytest.raises(StorageError, match="read-only file system"):
        run(dataset)
    assert sessions == []


def test_a_complete_cache_that_takes_no_files_is_enough(dataset, run, monkeypatch):
    first = run(dataset)

    def read_only(*_, **__):
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    for step in ("replace", "utime", "fsync"):
        monkeypatch.setattr(cache.os, step, read_only)
    assert same(first, run(dataset))


def test_pruning_beside_a_run_costs_time_only(dataset, run, tmp_path):
    undisturbed = run(dataset, cache_root=tmp_path / "fresh")

    def prune(done, total, note):
        cache.prune(tmp_path / "cache", everything=True)

    assert same(undisturbed, run(dataset, progress=prune))
    assert same(undisturbed, run(dataset))
