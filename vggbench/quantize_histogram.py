"""A histogram of a tensor's values that depends on the values alone, not on the order or the batches they came in."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

Counts = npt.NDArray[np.int64]

#: Bins on each side of zero: the range is known to one part in 4,096 at least.
BINS = 8192
#: Values that are counted at once: their copies stay in a core's own cache.
_CHUNK = 1 << 15


class Histogram:
    """Counts over [-2^e, 2^e) in equal bins, and the extremes; 2^e is the least power of two beyond every value.

    A larger value doubles the range and adds neighbouring bins in pairs. A bin's index is floor(value * bins / 2^e),
    exact in double precision for every float32, and merging adds integers, so the result is a function of the values
    as a set. ONNX Runtime's own collector widens its first batch's range by that batch's step, so that another order
    gives other bins, and it keeps the tensors of all images until the end.

    counting: False keeps the extremes only.
    """

    def __init__(self, counting: bool = True, bins: int = BINS) -> None:
        self.low, self.high = np.float32(np.inf), np.float32(-np.inf)
        self.counts: Counts | None = np.zeros(2 * bins, np.int64) if counting else None
        self._exponent: int | None = None  # 2^e; None before the first value that is not 0

    def add(self, values: npt.NDArray[np.float32]) -> None:
        """Count an array of any shape. Raises ValueError for a value that is not finite."""
        flat = values.reshape(-1)
        low, high = flat.min(), flat.max()
        if not (np.isfinite(low) and np.isfinite(high)):
            raise ValueError("NaN" if np.isnan(low) else "an infinite value")
        self.low, self.high = min(self.low, low), max(self.high, high)
        if self.counts is not None:
            self._widen(max(-float(low), float(high)))
            self._count(flat, self.counts)

    @property
    def step(self) -> float:
        """Width of a bin."""
        assert self.counts is not None
        return math.ldexp(1.0, self._exponent or 0) / (len(self.counts) // 2)

    def trimmed(self, bins: int = BINS) -> tuple[Counts, npt.NDArray[np.float64]]:
        """(counts, edges), symmetric around zero and as narrow as the extremes allow, in ``bins`` a side at most."""
        assert self.counts is not None
        counts, step = self.counts, self.step
        largest = max(abs(float(self.low)), abs(float(self.high)))
        while (side := math.floor(largest / step) + 1) > bins:
            counts, step = _halved(counts), 2 * step
        middle = len(counts) // 2
        return counts[middle - side : middle + side].copy(), np.arange(-side, side + 1, dtype=np.float64) * step

    def _widen(self, largest: float) -> None:
        """Make |value| = largest fit."""
        assert self.counts is not None
        if largest == 0:
            return
        exponent = math.frexp(largest)[1]  # largest = m * 2^exponent, 0.5 <= m < 1
        if self._exponent is None:  # all values so far were 0, and are counted in the bin of 0 at every width
            self._exponent = exponent
        # After so many times every count lies beside zero, and stays there.
        for _ in range(min(exponent - self._exponent, len(self.counts).bit_length())):
            self.counts = _halved(self.counts)
        self._exponent = max(exponent, self._exponent)

    def _count(self, flat: npt.NDArray[np.float32], counts: Counts) -> None:
        middle, factor = len(counts) // 2, 1 / self.step
        signed = self.low < 0
        scaled, index = np.empty(_CHUNK, np.float64), np.empty(_CHUNK, np.int64)
        for start in range(0, len(flat), _CHUNK):
            chunk = flat[start : start + _CHUNK]
            places, into = scaled[: len(chunk)], index[: len(chunk)]
            np.multiply(chunk, factor, out=places, dtype=np.float64)
            if signed:
                np.floor(places, out=places)
            np.copyto(into, places, casting="unsafe")
            if signed:
                into += middle
                counts += np.bincount(into, minlength=len(counts))
            else:
                counts[middle:] += np.bincount(into, minlength=middle)


def _halved(counts: Counts) -> Counts:
    """The same values in bins of twice the width, as many of them."""
    pairs = counts.reshape(-1, 2).sum(axis=1)
    wider = np.zeros_like(counts)
    wider[len(pairs) // 2 : len(pairs) // 2 + len(pairs)] = pairs
    return wider
