"""Images with several right answers (ReaL): an answer is right if it is one of them.

Beyer et al. 2020, "Are we done with ImageNet?", define top-1 so, and leave out images that no label fits. Top-5 is
taken in the same sense, as public evaluators do: right if any of the five best answers is among the labels. Both follow
from the rank of the best-ranked right label among the wrong classes.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from vggbench.errors import DataError
from vggbench.measure.posteriors import Doubles, Ints, ranks


def best_labels(posteriors: Doubles, labels: Sequence[tuple[int, ...]]) -> Ints:
    """(images,): of each image's right labels the one with the highest posterior, the first of equals.

    Raises DataError for a label beyond the classes.
    """
    classes = posteriors.shape[1]
    wrong = sorted({label for each in labels for label in each if not 0 <= label < classes})
    if wrong:
        raise DataError(f"Label {wrong[0]} is out of range; these weights have classes 0 to {classes - 1}.")
    return np.array([max(each, key=row.__getitem__) for row, each in zip(posteriors, labels, strict=True)], np.int64)


def without_other_labels(posteriors: Doubles, labels: Sequence[tuple[int, ...]], best: Ints) -> Doubles:
    """Posteriors in which only one right label of an image is left, so that its rank counts wrong classes alone.

    The others become -1, below any posterior. The same array where every image has one label.
    """
    if all(len(each) == 1 for each in labels):
        return posteriors
    masked = posteriors.copy()
    for row, each, kept in zip(masked, labels, best, strict=True):
        others = [label for label in each if label != kept]
        row[others] = np.minimum(row[others], -1.0)  # what is not finite stays so, and has no rank
    return masked


def ranks_of_best(posteriors: Doubles, labels: Sequence[tuple[int, ...]]) -> tuple[Ints, Ints]:
    """Rank of the best-ranked right label of each image (0: the answer is right), and which label that is."""
    best = best_labels(posteriors, labels)
    return ranks(without_other_labels(posteriors, labels, best), best), best
