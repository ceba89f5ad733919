"""torchrun starts the commands: rank 0 speaks, a failed worker is named in one line."""

import json
from pathlib import Path

import pytest
import torchrun

OPTIONS = ["--network=A", "--weights=random:0", "--width=0.015625", "--crop-size=32", "--protocol=center"]
OPTIONS += ["--scale=36", "--backend=pytorch", "--device=cpu", "--threads=1", "--json"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return torchrun.two_classes(tmp_path_factory.mktemp("images"), 40)


def evaluate(world: int, folder: Path, cache: Path, *more: str):
    options = ["evaluate", f"--data={folder}", *OPTIONS, *more]
    return torchrun.started(world, cache, *options, OMP_NUM_THREADS="1")


def test_two_workers_print_one_document_with_the_record_of_one(folder, tmp_path):
    found = []
    for world in (1, 2):
        done = evaluate(world, folder, tmp_path / f"cache{world}")
        assert done.returncode == 0, done.stderr
        record = json.loads(done.stdout)["record"]
        for key in ("started", "elapsed_seconds"):
            del record[key]
        # The tree may be worked on meanwhile; of several GPUs each of two workers sees one.
        for key in ("commit", "CUDA_VISIBLE_DEVICES", "gpu_count"):
            record["environment"].pop(key, None)
        found.append(record)
    assert found[0] == found[1]
    assert len(found[0]["samples"]["values"]) == 80


def test_a_worker_that_fails_is_named_in_one_line_and_ends_the_run(folder, tmp_path):
    broken = torchrun.two_classes(tmp_path / "images", 40)
    for path in broken.glob("*/*.jpg"):
        path.write_bytes(b"\xff\xd8\xff no image " + str(path).encode())
    done = evaluate(2, broken, tmp_path / "cache")
    assert done.returncode == 1, "torchrun's own status"
    assert done.stdout == ""
    ours = [line for line in done.stderr.splitlines() if line.startswith("vggbench:")]
    assert len(ours) == 1, done.stderr
    assert "Worker " in ours[0]
    assert " of 2: " in ours[0]
    assert ".jpg: " in ours[0]
    assert "exitcode  : 4" in done.stderr
