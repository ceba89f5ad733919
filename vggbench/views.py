"""One image -> its views: isotropic rescale, crops or whole image, mirrored copies; views -> input (section 3.2)."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt
from PIL import Image

from vgg_reference.weights import Preprocess
from vggbench import resample
from vggbench.errors import UsageError
from vggbench.images.decode import Picture, pixels_of, sides
from vggbench.protocols import GRID_VIEWS, Choices, Pass

Pixels = npt.NDArray[np.uint8]
Floats = npt.NDArray[np.float32]

_FILTERS = {
    "bicubic": Image.Resampling.BICUBIC,
    "bilinear": Image.Resampling.BILINEAR,
    "lanczos": Image.Resampling.LANCZOS,
    "hamming": Image.Resampling.HAMMING,
    "box": Image.Resampling.BOX,
}
#: PyTorch's 8-bit kernels: Pillow's filters with weights of 16 bits and vector instructions, so that a value in some
#: is one step of 255 off.
_TORCH_FILTERS = {"torch-bicubic": "bicubic", "torch-bilinear": "bilinear"}


def rescaled_size(height: int, width: int, scale: int, choices: Choices) -> tuple[int, int]:
    """(height, width) once the shorter side is ``scale`` pixels; the longer one by side_rounding, half to even."""
    shorter, longer = sorted((height, width))
    exact = longer * scale / shorter
    rounded = round(exact) if choices.side_rounding == "round" else math.floor(exact)
    return (scale, rounded) if height <= width else (rounded, scale)


def rescale(image: Picture, scale: int, choices: Choices) -> Pixels:
    """The image as pixels (h, w, 3) with its shorter side ``scale`` pixels long, both sides by the same factor.

    All filters widen with the factor (antialiased). An image of that size already is returned as it is.
    """
    return rescale_all(image, [scale], choices)[scale]


def rescale_all(image: Picture, scales: Sequence[int], choices: Choices) -> dict[int, Pixels]:
    """rescale() by scale. Pixels are handed to Pillow once; an image of its own need not be."""
    found: dict[int, Pixels] = {}
    resize: Callable[[int, int], Pixels] | None = None
    for scale in scales:
        height, width = rescaled_size(*sides(image), scale, choices)
        if sides(image) == (height, width):
            found[scale] = pixels_of(image)
            continue
        resize = resize or _resizer(image, choices.resize_filter)
        found[scale] = resize(height, width)
    return found


def resized_by(choices: Choices) -> dict[str, str]:
    """The library beside the decoder's that decides a rescaled image's pixels, for digests; empty where none does."""
    if choices.resize_filter not in _TORCH_FILTERS:
        return {}
    import torch

    return {"resizer": f"torch {torch.__version__}"}


def _resizer(image: Picture, name: str) -> Callable[[int, int], Pixels]:
    """What makes an image of another height and width by a filter of this name."""
    if name not in _TORCH_FILTERS:
        compiled = resample.resizer(image, name)
        if compiled:
            return compiled
        picture = image if isinstance(image, Image.Image) else Image.fromarray(image)
        return lambda height, width: np.asarray(picture.resize((width, height), _FILTERS[name]))
    import torch

    # A copy, for PyTorch warns of arrays that cannot be written to.
    planes = torch.from_numpy(np.array(image)).permute(2, 0, 1)[None]

    def resize(height: int, width: int) -> Pixels:
        scaled = torch.nn.functional.interpolate(planes, (height, width), mode=_TORCH_FILTERS[name], antialias=True)
        pixels: Pixels = np.ascontiguousarray(scaled[0].permute(1, 2, 0).numpy())
        return pixels

    return resize


def offsets(height: int, width: int, crop: int, grid: str, choices: Choices) -> list[tuple[int, int]]:
    """Upper left corners (y, x) of the crops of a grid, row by row; "corners" ends with the center.

    5x5: a regular grid from corner to corner of the whole image or of its central square (grid_extent). Fractions go
    by grid_rounding: "round" is half to even, as Python, NumPy and torchvision's center crop. "whole" is one view at
    (0, 0). Raises UsageError for an image smaller than the crop.
    """
    if min(height, width) < crop:
        raise UsageError(
            f"An image rescaled to {width} x {height} pixels is smaller than the crop of {crop}. "
            f"Take scales from {crop} on, or weights of a smaller crop size."
        )
    if grid == "whole":
        return [(0, 0)]
    tall, wide = height - crop, width - crop
    if grid == "center":
        return [(_rounded(tall, 2, choices), _rounded(wide, 2, choices))]
    if grid == "corners":
        center = (_rounded(tall, 2, choices), _rounded(wide, 2, choices))
        return [(0, 0), (0, wide), (tall, 0), (tall, wide), center]
    if grid == "5x5":
        return [(y, x) for y in _steps(height, width, crop, choices) for x in _steps(width, height, crop, choices)]
    raise UsageError(f"No grid {grid!r}. Known: {', '.join(GRID_VIEWS)}.")


def _steps(side: int, other: int, crop: int, choices: Choices) -> list[int]:
    """The five offsets along one side."""
    start = 0
    if choices.grid_extent == "square" and side > other:
        start, side = _rounded(side - other, 2, choices), other
    return [start + _rounded(step * (side - crop), 4, choices) for step in range(5)]


def _rounded(numerator: int, denominator: int, choices: Choices) -> int:
    return round(numerator / denominator) if choices.grid_rounding == "round" else numerator // denominator


def make_views(image: Picture, pass_: Pass, crop_size: int, choices: Choices) -> Pixels:
    """All views (views, h, w, 3) of one image in a pass: the grid's, then their mirror images.

    h = w = crop_size, or the whole rescaled image in dense form. Raises UsageError for a scale below the crop size.
    """
    if pass_.scale < crop_size:
        raise UsageError(
            f"Scale {pass_.scale} is below the crop size {crop_size}. Take scales from {crop_size} on, "
            "or weights of a smaller crop size."
        )
    scaled = rescale(image, pass_.scale, choices)
    full_height, full_width = scaled.shape[:2]
    corners = offsets(full_height, full_width, crop_size, pass_.grid, choices)
    height, width = (full_height, full_width) if pass_.grid == "whole" else (crop_size, crop_size)
    views = np.empty((pass_.views, height, width, 3), np.uint8)
    for view, (y, x) in zip(views, corners, strict=False):
        view[...] = scaled[y : y + height, x : x + width]
    if pass_.flip:
        views[len(corners) :] = views[: len(corners), :, ::-1]
    return views


def to_input(views: Pixels, preprocess: Preprocess) -> Floats:
    """Views (n, h, w, 3) RGB as the network's input (n, 3, h, w), C-contiguous: (value - mean) * scale by channel."""
    count, height, width, _ = views.shape
    images = np.empty((count, 3, height, width), np.float32)
    for channel, colour in enumerate(preprocess.order):
        target = images[:, channel]
        target[...] = views[..., "RGB".index(colour)]  # faster than a table or a converting subtraction
        target -= np.float32(preprocess.mean[channel])
        if preprocess.scale[channel] != 1.0:
            target *= np.float32(preprocess.scale[channel])
    return images
