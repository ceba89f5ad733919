"""From stored posteriors to ranks: means over passes and networks, on the CPU (sections 3.2 and 4.4)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from vggbench.errors import DataError
from vggbench.measure.accuracy import PassResults
from vggbench.protocols import Protocol

Array = npt.NDArray[np.float32]
Doubles = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]


def protocol_posteriors(results: PassResults, protocol: Protocol) -> Doubles:
    """(kept images, classes): the mean over a protocol's passes, all of which must be among the results."""
    return _mean([results.posteriors[step] for step in protocol.passes])


def fuse(posteriors: Sequence[Array | Doubles]) -> Doubles:
    """The mean over networks of (images, classes), aligned by image. Raises DataError for other shapes."""
    shapes = {each.shape for each in posteriors}
    if len(shapes) > 1:
        raise DataError(
            f"Networks with posteriors of shapes {sorted(shapes)} cannot be fused: run all on the same images."
        )
    return _mean(posteriors)


def _mean(posteriors: Sequence[Array | Doubles]) -> Doubles:
    total = np.zeros(posteriors[0].shape)
    for each in posteriors:
        total += each
    return total / len(posteriors)


def answer(parts: Sequence[tuple[PassResults, Protocol]], images: int | None = None) -> tuple[Doubles, Ints]:
    """Posteriors of a network or of the fusion of several, and the indices of their images in the dataset's order.

    Only images that no network found bad count; images: only the first so many of the dataset's.
    """
    count = min([results.images for results, _ in parts] if images is None else [images])
    for results, _ in parts:
        if results.images < count:
            raise DataError(f"{results.weights.name} ran on {results.images} images; {count} are needed.")
    common = set.intersection(*(set(results.kept.tolist()) for results, _ in parts))
    kept = np.array(sorted(index for index in common if index < count), np.int64)
    rows = [np.searchsorted(results.kept, kept) for results, _ in parts]
    networks = [protocol_posteriors(*part)[row] for part, row in zip(parts, rows, strict=True)]
    return fuse(networks), kept


def ranks(posteriors: npt.NDArray[Any], labels: Ints) -> Ints:
    """(images,): how many other classes score at least as high as the true one; 0 is a right top-1 answer.

    Equal scores count against the network. Raises DataError for a posterior that is not a number, or a label beyond
    the classes.
    """
    classes = posteriors.shape[1]
    if len(labels) and not 0 <= int(labels.min()) <= int(labels.max()) < classes:
        raise DataError(f"Labels from {labels.min()} to {labels.max()}; these weights have classes 0 to {classes - 1}.")
    if not np.isfinite(posteriors).all():
        raise DataError("Posteriors that are not finite have no rank. Take a precision of wider range: bf16 or fp32.")
    true = np.take_along_axis(posteriors, labels[:, None], axis=1)
    found: Ints = (posteriors >= true).sum(axis=1) - 1
    return found


def hardest(
    posteriors: Array | Doubles, labels: Ints, ids: Sequence[str], count: int = 16, top: int = 5
) -> list[dict[str, Any]]:
    """The wrongly classified images with the lowest posteriors of their true labels, hardest first.

    Each: id, label, answer (the class taken for it), posterior (of that), true_posterior, top: [[class, posterior]].
    """
    true = np.take_along_axis(posteriors, labels[:, None], axis=1)[:, 0]
    wrong = np.flatnonzero(ranks(posteriors, labels) > 0)
    chosen = wrong[np.argsort(true[wrong], kind="stable")][:count]
    return [_case(posteriors[index], int(labels[index]), ids[index], top) for index in chosen]


def _case(posterior: Array | Doubles, label: int, image: str, top: int) -> dict[str, Any]:
    # The true label comes last among equals, as in its rank.
    best = sorted(range(len(posterior)), key=lambda index: (-posterior[index], index == label))[:top]
    return {
        "id": image,
        "label": label,
        "answer": best[0],
        "posterior": round(float(posterior[best[0]]), 6),
        "true_posterior": round(float(posterior[label]), 6),
        "top": [[index, round(float(posterior[index]), 6)] for index in best],
    }
