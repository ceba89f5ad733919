"""Images to train or to tune on."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from vggbench.images import Source


@dataclass(frozen=True)
class Labelled:
    """A training or tuning set: files and labels in a fixed order, and the digest of all of them."""

    paths: tuple[Source, ...]
    labels: npt.NDArray[np.int64]
    classes: int
    fingerprint: str
