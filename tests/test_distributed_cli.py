"""torchrun starts the commands: rank 0 speaks, a failed worker is named in one line."""

import json
import os
import subprocess
import sys
from pathlib import Path

import measuring
import pytest
import worker_processes

ROOT = Path(__file__).parent.parent
OPTIONS = ["--network=A", "--weights=random:0", "--width=0.015625", "--crop-size=32", "--protocol=center"]
OPTIONS += ["--scale=36", "--backend=pytorch", "--device=cpu", "--threads=1", "--json"]


def torchrun(world: int, folder: Path, cache: Path, *more: str):
    command = [sys.executable, "-m", "torch.distributed.run", f"--nproc-per-node={world}"]
    command += [f"--master-port={worker_processes.free_port()}", "-m", "vggbench", "evaluate", f"--data={folder}"]
    path = f"{ROOT}{os.pathsep}{ROOT / 'reference'}"
    environment = {**os.environ, "PYTHONPATH": path, "VGGBENCH_CACHE": str(cache), "OMP_NUM_THREADS": "1"}
    return subprocess.run([*command, *OPTIONS, *more], capture_output=True, text=True, env=environment, timeout=120)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Two classes of 40 images."""
    folder = tmp_path_factory.mktemp("images")
    for seed, name in enumerate(("cats", "dogs")):
        measuring.make_dataset(folder / name, 40, seed)
    return folder


def test_two_workers_print_one_document_with_the_record_of_one(folder, tmp_path):
    found = []
    for world in (1, 2):
        done = torchrun(world, folder, tmp_path / f"cache{world}")
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
    broken = tmp_path / "images"
    for name in ("cats", "dogs"):
        measuring.make_dataset(broken / name, 40, 5)
        for path in (broken / name).glob("*.jpg"):
            path.write_bytes(b"\xff\xd8\xff no image " + path.name.encode() + name.encode())
    done = torchrun(2, broken, tmp_path / "cache")
    assert done.returncode == 1, "torchrun's own status"
    assert done.stdout == ""
    ours = [line for line in done.stderr.splitlines() if line.startswith("vggbench:")]
    assert len(ours) == 1, done.stderr
    assert "Worker " in ours[0]
    assert " of 2: " in ours[0]
    assert ".jpg: " in ours[0]
    assert "exitcode  : 4" in done.stderr
