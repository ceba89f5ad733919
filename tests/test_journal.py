"""Journals: each block on the disk at once, only whole and right blocks read, none lost and none twice."""

from __future__ import annotations

import errno
import os
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from measuring import CENTER, CLASSES, MIXED, WEIGHTS

from vggbench import cache
from vggbench.backends import fake
from vggbench.errors import StorageError
from vggbench.measure import accuracy, journal, shards
from vggbench.measure.journal import Journal, record, records
from vggbench.measure.shards import Stored


def block(number: int, images: int, **session) -> Stored:
    posteriors = np.random.default_rng(number).random((images, CLASSES), np.float32)
    return Stored(posteriors, ((0, f"why {number}"),), {"device": "cpu", **session})


def equal(one: dict[str, Stored], other: dict[str, Stored]) -> bool:
    return one.keys() == other.keys() and all(
        np.array_equal(one[name].posteriors, other[name].posteriors)
        and (one[name].bad, one[name].session) == (other[name].bad, other[name].session)
        for name in one
    )


def journals(folder):
    return sorted(folder.rglob("*.journal"))


BLOCKS = {f"block {number}": block(number, images) for number, images in enumerate((3, 1, 8, 2))}
RECORDS = [record(*each) for each in BLOCKS.items()]
WHOLE = b"".join(RECORDS)
ENDS = np.cumsum([len(each) for each in RECORDS])


def first(count: int) -> dict[str, Stored]:
    return dict(list(BLOCKS.items())[:count])


def test_a_journal_gives_its_blocks_back():
    assert equal(dict(records(WHOLE, CLASSES)), BLOCKS)
    assert dict(records(WHOLE, CLASSES + 1)) == {}
    assert dict(records(b"", CLASSES)) == {}


@settings(deadline=None, max_examples=200)
@given(st.integers(0, len(WHOLE)))
def test_of_any_prefix_the_whole_records_are_read(length):
    assert equal(dict(records(WHOLE[:length], CLASSES)), first(int((length >= ENDS).sum())))


@settings(deadline=None, max_examples=400)
@given(st.integers(0, len(WHOLE) - 1), st.integers(1, 255))
def test_of_any_flipped_byte_the_records_before_it_are_read(place, flip):
    damaged = bytearray(WHOLE)
    damaged[place] ^= flip
    assert equal(dict(records(bytes(damaged), CLASSES)), first(int((place >= ENDS).sum())))


@settings(deadline=None, max_examples=100)
@given(st.binary(max_size=300), st.integers(0, 4))
def test_garbage_after_whole_records_costs_none_of_them(garbage, count):
    data = b"".join(RECORDS[:count]) + garbage
    assert equal(dict(records(data, CLASSES)), first(count))


@settings(deadline=None, max_examples=20)
@given(st.lists(st.tuples(st.text(max_size=20), st.integers(1, 5), st.integers(0, 99)), unique_by=lambda each: each[0]))
def test_whatever_a_block_is_called_and_holds_it_comes_back(described):
    blocks = {name: block(number, images, why=name) for name, images, number in described}
    assert equal(dict(records(b"".join(record(*each) for each in blocks.items()), CLASSES)), blocks)


def test_posteriors_that_are_not_finite_are_computed_again():
    wrong = Stored(np.full((2, CLASSES), np.nan, np.float32), (), {})
    assert list(dict(records(record("wrong", wrong) + RECORDS[0], CLASSES))) == ["block 0"]


def test_a_block_is_read_from_its_journal_at_once_and_the_file_goes_with_its_shard(tmp_path):
    mine = Journal(tmp_path / "pass")
    for count, each in enumerate(BLOCKS.items(), 1):
        mine.append(*each)
        assert equal(journal.read(tmp_path / "pass", set(BLOCKS), CLASSES), first(count))
    assert len(journals(tmp_path)) == 1
    assert list(journal.read(tmp_path / "pass", {"block 2"}, CLASSES)) == ["block 2"]
    mine.empty()
    assert journals(tmp_path)[0].stat().st_size == 0
    mine.append("block 3", BLOCKS["block 3"])
    assert list(journal.read(tmp_path / "pass", set(BLOCKS), CLASSES)) == ["block 3"]
    mine.empty()
    mine.close()
    assert list((tmp_path / "pass").iterdir()) == []


