"""What a training run does, as data (section 3.1); the defaults are the paper's."""

from __future__ import annotations

import dataclasses
import json
import math
from dataclasses import dataclass
from typing import Any

from vggbench.errors import UsageError
from vggbench.protocols import scale_range

#: How the first weights are made. "gaussian": N(0, init_std^2), biases 0 (the paper's). "he": He et al. 2015.
#: "scaled": He, then every layer scaled on training crops to zero-mean, unit-variance pre-activations.
INITIALIZATIONS = ("gaussian", "he", "scaled")
#: How a start network's layers are taken over. "paper": the first four convolutions by block position and the three
#: FC layers, the rest random. "grow": all of its convolutions by block position, added layers near the identity.
#: "all": the same network, all layers.
TRANSFERS = ("paper", "grow", "all")
_SMALLEST = math.ulp(0.0)
#: Fields, what they are from, to (excluded), the same in words.
_RANGES: tuple[tuple[tuple[str, ...], float, float, str], ...] = (
    (("width", "hidden_width", "learning_rate", "init_std"), _SMALLEST, math.inf, "numbers above 0"),
    (("momentum", "dropout"), 0, 1, "numbers from 0 to below 1"),
    (("weight_decay", "rgb_shift", "dropout_from"), 0, math.inf, "numbers from 0 on"),
    (("seed",), 0, 2**32, "whole numbers from 0 to 4,294,967,295"),
)


@dataclass(frozen=True)
class Recipe:
    """One training run.

    train_scale: the paper's S, "256", "384" or "[256;512]" (drawn per image, uniform over integers), in the paper's
    world of 224-pixel crops; at another crop size it is scaled along. learning_rate is divided by 10 at each drop:
    after the epochs in drop_after, or, if that is empty, when the tuning error has not improved for ``patience``
    epochs; training ends after ``drops`` drops run out or after ``epochs``. dropout acts from epoch dropout_from.
    init_std: standard deviation of "gaussian"; the paper prints a variance of 1e-2, which its own description of
    stalled learning contradicts, so the default reads it as the standard deviation. rgb_shift: standard deviation of
    the PCA colour shift's factors. input_scale multiplies the mean-free input (1 in the paper). parts: how many parts a
    batch is computed in, each alone and with dropout masks of its own (vggbench.train.parallel).
    """

    network: str
    train_scale: str = "256"
    width: float = 1.0
    hidden_width: float | None = None
    crop_size: int = 224
    batch: int = 256
    epochs: int = 74
    learning_rate: float = 1e-2
    momentum: float = 0.9
    weight_decay: float = 5e-4
    dropout: float = 0.5
    dropout_from: int = 0
    drop_after: tuple[int, ...] = ()
    drops: int = 3
    patience: int = 3
    initialization: str = "gaussian"
    init_std: float = 1e-2
    transfer: str = "all"
    rgb_shift: float = 0.1
    flip: bool = True
    input_scale: float = 1.0
    resize_filter: str = "bicubic"
    precision: str = "fp32"
    seed: int = 0
    freeze_convolutions: bool = False
    parts: int = 1

    def __post_init__(self) -> None:
        for name, value, accepted in (
            ("initialization", self.initialization, INITIALIZATIONS),
            ("transfer", self.transfer, TRANSFERS),
            ("precision", self.precision, ("fp32", "bf16")),
        ):
            if value not in accepted:
                raise UsageError(f"No {name} {value!r}. Known: {', '.join(accepted)}.")
        low, high = scale_range(self.train_scale)
        if not 224 <= low <= high:
            raise UsageError(
                f"Training scale {self.train_scale!r}: S is at least the crop, 224 in the paper's world, the smaller "
                "one first."
            )
        for name in ("batch", "epochs", "drops", "patience"):
            if getattr(self, name) < 1:
                raise UsageError(f"{name} {getattr(self, name)}: at least 1.")
        for names, least, most, words in _RANGES:
            for name in names:
                value = getattr(self, name)
                if value is not None and not least <= value < most:
                    raise UsageError(f"{name} {value}: accepted are {words}.")
        if not 1 <= self.parts <= self.batch:
            raise UsageError(f"{self.parts} parts of a batch: accepted are 1 to {self.batch}, its images.")

    @property
    def scales(self) -> tuple[int, int]:
        """Smallest and largest S in pixels, in the world of crop_size."""
        low, high = scale_range(self.train_scale)
        return round(low * self.crop_size / 224), round(high * self.crop_size / 224)

    def plain(self) -> dict[str, Any]:
        """All fields, as JSON has them."""
        found: dict[str, Any] = json.loads(json.dumps(dataclasses.asdict(self)))
        return found

    def describe(self) -> str:
        """The fields that differ from the paper's recipe, for the weights' metadata."""
        default = Recipe(self.network)
        changed = {
            field.name: getattr(self, field.name)
            for field in dataclasses.fields(self)
            if getattr(self, field.name) != getattr(default, field.name)
        }
        return ", ".join(f"{name} {value}" for name, value in changed.items()) or "the paper's"


def drops_from(text: str) -> tuple[int, ...]:
    """ "5,7" -> (5, 7), "" -> (). Raises UsageError."""
    try:
        found = tuple(int(part) for part in text.split(",")) if text else ()
    except ValueError as error:
        raise UsageError(f"Epochs of learning-rate drops {text!r}: accepted are numbers as 5,7.") from error
    if any(epoch < 1 for epoch in found) or list(found) != sorted(set(found)):
        raise UsageError(f"Epochs of learning-rate drops {text!r}: accepted are rising numbers from 1 on.")
    return found
