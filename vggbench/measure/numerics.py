"""What a variant moves against a reference: layers, streamed in double precision, and every image's logits."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from vggbench.errors import BackendUnavailable
from vggbench.measure.posteriors import ranks
from vggbench.results import ImageDrift, LayerDrift

Array = npt.NDArray[np.float32]
Doubles = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

#: Images that a record names: those that flipped, then those that moved most.
CHANGED = 48
#: Significant digits of the values kept by image.
DIGITS = 6
#: Against a reference of nothing but zeros a ratio is 1 / this, not infinite, which JSON does not have.
_TINY = 1e-15


@dataclass(frozen=True)
class LayerSums:
    """Of one tensor over the images so far: sums of squares, the product of both, the largest absolute difference."""

    reference: float = 0.0
    variant: float = 0.0
    product: float = 0.0
    difference: float = 0.0
    largest: float = 0.0


def add(sums: LayerSums, reference: npt.NDArray[np.floating], variant: npt.NDArray[np.floating]) -> LayerSums:
    """The sums with a batch more; both arrays (n, ...), equal in size. One image at a time is made double."""
    for one, other in zip(reference, variant, strict=True):
        x, y = one.astype(np.float64).ravel(), other.astype(np.float64).ravel()
        difference = y - x
        sums = LayerSums(
            sums.reference + float(x @ x),
            sums.variant + float(y @ y),
            sums.product + float(x @ y),
            sums.difference + float(difference @ difference),
            max(sums.largest, float(np.abs(difference).max())),
        )
    return sums


def layer_drift(layer: str, sums: LayerSums) -> LayerDrift:
    """Raises BackendUnavailable where the variant left the range of its precision."""
    if not math.isfinite(sums.difference):
        raise BackendUnavailable(f"Values of {layer} are not finite: they overflow this precision. Use fp32 or bf16.")
    if sums.difference == 0:
        return LayerDrift(layer=layer, relative_l2=0.0, max_absolute=0.0, sqnr_db=None, cosine=1.0)
    ratio = sums.difference / max(sums.reference, _TINY**2 * sums.difference)
    norms = math.sqrt(sums.reference) * math.sqrt(sums.variant)
    return LayerDrift(
        layer=layer,
        relative_l2=math.sqrt(ratio),
        max_absolute=sums.largest,
        sqnr_db=-10 * math.log10(ratio),
        cosine=max(-1.0, min(1.0, sums.product / norms)) if norms else 0.0,
    )


def layer_drifts(batches: Iterable[tuple[Mapping[str, Array], Mapping[str, Array]]]) -> list[LayerDrift]:
    """Every layer over all batches of (the reference's outputs, the variant's), in the reference's order."""
    sums: dict[str, LayerSums] = {}
    for reference, variant in batches:
        for layer, output in reference.items():
            sums[layer] = add(sums.get(layer, LayerSums()), output, variant[layer])
    return [layer_drift(layer, found) for layer, found in sums.items()]


def relative_l2(reference: Array, variant: Array) -> float:
    """|x - ref| / |ref| over all logits (images, classes)."""
    return layer_drift("scores", add(LayerSums(), reference, variant)).relative_l2


@dataclass(frozen=True)
class Moved:
    """Image by image, aligned. margins: between the reference's two best logits; drifts: largest change of a logit.

    ranks: of the true label, -1 where there is none. ratios: relative L2 of an image's logits.
    """

    margins: Doubles
    drifts: Doubles
    ratios: Doubles
    reference_classes: Ints
    variant_classes: Ints
    reference_ranks: Ints
    variant_ranks: Ints

    @property
    def flipped(self) -> npt.NDArray[np.bool_]:
        """Another top-1 answer."""
        flipped: npt.NDArray[np.bool_] = self.reference_classes != self.variant_classes
        return flipped

    @property
    def reference_errors(self) -> int:
        return int((self.reference_ranks > 0).sum())

    @property
    def variant_errors(self) -> int:
        return int((self.variant_ranks > 0).sum())

    @property
    def lost(self) -> int:
        """Right with the reference only."""
        return int(((self.reference_ranks == 0) & (self.variant_ranks > 0)).sum())

    @property
    def gained(self) -> int:
        """Right with the variant only."""
        return int(((self.reference_ranks > 0) & (self.variant_ranks == 0)).sum())


def moved(reference: Array, variant: Array, labels: Ints) -> Moved:
    """Logits of both (images, classes), labels (images,), negative where there is none. Raises DataError."""
    x, y = reference.astype(np.float64), variant.astype(np.float64)
    best = np.sort(x, axis=1)[:, -2:]
    norms = np.linalg.norm(x, axis=1)
    distances = np.linalg.norm(y - x, axis=1)
    return Moved(
        margins=best[:, -1] - best[:, 0],
        drifts=np.abs(y - x).max(axis=1),
        ratios=distances / np.where(norms > _TINY * distances, norms, _TINY * distances + (distances == 0)),
        reference_classes=x.argmax(axis=1),
        variant_classes=y.argmax(axis=1),
        reference_ranks=_ranks(x, labels),
        variant_ranks=_ranks(y, labels),
    )


def _ranks(logits: Doubles, labels: Ints) -> Ints:
    found = np.full(len(labels), -1, np.int64)
    known = labels >= 0
    found[known] = ranks(logits[known], labels[known])
    return found


def changed(found: Moved, ids: list[str], labels: Ints, count: int = CHANGED) -> list[ImageDrift]:
    """The images whose answer flipped, then those whose logits moved most; within both the most moved first."""
    order = np.lexsort((-found.drifts, ~found.flipped))[:count]
    return [
        ImageDrift(
            id=ids[index],
            label=int(labels[index]),
            margin=rounded(found.margins[index]),
            drift=rounded(found.drifts[index]),
            reference_class=int(found.reference_classes[index]),
            variant_class=int(found.variant_classes[index]),
            reference_rank=int(found.reference_ranks[index]),
            variant_rank=int(found.variant_ranks[index]),
        )
        for index in order
    ]


def rounded(value: float) -> float:
    """To DIGITS significant ones: the values of thousands of images stand in a record."""
    return float(f"{value:.{DIGITS}g}")
