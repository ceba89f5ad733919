"""The paper's ways to classify an image, as tuples of passes (section 3.2).

Every technique ends in a mean of soft-max posteriors: over flips and crops inside a pass, over the passes of a
protocol, over the networks of a fusion. So a pass is what runs and is stored; all else is a mean of stored arrays.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable
from dataclasses import dataclass

from vgg_reference.architectures import CROP_SIZE
from vggbench.errors import UsageError
from vggbench.paper import Claim, Entry

#: Crop positions in one scale, by grid; the whole image is one view.
GRID_VIEWS = {"center": 1, "corners": 5, "5x5": 25, "whole": 1}


@dataclass(frozen=True)
class Choices:
    """What the paper leaves open, each with the reading taken by default. Printed in every record.

    score_pool: mean of fc8 scores over the map, then soft-max ("mean_logits"), or soft-max at each position, then
    mean ("mean_probs"); section 3.2. pool_rounding: max-pools of the dense form round "ceil" as the authors' Caffe or
    "floor" as PyTorch. grid_extent: the 5x5 grid spans the "whole" rescaled image or its central "square".
    grid_rounding: of crop offsets. resize_filter: always antialiased; Pillow's, or PyTorch's two for 8 bits ("torch-"),
    which are faster and give values at most one step of 255 off. side_rounding: of the longer side after rescaling.
    exif: orientation tags are "ignore"d, as the paper's tools did, or "apply"ed.
    """

    score_pool: str = "mean_logits"
    pool_rounding: str = "ceil"
    grid_extent: str = "whole"
    grid_rounding: str = "round"
    resize_filter: str = "bicubic"
    side_rounding: str = "round"
    exif: str = "ignore"


#: Accepted values of each choice, the default first.
CHOICES: dict[str, tuple[str, ...]] = {
    "score_pool": ("mean_logits", "mean_probs"),
    "pool_rounding": ("ceil", "floor"),
    "grid_extent": ("whole", "square"),
    "grid_rounding": ("round", "floor"),
    "resize_filter": ("bicubic", "bilinear", "lanczos", "hamming", "box", "torch-bicubic", "torch-bilinear"),
    "side_rounding": ("round", "floor"),
    "exif": ("ignore", "apply"),
}


def check_choices(choices: Choices) -> Choices:
    """The same choices. Raises UsageError naming the first value that is not accepted."""
    for name, accepted in CHOICES.items():
        value = getattr(choices, name)
        if value not in accepted:
            raise UsageError(f"No {name.replace('_', '-')} {value!r}. Known: {', '.join(accepted)}.")
    return choices


@dataclass(frozen=True)
class Pass:
    """One image at one scale -> one posterior: the mean over its views.

    form: "crop" (views of crop size) or "dense" (the whole image). scale: Q, the shorter side in pixels.
    grid: "center" (1 crop), "corners" (4 corners and center), "5x5" (25), "whole" (dense).
    flip: every view also mirrored.
    """

    form: str
    scale: int
    grid: str
    flip: bool

    @property
    def views(self) -> int:
        """Views of one image."""
        return GRID_VIEWS[self.grid] * (2 if self.flip else 1)


@dataclass(frozen=True)
class Protocol:
    """A name and its passes; the answer is the mean of their posteriors."""

    name: str
    passes: tuple[Pass, ...]


#: Names the CLI accepts, with what they are.
PROTOCOLS = {
    "center": "one center crop",
    "ten-crop": "four corners and center, and their mirror images (the authors' demo)",
    "dense": "whole image, one scale, with flip (Table 3)",
    "multi-scale": "whole image, three scales, with flip (Table 4)",
    "multi-crop": "5x5 crops with flips at three scales, 150 views (Table 5)",
    "multi-crop-and-dense": "mean of multi-crop and multi-scale (Table 5)",
}


def scaled(scale: int, crop_size: int) -> int:
    """A scale of the paper in the world of another crop size: 384 at crop 224 is 110 at crop 64."""
    return round(scale * crop_size / CROP_SIZE)


def dense(scale: int) -> Pass:
    """The fully-convolutional network on the whole image and its mirror image (section 3.2)."""
    return Pass("dense", scale, "whole", True)


def crops(scale: int) -> Pass:
    """50 crops: a regular 5x5 grid with flips (section 3.2)."""
    return Pass("crop", scale, "5x5", True)


#: A protocol's name -> its passes at one scale.
_STEPS: dict[str, Callable[[int], tuple[Pass, ...]]] = {
    "center": lambda scale: (Pass("crop", scale, "center", False),),
    "ten-crop": lambda scale: (Pass("crop", scale, "corners", True),),
    "dense": lambda scale: (dense(scale),),
    "multi-scale": lambda scale: (dense(scale),),
    "multi-crop": lambda scale: (crops(scale),),
    "multi-crop-and-dense": lambda scale: (crops(scale), dense(scale)),
}


def protocol(name: str, scales: tuple[int, ...]) -> Protocol:
    """A protocol by its CLI name at the given scales (shorter sides in pixels).

    center, ten-crop and dense take one scale, the others average over all given. Raises UsageError.
    """
    if name not in PROTOCOLS:
        raise UsageError(f"No protocol {name!r}. Known: {', '.join(PROTOCOLS)}.")
    if name in ("center", "ten-crop", "dense") and len(scales) != 1:
        raise UsageError(f"Protocol {name!r} takes one scale, got {', '.join(map(str, scales)) or 'none'}.")
    steps = _STEPS[name]
    return Protocol(name, tuple(step for scale in scales for step in steps(scale)))


def default_scales(name: str, train_scale: str | None, crop_size: int) -> tuple[int, ...]:
    """The paper's Q for weights of training scale S (sections 4.1-4.3), in the world of ``crop_size``.

    One scale: S, or the middle of a jittered range. Three: {S-32, S, S+32}, or the range's ends and middle. Weights
    without a known S are taken as S = 256.
    """
    low, high = scale_range(train_scale or "256")
    middle = (low + high) // 2
    scales: tuple[int, ...]
    if name in ("multi-scale", "multi-crop", "multi-crop-and-dense"):
        scales = (low - 32, low, low + 32) if low == high else (low, middle, high)
    else:
        scales = (middle,)
    return tuple(scaled(scale, crop_size) for scale in scales)


def scale_range(train_scale: str) -> tuple[int, int]:
    """Smallest and largest S: "384" -> (384, 384), "[256;512]" -> (256, 512). Raises UsageError."""
    match = re.fullmatch(r"([0-9]+)|\[([0-9]+);([0-9]+)\]", train_scale)
    if match is None:
        raise UsageError(f"Training scale {train_scale!r}: accepted are 256, 384 or [256;512].")
    return int(match[1] or match[2]), int(match[1] or match[3])


#: A claim's technique in the paper's words -> the protocol at three or one scale.
_TECHNIQUES = {"dense": "multi-scale", "multi-crop": "multi-crop", "multi-crop & dense": "multi-crop-and-dense"}


def protocol_for(claim: Claim, entry: Entry, crop_size: int = CROP_SIZE) -> Protocol:
    """How the paper measured one network of a claim, in the world of ``crop_size``."""
    scales = tuple(scaled(scale, crop_size) for scale in entry.test_scales)
    name = _TECHNIQUES[claim.technique]
    if name == "multi-scale" and len(scales) == 1:
        name = "dense"
    return protocol(name, scales)


def as_flat_dict(choices: Choices) -> dict[str, str]:
    """For records and digests."""
    return dataclasses.asdict(choices)
