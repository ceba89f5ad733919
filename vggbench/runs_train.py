"""One training run as a page of calls: data, first weights, the loop, the curve."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from vgg_reference.architectures import UnknownArchitecture, architecture, final_side
from vgg_reference.weights import BadWeights, read_weights
from vggbench import cache, progress
from vggbench.backends import default_threads
from vggbench.backends.pytorch import keep_memory
from vggbench.distributed import ALONE, Group, summing
from vggbench.errors import BackendUnavailable, DataError, UsageError, WeightsError
from vggbench.images import Dataset, open_dataset
from vggbench.images.folder import fingerprint
from vggbench.report.curve import curve_page
from vggbench.results import write_output
from vggbench.runs_inputs import check_out
from vggbench.train import checkpoint, loop
from vggbench.train.checkpoint import State
from vggbench.train.labelled import Labelled
from vggbench.train.parallel import dealt
from vggbench.train.recipe import Recipe

#: Without a tuning folder, every tenth image of the stratified order is held out of training.
HELD_OUT = 10


@dataclass(frozen=True)
class Trained:
    """Where the weights lie, their digest, one row per epoch, and in how many parts every batch was computed."""

    path: Path
    digest: str
    history: list[dict[str, float]]
    parts: int


def train(
    recipe: Recipe,
    data: str,
    tuning_data: str | None,
    out: Path,
    start: Path | None = None,
    images: int | None = None,
    device: str = "cpu",
    threads: int | None = None,
    workers: int = 0,
    group: Group = ALONE,
    parts: int | None = None,
) -> Trained | None:
    """Train to the end, or go on with an interrupted run; None on all ranks of the group but 0.

    parts: of the recipe; without, those of the run that is gone on with, or as many as there are processes.
    Raises UsageError, DataError, WeightsError, StorageError.
    """
    _check_device(device)
    recipe = dataclasses.replace(recipe, parts=group.share(_parts(parts, out, group) if group.rank == 0 else None))
    dealt(recipe.parts, group)
    threads = group.share(threads or threads_each(recipe.parts, group))
    try:
        final_side(recipe.crop_size, len(architecture(recipe.network).blocks))
        first = read_weights(start) if start else None
    except BadWeights as error:
        raise WeightsError(str(error)) from error
    except (UnknownArchitecture, ValueError) as error:
        raise UsageError(str(error)) from error
    if group.rank == 0:
        check_out(out)
    keep_memory()
    if device != "cpu":
        torch.backends.cudnn.deterministic = True  # else it adds some gradients up in any order
    if threads:
        torch.set_num_threads(threads)
    with progress.shown(group.rank > 0) as report, summing(group, device):
        training, tuning = group.first(lambda: _sets(data, tuning_data, images, report))

        def step(state: State, per_epoch: int) -> None:
            loss = state.loss_sum / max(state.seen, 1)
            done = state.epoch * per_epoch + state.batch
            detail = f"epoch {state.epoch + 1} of {recipe.epochs}, loss {loss:.3f}"
            report(f"training {recipe.network}", done, recipe.epochs * per_epoch, detail)

        weights = loop.train(
            recipe, training, tuning, out, start=first, device=device, workers=workers, progress=step, group=group
        )
    if group.rank:
        return None
    if weights is None or weights.path is None:
        raise UsageError("The run ended before its last epoch. The same command goes on from its checkpoint.")
    history = [json.loads(line) for line in (out / "curve.jsonl").read_text().splitlines()]
    write_output(out / "curve.html", _curve(recipe, history).encode(), "the curve")
    return Trained(Path(weights.path), weights.digest, history, recipe.parts)


def _parts(asked: int | None, out: Path, group: Group) -> int:
    """Of a batch. Raises UsageError where a run was begun in parts that these processes cannot share alike."""
    if asked is not None:
        return asked
    begun = checkpoint.parts_in(out)
    if begun is not None and begun % group.world:
        raise UsageError(
            f"{out}: its run was begun with batches in {begun} part{'' if begun == 1 else 's'}, which {group.world} "
            f"workers cannot share alike. Start a number of workers that divides {begun}, or name another --out."
        )
    return begun or group.world


def threads_each(parts: int, group: Group) -> int | None:
    """A part's share of the cores of all machines, whoever computes it; None for a batch in one: torch's default.

    The order in which a CPU adds depends on the number of threads. By the parts, not by the processes, it is the same
    for any number of these on a machine.
    """
    if parts == 1:
        return None
    return max(1, default_threads() * (group.world // group.local_world) // parts)


def _curve(recipe: Recipe, history: list[dict[str, float]]) -> str:
    title = f"Training of {recipe.network} at S = {recipe.train_scale}, seed {recipe.seed}"
    return curve_page(title, f"Recipe, where it differs from the paper's: {recipe.describe()}.", history)


def _check_device(device: str) -> None:
    kind, _, number = device.partition(":")
    if device not in ("cpu", "cuda") and not (kind == "cuda" and number.isascii() and number.isdigit()):
        raise UsageError(f"No device {device!r}. Known: cpu, cuda, cuda:N.")
    if kind == "cuda" and not torch.cuda.is_available():
        raise BackendUnavailable(
            "No CUDA device for training here. Use --device cpu, or install a CUDA build of torch."
        )
    if kind == "cuda" and int(number or 0) >= torch.cuda.device_count():
        raise BackendUnavailable(f"No {device} here: {torch.cuda.device_count()} CUDA devices are visible.")


def _sets(data: str, tuning_data: str | None, images: int | None, report: progress.Report) -> tuple[Labelled, Labelled]:
    """Training and tuning sets as the loop wants them."""

    def opened(spec: str, split: str, count: int | None = None) -> Dataset:
        return open_dataset(
            spec,
            split=split,
            cache_root=cache.root(),
            count=count,
            progress=lambda done, total: report(f"preparing {split} images", done, total, ""),
        )

    training = opened(data, "train", images)
    if tuning_data is not None or data == "sample":
        tuning = opened(tuning_data or data, "tune")
        if training.classes[: len(tuning.classes)] != tuning.classes:  # labels are places in this order
            strange = next((name for name in tuning.classes if name not in training.classes), None)
            what = f"class {strange!r} is not in it" if strange else "some are missing, and labels would be shifted"
            raise DataError(
                f"{tuning_data}: has other classes than {data}: {what}. Give a tuning set of the same classes."
            )
        return _labelled(training), _labelled(tuning)
    held = range(0, len(training.images), HELD_OUT)
    if len(held) == len(training.images):
        raise DataError(f"{data}: {len(training.images)} images are too few to hold some out; give --tuning-data.")
    kept = [index for index in range(len(training.images)) if index % HELD_OUT]
    return _labelled(training, kept), _labelled(training, list(held))


def _labelled(dataset: Dataset, indices: list[int] | None = None) -> Labelled:
    chosen = list(range(len(dataset.images))) if indices is None else indices
    images = tuple(dataset.images[index] for index in chosen)
    digests = tuple(dataset.digests[index] for index in chosen)
    return Labelled(
        tuple(image.path for image in images),
        np.array([image.label for image in images], dtype=np.int64),
        len(dataset.classes),
        fingerprint(images, digests),
    )
