"""The training loop: SGD by the paper's recipe, with checkpoints that resume exactly."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import nn

from vgg_reference.model import LRN_ALPHA, VGG, build
from vgg_reference.weights import Preprocess, Weights, load, save_weights
from vggbench.distributed import ALONE, Group
from vggbench.train import checkpoint, parallel
from vggbench.train.checkpoint import State
from vggbench.train.crops import STATISTICS_IMAGES, Colour, Pictures, batches, colour_of
from vggbench.train.initialize import initialize, transfer
from vggbench.train.labelled import Labelled
from vggbench.train.recipe import Recipe
from vggbench.train.step import step
from vggbench.train.tuning import dense_error

#: Images that "scaled" initialization looks at.
SCALING_IMAGES = 256
#: A checkpoint is written at least this often, besides every epoch's end.
CHECKPOINT_SECONDS = 120.0
#: torch's generator is shared by all layers, so one number decides every dropout mask of a step's part.
_DROPOUT_SEED = 1_000_003


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
    group: Group = ALONE,
) -> Weights | None:
    """Train one network and write ``out``/weights.safetensors, curve.jsonl and checkpoint.pt.

    tuning steers the learning rate by its dense top-1 error at S (section 3.1's validation accuracy). A directory with
    a checkpoint of the same recipe, data and start is resumed at its last batch; of another one is refused.
    stop_after_batches ends early, as an interruption would. group: processes that share the recipe's parts of every
    batch; any number of them that divides the parts resumes what another left. Returns the weights, or None when
    stopped early and on all ranks but 0, which alone writes. Raises UsageError for parts that cannot be dealt.
    """
    parallel.dealt(recipe.parts, group)
    pictures = Pictures(training.paths, recipe, workers)
    colour = colour_of([pictures.original(i) for i in range(min(STATISTICS_IMAGES, len(pictures)))])
    model = _model(recipe, training.classes).to(device)
    model = model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # torch's stubs lack it
    optimizer = _optimizer(model, recipe)
    identity = _identity(recipe, training, tuning, start)
    state = checkpoint.resume(out, identity, model, optimizer)
    if state is None:
        state = State()
        _first_weights(model, recipe, pictures, training, colour, start, device)
    if not group.alone:
        parallel.same_everywhere(model)

    def save() -> None:
        if group.rank == 0:
            checkpoint.save(out, identity, model, optimizer, state)

    per_epoch = -(-len(pictures) // recipe.batch)
    saved, done = time.monotonic(), 0
    while state.epoch < recipe.epochs and state.drops <= recipe.drops:
        _prepare_epoch(model, optimizer, recipe, state)
        _note_threads(state, device)
        mine = batches(pictures, training.labels, recipe, colour, state.epoch, state.batch, group.rank, group.world)
        for inputs, labels in mine:
            total = min(recipe.batch, len(pictures) - state.batch * recipe.batch)
            seed = _DROPOUT_SEED * (recipe.seed + 1) + state.epoch * per_epoch + state.batch
            loss = step(model, optimizer, inputs, labels, recipe, device, total, seed, group)
            state.batch += 1
            state.loss_sum += loss * total
            state.seen += total
            done += 1
            if progress:
                progress(state, per_epoch)
            if stop_after_batches is not None and done >= stop_after_batches:
                save()
                return None
            if time.monotonic() - saved > CHECKPOINT_SECONDS:
                save()
                saved = time.monotonic()
        _end_epoch(model, recipe, tuning, colour, state, device, group)
        save()
        if group.rank == 0:
            checkpoint.write_curve(out, state)
    if group.rank:
        return None
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
        recipe=_told(recipe, state, start),
        licence=licence,
        seed=recipe.seed,
    )
    return save_weights(out / "weights.safetensors", dict(model.state_dict()), weights)


def _note_threads(state: State, device: str) -> None:
    """On a CPU sums are added in an order that depends on the number of threads, so it is told with the weights."""
    if device.startswith("cpu"):
        state.threads = sorted({*state.threads, torch.get_num_threads()})


def _told(recipe: Recipe, state: State, start: Weights | None) -> str:
    """The recipe in words, for the weights' metadata."""
    told = recipe.describe()
    if recipe.parts > 1 and state.threads:
        told += f"; threads a part: {' or '.join(map(str, state.threads))}"
    return told + (f"; started from {start.name} ({start.digest[:12]})" if start else "")


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
        "recipe": recipe.plain(),
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


def _end_epoch(
    model: VGG, recipe: Recipe, tuning: Labelled, colour: Colour, state: State, device: str, group: Group
) -> None:
    error = dense_error(model, recipe, tuning, colour, device, group)
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
