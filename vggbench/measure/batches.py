"""Images as network inputs, one view each, in batches of one size, prepared ahead of the inference."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from vgg_reference.weights import Weights
from vggbench.errors import DataError, UsageError
from vggbench.images import Bad, Dataset
from vggbench.images.decode import BadImage
from vggbench.measure.ahead import Ahead
from vggbench.measure.pipeline import AHEAD_BYTES, DecodedImages, Pixels, bytes_of, decoded_image, default_workers
from vggbench.measure.stages import Stages
from vggbench.protocols import Choices, Pass
from vggbench.views import make_views, to_input

Floats = npt.NDArray[np.float32]


@dataclass
class Views:
    """One view of every image of a dataset: the center crop or the whole image, as ``step`` says.

    on_bad: an image that cannot be decoded ends the run ("stop") or is left out ("skip"). bad: those left out, known
    once the batches were gone through. Raises UsageError for a pass of several views.
    """

    dataset: Dataset
    weights: Weights
    step: Pass
    choices: Choices
    on_bad: str = "stop"
    decoded: DecodedImages = field(default_factory=DecodedImages)
    bad: dict[int, Bad] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.step.views != 1:
            raise UsageError(f"A pass of {self.step.views} views an image; accepted is one: a center crop, no mirror.")

    def batches(self, pixels: int) -> Iterator[Floats]:
        """Inputs (n, 3, h, w) in the dataset's order; n h w is at most ``pixels``, or n is 1. Raises DataError."""
        waiting: list[Pixels] = []
        for view in self._views():
            area = view.shape[1] * view.shape[2]
            if waiting and (waiting[0].shape != view.shape or (len(waiting) + 1) * area > pixels):
                yield to_input(np.concatenate(waiting), self.weights.preprocess)
                waiting = []
            waiting.append(view)
        if waiting:
            yield to_input(np.concatenate(waiting), self.weights.preprocess)

    def kept(self) -> list[int]:
        """Indices in the dataset of the images that the batches held."""
        return [index for index in range(len(self.dataset.images)) if index not in self.bad]

    def _views(self) -> Iterator[Pixels]:
        """(1, h, w, 3) of each image that can be decoded."""
        stages = Stages()

        def prepare(index: int) -> list[Pixels | str]:
            try:
                image = decoded_image(self.dataset, index, self.choices.exif, self.decoded, "pillow", stages)
                return [make_views(image, self.step, self.weights.crop_size, self.choices)]
            except BadImage as bad:
                return [bad.why]

        indices = range(len(self.dataset.images))
        ahead = Ahead(prepare, indices, default_workers(), AHEAD_BYTES, bytes_of, stages)
        with closing(ahead.results()) as prepared:
            for index, (view,) in zip(indices, prepared, strict=True):
                if isinstance(view, str):
                    self._left_out(index, view)
                else:
                    yield view

    def _left_out(self, index: int, why: str) -> None:
        name = self.dataset.images[index].id
        if self.on_bad == "stop":
            raise DataError(
                f"{name}: {why} (image {index + 1} of {len(self.dataset.images)}). Repair or remove it, or leave such "
                "images out, named in the record: --on-bad skip."
            )
        self.bad[index] = Bad(name, why)
