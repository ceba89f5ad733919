"""What engines are asked to be built for, sizes and input, as typed and before it is known for which network."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from vggbench.errors import UsageError

#: Least, best, greatest.
Range = tuple[int, int, int]
#: Where they are typed.
OPTIONS = {"batch": "--batch", "height": "--sizes", "width": "--sizes"}
#: What an engine takes: (n, 3, h, w) float32, normalized, or (n, h, w, 3) uint8, RGB, and then it normalizes itself.
INPUTS = ("floats", "pixels")


@dataclass(frozen=True)
class Sizes:
    """Images a call, and sides of dense images in pixels. None: the default of the form, see engines.profile.

    input: of INPUTS; None for floats, in evaluations for what serves them best, see backends.uploads.for_passes.
    """

    batch: Range | None = None
    height: Range | None = None
    width: Range | None = None
    input: str | None = None

    def __post_init__(self) -> None:
        for name in OPTIONS:
            asked = getattr(self, name)
            if asked is not None:
                check_order(name, asked)
        if (self.height is None) != (self.width is None):
            raise UsageError("Sizes have one side alone; accepted are both or none. Give --sizes MIN:OPT:MAX.")
        if self.input not in (None, *INPUTS):
            raise UsageError(f"No engine input {self.input!r}. Known: {', '.join(INPUTS)}.")

    @property
    def sides(self) -> str:
        """As they are typed."""
        pairs = zip(self.height or (), self.width or (), strict=True)
        return ":".join(str(h) if self.height == self.width else f"{h}x{w}" for h, w in pairs)

    def of_crops(self) -> Sizes | None:
        """What is left of them in crop form, whose sides are the network's."""
        return Sizes(self.batch, input=self.input) if self.batch or self.input else None

    def __str__(self) -> str:
        batch = ":".join(map(str, self.batch)) if self.batch else ""
        said = (("batch", batch), ("sizes", self.sides), ("engine input", self.input))
        return " ".join(f"{name} {text}" for name, text in said if text)


def parse(batch: str | None, sizes: str | None, input: str | None = None) -> Sizes | None:
    """From "8" or "1:8:32" images, and "384", "224:384:640" or "224x224:384x512:..." pixels of dense images.

    None if neither was given. Raises UsageError.
    """
    if batch is None and sizes is None and input is None:
        return None
    count = _range(batch, batch, "batch") if batch is not None else None
    if sizes is None:
        return Sizes(count, input=input)
    pairs = [text.partition("x") for text in sizes.split(":")]
    height = _range(":".join(first for first, _, _ in pairs), sizes, "sizes")
    width = _range(":".join(second if x else first for first, x, second in pairs), sizes, "sizes")
    return Sizes(count, height, width, input)


def check_forms(sizes: Sizes | None, forms: Iterable[str]) -> None:
    """Raises UsageError for sides where nothing is in dense form."""
    if sizes is not None and sizes.sides and "dense" not in forms:
        raise UsageError(
            f"Sizes {sizes.sides}: accepted in dense form alone, and all that was asked for is crops, of the network's "
            "size. Leave out --sizes, or ask for whole images: --protocol dense (of numerics: --form dense)."
        )


def check_order(name: str, found: Range) -> None:
    """Raises UsageError. name: of OPTIONS."""
    least, best, greatest = found
    if not 1 <= least <= best <= greatest:
        raise UsageError(
            f"{name.capitalize()} {least}:{best}:{greatest}: accepted are the least, the best and the greatest in this "
            f"order, from 1 on. Give {OPTIONS[name]} MIN:OPT:MAX."
        )


def _range(text: str, typed: str, name: str) -> Range:
    parts = text.split(":")
    if len(parts) not in (1, 3) or not all(part.isascii() and part.isdigit() and int(part) for part in parts):
        example = "1:8:32" if name == "batch" else "224:384:640"
        one = "N or MIN:OPT:MAX" if name == "batch" else "N or MIN:OPT:MAX, each a side or HEIGHTxWIDTH"
        raise UsageError(f"{name.capitalize()} {typed!r}: accepted are {one}, from 1 on. Give --{name} {example}.")
    values = [int(part) for part in parts]
    return (values[0], values[0], values[0]) if len(values) == 1 else (values[0], values[1], values[2])
