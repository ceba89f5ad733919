"""One step of SGD on a batch in parts (section 3.1; parallel says why in parts)."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch
from torch.nn import functional

from vgg_reference.model import VGG
from vggbench.distributed import Group
from vggbench.errors import UsageError
from vggbench.train import parallel
from vggbench.train.recipe import Recipe

_DIVERGED = "Lower --learning-rate, or start from trained weights."


def step(
    model: VGG,
    optimizer: torch.optim.SGD,
    inputs: npt.NDArray[np.float32],
    labels: npt.NDArray[np.int64],
    recipe: Recipe,
    device: str,
    total: int,
    seed: int,
    group: Group,
) -> float:
    """A step on a batch of ``total`` images, of which inputs and labels are this process's; the batch's mean loss.

    seed: the step's, from which each part has one of its own. Raises UsageError once the loss is not finite.
    """
    optimizer.zero_grad(set_to_none=True)
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    rows = [parallel.rows_of(total, part, recipe.parts) for part in range(recipe.parts)]
    mine = parallel.dealt(recipe.parts, group)
    first = rows[mine.start].start
    losses, own = [0.0] * recipe.parts, []
    for part in mine:
        start, stop = rows[part].start - first, rows[part].stop - first
        if start < stop:
            torch.manual_seed(parallel.seed_of(seed, part))
            share = (stop - start) / total
            losses[part] = _backward(model, inputs[start:stop], labels[start:stop], recipe, device, share)
        if not group.alone:
            own.append(parallel.taken(trained))
    if not group.alone:
        filled = [part for part in range(recipe.parts) if rows[part].start < rows[part].stop]
        parallel.add_parts(trained, own, filled, group)
    value = sum(parallel.sums_over(group, losses, device))
    optimizer.step()
    if not np.isfinite(value):
        raise UsageError(f"The loss became {value}. {_DIVERGED}")
    return value


def check_finite(model: VGG) -> None:
    """Raises UsageError for weights that are not finite: a batch's loss says nothing of the step that follows it."""
    for name, parameter in model.named_parameters():
        if not torch.isfinite(parameter).all():
            raise UsageError(f"{name} has values that are not finite. {_DIVERGED}")


def _backward(
    model: VGG,
    inputs: npt.NDArray[np.float32],
    labels: npt.NDArray[np.int64],
    recipe: Recipe,
    device: str,
    share: float,
) -> float:
    """Adds a part's gradient, times its share of the batch, to the parameters'; its loss, times the same."""
    weights = next(model.parameters())
    x = torch.from_numpy(inputs).to(weights, memory_format=torch.channels_last)
    with torch.autocast(device.split(":")[0], torch.bfloat16, enabled=recipe.precision == "bf16"):
        scores = model(x)
    loss = share * functional.cross_entropy(scores.to(weights), torch.from_numpy(labels).to(device))
    loss.backward()  # type: ignore[no-untyped-call]
    return loss.item()
