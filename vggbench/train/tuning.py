"""What steers the learning rate: the tuning set's error (section 3.1's validation accuracy)."""

from __future__ import annotations

import contextlib
import dataclasses
from collections import defaultdict
from collections.abc import Iterator, Sequence

import numpy as np
import torch
from torch import Tensor, nn

from vgg_reference.model import VGG, average_score_map
from vggbench.distributed import ALONE, Group
from vggbench.train import parallel
from vggbench.train.crops import Colour, Pictures
from vggbench.train.labelled import Labelled
from vggbench.train.recipe import Recipe

#: Images of one size that go through the network together.
TOGETHER = 32


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


def dense_error(
    model: VGG, recipe: Recipe, tuning: Labelled, colour: Colour, device: str = "cpu", group: Group = ALONE
) -> float:
    """Top-1 error in percent, dense at the middle of S, without flips: what steers the learning rate."""
    low, high = recipe.scales
    middle = (low + high) // 2
    fixed = dataclasses.replace(recipe, train_scale="256")
    pictures = Pictures(tuning.paths, fixed, 0)
    wrong = 0
    with torch.inference_mode(), _as_dense(model):
        # Part by part, as a batch's gradient: which images go together, and so what ties in the last bit become, does
        # not depend on the number of processes.
        for part in parallel.dealt(recipe.parts, group):
            alike: dict[tuple[int, ...], list[tuple[Tensor, int]]] = defaultdict(list)
            for index in range(part, len(tuning.labels), recipe.parts):
                image = pictures.scaled(index, middle)
                x = (image.astype(np.float32) - colour.mean) * np.float32(recipe.input_scale)
                alike[image.shape].append((torch.from_numpy(x).permute(2, 0, 1), int(tuning.labels[index])))
                if len(alike[image.shape]) == TOGETHER:
                    wrong += _wrong(model, alike.pop(image.shape), recipe, device)
            wrong += sum(_wrong(model, images, recipe, device) for images in alike.values())
    return 100.0 * parallel.sums_over(group, [wrong], device)[0] / len(tuning.labels)


def _wrong(model: VGG, images: Sequence[tuple[Tensor, int]], recipe: Recipe, device: str) -> int:
    x = torch.stack([image for image, _ in images])
    x = x.to(next(model.parameters()), memory_format=torch.channels_last)
    with torch.autocast(device.split(":")[0], torch.bfloat16, enabled=recipe.precision == "bf16"):
        scores = average_score_map(model(x).float())
    return int((scores.argmax(1).cpu() != torch.tensor([label for _, label in images])).sum())
