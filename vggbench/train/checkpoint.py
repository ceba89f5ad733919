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
from vggbench.cache import write_atomic
from vggbench.errors import StorageError, UsageError


@dataclass
class State:
    """Where a run stands; with model, optimizer and generator all that a resumed run needs."""

    epoch: int = 0
    batch: int = 0
    drops: int = 0
    best_error: float = float("inf")
    stale_epochs: int = 0
    loss_sum: float = 0.0
    seen: int = 0
    history: list[dict[str, float]] = dataclasses.field(default_factory=list)


def save(out: Path, identity: dict[str, Any], model: VGG, optimizer: torch.optim.SGD, state: State) -> None:
    """Raises StorageError."""
    temporary = out / f".checkpoint.{os.getpid()}.tmp"
    try:
        out.mkdir(parents=True, exist_ok=True)
        torch.save(
            {
                "identity": identity,
                "model": model.state_dict(),
                "optimizer": optimizer.state_dict(),
                "state": dataclasses.asdict(state),
            },
            temporary,
        )
        os.replace(temporary, out / "checkpoint.pt")
    except (OSError, RuntimeError) as error:
        temporary.unlink(missing_ok=True)
        raise StorageError(f"{out}: cannot write a checkpoint ({error}). Free space or name another --out.") from error


def resume(out: Path, identity: dict[str, Any], model: VGG, optimizer: torch.optim.SGD) -> State | None:
    """What was saved, put into model and optimizer; None where nothing was. Raises StorageError, UsageError."""
    path = out / "checkpoint.pt"
    if not path.exists():
        return None
    try:
        found = torch.load(path, weights_only=True, map_location=next(model.parameters()).device)
    except Exception as error:
        raise StorageError(
            f"{path}: cannot be read as a checkpoint ({error}). Remove it or name another --out."
        ) from error
    if found["identity"] != identity:
        differs = [key for key in identity if found["identity"].get(key) != identity[key]]
        raise UsageError(f"{path}: belongs to another run (differs in {', '.join(differs)}). Name another --out.")
    model.load_state_dict(found["model"])
    optimizer.load_state_dict(found["optimizer"])
    return State(**found["state"])


def write_curve(out: Path, state: State) -> None:
    write_atomic(out / "curve.jsonl", "".join(json.dumps(row) + "\n" for row in state.history).encode())
