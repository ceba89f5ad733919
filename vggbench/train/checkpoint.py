"""Where a training run stands, on disk: written whole, resumed exactly, refused for another run."""

from __future__ import annotations

import dataclasses
import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from vgg_reference.model import VGG
from vgg_reference.weights import Weights, save_weights
from vggbench.errors import StorageError, UsageError
from vggbench.results import write_output
from vggbench.train.recipe import Recipe


@dataclass
class State:
    """Where a run stands; with model and optimizer all that a resumed run needs.

    threads: numbers of CPU threads that parts of its batches were computed with.
    """

    epoch: int = 0
    batch: int = 0
    drops: int = 0
    best_error: float = float("inf")
    stale_epochs: int = 0
    loss_sum: float = 0.0
    seen: int = 0
    history: list[dict[str, float]] = dataclasses.field(default_factory=list)
    threads: list[int] = dataclasses.field(default_factory=list)


def save(out: Path, identity: dict[str, Any], model: VGG, optimizer: torch.optim.SGD, state: State) -> None:
    """Raises StorageError."""
    temporary = out / f".checkpoint.{os.getpid()}.tmp"
    try:
        out.mkdir(parents=True, exist_ok=True)
        found = {
            "identity": identity,
            "model": model.state_dict(),
            "optimizer": optimizer.state_dict(),
            "state": dataclasses.asdict(state),
        }
        with open(temporary, "wb") as file:
            torch.save(found, file)
            file.flush()
            os.fsync(file.fileno())  # it replaces the one before, which a power failure must not take too
        os.replace(temporary, out / "checkpoint.pt")
    except (OSError, RuntimeError) as error:
        temporary.unlink(missing_ok=True)
        raise StorageError(f"{out}: cannot write a checkpoint ({error}). Free space or name another --out.") from error


def resume(out: Path, identity: dict[str, Any], model: VGG, optimizer: torch.optim.SGD) -> State | None:
    """What was saved, put into model and optimizer; None where nothing was. Raises StorageError, UsageError."""
    path = out / "checkpoint.pt"
    if not path.exists():
        return None
    found = _read(path, map_location=next(model.parameters()).device)
    if found["identity"] != identity:
        differs = _differs(found["identity"], identity)
        raise UsageError(
            f"{path}: belongs to another run (differs in {differs}). Repeat its options or name another --out."
        )
    model.load_state_dict(found["model"])
    optimizer.load_state_dict(found["optimizer"])
    return State(**found["state"])


def parts_in(out: Path) -> int | None:
    """The parts of a batch of the run that was begun there; None where nothing was. Raises StorageError."""
    path = out / "checkpoint.pt"
    return int(_read(path, map_location="cpu", mmap=True)["identity"]["recipe"]["parts"]) if path.exists() else None


def _read(path: Path, **options: Any) -> dict[str, Any]:
    try:
        found: dict[str, Any] = torch.load(path, weights_only=True, **options)
        recipe = found["identity"]["recipe"]
        # A version that had fewer options did what their defaults do: whole batches, also of several processes.
        found["identity"]["recipe"] = {**Recipe(recipe["network"]).plain(), **recipe}
    except Exception as error:
        raise StorageError(
            f"{path}: cannot be read as a checkpoint ({error}). Remove it or name another --out."
        ) from error
    return found


def _differs(found: dict[str, Any], asked: dict[str, Any]) -> str:
    """In what two runs differ: "recipe: parts 2, here 1; seed 0, here 3, tuning"."""
    one, other = found["recipe"], asked["recipe"]
    fields = [f"{name} {one.get(name)}, here {other[name]}" for name in other if one.get(name) != other[name]]
    named = {"recipe": f"recipe: {'; '.join(fields)}"}
    return ", ".join(named.get(key, key) for key in asked if found.get(key) != asked[key])


def write_curve(out: Path, state: State) -> None:
    """Raises StorageError."""
    write_output(out / "curve.jsonl", "".join(json.dumps(row) + "\n" for row in state.history).encode(), "the curve")


def write_weights(out: Path, model: VGG, weights: Weights) -> Weights:
    """The finished network, with its digest and path. Raises StorageError."""
    try:
        return save_weights(out / "weights.safetensors", dict(model.state_dict()), weights)
    except OSError as error:
        raise StorageError(
            f"{out}: cannot write the weights ({error.strerror}). Free space; the same command goes on from the "
            "checkpoint."
        ) from error
