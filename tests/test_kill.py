"""Killed and concurrent evaluations give the records of an undisturbed one."""

import json
import random
import subprocess
import time
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import measuring
import pytest
from served import serving

IMAGES = 48


@dataclass(frozen=True)
class Server:
    """Starts evaluations in processes of their own, without importing anew."""

    folder: Path
    process: subprocess.Popen

    def start(self, cache: Path, output: Path, blocks: int | str = "", seconds: float = 0.0) -> None:
        """blocks, seconds: it is killed so long after so many blocks."""
        self.process.stdin.write(f"{self.folder}\t{cache}\t{output}\t{blocks}\t{seconds}\n")
        self.process.stdin.flush()

    def wait(self) -> bool:
        """Whether it was killed before its end."""
        return {"killed\n": True, "done\n": False}[self.process.stdout.readline()]

    def run(self, cache: Path, output: Path) -> dict:
        self.start(cache, output)
        assert not self.wait()
        return json.loads(output.read_text())

    def undisturbed(self, scratch: Path) -> tuple[dict, int, float]:
        """The record, its blocks, and the seconds that a block takes."""
        begun = time.perf_counter()
        found = self.run(scratch / "undisturbed", scratch / "undisturbed.json")
        return found["record"], found["blocks"], (time.perf_counter() - begun) / found["blocks"]


@contextmanager
def server(folder: Path):
    with serving(measuring.__file__) as process:
        yield Server(folder, process)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("images")
    measuring.make_dataset(folder, IMAGES, bad="030.jpg")
    return folder


def test_runs_killed_at_twenty_random_moments_end_in_the_records_of_an_undisturbed_run(folder, tmp_path):
    moments = random.Random(0)
    killed = resumed = 0
    with server(folder) as processes:
        processes.run(tmp_path / "first", tmp_path / "first.json")  # imports and warms up
        undisturbed, blocks, each = processes.undisturbed(tmp_path)
        for trial in range(20):
            cache, output = tmp_path / f"cache{trial}", tmp_path / f"{trial}.json"
            processes.start(cache, output, moments.randrange(blocks), moments.uniform(0, each))
            killed += processes.wait()
            again = processes.run(cache, output)
            assert again["record"] == undisturbed
            assert not list(cache.rglob("*.journal")), "what a killed run left was made a shard"
            resumed += 0 < again["cached"] < 3 * IMAGES
    assert killed >= 10
    assert resumed >= 3, "the kills hit no run in its middle"
    assert len(undisturbed["samples"]["values"]) == IMAGES - 1
    assert undisturbed["workload"]["data"]["bad"][0]["id"] == "030.jpg"


def test_one_run_killed_again_and_again_ends_in_the_record_of_an_undisturbed_run(folder, tmp_path):
    moments = random.Random(1)
    with server(folder) as processes:
        processes.run(tmp_path / "first", tmp_path / "first.json")
        undisturbed, _, each = processes.undisturbed(tmp_path)
        for _ in range(8):
            processes.start(tmp_path / "cache", tmp_path / "again.json", moments.randrange(2), moments.uniform(0, each))
            processes.wait()
        assert processes.run(tmp_path / "cache", tmp_path / "again.json")["record"] == undisturbed


def test_two_runs_at_once_in_one_cache_are_both_right(folder, tmp_path):
    with server(folder) as one, server(folder) as other:
        undisturbed, *_ = one.undisturbed(tmp_path)
        for round_ in range(3):
            cache = tmp_path / f"cache{round_}"
            outputs = [tmp_path / f"{round_}{name}.json" for name in ("one", "other")]
            one.start(cache, outputs[0])
            other.start(cache, outputs[1])
            assert not one.wait()
            assert not other.wait()
            assert [json.loads(output.read_text())["record"] for output in outputs] == [undisturbed] * 2
            assert one.run(cache, outputs[0])["cached"] == 3 * IMAGES
            assert not [path for pattern in ("*.tmp", "*.journal") for path in cache.rglob(pattern)]
