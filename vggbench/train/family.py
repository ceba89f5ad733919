"""The small family trained on the sample set: which runs, in which order, and the command that makes them anew.

    python -m vggbench.train.family --out DIR [--seeds 0,1,2] [--jobs 2]

Every network of a comparison gets the same number of epochs at the same learning rates. At S = 256 all start from a
common A (A-LRN from an A-LRN of its own, so that normalization is there from the start). "384" and "256-512" start
from the same intermediate network trained at S = 384, so each is the other's control.
"""

from __future__ import annotations

import argparse
import dataclasses
import os
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from vgg_reference.weights import read_weights
from vggbench import cache
from vggbench.backends.pytorch import keep_memory
from vggbench.images import sample
from vggbench.images.sample_drawing import CLASSES
from vggbench.train.checkpoint import State
from vggbench.train.labelled import Labelled
from vggbench.train.loop import train
from vggbench.train.recipe import Recipe

#: The sample networks: an eighth of the paper's channels, a sixteenth of its hidden units, 64-pixel crops. With the
#: paper's dropout of 0.5 so narrow hidden layers learn several times slower, and from random weights hardly at all.
SMALL = Recipe(
    "A",
    width=1 / 8,
    hidden_width=1 / 16,
    crop_size=64,
    batch=32,
    input_scale=1 / 64,
    dropout=0.2,
    epochs=7,
    drop_after=(5,),
)


@dataclass(frozen=True)
class Stage:
    """One run: its name inside a seed's folder, its recipe, and the stage whose weights it starts from."""

    name: str
    recipe: Recipe
    start: str | None = None


def stages(seed: int) -> tuple[Stage, ...]:
    """All runs of a seed, each after the one it starts from."""
    small = dataclasses.replace(SMALL, seed=seed)
    first = dataclasses.replace(
        small, epochs=14, drop_after=(14,), batch=16, learning_rate=7e-3, initialization="scaled", dropout=0.0
    )
    found = [Stage(f"pre-{name}", dataclasses.replace(first, network=name)) for name in ("A", "A-LRN")]
    for name in ("A", "A-LRN", "B", "C", "D", "E"):
        transfer = "all" if name in ("A", "A-LRN") else "grow"
        start = f"pre-{name}" if transfer == "all" else "pre-A"
        found.append(Stage(f"{name}-256", dataclasses.replace(small, network=name, transfer=transfer), start))
    for name in ("D", "E", "C"):
        large = dataclasses.replace(small, network=name, train_scale="384")
        found.append(Stage(f"mid-{name}", dataclasses.replace(large, epochs=3, drop_after=(3,)), f"{name}-256"))
        fine = dataclasses.replace(large, epochs=4, drop_after=(3,))
        found.append(Stage(f"{name}-384", fine, f"mid-{name}"))
        found.append(Stage(f"{name}-256-512", dataclasses.replace(fine, train_scale="[256;512]"), f"mid-{name}"))
    return tuple(found)


def sample_split(split: str, root: Path) -> Labelled:
    """A split of the sample set as training data, drawn if it is not there; named by its recorded digests."""
    folder = sample.prepare(split, root)
    count = sample.SPLITS[split]
    labels = np.arange(count, dtype=np.int64) % len(CLASSES)
    paths = tuple(folder / f"{index:05d}.jpg" for index in range(count))
    return Labelled(paths, labels, len(CLASSES), sample.recorded_digest(split))


def run_stage(seed: int, name: str, out: Path) -> None:
    """Train one stage, or go on with it."""
    import torch

    keep_memory()
    torch.set_num_threads(1)
    stage = next(stage for stage in stages(seed) if stage.name == name)
    root = cache.root() / "sample"
    start = read_weights(out / f"seed{seed}" / stage.start / "weights.safetensors") if stage.start else None
    began = time.monotonic()

    def tell(state: State, per_epoch: int) -> None:
        if state.batch == per_epoch:
            before = state.history[-1]["tuning_top1_error_percent"] if state.history else float("nan")
            print(
                f"seed{seed}/{name}: epoch {state.epoch + 1}/{stage.recipe.epochs}, loss "
                f"{state.loss_sum / state.seen:.3f}, {time.monotonic() - began:.0f} s, "
                f"tuning error before {before:.1f} %",
                flush=True,
            )

    train(
        stage.recipe,
        sample_split("train", root),
        sample_split("tune", root),
        out / f"seed{seed}" / name,
        start=start,
        name=f"sample/{name}/seed{seed}",
        licence="Apache-2.0",
        status="sample",
        progress=tell,
    )


def run_all(seeds: tuple[int, ...], out: Path, jobs: int) -> int:
    """Train all stages of all seeds, ``jobs`` one-thread processes at once; keep what is there; returns failures."""
    waiting = [(seed, stage) for seed in seeds for stage in stages(seed)]
    running: dict[subprocess.Popen[bytes], tuple[int, Stage]] = {}
    failed = 0

    def weights(seed: int, name: str) -> Path:
        return out / f"seed{seed}" / name / "weights.safetensors"

    try:
        while waiting or running:
            waiting = [(seed, stage) for seed, stage in waiting if not weights(seed, stage.name).exists()]
            ready = [
                (seed, stage) for seed, stage in waiting if stage.start is None or weights(seed, stage.start).exists()
            ]
            for seed, stage in ready[: max(jobs - len(running), 0)]:
                waiting.remove((seed, stage))
                command = [sys.executable, "-m", "vggbench.train.family", "--out", str(out), "--stage", stage.name]
                command += ["--seeds", str(seed)]
                running[subprocess.Popen(command)] = (seed, stage)
            if not running:
                return failed + len(waiting)
            time.sleep(1.0)
            for process in [process for process in running if process.poll() is not None]:
                seed, stage = running.pop(process)
                if process.returncode:
                    failed += 1
                    print(f"seed{seed}/{stage.name}: ended with exit status {process.returncode}", flush=True)
    finally:
        for process in running:
            process.terminate()
    return failed


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--seeds", default="0,1,2")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--stage")
    arguments = parser.parse_args()
    seeds = tuple(int(seed) for seed in arguments.seeds.split(","))
    if arguments.stage:
        run_stage(seeds[0], arguments.stage, arguments.out)
        return 0
    return min(run_all(seeds, arguments.out, arguments.jobs), 1)


if __name__ == "__main__":
    raise SystemExit(main())
