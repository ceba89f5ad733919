"""One pass over a dataset, as far as the cache holds it: what is there, what is missing, what is not yet written."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from vgg_reference.weights import Weights
from vggbench.images import Dataset
from vggbench.images.decode import decoder_name
from vggbench.measure import shards
from vggbench.measure.shards import Block, Stored
from vggbench.protocols import Choices, Pass
from vggbench.ranges import Quantization
from vggbench.sizes import Sizes
from vggbench.variants import Variant


@dataclass(frozen=True)
class How:
    """How passes are run and where their posteriors are kept. device: "cpu" or "cuda"; decoder: of decode.DECODERS.

    sizes: what engines are built for, see variants.Variant.
    """

    backend: str
    precision: str
    choices: Choices
    device: str
    root: Path
    quantization: Quantization | None = None
    decoder: str = "pillow"
    sizes: Sizes | None = None


@dataclass(frozen=True)
class Job:
    """One missing block of one pass."""

    step: Pass
    block: Block

    @property
    def views(self) -> int:
        return (self.block.stop - self.block.start) * self.step.views


@dataclass
class StoredPass:
    """stored: blocks by name. held: the names of those that were there at first; unsaved: computed, not on disk."""

    variant: Variant
    step: Pass
    folder: Path
    identity: dict[str, Any]
    blocks: list[Block]
    stored: dict[str, Stored]
    held: frozenset[str]
    unsaved: dict[str, Stored] = field(default_factory=dict)
    waiting_since: float = 0.0

    def missing(self) -> list[Job]:
        """Blocks of the same contents are computed once."""
        first = {block.name: block for block in reversed(self.blocks)}
        return [Job(self.step, block) for block in first.values() if block.name not in self.stored]

    def images_held(self) -> int:
        """How many images needed no computing."""
        return sum(block.stop - block.start for block in self.blocks if block.name in self.held)

    def bad(self) -> dict[int, str]:
        """Index in the dataset -> why, of what is there."""
        present = [block for block in self.blocks if block.name in self.stored]
        return {block.start + index: why for block in present for index, why in self.stored[block.name].bad}

    def posteriors(self) -> npt.NDArray[np.float32]:
        """(images, classes) in the dataset's order, once nothing is missing."""
        return np.concatenate([self.stored[block.name].posteriors for block in self.blocks])

    def add(self, block: Block, stored: Stored) -> None:
        """A block that was computed; it is on disk after ``save``."""
        if not self.unsaved:
            self.waiting_since = time.monotonic()
        self.stored[block.name] = self.unsaved[block.name] = stored

    def take_up(self, classes: int) -> None:
        """What others have computed since. Raises StorageError."""
        absent = {block.name for block in self.blocks if block.name not in self.stored}
        if absent:
            self.stored.update(shards.read(self.folder, absent, classes))

    def save(self, patience_seconds: float = 0.0) -> None:
        """Write what is not on disk as one shard, if it has waited so long. Raises StorageError."""
        if self.unsaved and time.monotonic() - self.waiting_since >= patience_seconds:
            unsaved, self.unsaved = self.unsaved, {}
            shards.write(self.folder, unsaved)


def open_passes(
    dataset: Dataset, weights: Weights, steps: Sequence[Pass], how: How, *, read: bool = True
) -> list[StoredPass]:
    """Each different pass with what the cache holds of it; without it if not ``read``. Raises StorageError."""
    return [_open_pass(dataset, weights, step, how, read) for step in dict.fromkeys(steps)]


def _open_pass(dataset: Dataset, weights: Weights, step: Pass, how: How, read: bool) -> StoredPass:
    choices = how.choices
    variant = Variant(
        weights,
        step.form,
        how.backend,
        how.precision,
        choices.pool_rounding,
        choices.score_pool,
        quantization=how.quantization,
        sizes=how.sizes,
    )
    identity = shards.identity(variant, step, choices, decoder_name(how.decoder), how.device)
    folder = shards.folder(how.root, identity)
    blocks = shards.blocks(step, weights.crop_size, dataset.digests)
    stored = shards.read(folder, {block.name for block in blocks}, weights.num_classes) if read else {}
    return StoredPass(variant, step, folder, identity, blocks, stored, frozenset(stored))
