"""What a batch in parts costs one process: python tests/bench/parts_of_a_batch.py [--parts 1,2] [--width 0.25] ...

A step's median seconds and the process's peak memory, for each number of parts in processes of their own, in turn.
"""

import argparse
import resource
import statistics
import subprocess
import sys
import time


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    for name, value in {"parts": "1,2", "network": "D", "width": "0.25", "crop": "224", "batch": "32"}.items():
        parser.add_argument(f"--{name}", default=value)
    for name, value in {"steps": 5, "rounds": 3, "threads": 1}.items():
        parser.add_argument(f"--{name}", type=int, default=value)
    parser.add_argument("--one", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.one:
        one(arguments)
        return
    every: dict[str, list[tuple[float, float]]] = {parts: [] for parts in arguments.parts.split(",")}
    for _ in range(arguments.rounds):
        for parts, found in every.items():
            command = [sys.executable, __file__, *sys.argv[1:], f"--parts={parts}", "--one"]
            seconds, mib = subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()
            found.append((float(seconds), float(mib)))
    for parts, found in every.items():
        seconds, mib = (statistics.median(column) for column in zip(*found, strict=True))
        print(f"{parts:>3} parts: {seconds:.3f} s a step, {mib:.0f} MiB at the peak")


def one(arguments: argparse.Namespace) -> None:
    import numpy as np
    import torch

    from vggbench.backends.pytorch import keep_memory
    from vggbench.distributed import ALONE
    from vggbench.train import loop
    from vggbench.train.initialize import initialize
    from vggbench.train.recipe import Recipe
    from vggbench.train.step import step

    keep_memory()
    torch.set_num_threads(arguments.threads)
    batch, crop = int(arguments.batch), int(arguments.crop)
    recipe = Recipe(
        arguments.network, width=float(arguments.width), crop_size=crop, batch=batch, parts=int(arguments.parts),
        initialization="he", learning_rate=1e-6,
    )  # fmt: skip
    model = loop._model(recipe, 1000).to(memory_format=torch.channels_last)
    initialize(model, recipe)
    optimizer = loop._optimizer(model, recipe)
    rng = np.random.default_rng(0)
    inputs = rng.standard_normal((batch, crop, crop, 3), np.float32).transpose(0, 3, 1, 2)
    labels = rng.integers(0, 1000, batch)
    seconds = []
    for number in range(1 + arguments.steps):
        began = time.perf_counter()
        step(model, optimizer, inputs, labels, recipe, "cpu", batch, number, ALONE)
        seconds.append(time.perf_counter() - began)
    print(statistics.median(seconds[1:]), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)


if __name__ == "__main__":
    main()
