"""How far fresh processes of one network lie apart when they time slices in turn, on small pages and on huge ones.

    python tests/bench/processes_in_turn.py [--processes 3] [--repeats 3] [--rounds 15]

Each repeat opens so many processes one after the other and prints the median call of each, in the order of opening.
"""

from __future__ import annotations

import argparse
import os
import statistics
import time
from multiprocessing import get_context
from multiprocessing.connection import Connection

from vgg_reference.weights import random_weights
from vggbench.backends import open_session
from vggbench.environment import huge_pages, variables
from vggbench.measure.latency import random_input
from vggbench.measure.turns import SLICE_SECONDS
from vggbench.variants import Variant


def work(turns: Connection, threads: int) -> None:
    session = open_session(Variant(random_weights("A", 0, width=1 / 4), "crop", "onnxruntime"), "cpu", threads)
    images = random_input(1, (224, 224))
    for _ in range(20):
        session(images)
    turns.send([])
    while turns.recv():
        taken: list[float] = []
        while sum(taken) < SLICE_SECONDS:
            before = time.perf_counter()
            session(images)
            taken.append(time.perf_counter() - before)
        turns.send(taken)
    session.close()


def medians(processes: int, rounds: int, threads: int) -> list[float]:
    """Seconds of a call of each process, all open at once."""
    context = get_context("spawn")
    opened = []
    for _ in range(processes):
        mine, other = context.Pipe()
        context.Process(target=work, args=(other, threads), daemon=True).start()
        mine.recv()
        opened.append(mine)
    taken: list[list[float]] = [[] for _ in opened]
    for _ in range(rounds):
        for number, turns in enumerate(opened):
            turns.send(True)
            taken[number] += turns.recv()
    for turns in opened:
        turns.send(False)
    return [statistics.median(each) for each in taken]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--processes", type=int, default=3)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--threads", type=int, default=1)
    asked = parser.parse_args()
    for _ in range(asked.repeats):
        for name, added in (("small", {}), ("huge", huge_pages(os.environ))):
            with variables(added):
                found = medians(asked.processes, asked.rounds, asked.threads)
            print(f"{name} pages: " + ", ".join(f"{1e3 * each:.2f} ms" for each in found), flush=True)


if __name__ == "__main__":
    main()
