"""The training loop: SGD by the paper's recipe, with checkpoints that resume exactly."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from vgg_reference.model import LRN_ALPHA, VGG, build
from vgg_reference.weights import Preprocess, Weights, load
from vggbench.distributed import ALONE, Group
from vggbench.train import checkpoint, parallel
from vggbench.train.checkpoint import State
from vggbench.train.crops import STATISTICS_IMAGES, Colour, Pictures, batches, colour_of
from vggbench.train.initialize import initialize, transfer
from vggbench.train.labelled import Labelled
from vggbench.train.recipe import Recipe
from vggbench.train.step import check_finite, step
from vggbench.train.tuning import dense_error

#: Images that "scaled" initialization looks at.
SCALING_IMAGES = 256
#: A checkpoint is written at least this often, besides every epoch's end.
CHECKPOINT_SECONDS = 120.0
#: torch's generator is shared by all layers, so one number decides every dropout mask of a step's part.
_DROPOUT_SEED = 1_000_003

#: Called with the state and the number of batches in an epoch after every batch.
Progress = Callable[[State, int], None]


@dataclass(frozen=True)
class _Run:
    """What stays the same from a run's first batch to its last; model and optimizer are trained in place."""

    recipe: Recipe
    training: Labelled
    tuning: Labelled
    out: Path
    start: Weights | None
    device: str
    group: Group
    pictures: Pictures
    colour: Colour
    model: VGG
    optimizer: torch.optim.SGD

    @property
    def batches_an_epoch(self) -> int:
        return -(-len(self.pictures) // self.recipe.batch)


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
    stopped early and on all ranks but 0, which alone writes. Raises UsageError for parts that cannot be dealt and for
    a run that diverges, StorageError.
    """
    run, state = _begun(recipe, training, tuning, out, start, device, workers, group)
    saved, done = time.monotonic(), 0
    while state.epoch < recipe.epochs and state.drops <= recipe.drops:
        _prepare_epoch(run, state)
        for _ in _steps(run, state):
            done += 1
            if progress:
                progress(state, run.batches_an_epoch)
            if stop_after_batches is not None and done >= stop_after_batches:
                _save(run, state)
                return None
            if time.monotonic() - saved > CHECKPOINT_SECONDS:
                _save(run, state)
                saved = time.monotonic()
        _end_epoch(run, state)
        _save(run, state)
        if group.rank == 0:
            checkpoint.write_curve(out, state)
    if group.rank:
        return None
    described = _described(run, state, name or out.name, licence, status)
    return checkpoint.write_weights(out, run.model, described)


def _begun(
    recipe: Recipe,
    training: Labelled,
    tuning: Labelled,
    out: Path,
    start: Weights | None,
    device: str,
    workers: int,
    group: Group,
) -> tuple[_Run, State]:
    """A run at its first batch, or where its checkpoint left it."""
    parallel.dealt(recipe.parts, group)
    pictures = Pictures(training.paths, recipe, workers)
    colour = colour_of([pictures.original(i) for i in range(min(STATISTICS_IMAGES, len(pictures)))])
    model = _model(recipe, training.classes).to(device)
    model = model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # torch's stubs lack it
    optimizer = _optimizer(model, recipe)
    run = _Run(recipe, training, tuning, out, start, device, group, pictures, colour, model, optimizer)
    state = checkpoint.resume(out, _identity(run), model, optimizer)
    if state is None:
        state = State()
        _first_weights(run)
    if not group.alone:
        parallel.same_everywhere(model, group)
    return run, state


def _steps(run: _Run, state: State) -> Iterator[None]:
    """What is left of an epoch, a batch at a time."""
    recipe, group, epoch = run.recipe, run.group, state.epoch
    _note_threads(state, run.device)
    labels = run.training.labels
    mine = batches(run.pictures, labels, recipe, run.colour, epoch, state.batch, group.rank, group.world)
    for inputs, wanted in mine:
        total = min(recipe.batch, len(run.pictures) - state.batch * recipe.batch)
        seed = _DROPOUT_SEED * (recipe.seed + 1) + epoch * run.batches_an_epoch + state.batch
        loss = step(run.model, run.optimizer, inputs, wanted, recipe, run.device, total, seed, group)
        state.batch += 1
        state.loss_sum += loss * total
        state.seen += total
        yield


def _save(run: _Run, state: State) -> None:
    if run.group.rank == 0:
        checkpoint.save(run.out, _identity(run), run.model, run.optimizer, state)


def _described(run: _Run, state: State, name: str, licence: str, status: str) -> Weights:
    """What the finished weights say of themselves."""
    recipe = run.recipe
    return Weights(
        name=name,
        network=recipe.network,
        width=recipe.width,
        hidden_width=recipe.hidden_width,
        num_classes=run.training.classes,
        crop_size=recipe.crop_size,
        lrn_alpha=_lrn_alpha(recipe),
        preprocess=_preprocess(recipe, run.colour),
        train_scale=recipe.train_scale,
        status=status,
        recipe=_told(recipe, state, run.start),
        licence=licence,
        seed=recipe.seed,
    )


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


def _identity(run: _Run) -> dict[str, Any]:
    return {
        "recipe": run.recipe.plain(),
        "training": run.training.fingerprint,
        "tuning": run.tuning.fingerprint,
        "start": run.start.digest if run.start else None,
    }


def _first_weights(run: _Run) -> None:
    recipe = run.recipe
    sizing = dataclasses.replace(recipe, batch=min(SCALING_IMAGES, len(run.pictures)))
    crops = next(batches(run.pictures, run.training.labels, sizing, run.colour, 0))[0]
    initialize(run.model, recipe, torch.from_numpy(crops).to(run.device))
    if run.start is not None:
        transfer(run.model, load(run.start).to(run.device), recipe)


def _prepare_epoch(run: _Run, state: State) -> None:
    recipe = run.recipe
    run.model.train()
    for layer in run.model.modules():
        if isinstance(layer, nn.Dropout):
            layer.p = recipe.dropout if state.epoch >= recipe.dropout_from else 0.0
    if recipe.drop_after:
        state.drops = sum(state.epoch >= epoch for epoch in recipe.drop_after)
    for group in run.optimizer.param_groups:
        group["lr"] = recipe.learning_rate / 10**state.drops


def _end_epoch(run: _Run, state: State) -> None:
    recipe = run.recipe
    check_finite(run.model)
    error = dense_error(run.model, recipe, run.tuning, run.colour, run.device, run.group)
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
