"""The networks of Table 1 as torch modules: crop form and dense form of the same weights."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from vgg_reference.architectures import (
    CROP_SIZE,
    HIDDEN_UNITS,
    NUM_CLASSES,
    Architecture,
    architecture,
    final_side,
    scaled,
)

#: Section 2.1 takes LRN's parameters from Krizhevsky et al. 2012. Caffe and torch divide alpha by the window,
#: and the authors' Caffe fixes k = 1, so this is the likeliest reading, not a certain one.
LRN_SIZE, LRN_ALPHA, LRN_BETA, LRN_K = 5, 1e-4, 0.75, 1.0


class LocalResponseNorm(nn.Module):
    """torch's LocalResponseNorm as one banded 1x1 convolution of the squares, which is faster on a CPU.

    Computed in FP32 whatever x's type: a power of a sum of squares suffers most from few bits.
    """

    def __init__(self, channels: int, alpha: float) -> None:
        super().__init__()
        self.alpha = alpha
        index = torch.arange(channels, device="cpu")  # a real one also in a model built on the meta device
        band = (index[:, None] - index[None, :]).abs() <= LRN_SIZE // 2
        self.register_buffer("band", band.float()[:, :, None, None], persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        wide = x.float() if x.dtype in (torch.float16, torch.bfloat16) else x
        small = wide * (self.alpha / LRN_SIZE) ** 0.5
        band: Tensor = self.band  # type: ignore[assignment]
        scale = (LRN_K + functional.conv2d(small * small, band.to(wide.dtype))).pow(-LRN_BETA)
        return (wide * scale).to(x.dtype)


class FullyConnected(nn.Linear):
    """A fully-connected layer that, given a map instead of a vector, is applied at every position.

    The weight keeps nn.Linear's shape in both forms, so crop form and dense form load one state dict.
    """

    def __init__(self, channels: int, side: int, out_features: int) -> None:
        super().__init__(channels * side * side, out_features)
        self.kernel = (channels, side, side)

    def forward(self, x: Tensor) -> Tensor:
        """x: (n, c, h, w) with h, w >= side -> (n, out, h - side + 1, w - side + 1); (n, features) -> (n, out)."""
        if x.dim() == 2:
            return super().forward(x)
        return functional.conv2d(x, self.weight.view(-1, *self.kernel), self.bias)


class VGG(nn.Module):
    """One network of Table 1; state-dict names are torchvision's (``features.0.weight``, ``classifier.6.bias``).

    Crop form: (n, 3, crop, crop) -> (n, classes). Dense form (section 3.2): (n, 3, h, w) with h, w >= crop
    -> (n, classes, rows, columns), the class score map before averaging.
    """

    def __init__(
        self,
        network: Architecture,
        width: float = 1.0,
        num_classes: int = NUM_CLASSES,
        crop_size: int = CROP_SIZE,
        dense: bool = False,
        pool_ceil: bool = False,
        dropout: float = 0.5,
        hidden_width: float | None = None,
        lrn_alpha: float = LRN_ALPHA,
    ) -> None:
        super().__init__()
        self.architecture = network
        self.crop_size = crop_size
        self.dense = dense
        side = final_side(crop_size, len(network.blocks))
        layers: list[nn.Module] = []
        channels = 3
        for number, block in enumerate(network.blocks):
            for index, conv in enumerate(block):
                out = scaled(conv.channels, width)
                layers.append(nn.Conv2d(channels, out, conv.kernel, padding=conv.padding))
                if network.batch_norm:
                    layers.append(nn.BatchNorm2d(out))
                layers.append(nn.ReLU(inplace=True))
                if network.lrn and number == index == 0:
                    layers.append(LocalResponseNorm(out, lrn_alpha))
                channels = out
            layers.append(nn.MaxPool2d(2, 2, ceil_mode=pool_ceil))
        self.features = nn.Sequential(*layers)
        hidden = scaled(HIDDEN_UNITS, width if hidden_width is None else hidden_width)
        # Dropout follows the ReLU of the first two FC layers (section 3.1); torchvision once had it before.
        self.classifier = nn.Sequential(
            FullyConnected(channels, side, hidden),
            nn.ReLU(inplace=True),
            nn.Dropout(dropout),
            FullyConnected(hidden, 1, hidden),
            nn.ReLU(inplace=True),
            nn.Dropout(dropout),
            FullyConnected(hidden, 1, num_classes),
        )

    def forward(self, x: Tensor) -> Tensor:
        x = self.features(x)
        scores: Tensor = self.classifier(x if self.dense else x.flatten(1))
        return scores

    def convolutions(self) -> list[nn.Conv2d]:
        """Convolutions in order, as ``architecture.convolutions`` names them."""
        return [layer for layer in self.features if isinstance(layer, nn.Conv2d)]

    def fully_connected(self) -> list[FullyConnected]:
        """fc6, fc7, fc8."""
        return [layer for layer in self.classifier if isinstance(layer, FullyConnected)]


def build(
    name: str,
    width: float = 1.0,
    num_classes: int = NUM_CLASSES,
    crop_size: int = CROP_SIZE,
    dense: bool = False,
    *,
    batch_norm: bool = False,
    pool_ceil: bool = False,
    dropout: float = 0.5,
    hidden_width: float | None = None,
    lrn_alpha: float = LRN_ALPHA,
) -> VGG:
    """The named network of Table 1, in training mode, with torch's default initialization.

    width multiplies channels and hidden units (hidden_width, if given, only the latter); crop_size is the side
    in pixels of a training crop (224 in the paper), a multiple of 32. pool_ceil: pools round up, as Caffe's do;
    it matters only in dense form. Raises UnknownArchitecture, ValueError for a crop size that does not halve evenly.
    """
    return VGG(
        architecture(name, batch_norm),
        width,
        num_classes,
        crop_size,
        dense,
        pool_ceil,
        dropout,
        hidden_width,
        lrn_alpha,
    )


def initialize_he(model: VGG, seed: int) -> VGG:
    """He et al. 2015 initialization of every weight, biases zero; the same on every machine for a seed."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        layers: list[nn.Conv2d | nn.Linear] = [*model.convolutions(), *model.fully_connected()]
        for layer in layers:
            fan_in = layer.weight[0].numel()
            layer.weight.normal_(0.0, (2.0 / fan_in) ** 0.5, generator=generator)
            if layer.bias is not None:
                layer.bias.zero_()
    return model


def average_score_map(scores: Tensor, score_pool: str = "mean_logits") -> Tensor:
    """Class scores of an image from its score map (section 3.2), as logits of its posterior.

    scores: (n, classes, h, w). Returns (n, classes). "mean_logits": mean over space, before the soft-max.
    "mean_probs": mean over space of the soft-max, returned as its logarithm, so that a soft-max gives it back.
    """
    if score_pool == "mean_logits":
        return scores.mean(dim=(2, 3))
    if score_pool == "mean_probs":
        return scores.log_softmax(dim=1).logsumexp(dim=(2, 3)) - torch.tensor(
            float(scores.shape[2] * scores.shape[3])
        ).log().to(scores)
    raise ValueError(f"No score pool {score_pool!r}. Known: mean_logits, mean_probs.")
