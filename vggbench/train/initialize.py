"""First weights: random, scaled on data, or taken over from a shallower network (section 3.1)."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn

from vgg_reference.model import VGG, initialize_he
from vggbench.errors import WeightsError
from vggbench.train.recipe import Recipe

#: "near the identity": the noise added to a layer that would pass its input on unchanged.
GROWN_NOISE = 0.02
#: Section 3.1: "we initialised the first four convolutional layers and the last three fully-connected layers".
PAPER_CONVOLUTIONS = 4


def initialize(model: VGG, recipe: Recipe, crops: Tensor | None = None) -> VGG:
    """Random first weights by ``recipe.initialization``. crops: (n, 3, h, w) training inputs, for "scaled"."""
    device = next(model.parameters()).device
    model.cpu()  # whose generator draws for every device: the same weights everywhere
    if recipe.initialization == "gaussian":
        generator = torch.Generator().manual_seed(recipe.seed)
        with torch.no_grad():
            for layer in _weight_layers(model):
                layer.weight.normal_(0.0, recipe.init_std, generator=generator)
                _bias(layer).zero_()
    else:
        initialize_he(model, recipe.seed)
    model.to(device)
    if recipe.initialization == "scaled":
        if crops is None:
            raise ValueError("'scaled' needs training crops")
        _scale_on(model, crops)
    return model


def _weight_layers(model: VGG) -> list[nn.Conv2d | nn.Linear]:
    return [*model.convolutions(), *model.fully_connected()]


def _bias(layer: nn.Conv2d | nn.Linear) -> Tensor:
    if layer.bias is None:
        raise ValueError("every layer of Table 1 has a bias")
    return layer.bias


def _scale_on(model: VGG, crops: Tensor) -> None:
    """Zero-mean, unit-variance pre-activations per channel on the crops, layer by layer."""
    with torch.no_grad():
        x = crops
        for layer in [*model.features, nn.Flatten(1), *model.classifier]:
            if isinstance(layer, nn.Dropout):
                continue
            y = layer(x)
            if isinstance(layer, (nn.Conv2d, nn.Linear)):
                dims = tuple(d for d in range(y.dim()) if d != 1)
                mean, std = y.mean(dims), y.std(dims).clamp_min(1e-6)
                layer.weight /= std.view(-1, *[1] * (layer.weight.dim() - 1))
                _bias(layer).copy_((_bias(layer) - mean) / std)
                y = layer(x)
            x = y


def transfer(model: VGG, source: VGG, recipe: Recipe) -> VGG:
    """Take layers over from ``source`` by ``recipe.transfer``. Raises WeightsError where shapes do not allow it."""
    names = [name for name, _ in model.architecture.convolutions]
    own = dict(zip(names, model.convolutions(), strict=True))
    theirs = dict(zip((name for name, _ in source.architecture.convolutions), source.convolutions(), strict=True))
    if recipe.transfer == "all":
        if set(own) != set(theirs):
            raise WeightsError(
                f"Transfer 'all' needs the same network: the start is {source.architecture.name}, "
                f"the run trains {model.architecture.name}. Use 'grow' or 'paper'."
            )
        taken = names
    elif recipe.transfer == "paper":
        taken = [name for name in theirs if name in own][:PAPER_CONVOLUTIONS]
    else:
        taken = [name for name in names if name in theirs]
    generator = torch.Generator().manual_seed(recipe.seed + 1)
    with torch.no_grad():
        for name in taken:
            _copy(own[name], theirs[name], name)
        if recipe.transfer == "grow":
            _near_identity((own[name] for name in names if name not in taken), generator)
        for name, mine, other in zip(
            ("fc6", "fc7", "fc8"), model.fully_connected(), source.fully_connected(), strict=True
        ):
            _copy(mine, other, name)
    return model


def _copy(mine: nn.Conv2d | nn.Linear, other: nn.Conv2d | nn.Linear, name: str) -> None:
    if mine.weight.shape != other.weight.shape:
        raise WeightsError(
            f"Layer {name} of the start network is {tuple(other.weight.shape)}, wanted is {tuple(mine.weight.shape)}: "
            f"width, classes and crop size must be the same."
        )
    mine.weight.copy_(other.weight)
    _bias(mine).copy_(_bias(other))


def _near_identity(layers: Iterable[nn.Conv2d], generator: torch.Generator) -> None:
    """A ReLU's output is not negative, so an identity convolution followed by a ReLU passes it on unchanged."""
    for layer in layers:
        nn.init.dirac_(layer.weight)
        noise = torch.empty_like(layer.weight, device="cpu").normal_(0.0, GROWN_NOISE, generator=generator)
        layer.weight += noise.to(layer.weight)
        _bias(layer).zero_()
