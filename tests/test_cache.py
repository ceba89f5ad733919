import errno
import itertools
import os
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import pytest

from vggbench import cache
from vggbench.cli_tools import cache_ls
from vggbench.errors import StorageError, UsageError

ROOT = Path(__file__).parent.parent


def run_python(code: str, *arguments: object) -> subprocess.CompletedProcess:
    environment = {**os.environ, "PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'reference'}"}
    command = [sys.executable, "-c", code, *map(str, arguments)]
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)


def make(path: Path, size: int = 10, age_seconds: float = 0.0) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"x" * size)
    os.utime(path, (time.time() - age_seconds,) * 2)
    return path


def test_the_environment_variable_moves_the_cache(monkeypatch, tmp_path):
    monkeypatch.setenv("VGGBENCH_CACHE", str(tmp_path / "elsewhere"))
    assert cache.root() == tmp_path / "elsewhere"
    monkeypatch.delenv("VGGBENCH_CACHE")
    assert cache.root().name == "vggbench"


def test_a_write_makes_its_folder_and_leaves_only_the_file(tmp_path):
    cache.write_atomic(tmp_path / "a" / "b" / "file", b"one")
    cache.write_atomic(tmp_path / "a" / "b" / "file", b"two")
    assert [path.name for path in (tmp_path / "a" / "b").iterdir()] == ["file"]
    assert cache.read(tmp_path / "a" / "b" / "file") == b"two"
    assert cache.read(tmp_path / "absent") is None


@pytest.mark.parametrize("step", ["fsync", "replace"])
@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EROFS, errno.EACCES])
def test_a_failing_write_is_one_line_and_keeps_the_old_file(monkeypatch, tmp_path, step, code):
    path = tmp_path / "folder" / "file"
    cache.write_atomic(path, b"old")

    def fail(*_):
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(cache.os, step, fail)
    with pytest.raises(StorageError) as raised:
        cache.write_atomic(path, b"new")
    message = str(raised.value)
    assert "\n" not in message
    assert str(path) in message
    assert os.strerror(code).lower() in message
    assert "VGGBENCH_CACHE=" in message
    assert [(each.name, each.read_bytes()) for each in path.parent.iterdir()] == [("file", b"old")]


def test_a_file_beyond_the_limit_of_the_system_leaves_nothing_behind(tmp_path):
    code = """if True:
        import resource, sys
        from pathlib import Path
        from vggbench import cache, errors
        resource.setrlimit(resource.RLIMIT_FSIZE, (65536, 65536))
        cache.write_atomic(Path(sys.argv[1]) / "small", b"x" * 1000)
        try:
            cache.write_atomic(Path(sys.argv[1]) / "large", b"x" * 200_000)
        except errors.StorageError as error:
            print(error)
    """
    done = run_python(code, tmp_path)
    assert "large: file too large" in done.stdout
    assert done.stdout.count("\n") == 1
    assert [path.name for path in tmp_path.iterdir()] == ["small"]


def test_a_folder_without_write_access_is_one_line_and_still_read():
    code = """if True:
        import os, sys
        from pathlib import Path
        from vggbench import cache, errors
        if os.geteuid() == 0:
            os.seteuid(65534)
        folder = Path(sys.argv[1])
        print(len(cache.read(folder / "file")))
        for path in (folder / "new", folder / "below" / "new"):
            try:
                cache.write_atomic(path, b"x")
            except errors.StorageError as error:
                print(error)
    """
    with tempfile.TemporaryDirectory() as place:  # tmp_path lies where a child without root's rights sees nothing
        make(Path(place) / "file", age_seconds=2 * cache.STALE_SECONDS)
        Path(place).chmod(0o555)
        done = run_python(code, place)
        Path(place).chmod(0o755)
    lines = done.stdout.splitlines()
    assert lines[0] == "10", done.stderr
    assert [("permission denied" in line, "VGGBENCH_CACHE=" in line) for line in lines[1:]] == [(True, True)] * 2


