"""One pass over a dataset, as far as the cache holds it: what is there, what is missing, what is not yet written."""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypedDict

import numpy as np
import numpy.typing as npt

from vgg_reference.weights import Weights
from vggbench.backends.uploads import for_passes
from vggbench.errors import StorageError
from vggbench.images import Dataset
from vggbench.images.decode import decoder_name
from vggbench.measure import journal, shards
from vggbench.measure.journal import Journal
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


class _Backend(TypedDict):
    backend: str


class Options(_Backend, total=False):
    """What How is made of: keywords of accuracy.checked, where their defaults stand."""

    precision: str
    quantization: Quantization | None
    choices: Choices
    device: str
    cache_root: Path | None
    decoder: str
    sizes: Sizes | None


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
    """stored: blocks by name. held: the names of those that were there at first. journal: computed, in no shard."""

    variant: Variant
    step: Pass
    folder: Path
    identity: dict[str, Any]
    blocks: list[Block]
    stored: dict[str, Stored]
    held: frozenset[str]
    journal: Journal = field(init=False)
    waiting_since: float = 0.0

    def __post_init__(self) -> None:
        self.journal = Journal(self.folder)

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
        """A block that was computed; a kill does not take it, a power failure does until ``save``.

        Raises StorageError.
        """
        if not self.journal.blocks:
            self.waiting_since = time.monotonic()
        self.stored[block.name] = stored
        self.journal.append(block.name, stored)

    def take_up(self, classes: int) -> None:
        """What others have computed since. Raises StorageError."""
        absent = {block.name for block in self.blocks if block.name not in self.stored}
        if absent:
            self.stored.update(_read(self.folder, absent, classes))

    def save(self, patience_seconds: float = 0.0) -> None:
        """Write what is in no shard as one, if it has waited so long. Raises StorageError."""
        if self.journal.blocks and time.monotonic() - self.waiting_since >= patience_seconds:
            shards.write(self.folder, self.journal.blocks)
            self.journal.empty()

    def close(self) -> None:
        """After the last block, or instead of it. Raises StorageError; then the journal stays."""
        try:
            self.save()
        finally:
            self.journal.close()


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
        sizes=for_passes(how.backend, how.sizes),
    )
    identity = shards.identity(variant, step, choices, decoder_name(how.decoder), how.device)
    folder = shards.folder(how.root, identity)
    blocks = shards.blocks(step, weights.crop_size, dataset.digests)
    stored = _read(folder, {block.name for block in blocks}, weights.num_classes) if read else {}
    return StoredPass(variant, step, folder, identity, blocks, stored, frozenset(stored))


def _read(folder: Path, wanted: set[str], classes: int) -> dict[str, Stored]:
    """The wanted blocks that the cache holds; journals first, which a block leaves for a shard. Raises StorageError."""
    found = journal.read(folder, wanted, classes)
    return found | shards.read(folder, wanted - found.keys(), classes)


def settle(opened: Sequence[StoredPass]) -> None:
    """Makes shards of what killed processes left; a cache that takes no files serves as it is."""
    for each in opened:
        with suppress(StorageError):
            journal.settle(each.folder, each.variant.weights.num_classes)
