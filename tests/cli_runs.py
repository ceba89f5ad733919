"""The command line on a tiny network, in this process and in one of its own."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from typer.testing import CliRunner

from vgg_reference.weights import random_weights, save_weights, state_dict
from vggbench.cli import app

TREE = Path(__file__).parents[1]
CLASSES, EACH = 3, 4
TINY = ["--width", "0.02", "--crop-size", "32"]


def weights_file(folder: Path, network: str = "A", classes: int = CLASSES) -> Path:
    weights = random_weights(network, 0, width=0.02, num_classes=classes, crop_size=32)
    path = folder / f"{network}-{classes}.safetensors"
    save_weights(path, state_dict(weights), weights)
    return path


def run(*arguments: object):
    return CliRunner().invoke(app, [str(argument) for argument in arguments], prog_name="vggbench")


def evaluate(photos: Path, *more: object):
    base = ["evaluate", "--data", photos, "--network", "A", "--protocol", "center", "--scale", 32]
    return run(*base, *tiny_weights(more), "--backend", "pytorch", *more)


def tiny_weights(more: tuple[object, ...]) -> list[str]:
    """Random ones, where ``more`` names no others."""
    return [] if "--weights" in more else ["--weights", "random:0", *TINY]


def assert_one_line(result, code: int, *parts: str) -> None:
    assert result.exit_code == code, result.output
    assert result.stdout == ""
    lines = result.stderr.splitlines()
    assert len(lines) == 1, result.stderr
    assert lines[0].startswith("vggbench: ")
    for part in parts:
        assert part in lines[0]


def environment() -> dict[str, str]:
    """For processes of this tree, installed or not."""
    return {**os.environ, "PYTHONPATH": os.pathsep.join([str(TREE), str(TREE / "reference")])}


def process(*arguments: object):
    command = [sys.executable, "-m", "vggbench", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, env=environment())
