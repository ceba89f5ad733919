"""Table 1 of the paper as data, and what follows from it by arithmetic (no torch here)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

#: Table 1: every configuration ends in FC-4096, FC-4096, FC-1000.
HIDDEN_UNITS = 4096
#: Section 2.1: "a fixed-size 224 x 224 RGB image".
CROP_SIZE = 224
NUM_CLASSES = 1000


@dataclass(frozen=True)
class Conv:
    """One "convK-N" of Table 1: a KxK convolution, N channels, stride 1, padded to keep its size."""

    kernel: int
    channels: int

    @property
    def padding(self) -> int:
        return self.kernel // 2


@dataclass(frozen=True)
class Architecture:
    """One column of Table 1.

    blocks: one tuple of convolutions per block; every block ends in a 2x2 max-pool of stride 2.
    lrn: local response normalization after the first convolution (config A-LRN).
    batch_norm: batch normalization after every convolution; not in the paper, as in torchvision's ``vgg*_bn``.
    """

    name: str
    blocks: tuple[tuple[Conv, ...], ...]
    lrn: bool = False
    batch_norm: bool = False

    @property
    def convolutions(self) -> tuple[tuple[str, Conv], ...]:
        """("block3.conv2", Conv) for every convolution, in order; the names used in graphs and reports."""
        return tuple(
            (f"block{b}.conv{c}", conv)
            for b, block in enumerate(self.blocks, start=1)
            for c, conv in enumerate(block, start=1)
        )

    @property
    def weight_layers(self) -> int:
        return len(self.convolutions) + 3


def _blocks(*columns: str) -> tuple[tuple[Conv, ...], ...]:
    """Table 1's own spelling: "3-64 3-64" is two 3x3 convolutions of 64 channels."""
    return tuple(tuple(Conv(*map(int, layer.split("-"))) for layer in column.split()) for column in columns)


_A = _blocks("3-64", "3-128", "3-256 3-256", "3-512 3-512", "3-512 3-512")

#: Table 1. The added layers of C are 1x1, those of D and E 3x3.
ARCHITECTURES: dict[str, Architecture] = {
    architecture.name: architecture
    for architecture in (
        Architecture("A", _A),
        Architecture("A-LRN", _A, lrn=True),
        Architecture("B", _blocks("3-64 3-64", "3-128 3-128", "3-256 3-256", "3-512 3-512", "3-512 3-512")),
        Architecture(
            "C", _blocks("3-64 3-64", "3-128 3-128", "3-256 3-256 1-256", "3-512 3-512 1-512", "3-512 3-512 1-512")
        ),
        Architecture(
            "D", _blocks("3-64 3-64", "3-128 3-128", "3-256 3-256 3-256", "3-512 3-512 3-512", "3-512 3-512 3-512")
        ),
        Architecture(
            "E",
            _blocks(
                "3-64 3-64",
                "3-128 3-128",
                "3-256 3-256 3-256 3-256",
                "3-512 3-512 3-512 3-512",
                "3-512 3-512 3-512 3-512",
            ),
        ),
        # Section 4.1: B with each pair of 3x3 replaced by one 5x5, the same receptive field.
        Architecture("shallow-B", _blocks("5-64", "5-128", "5-256", "5-512", "5-512")),
    )
}


class UnknownArchitecture(KeyError):
    """A name that is no column of Table 1."""

    def __str__(self) -> str:
        return str(self.args[0])


def architecture(name: str, batch_norm: bool = False) -> Architecture:
    """The named column of Table 1. Raises UnknownArchitecture."""
    if name not in ARCHITECTURES:
        raise UnknownArchitecture(f"No network {name!r}. Known: {', '.join(ARCHITECTURES)}.")
    found = ARCHITECTURES[name]
    return Architecture(found.name, found.blocks, found.lrn, batch_norm) if batch_norm else found


def scaled(channels: int, width: float) -> int:
    """Channels or hidden units at a width multiplier; at least 1."""
    return max(1, round(channels * width))