def test_a_journal_with_blocks_that_are_in_no_shard_stays(tmp_path):
    mine = Journal(tmp_path)
    mine.append("block 0", BLOCKS["block 0"])
    mine.close()
    assert list(journal.read(tmp_path, set(BLOCKS), CLASSES)) == ["block 0"]


def test_two_processes_never_share_a_journal(tmp_path, monkeypatch):
    monkeypatch.setattr(journal.platform, "node", lambda: "node/0 of\n..")
    pair = Journal(tmp_path), Journal(tmp_path)  # as in two containers: the same host and number
    for mine, name in zip(pair, BLOCKS, strict=False):
        mine.append(name, BLOCKS[name])
    assert len(journals(tmp_path)) == 2
    assert equal(journal.read(tmp_path, set(BLOCKS), CLASSES), first(2))
    for mine in pair:
        mine.close()


@pytest.fixture
def alive(tmp_path):
    """A journal of two blocks whose process lives; closed by alive.close() as a kill would leave it."""
    mine = Journal(tmp_path)
    for name in ("block 0", "block 1"):
        mine.append(name, BLOCKS[name])
    yield mine
    mine.close()


def in_shards(folder):
    return shards.read(folder, set(BLOCKS), CLASSES)


def test_what_a_killed_process_left_becomes_a_shard(tmp_path, alive):
    alive.close()
    with open(journals(tmp_path)[0], "ab") as file:
        file.write(RECORDS[2][:-1])  # it was killed in the middle of a write
    journal.settle(tmp_path, CLASSES)
    assert journals(tmp_path) == []
    assert equal(in_shards(tmp_path), first(2))


def test_a_journal_that_cannot_be_read_does_not_keep_back_the_others(tmp_path, alive):
    alive.close()
    (tmp_path / "0-another-user.journal").mkdir()  # the first by name; the superuser may read any file
    with pytest.raises(StorageError, match="another-user"):
        journal.settle(tmp_path, CLASSES)
    assert [path.name for path in journals(tmp_path)] == ["0-another-user.journal"]
    assert equal(in_shards(tmp_path), first(2))


def test_the_journal_of_a_living_process_is_left_alone(tmp_path, alive):
    before = journals(tmp_path)[0].read_bytes()
    journal.settle(tmp_path, CLASSES)
    assert [path.read_bytes() for path in journals(tmp_path)] == [before]
    assert in_shards(tmp_path) == {}


