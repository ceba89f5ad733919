"""Training crops: one random crop per image per epoch (section 3.1), the same on every run of a seed."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from vggbench.errors import DataError
from vggbench.images import Source
from vggbench.images.decode import BadImage, decode
from vggbench.protocols import Choices
from vggbench.train.parallel import rows_of
from vggbench.train.recipe import Recipe
from vggbench.views import rescale

Pixels = npt.NDArray[np.uint8]
Floats = npt.NDArray[np.float32]

#: Images that the mean and the colour axes are taken from: enough for three digits of a mean.
STATISTICS_IMAGES = 1000
#: Decoded training images are kept in memory up to this many bytes; a larger set is decoded anew each epoch.
KEPT_BYTES = 4 << 30


@dataclass(frozen=True)
class Colour:
    """mean: RGB mean of the training images, 0-255. axes: (3, 3), columns are principal axes of their RGB values
    times the standard deviation along each (Krizhevsky et al. 2012, read as public reconstructions do: the
    eigenvalue itself, in units of 255^2, would shift a pixel by hundreds)."""

    mean: Floats
    axes: Floats


def colour_of(images: Sequence[Pixels]) -> Colour:
    """Mean and principal colour axes over all pixels of the given images."""
    total, square, count = np.zeros(3), np.zeros((3, 3)), 0
    for image in images:
        pixels = image.reshape(-1, 3).astype(np.float64)
        total += pixels.sum(axis=0)
        square += pixels.T @ pixels
        count += len(pixels)
    mean = total / count
    values, vectors = np.linalg.eigh(square / count - np.outer(mean, mean))
    return Colour(mean.astype(np.float32), (vectors * np.sqrt(np.maximum(values, 0.0))).astype(np.float32))


class Pictures:
    """Decoded training images, rescaled once where S is fixed, kept in memory while they fit."""

    def __init__(self, paths: Sequence[Source], recipe: Recipe, workers: int) -> None:
        self._paths, self._choices = list(paths), Choices(resize_filter=recipe.resize_filter)
        low, high = recipe.scales
        self._fixed = low if low == high else None
        self._kept: dict[int, Pixels] = {}
        self._bytes = 0
        self.workers = workers

    def __len__(self) -> int:
        return len(self._paths)

    def original(self, index: int) -> Pixels:
        path = self._paths[index]
        try:
            return decode(path.read_bytes(), self._choices.exif)
        except (BadImage, OSError) as error:
            raise DataError(f"{path}: cannot be used for training ({error}). Remove or replace it.") from error

    def scaled(self, index: int, scale: int) -> Pixels:
        """The image with its shorter side at ``scale`` pixels, from the file."""
        return rescale(self.original(index), scale, self._choices)

    def at(self, index: int, scale: int) -> Pixels:
        """The same, from memory once it was there."""
        kept = self._kept.get(index)
        if kept is None:
            kept = self.original(index)
            if self._fixed is not None:
                kept = rescale(kept, self._fixed, self._choices)
            if self._bytes + kept.nbytes <= KEPT_BYTES:
                self._kept[index] = kept
                self._bytes += kept.nbytes
        return kept if scale == self._fixed else rescale(kept, scale, self._choices)


@dataclass(frozen=True)
class EpochDraws:
    """All random decisions of one epoch, from (seed, epoch) alone, so that a resumed run draws the same."""

    order: npt.NDArray[np.int64]
    scales: npt.NDArray[np.int64]
    positions: npt.NDArray[np.float64]
    mirrored: npt.NDArray[np.bool_]
    shifts: Floats


def draws(recipe: Recipe, images: int, epoch: int) -> EpochDraws:
    """Order, S, crop position, mirror and colour shift for every image of an epoch."""
    rng = np.random.Generator(np.random.PCG64([recipe.seed, epoch, 0x5647]))
    low, high = recipe.scales
    return EpochDraws(
        order=rng.permutation(images),
        scales=rng.integers(low, high + 1, images),
        positions=rng.random((images, 2)),
        mirrored=(rng.random(images) < 0.5) & recipe.flip,
        shifts=(rng.standard_normal((images, 3)) * recipe.rgb_shift).astype(np.float32),
    )


def crop_of(pictures: Pictures, recipe: Recipe, drawn: EpochDraws, index: int) -> Pixels:
    """Image ``index``'s crop of this epoch: (crop, crop, 3)."""
    image = pictures.at(index, int(drawn.scales[index]))
    size = recipe.crop_size
    height, width = image.shape[:2]
    top, left = (int(p * (side - size + 1)) for p, side in zip(drawn.positions[index], (height, width), strict=True))
    crop = image[top : top + size, left : left + size]
    return crop[:, ::-1] if drawn.mirrored[index] else crop


def batches(
    pictures: Pictures,
    labels: npt.NDArray[np.int64],
    recipe: Recipe,
    colour: Colour,
    epoch: int,
    first: int = 0,
    rank: int = 0,
    world: int = 1,
) -> Iterator[tuple[Floats, npt.NDArray[np.int64]]]:
    """Batches of an epoch from number ``first`` on: inputs (n, 3, crop, crop) and labels. The last may be smaller.

    Of ``world`` processes each gets its rows of every batch.
    """
    drawn = draws(recipe, len(pictures), epoch)
    starts = range(first * recipe.batch, len(pictures), recipe.batch)

    def batch(start: int) -> tuple[Floats, npt.NDArray[np.int64]]:
        chosen = drawn.order[start : start + recipe.batch]
        chosen = chosen[rows_of(len(chosen), rank, world)]
        size = recipe.crop_size
        inputs = np.empty((len(chosen), size, size, 3), np.float32)
        for row, index in enumerate(chosen):
            shift = colour.axes @ drawn.shifts[index] - colour.mean
            np.add(crop_of(pictures, recipe, drawn, int(index)), shift, out=inputs[row])
        inputs *= np.float32(recipe.input_scale)
        return inputs.transpose(0, 3, 1, 2), labels[chosen]

    if pictures.workers == 0:
        yield from map(batch, starts)
        return
    with ThreadPoolExecutor(pictures.workers) as pool:
        pending = []
        for start in starts:
            pending.append(pool.submit(batch, start))
            if len(pending) > 2 * pictures.workers:
                yield pending.pop(0).result()
        for future in pending:
            yield future.result()
