"""The training loop: SGD by the paper's recipe, with checkpoints that resume exactly."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.nn import functional

from vgg_reference.model import LRN_ALPHA, VGG, average_score_map, build
from vgg_reference.weights import Preprocess, Weights, load, save_weights
from vggbench.cache import write_atomic
from vggbench.errors import StorageError, UsageError
from vggbench.images import Source
from vggbench.train.crops import STATISTICS_IMAGES, Colour, Pictures, batches, colour_of
from vggbench.train.initialize import initialize, transfer
from vggbench.train.recipe import Recipe

#: Images that "scaled" initialization looks at.
SCALING_IMAGES = 256
#: A checkpoint is written at least this often, besides every epoch's end.
CHECKPOINT_SECONDS = 120.0
#: torch's sampling of seeds is shared by all layers, so one number decides every dropout mask.
_DROPOUT_SEED = 1_000_003


@dataclass(frozen=True)
class Labelled:
    """A training or tuning set: files and labels in a fixed order, and the digest of all of them."""

    paths: tuple[Source, ...]
    labels: npt.NDArray[np.int64]
    classes: int
    fingerprint: str


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


#: Called with the state and the number of batches in an epoch after every batch.
Progress = Callable[[State, int], None]


def train(
    recipe: Recipe,
    training: Labelled,
    tuning: Labelled,
    out: Path,
    *,
    start: Weights | None = None,
    name: str = "",
    licence: str = "",
    status: str = "other",
    device: str = "cpu",
    workers: int = 0,
    progress: Progress | None = None,
    stop_after_batches: int | None = None,
) -> Weights | None:
    """Train one network and write ``out``/weights.safetensors, curve.jsonl and checkpoint.pt.

    tuning steers the learning rate by its dense top-1 error at S (section 3.1's validation accuracy). A directory with
    a checkpoint of the same recipe, data and start is resumed at its last batch; of another one is refused.
    stop_after_batches ends early, as an interruption would. Returns the weights, or None when stopped early.
    """
    pictures = Pictures(training.paths, recipe, workers)
    colour = colour_of([pictures.original(i) for i in range(min(STATISTICS_IMAGES, len(pictures)))])
    model = _model(recipe, training.classes).to(device)
    model = model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # torch's stubs lack it
    optimizer = _optimizer(model, recipe)
    identity = _identity(recipe, training, tuning, start)
    state = _resume(out, identity, model, optimizer)
    if state is None:
        state = State()
        _first_weights(model, recipe, pictures, training, colour, start, device)
    per_epoch = -(-len(pictures) // recipe.batch)
    saved, done = time.monotonic(), 0
    while state.epoch < recipe.epochs and state.drops <= recipe.drops:
        _prepare_epoch(model, optimizer, recipe, state)
        for inputs, labels in batches(pictures, training.labels, recipe, colour, state.epoch, state.batch):
            torch.manual_seed(_DROPOUT_SEED * (recipe.seed + 1) + state.epoch * per_epoch + state.batch)
            loss = _step(model, optimizer, inputs, labels, recipe, device)
            state.batch += 1
            state.loss_sum += loss * len(labels)
            state.seen += len(labels)
            done += 1
            if progress:
                progress(state, per_epoch)
            if stop_after_batches is not None and done >= stop_after_batches:
                _checkpoint(out, identity, model, optimizer, state)
                return None
            if time.monotonic() - saved > CHECKPOINT_SECONDS:
                _checkpoint(out, identity, model, optimizer, state)
                saved = time.monotonic()
        _end_epoch(model, recipe, tuning, colour, state, device)
        _checkpoint(out, identity, model, optimizer, state)
        _write_curve(out, state)
    weights = Weights(
        name=name or out.name,
        network=recipe.network,
        width=recipe.width,
        hidden_width=recipe.hidden_width,
        num_classes=training.classes,
        crop_size=recipe.crop_size,
        lrn_alpha=_lrn_alpha(recipe),
        preprocess=_preprocess(recipe, colour),
        train_scale=recipe.train_scale,
        status=status,
        recipe=recipe.describe() + (f"; started from {start.name} ({start.digest[:12]})" if start else ""),
        licence=licence,
        seed=recipe.seed,
    )
    return save_weights(out / "weights.safetensors", dict(model.state_dict()), weights)


def _lrn_alpha(recipe: Recipe) -> float:
    """LRN's alpha belongs to activations of the paper's 0-255 inputs; theirs scale along with the input."""
    return LRN_ALPHA / recipe.input_scale**2


def _model(recipe: Recipe, classes: int) -> VGG:
    return build(
        recipe.network,
        recipe.width,
        classes,
        recipe.crop_size,
        dropout=recipe.dropout,
        hidden_width=recipe.hidden_width,
        lrn_alpha=_lrn_alpha(recipe),
    )


def _preprocess(recipe: Recipe, colour: Colour) -> Preprocess:
    red, green, blue = (float(value) for value in colour.mean)
    scale = recipe.input_scale
    return Preprocess("RGB", (red, green, blue), (scale, scale, scale))


def _optimizer(model: VGG, recipe: Recipe) -> torch.optim.SGD:
    if recipe.freeze_convolutions:
        model.features.requires_grad_(False)
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    return torch.optim.SGD(trained, lr=recipe.learning_rate, momentum=recipe.momentum, weight_decay=recipe.weight_decay)


def _identity(recipe: Recipe, training: Labelled, tuning: Labelled, start: Weights | None) -> dict[str, Any]:
    return {
        "recipe": json.loads(json.dumps(dataclasses.asdict(recipe))),
        "training": training.fingerprint,
        "tuning": tuning.fingerprint,
        "start": start.digest if start else None,
    }


def _first_weights(
    model: VGG,
    recipe: Recipe,
    pictures: Pictures,
    training: Labelled,
    colour: Colour,
    start: Weights | None,
    device: str,
) -> None:
    sizing = dataclasses.replace(recipe, batch=min(SCALING_IMAGES, len(pictures)))
    crops = next(batches(pictures, training.labels, sizing, colour, 0))[0]
    initialize(model, recipe, torch.from_numpy(crops).to(device))
    if start is not None:
        transfer(model, load(start).to(device), recipe)


def _prepare_epoch(model: VGG, optimizer: torch.optim.SGD, recipe: Recipe, state: State) -> None:
    model.train()
    for layer in model.modules():
        if isinstance(layer, nn.Dropout):
            layer.p = recipe.dropout if state.epoch >= recipe.dropout_from else 0.0
    if recipe.drop_after:
        state.drops = sum(state.epoch >= epoch for epoch in recipe.drop_after)
    for group in optimizer.param_groups:
        group["lr"] = recipe.learning_rate / 10**state.drops


def _step(
    model: VGG,
    optimizer: torch.optim.SGD,
    inputs: npt.NDArray[np.float32],
    labels: npt.NDArray[np.int64],
    recipe: Recipe,
    device: str,
) -> float:
    x = torch.from_numpy(inputs).to(device, memory_format=torch.channels_last)
    optimizer.zero_grad(set_to_none=True)
    with torch.autocast(device.split(":")[0], torch.bfloat16, enabled=recipe.precision == "bf16"):
        scores = model(x)
    loss = functional.cross_entropy(scores.float(), torch.from_numpy(labels).to(device))
    loss.backward()  # type: ignore[no-untyped-call]
    optimizer.step()
    value = loss.item()
    if not np.isfinite(value):
        raise UsageError(f"The loss became {value}. Lower --learning-rate, or start from trained weights.")
    return value


def _end_epoch(model: VGG, recipe: Recipe, tuning: Labelled, colour: Colour, state: State, device: str) -> None:
    error = dense_error(model, recipe, tuning, colour, device)
    state.history.append(
        {
            "epoch": state.epoch + 1,
            "learning_rate": recipe.learning_rate / 10**state.drops,
            "training_loss": state.loss_sum / max(state.seen, 1),
            "tuning_top1_error_percent": error,
        }
    )
    state.stale_epochs = 0 if error < state.best_error else state.stale_epochs + 1
    state.best_error = min(state.best_error, error)
    if not recipe.drop_after and state.stale_epochs >= recipe.patience:
        state.drops, state.stale_epochs = state.drops + 1, 0
    state.epoch, state.batch, state.loss_sum, state.seen = state.epoch + 1, 0, 0.0, 0


@contextlib.contextmanager
def _as_dense(model: VGG) -> Iterator[VGG]:
    pools = [layer for layer in model.features if isinstance(layer, nn.MaxPool2d)]
    model.eval()
    model.dense = True
    for pool in pools:
        pool.ceil_mode = True
    try:
        yield model
    finally:
        model.dense = False
        for pool in pools:
            pool.ceil_mode = False


def dense_error(model: VGG, recipe: Recipe, tuning: Labelled, colour: Colour, device: str = "cpu") -> float:
    """Top-1 error in percent, dense at the middle of S, without flips: what steers the learning rate."""
    low, high = recipe.scales
    middle = (low + high) // 2
    fixed = dataclasses.replace(recipe, train_scale="256")
    pictures = Pictures(tuning.paths, fixed, 0)
    groups: dict[tuple[int, ...], list[tuple[Tensor, int]]] = defaultdict(list)
    wrong = 0
    with torch.inference_mode(), _as_dense(model):
        for index, label in enumerate(tuning.labels):
            image = pictures.scaled(index, middle)
            x = (image.astype(np.float32) - colour.mean) * np.float32(recipe.input_scale)
            group = groups[image.shape]
            group.append((torch.from_numpy(x).permute(2, 0, 1), int(label)))
            if len(group) == 32:
                wrong += _wrong(model, groups.pop(image.shape), recipe, device)
        wrong += sum(_wrong(model, group, recipe, device) for group in groups.values())
    return 100.0 * wrong / len(tuning.labels)


def _wrong(model: VGG, group: Sequence[tuple[Tensor, int]], recipe: Recipe, device: str) -> int:
    x = torch.stack([image for image, _ in group]).to(device, memory_format=torch.channels_last)
    with torch.autocast(device.split(":")[0], torch.bfloat16, enabled=recipe.precision == "bf16"):
        scores = average_score_map(model(x).float())
    return int((scores.argmax(1).cpu() != torch.tensor([label for _, label in group])).sum())


def _checkpoint(out: Path, identity: dict[str, Any], model: VGG, optimizer: torch.optim.SGD, state: State) -> None:
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


def _resume(out: Path, identity: dict[str, Any], model: VGG, optimizer: torch.optim.SGD) -> State | None:
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


def _write_curve(out: Path, state: State) -> None:
    write_atomic(out / "curve.jsonl", "".join(json.dumps(row) + "\n" for row in state.history).encode())
