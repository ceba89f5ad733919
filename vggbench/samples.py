"""What is derived from raw observed values; percentiles as trtexec defines them."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass

#: trtexec warns above this coefficient of variation.
UNSTABLE_CV = 0.025
PERCENTILES = (90.0, 95.0, 99.0)


def median(values: Sequence[float]) -> float:
    """The middle value, or the mean of the two middle ones."""
    return statistics.median(values)


def percentile(values: Sequence[float], percent: float) -> float:
    """The observed value at a percentile by trtexec's rule, never interpolated: sorted[n - 1 - int((1 - p/100) n)].

    Computed so that (1 - 90/100) * 100 is 10; in binary fractions it falls below, and the index is off by one.
    """
    if not values:
        raise ValueError("No values: a percentile needs at least one.")
    index = len(values) - 1 - int((100 - percent) * len(values) / 100)
    return sorted(values)[max(index, 0)]


def tail_is_supported(count: int, percent: float) -> bool:
    """Whether so many values bear a percentile: at least ten of them must lie beyond it."""
    return count * (100 - percent) >= 1000


def mad(values: Sequence[float]) -> float:
    """Median absolute deviation from the median, in the values' unit, not scaled to a standard deviation."""
    middle = median(values)
    return median([abs(value - middle) for value in values])


def coefficient_of_variation(values: Sequence[float]) -> float:
    """Standard deviation over mean; 0 for a single value."""
    return statistics.stdev(values) / statistics.fmean(values) if len(values) > 1 else 0.0


def images_per_second(seconds: Sequence[float], batch: int) -> float:
    """Throughput of calls made back to back: images over the sum of the calls' times."""
    return batch * len(seconds) / sum(seconds)


@dataclass(frozen=True)
class Summary:
    """Of a latency run, in seconds. percentiles: only those that the count of calls bears."""

    calls: int
    median_seconds: float
    mad_seconds: float
    percentile_seconds: dict[str, float]
    coefficient_of_variation: float
    images_per_second: float

    @property
    def is_stable(self) -> bool:
        """By trtexec's limit for its warning."""
        return self.coefficient_of_variation <= UNSTABLE_CV


def summarize(seconds: Sequence[float], batch: int) -> Summary:
    """Summary of the times of single calls with ``batch`` images each."""
    return Summary(
        calls=len(seconds),
        median_seconds=median(seconds),
        mad_seconds=mad(seconds),
        percentile_seconds={
            f"p{percent:g}": percentile(seconds, percent)
            for percent in PERCENTILES
            if tail_is_supported(len(seconds), percent)
        },
        coefficient_of_variation=coefficient_of_variation(seconds),
        images_per_second=images_per_second(seconds, batch),
    )