def final_side(crop_size: int, blocks: int = 5) -> int:
    """Side in positions of the last feature map of a crop: 7 for 224 (section 2.1).

    Raises ValueError unless the crop halves evenly through every pool, because only then is the crop
    form the same function with pools that round up and pools that round down.
    """
    step = 1 << blocks
    if crop_size < step or crop_size % step:
        raise ValueError(f"Crop size {crop_size} px: accepted are multiples of {step} from {step} px.")
    return crop_size // step


@dataclass(frozen=True)
class LayerSize:
    """Size of one weight layer: shape of its kernel, counts, and multiply-accumulates for one crop."""

    name: str
    weights: int
    biases: int
    macs: int

    @property
    def parameters(self) -> int:
        return self.weights + self.biases


def layer_sizes(
    network: Architecture,
    width: float = 1.0,
    num_classes: int = NUM_CLASSES,
    crop_size: int = CROP_SIZE,
    hidden_width: float | None = None,
) -> tuple[LayerSize, ...]:
    """Exact counts per weight layer for one crop of ``crop_size`` (Table 2 and section 2.3).

    Batch normalization's scale and shift count as biases of their convolution, two a channel.
    """
    sizes = []
    side, channels = crop_size, 3
    final = final_side(crop_size, len(network.blocks))
    for number, block in enumerate(network.blocks, start=1):
        for index, conv in enumerate(block, start=1):
            out = scaled(conv.channels, width)
            weights = conv.kernel**2 * channels * out
            biases = out * (3 if network.batch_norm else 1)
            sizes.append(LayerSize(f"block{number}.conv{index}", weights, biases, weights * side * side))
            channels = out
        side //= 2
    hidden = scaled(HIDDEN_UNITS, width if hidden_width is None else hidden_width)
    units = channels * final * final
    for name, out in (("fc6", hidden), ("fc7", hidden), ("fc8", num_classes)):
        sizes.append(LayerSize(name, units * out, out, units * out))
        units = out
    return tuple(sizes)


def count_parameters(network: Architecture, **size: Any) -> int:
    """Weights and biases: 138,357,544 for D (Table 2 prints 138 millions)."""
    return sum(layer.parameters for layer in layer_sizes(network, **size))


def count_macs(network: Architecture, **size: Any) -> int:
    """Multiply-accumulates for one crop: 15,470,264,320 for D at 224."""
    return sum(layer.macs for layer in layer_sizes(network, **size))


def dense_macs(network: Architecture, height: int, width_px: int, ceil: bool, **size: Any) -> int:
    """Multiply-accumulates of the dense form on one whole image of ``height`` x ``width_px`` pixels (section 3.2)."""
    sizes = {layer.name: layer for layer in layer_sizes(network, **size)}
    total = 0
    h, w = height, width_px
    for number, block in enumerate(network.blocks, start=1):
        total += sum(sizes[f"block{number}.conv{i}"].weights * h * w for i in range(1, len(block) + 1))
        h, w = pooled(h, ceil), pooled(w, ceil)
    final = final_side(int(size.get("crop_size", CROP_SIZE)), len(network.blocks))
    positions = max(h - final + 1, 0) * max(w - final + 1, 0)
    return total + positions * sum(sizes[name].weights for name in ("fc6", "fc7", "fc8"))


def pooled(side: int, ceil: bool) -> int:
    """Side after one 2x2 max-pool of stride 2, rounding down (PyTorch) or up (Caffe)."""
    return -(-side // 2) if ceil else side // 2


@dataclass(frozen=True)
class ReceptiveField:
    """What one unit of a layer sees: side and step between neighbouring units, in input pixels."""

    name: str
    size: int
    stride: int


def receptive_fields(network: Architecture) -> tuple[ReceptiveField, ...]:
    """Receptive field after every convolution and pool (section 2.3: three 3x3 see 7x7)."""
    fields = []
    size, stride = 1, 1
    for number, block in enumerate(network.blocks, start=1):
        for index, conv in enumerate(block, start=1):
            size += (conv.kernel - 1) * stride
            fields.append(ReceptiveField(f"block{number}.conv{index}", size, stride))
        size += stride
        stride *= 2
        fields.append(ReceptiveField(f"block{number}.pool", size, stride))
    return tuple(fields)