def test_the_journal_of_another_living_process_is_left_alone_until_it_is_killed(tmp_path):
    code = (
        "import sys, pathlib, test_journal as t; mine = t.Journal(pathlib.Path(sys.argv[1]))\n"
        "mine.append('block 0', t.BLOCKS['block 0']); print('ready', flush=True); sys.stdin.read()"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    command, pipe = [sys.executable, "-c", code, str(tmp_path)], subprocess.PIPE
    with subprocess.Popen(command, env=environment, stdin=pipe, stdout=pipe, text=True) as child:
        assert child.stdout.readline() == "ready\n"
        journal.settle(tmp_path, CLASSES)
        assert cache.prune(tmp_path.parent, everything=True) == 0
        assert in_shards(tmp_path) == {}
        assert len(journals(tmp_path)) == 1
        child.kill()
    journal.settle(tmp_path, CLASSES)
    assert equal(in_shards(tmp_path), first(1))
    assert journals(tmp_path) == []


def test_without_locks_age_tells_who_is_dead(tmp_path, monkeypatch, alive):
    def no_locks(*_):
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(cache.fcntl, "flock", no_locks)
    journal.settle(tmp_path, CLASSES)
    assert len(journals(tmp_path)) == 1
    os.utime(journals(tmp_path)[0], (0, 0))
    journal.settle(tmp_path, CLASSES)
    assert (journals(tmp_path), len(in_shards(tmp_path))) == ([], 2)


def test_a_process_whose_journal_was_taken_all_the_same_begins_another_with_all_its_blocks(tmp_path, alive):
    taken = journals(tmp_path)[0]
    taken.unlink()
    alive.append("block 2", BLOCKS["block 2"])
    assert journals(tmp_path) != [taken]
    assert equal(journal.read(tmp_path, set(BLOCKS), CLASSES), first(3))


@pytest.mark.parametrize("step", ["write", "empty"])
def test_a_kill_between_shard_and_journal_loses_nothing_and_counts_nothing_twice(tmp_path, monkeypatch, alive, step):
    if step == "empty":
        shards.write(tmp_path, alive.blocks)
    alive.close()
    with monkeypatch.context() as patched:
        patched.setattr(cache, "remove", lambda *_: False)  # killed again before it removes
        journal.settle(tmp_path, CLASSES)
    assert len(journals(tmp_path)) == 1
    journal.settle(tmp_path, CLASSES)
    assert journals(tmp_path) == []
    assert len(list(tmp_path.glob("*.safetensors"))) == 1
    assert equal(in_shards(tmp_path), first(2))


def test_a_full_disk_is_one_line_and_the_blocks_before_it_stay_readable(tmp_path, alive):
    file = alive._file

    class Full:
        """Takes half of a record."""

        def __getattr__(self, name):
            return getattr(file, name)

        def write(self, data):
            if file.tell() > ENDS[1]:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            return file.write(data[: len(data) // 2])

    alive._file = Full()
    with pytest.raises(StorageError, match=r"no space left on device.*VGGBENCH_CACHE=") as raised:
        alive.append("block 2", BLOCKS["block 2"])
    assert "\n" not in str(raised.value)
    alive._file = file
    alive.append("block 3", BLOCKS["block 3"])
    assert list(journal.read(tmp_path, set(BLOCKS), CLASSES)) == ["block 0", "block 1", "block 3"]


def test_a_run_leaves_shards_and_no_journals(dataset, run, tmp_path):
    seen = []
    run(dataset, progress=lambda *_: seen.append(len(journals(tmp_path / "cache"))))
    assert max(seen) == len(MIXED.passes)
    assert journals(tmp_path / "cache") == []


def test_a_run_whose_last_shard_could_not_be_written_costs_nothing_once_it_can(dataset, run, monkeypatch, tmp_path):
    def full(*_):
        raise StorageError("full")

    with monkeypatch.context() as patched:
        patched.setattr(shards, "write", full)
        with pytest.raises(StorageError):
            run(dataset)
    assert len(journals(tmp_path / "cache")) == len(MIXED.passes)
    again = run(dataset)
    assert (again.counts.cached, again.counts.computed) == (len(MIXED.passes) * len(dataset.images), 0)
    assert journals(tmp_path / "cache") == []
    assert run(dataset).counts.computed == 0


def test_a_cache_that_takes_no_files_serves_what_a_killed_run_left(dataset, run, monkeypatch):
    def refused(*_, **__):
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    with monkeypatch.context() as patched:
        patched.setattr(shards, "write", lambda *_: (_ for _ in ()).throw(StorageError("full")))
        with pytest.raises(StorageError):
            run(dataset)
    for step in ("replace", "utime", "fsync"):
        monkeypatch.setattr(cache.os, step, refused)
    assert run(dataset).counts.computed == 0


def test_what_is_missing_is_told_without_touching_journals(dataset, monkeypatch, run, tmp_path):
    def interrupted(variant, device, threads):
        return fake.FakeSession(variant, fail_at=2, error=KeyboardInterrupt)

    with monkeypatch.context() as patched:
        patched.setattr(fake, "open_session", interrupted)
        patched.setattr(shards, "write", lambda *_: (_ for _ in ()).throw(StorageError("full")))
        with pytest.raises(StorageError):
            run(dataset, [CENTER])
    left = [path.read_bytes() for path in journals(tmp_path / "cache")]
    assert left
    options = {"backend": "fake", "device": "cpu", "cache_root": tmp_path / "cache"}
    missing = accuracy.missing_views(dataset, WEIGHTS, [CENTER], **options)
    assert missing == {CENTER: 8}
    assert [path.read_bytes() for path in journals(tmp_path / "cache")] == left
