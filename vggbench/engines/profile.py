"""Sizes that an engine is built for: the least, the one its kernels are chosen for, and the greatest."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from vggbench.errors import UsageError
from vggbench.sizes import Range, Sizes, check_order

#: Images a call in crop form; more are split.
CROP_BATCH: Range = (1, 32, 64)
#: In dense form an image at a time: a context takes memory for the greatest batch of the greatest image.
DENSE_BATCH: Range = (1, 1, 1)
#: Sides of a dense image in hundredths of the crop's side: 224 to 1792 pixels, best at 384, for crops of 224.
_DENSE_SIDES = (100, 172, 800)


@dataclass(frozen=True)
class Profile:
    """Batch, height and width of the images (n, 3, h, w) that an engine takes."""

    batch: Range
    height: Range
    width: Range

    def __post_init__(self) -> None:
        for name, values in self.ranges.items():
            check_order(name, values)

    @property
    def ranges(self) -> dict[str, Range]:
        return {"batch": self.batch, "height": self.height, "width": self.width}

    def shapes(self, channels_last: bool = False) -> tuple[tuple[int, int, int, int], ...]:
        """Least, best and greatest input, (n, 3, h, w) or (n, h, w, 3)."""
        sizes = list(zip(self.batch, self.height, self.width, strict=True))
        return tuple((n, h, w, 3) if channels_last else (n, 3, h, w) for n, h, w in sizes)

    def check(self, height: int, width: int) -> None:
        """Raises UsageError for images of a size that the engine does not take. Batches are split, never refused."""
        for name, side in (("height", height), ("width", width)):
            least, _, greatest = self.ranges[name]
            if not least <= side <= greatest:
                raise UsageError(
                    f"Images of {height}x{width} are outside the engine's profile: {name} {least} to {greatest}. "
                    f"Scale them to it, or build for them: --sizes {self._with(height, width)}."
                )

    def _with(self, *more: int) -> str:
        """Both sides' range with these in it, as typed."""
        least, greatest = min(self.height[0], self.width[0], *more), max(self.height[2], self.width[2], *more)
        return f"{least}:{self.height[1]}:{greatest}"

    def check_batch(self, batch: int) -> None:
        """Raises UsageError for a batch that cannot be one call."""
        least, _, greatest = self.batch
        if not least <= batch <= greatest:
            raise UsageError(
                f"A batch of {batch} is outside the engine's profile: {least} to {greatest}, and one call is to be "
                f"timed. Build for it: --batch {min(least, batch)}:{batch}:{max(greatest, batch)}."
            )

    def __str__(self) -> str:
        return " ".join(f"{name} {':'.join(map(str, values))}" for name, values in self.ranges.items())


def is_channels_last(shape: Sequence[int]) -> bool:
    """Whether an input is (n, h, w, 3): one of pixels, which the engine itself makes (n, 3, h, w)."""
    return shape[3] == 3 and shape[1] != 3


def profile_for(crop: int, dense: bool, asked: Sizes | None = None) -> Profile:
    """Of engines of a network with this crop size, the least side. None takes the form's default. Raises UsageError."""
    asked = asked or Sizes()
    counts = asked.batch or (DENSE_BATCH if dense else CROP_BATCH)
    if not dense:
        if asked.sides:
            raise UsageError(f"Sizes {asked.sides}: crops are {crop}x{crop}, accepted are sizes in dense form alone.")
        return Profile(counts, (crop, crop, crop), (crop, crop, crop))
    if asked.height is None or asked.width is None:
        low, best, high = (crop * part // 100 for part in _DENSE_SIDES)
        return Profile(counts, (low, best, high), (low, best, high))
    if min(asked.height[0], asked.width[0]) < crop:
        raise UsageError(f"Sizes {asked.sides}: accepted are sides from {crop} pixels on, the network's crop.")
    return Profile(counts, asked.height, asked.width)
