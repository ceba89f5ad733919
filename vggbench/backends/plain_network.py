"""A variant's network as a compiler from torch wants it: convolutions and linear layers alone, images in, scores out.

What vgg_reference spells for a CPU or for training (layers that are both vector and map, batch normalization, dropout)
is spelled out here; the scores are the same.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from vgg_reference.architectures import architecture, final_side
from vgg_reference.model import VGG
from vgg_reference.weights import BadWeights, load
from vggbench.engines.profile import Profile
from vggbench.errors import WeightsError
from vggbench.ranges import quantized_inputs
from vggbench.sizes import Range
from vggbench.variants import Variant


class Plain(nn.Module):
    """images (n, 3, h, w) float32 -> scores (n, classes) float32, computed in ``dtype`` between the two casts.

    score_pool: of the dense form, None in crop form.
    """

    def __init__(self, layers: nn.Sequential, dtype: torch.dtype, score_pool: str | None) -> None:
        super().__init__()
        self.layers = layers.to(dtype)
        self.dtype = dtype
        self.score_pool = score_pool

    def forward(self, images: Tensor) -> Tensor:
        scores: Tensor = self.layers(images.to(self.dtype)).float()
        if self.score_pool is None:
            return scores
        if self.score_pool == "mean_logits":
            return scores.mean(dim=(2, 3))
        # The logarithm of the mean over space of the soft-max, without the map's size, which is not known here.
        logarithms = scores.log_softmax(dim=1)
        largest = logarithms.amax(dim=(2, 3), keepdim=True)
        return (logarithms - largest).exp().mean(dim=(2, 3)).log() + largest.flatten(1)


@dataclass(frozen=True)
class Shapes:
    """(n, c, h, w) that an engine takes, from the least to the most, and the one it is made fastest for."""

    least: tuple[int, int, int, int]
    best: tuple[int, int, int, int]
    most: tuple[int, int, int, int]


def shapes_for(height: int, width: int, variant: Variant, asked: Profile) -> Shapes:
    """Of the engine that takes images of this size, which depends on nothing else: not on those that came before.

    A side with one row of scores stays as it is: torch.export has another graph for it than for more rows. Raises
    UsageError for a size that ``asked`` does not take.
    """
    asked.check(height, width)
    (least, best, most), sides = asked.batch, ((height, asked.height), (width, asked.width))
    most = most if least == most else max(most, 3)  # torch.export takes 1 to 2 for a constant
    ranges = [_dynamic(side, around, variant) for side, around in sides]
    lows, bests, highs = zip(*ranges, strict=True)
    return Shapes((least, 3, *lows), (best, 3, *bests), (most, 3, *highs))


def _dynamic(side: int, asked: Range, variant: Variant) -> Range:
    """What is asked of a side, without the sides that have another number of rows than this one, if it has one row."""
    low, best, high = asked
    if variant.form == "crop" or _rows(side, variant) == 1:
        return side, side, side
    low = next(each for each in range(low, high + 1) if _rows(each, variant) > 1)
    return low, max(low, best), high


def plain_network(variant: Variant, dtype: torch.dtype) -> tuple[Plain, dict[str, nn.Conv2d | nn.Linear]]:
    """The network on the CPU, and its layers by the names of ranges.quantized_inputs. Raises WeightsError."""
    dense, weights = variant.form == "dense", variant.weights
    try:
        model = load(weights, dense=dense, pool_ceil=dense and variant.pool_rounding == "ceil")
    except BadWeights as error:
        raise WeightsError(str(error)) from error
    found = _layers(model, dense)
    names = quantized_inputs(architecture(weights.network, weights.batch_norm))
    weighted = [layer for layer in found if isinstance(layer, (nn.Conv2d, nn.Linear))]
    plain = Plain(nn.Sequential(*found), dtype, variant.score_pool if dense else None).eval()
    return plain.requires_grad_(False), dict(zip(names, weighted, strict=True))


def exported(plain: nn.Module, shapes: Shapes) -> torch.export.ExportedProgram:
    """Traced with the sides dynamic in which least and most differ."""
    bounds = {
        axis: torch.export.Dim(name, min=shapes.least[axis], max=shapes.most[axis])
        for axis, name in ((0, "batch"), (2, "height"), (3, "width"))
        if shapes.least[axis] < shapes.most[axis]
    }
    device = next(plain.parameters()).device
    # A dimension of 1 would be taken for a constant.
    shape = [max(side, 2) if axis in bounds else side for axis, side in enumerate(shapes.best)]
    example = torch.zeros(shape, device=device)
    return torch.export.export(
        plain,
        (example,),
        dynamic_shapes={"images": bounds} if bounds else None,
        # A pool that rounds up asks of its input's side what holds for any, but what no solver of torch's can show.
        prefer_deferred_runtime_asserts_over_guards=True,
    )


def _rows(side: int, variant: Variant) -> int:
    """Rows of the score map of an image with this side."""
    blocks = len(architecture(variant.weights.network).blocks)
    for _ in range(blocks):
        side = -(-side // 2) if variant.pool_rounding == "ceil" else side // 2
    return side - final_side(variant.weights.crop_size, blocks) + 1


def _layers(model: VGG, dense: bool) -> list[nn.Module]:
    found: list[nn.Module] = []
    for layer in model.features:
        if isinstance(layer, nn.BatchNorm2d):
            found[-1] = fuse_conv_bn_eval(found[-1].double(), layer.double().eval()).float()  # type: ignore[type-var]
        else:
            found.append(nn.ReLU() if isinstance(layer, nn.ReLU) else layer)
    if not dense:
        found.append(nn.Flatten())
    for connected in model.fully_connected():
        assert connected.bias is not None
        weight, bias = connected.weight.detach(), connected.bias.detach()
        if dense:
            channels, side, _ = connected.kernel
            layer = nn.Conv2d(channels, len(weight), side)
            weight = weight.view(len(weight), channels, side, side)
        else:
            layer = nn.Linear(weight.shape[1], len(weight))
        layer.weight, layer.bias = nn.Parameter(weight), nn.Parameter(bias)
        found += [layer, nn.ReLU()]
    return found[:-1]
