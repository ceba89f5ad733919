"""Processes of one run, as torchrun starts them; as a script, it forks them, so that a test imports torch once.

A line of JSON on stdin starts ``world`` workers: of an evaluation in a folder of images, or, with "steps", of a
training. With "kill" that rank is killed after so many seconds, or with "after_blocks" once it has finished so many,
and the others are ended, as torchrun does. Answered is the list of exit statuses, negative for signals.

With "log", each worker appends to that file a line "RANK ran VIEWS" before every call of a session, "RANK finished
VIEWS" after every block. "shard_seconds": accuracy.SHARD_SECONDS.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from served import serving


@dataclass(frozen=True)
class Server:
    """The script in a process of its own."""

    process: subprocess.Popen

    def run(self, **task) -> list[int]:
        self.process.stdin.write(json.dumps(task, default=str) + "\n")
        self.process.stdin.flush()
        return json.loads(self.process.stdout.readline())


@contextmanager
def server() -> Iterator[Server]:
    with serving(__file__) as process:
        yield Server(process)


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return found.getsockname()[1]


def evaluate(task: dict, group) -> None:
    """The record, and how many image-passes were there before, written by rank 0."""
    import measuring

    from vggbench.measure.records import accuracy_record
    from vggbench.measure.together import run_passes_together
    from vggbench.protocols import Choices

    dataset = measuring.open_dataset(Path(task["folder"]))
    results = run_passes_together(
        dataset,
        measuring.WEIGHTS,
        measuring.MIXED.passes,
        group=group,
        backend="fake",
        device="cpu",
        cache_root=Path(task["cache"]),
        on_bad="skip",
        progress=lambda done, total, note: log(task, group.rank, "finished", done),
    )
    if results is not None:
        record = accuracy_record(dataset, [(results, measuring.MIXED)], choices=Choices(), environment={})
        found = {"record": json.loads(record.model_dump_json()), "cached": results.counts.cached}
        Path(task["output"]).write_text(json.dumps(found))


def log(task: dict, rank: int, what: str, views: int) -> None:
    if "log" in task:
        with open(task["log"], "ab", 0) as file:  # in one write, which no kill divides from what it tells
            file.write(f"{rank} {what} {views}\n".encode())


def train(task: dict, group) -> None:
    """So many steps, then a checkpoint in "output"; "fault": one of train_faults.

    Batches are in six parts, which one, two, three or six workers may share, unless the recipe says otherwise.
    """
    import numpy as np
    import train_faults

    from vggbench.distributed import summing
    from vggbench.train import labelled, loop
    from vggbench.train.recipe import Recipe

    paths = tuple(sorted(Path(task["folder"]).glob("*.jpg")))
    images = labelled.Labelled(paths, np.arange(len(paths), dtype=np.int64) % 7, 7, "test")
    train_faults.plant(task.get("fault"))
    with summing(group, "cpu"):
        loop.train(
            Recipe(**{"parts": 6, **task["recipe"]}),
            images,
            images,
            Path(task["output"]),
            stop_after_batches=task["steps"],
            group=group,
        )


def serve() -> None:
    import measuring  # noqa: F401  # and torch with it, once for all
    import torch._dynamo  # noqa: F401  # which the first optimizer of every fork would import, in seconds

    import vggbench.measure.together  # noqa: F401
    from vggbench import backends
    from vggbench.backends import fake
    from vggbench.measure import accuracy

    backends.BACKENDS["fake"] = "vggbench.backends.fake"
    for line in sys.stdin:
        task = json.loads(line)
        accuracy.SHARD_SECONDS = task.get("shard_seconds", 0.02)
        fake.open_session = opener(task)
        print(json.dumps(start(task)), flush=True)


def opener(task: dict):
    """Sessions as slow as the task says, which log what they run."""
    from vggbench.backends import fake

    class Session(fake.FakeSession):
        def __call__(self, images):
            log(task, int(os.environ["RANK"]), "ran", len(images))
            return super().__call__(images)

    return lambda variant, device, threads: Session(variant, seconds_per_image=task.get("seconds_per_image", 0.0))


def start(task: dict) -> list[int]:
    port, workers = free_port(), []
    for rank in range(task["world"]):
        workers.append(os.fork())
        if workers[-1] == 0:
            os._exit(work(task, rank, port))
    if "kill" in task:
        rank, seconds = task["kill"]
        time.sleep(seconds)
        # On a busy machine nothing may be stored by then, and the kill would show nothing.
        until = time.monotonic() + 300
        while not ready(task, rank) and time.monotonic() < until:
            time.sleep(0.005)
        os.kill(workers[rank], signal.SIGKILL)
        for number, worker in enumerate(workers):
            if number != rank:
                os.kill(worker, signal.SIGTERM)
    return [os.waitstatus_to_exitcode(os.waitpid(worker, 0)[1]) for worker in workers]


def ready(task: dict, rank: int) -> bool:
    """Whether a kill of this rank shows something."""
    if "after_blocks" in task:
        told = Path(task["log"]).read_text() if Path(task["log"]).exists() else ""
        return told.count(f"{rank} finished ") >= task["after_blocks"]
    return any(Path(task["cache"]).rglob("posteriors/**/*.safetensors"))


def work(task: dict, rank: int, port: int) -> int:
    import torch

    from vggbench import distributed

    torch.set_num_threads(1)
    world = task["world"]
    os.environ |= {"RANK": str(rank), "WORLD_SIZE": str(world), "LOCAL_RANK": str(rank)}
    os.environ |= {"LOCAL_WORLD_SIZE": str(world), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    try:
        with distributed.joined() as group:
            (train if "steps" in task else evaluate)(task, group)
    except KeyboardInterrupt:
        return 130
    return 0


if __name__ == "__main__":
    serve()
