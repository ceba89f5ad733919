"""Sizes that an engine is built for: the least, the one its kernels are chosen for, and the greatest."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from vggbench.errors import UsageError

#: Least, best, greatest.
Range = tuple[int, int, int]

#: Images a call in crop form; more are split.
CROP_BATCH: Range = (1, 32, 64)
#: In dense form an image at a time: a context takes memory for the greatest batch of the greatest image.
DENSE_BATCH: Range = (1, 1, 1)
#: Sides of a dense image in hundredths of the crop's side: 224 to 1792 pixels, best at 384, for crops of 224.
_DENSE_SIDES = (100, 172, 800)
_OPTIONS = {"batch": "--batch", "height": "--sizes", "width": "--sizes"}


@dataclass(frozen=True)
class Profile:
    """Batch, height and width of the images (n, 3, h, w) that an engine takes."""

    batch: Range
    height: Range
    width: Range

    def __post_init__(self) -> None:
        for name, (least, best, greatest) in self.ranges.items():
            if not 1 <= least <= best <= greatest:
                raise UsageError(
                    f"{name.capitalize()} {least}:{best}:{greatest}: accepted are the least, the best and the greatest "
                    f"in this order, from 1 on. Give {_OPTIONS[name]} MIN:OPT:MAX."
                )

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
                    f"Scale them to it, or build for them: --sizes {min(least, side)}:{side}:{max(greatest, side)}."
                )

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


def profile_for(crop: int, dense: bool, batch: str | None = None, sizes: str | None = None) -> Profile:
    """From what was asked for: "8" or "1:8:32" images; of a dense image "384", "224:384:640" or "224x224:384x512:...".

    crop: the network's crop size, the least side. None takes the defaults. Raises UsageError.
    """
    counts = _range(batch, "batch") if batch else (DENSE_BATCH if dense else CROP_BATCH)
    if not dense:
        if sizes:
            raise UsageError(f"Sizes {sizes}: crops are {crop}x{crop}, accepted are sizes in dense form alone.")
        return Profile(counts, (crop, crop, crop), (crop, crop, crop))
    low, best, high = (crop * part // 100 for part in _DENSE_SIDES)
    if sizes is None:
        return Profile(counts, (low, best, high), (low, best, high))
    pairs = [text.partition("x") for text in sizes.split(":")]
    height = _range(":".join(first for first, _, _ in pairs), "sizes")
    width = _range(":".join(second or first for first, _, second in pairs), "sizes")
    if min(height[0], width[0]) < crop:
        raise UsageError(f"Sizes {sizes}: accepted are sides from {crop} pixels on, the network's crop.")
    return Profile(counts, height, width)


def _range(text: str, name: str) -> Range:
    parts = text.split(":")
    if len(parts) not in (1, 3) or not all(part.isdigit() and int(part) for part in parts):
        raise UsageError(f"{name.capitalize()} {text!r}: accepted are N or MIN:OPT:MAX. Give --{name} 1:8:32.")
    return _three([int(part) for part in parts])


def _three(values: Sequence[int]) -> Range:
    return (values[0], values[0], values[0]) if len(values) == 1 else (values[0], values[1], values[2])