def test_readers_beside_writers_see_whole_files_only(tmp_path):
    path, contents = tmp_path / "file", [bytes([value]) * 200_000 for value in (1, 2)]
    cache.write_atomic(path, contents[0])
    writers = [threading.Thread(target=lambda c=c: [cache.write_atomic(path, c) for _ in range(10)]) for c in contents]
    for writer in writers:
        writer.start()
    while any(writer.is_alive() for writer in writers):
        assert cache.read(path) in contents
    for writer in writers:
        writer.join()
    assert [each.name for each in tmp_path.iterdir()] == ["file"]


def test_entries_name_kinds_sizes_and_last_use_and_nothing_else(tmp_path):
    make(tmp_path / "posteriors" / "key" / "one", 30, age_seconds=500)
    make(tmp_path / "posteriors" / "key" / "two", 12, age_seconds=100)
    make(tmp_path / "graphs" / "graph.onnx", 5)
    make(tmp_path / "holiday" / "photo.jpg", 1000)
    found = {entry.name: entry for entry in cache.entries(tmp_path)}
    sizes = {(entry.kind, entry.name): entry.bytes for entry in found.values()}
    assert sizes == {("posteriors", "key"): 42, ("graphs", "graph.onnx"): 5}
    newest, oldest = ((tmp_path / "posteriors" / "key" / name).stat().st_mtime for name in ("two", "one"))
    assert found["key"].used == newest > oldest
    assert cache.entries(tmp_path / "absent") == []


def test_pruning_by_age_removes_what_was_not_used_since(tmp_path):
    old = make(tmp_path / "posteriors" / "old" / "file", 30, age_seconds=3 * 86400)
    new = make(tmp_path / "posteriors" / "new" / "file", 12, age_seconds=86400)
    assert cache.prune(tmp_path, older_than_days=2) == 30
    assert not old.parent.exists()
    assert new.exists()


def test_pruning_to_a_size_removes_the_least_recently_used(tmp_path):
    files = [make(tmp_path / "graphs" / f"{age}.onnx", 10, age_seconds=age) for age in (1000, 2000, 3000, 4000)]
    assert cache.prune(tmp_path, max_bytes=25) == 20
    assert [file.exists() for file in files] == [True, True, False, False]


def test_reading_counts_as_use(tmp_path):
    path = make(tmp_path / "graphs" / "graph.onnx", age_seconds=3 * 86400)
    cache.read(path)
    assert cache.prune(tmp_path, older_than_days=2) == 0


def test_pruning_everything_of_a_kind_leaves_the_others_and_foreign_files(tmp_path):
    kept = [make(tmp_path / "posteriors" / "key" / "file"), make(tmp_path / "holiday" / "photo.jpg")]
    make(tmp_path / "graphs" / "graph.onnx", 7)
    assert cache.prune(tmp_path, kinds=("graphs",), everything=True) == 7
    assert all(path.exists() for path in kept)
    assert cache.prune(tmp_path, everything=True) == 10
    assert [path.exists() for path in kept] == [False, True]
    with pytest.raises(UsageError, match=r"No kind 'holiday'.*Known: posteriors"):
        cache.prune(tmp_path, kinds=("holiday",), everything=True)


def test_pruning_spares_what_is_being_written_and_removes_what_killed_runs_left(tmp_path):
    writing = make(tmp_path / "posteriors" / "key" / ".shard.123.0.tmp", 5)
    killed = make(tmp_path / "posteriors" / "key" / ".shard.99.0.tmp", 8, age_seconds=2 * cache.STALE_SECONDS)
    shard = make(tmp_path / "posteriors" / "key" / "shard", 20)
    assert cache.prune(tmp_path) == 8
    assert (writing.exists(), killed.exists(), shard.exists()) == (True, False, True)
    assert cache.prune(tmp_path, everything=True) == 20
    assert writing.exists()


