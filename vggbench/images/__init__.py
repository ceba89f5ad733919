"""Labelled images in a fixed order, wherever they come from."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from vggbench.errors import UsageError
from vggbench.images.source import Member, Source, read_image

__all__ = ["Bad", "Dataset", "LabelledImage", "Member", "Source", "check_on_bad", "open_dataset", "read_image"]

#: What an image that cannot be decoded does: it ends the run, or is left out and named.
ON_BAD = ("stop", "skip")


@dataclass(frozen=True)
class LabelledImage:
    """One image file or member of an archive. id: its path inside the data folder with "/" (never the absolute path),
    or a known set's own name for it. label: 0-based; also: further labels that are right as well (ReaL)."""

    id: str
    path: Source
    label: int
    also: tuple[int, ...] = ()

    @property
    def labels(self) -> tuple[int, ...]:
        """Every label that is right."""
        return (self.label, *self.also)


@dataclass(frozen=True)
class Bad:
    """An image that could not be decoded: its id and why, in one line."""

    id: str
    why: str


@dataclass(frozen=True)
class Dataset:
    """Images of one split in the order in which they are evaluated.

    The order is a fixed, stratified one (every class once, then every class a second time, ... by a seeded hash of
    ids within the class), so that the first N are a fair subset and a prefix of every larger one.
    fingerprint: SHA-256 over the sorted (id, content digest, label) of all images, independent of the folder's place.
    digests: content SHA-256 of each image's file, aligned with images.
    layout: what the folder was taken for, in words. label_set: "ReaL" where labels are those, else "".
    notes: what was checked of the labels, in sentences.
    stamps: (bytes, st_mtime_ns) of each image's file, with which its digest holds; None where any change might leave
    them as they are. Empty: none is known.
    """

    name: str
    split: str
    classes: tuple[str, ...]
    images: tuple[LabelledImage, ...]
    digests: tuple[str, ...]
    fingerprint: str
    layout: str
    total: int
    boxes: dict[str, tuple[float, float, float, float]] = field(default_factory=dict, compare=False)
    label_set: str = ""
    notes: tuple[str, ...] = field(default=(), compare=False)
    stamps: tuple[tuple[int, int] | None, ...] = field(default=(), compare=False, repr=False)

    def first(self, count: int | None) -> Dataset:
        """The first ``count`` images (all if None), with the fingerprint of what is left."""
        from vggbench.images.folder import fingerprint

        if count is None or count >= len(self.images):
            return self
        images, digests = self.images[:count], self.digests[:count]
        return dataclasses.replace(
            self, images=images, digests=digests, fingerprint=fingerprint(images, digests), stamps=self.stamps[:count]
        )


def check_on_bad(on_bad: str) -> None:
    """Raises UsageError for none of ON_BAD."""
    if on_bad not in ON_BAD:
        raise UsageError(f"No on-bad {on_bad!r}. Known: {', '.join(ON_BAD)}.")


def open_dataset(
    spec: str,
    *,
    split: str = "test",
    cache_root: Path,
    count: int | None = None,
    labels: Path | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Dataset:
    """The built-in set ("sample", drawn under cache_root where it is not there), a folder of labelled images or of tar
    shards, or a tar archive of images, which is never unpacked.

    split: "train", "tune" or "test" of the sample set; of a folder that holds several, train/ or the one to report.
    count: only the first so many images. labels: a file that overrides what the layout says: a list of "file label",
    the devkit's ground truth, WordNet ids, or ReaL's real.json. progress: called with (done, total). Raises DataError,
    StorageError, UsageError.
    """
    from vggbench.errors import UsageError
    from vggbench.images.folder import open_folder, open_sample

    if spec == "sample":
        if labels is not None:
            raise UsageError("The sample set has its own labels: --labels goes with a folder of images.")
        return open_sample(split, cache_root, count, progress)
    return open_folder(Path(spec), labels, progress, split=split, cache_root=cache_root, count=count)