def journal(path: Path, size: int) -> Path:
    return make(path.with_suffix(cache.JOURNAL), size)


def test_pruning_spares_the_journal_of_a_living_process_whatever_is_asked(tmp_path):
    path = journal(tmp_path / "posteriors" / "key" / "node-1", 30)
    with open(path, "ab") as owner:
        assert cache.lock(owner.fileno())
        with cache.abandoned(path) as free:
            assert not free
        assert cache.prune(tmp_path, everything=True) == 0
        assert cache.prune(tmp_path, max_bytes=0) == 0
        assert path.exists()
    assert cache.prune(tmp_path, everything=True) == 30
    assert not path.parent.exists()


def test_a_killed_runs_journal_is_finished_work_and_goes_with_its_entry_only(tmp_path):
    full = journal(tmp_path / "posteriors" / "key" / "full", 30)
    empty = journal(tmp_path / "posteriors" / "key" / "empty", 0)
    assert [entry.journals for entry in cache.entries(tmp_path)] == [2]
    assert cache.prune(tmp_path) == 0
    assert (full.exists(), empty.exists()) == (True, False)
    assert cache.prune(tmp_path, older_than_days=1) == 0
    assert cache.prune(tmp_path, kinds=("posteriors",), everything=True) == 30


def test_of_two_that_find_a_journal_abandoned_at_once_one_has_it(tmp_path):
    path = journal(tmp_path / "posteriors" / "key" / "node-1", 30)
    with cache.abandoned(path) as mine:
        with cache.abandoned(path) as theirs:
            assert (mine, theirs) == (True, False)
        assert cache.prune(tmp_path, everything=True) == 0
        path.unlink()
    with cache.abandoned(path) as gone:
        assert not gone


def test_without_locks_a_journal_is_abandoned_by_its_age(tmp_path, monkeypatch):
    def no_locks(*_):
        raise OSError(errno.EOPNOTSUPP, os.strerror(errno.EOPNOTSUPP))

    monkeypatch.setattr(cache.fcntl, "flock", no_locks)
    young = journal(tmp_path / "posteriors" / "key" / "young", 30)
    old = make(tmp_path / "posteriors" / "key" / "old.journal", 8, age_seconds=2 * cache.STALE_SECONDS)
    assert cache.prune(tmp_path, everything=True) == 8
    assert (young.exists(), old.exists()) == (True, False)


def test_the_listing_names_journals(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("VGGBENCH_CACHE", str(tmp_path))
    journal(tmp_path / "posteriors" / "key" / "node-1", 30)
    cache_ls()
    lines = {line.split()[0]: line for line in capsys.readouterr().out.splitlines()}
    assert lines["posteriors"].endswith("; journals of runs that go on or were killed: 1")
    assert "journals" not in lines["graphs"]


def test_writing_goes_on_while_the_folder_is_pruned(tmp_path):
    stop = threading.Event()
    pruned = []

    def prune():
        while not stop.is_set():
            pruned.append(cache.prune(tmp_path, everything=True))

    pruner = threading.Thread(target=prune)
    pruner.start()
    try:
        until = time.monotonic() + 60
        for count in itertools.count():
            cache.write_atomic(tmp_path / "posteriors" / "key" / str(count), b"x" * 100)
            if (count >= 50 and sum(pruned) > 0) or time.monotonic() > until:
                break
    finally:
        stop.set()
        pruner.join()
    assert sum(pruned) > 0


def test_a_link_to_a_folder_outside_is_removed_and_not_followed(tmp_path):
    outside = make(tmp_path / "outside" / "file")
    (tmp_path / "cache" / "sample").mkdir(parents=True)
    (tmp_path / "cache" / "sample" / "link").symlink_to(outside.parent)
    cache.prune(tmp_path / "cache", everything=True)
    assert outside.exists()
    assert not (tmp_path / "cache" / "sample" / "link").is_symlink()
