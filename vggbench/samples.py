"""What is derived from raw observed values; percentiles as trtexec defines them."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

#: trtexec warns above this coefficient of variation.
UNSTABLE_CV = 0.025
PERCENTILES = (90.0, 95.0, 99.0)
#: Measuring may stop once the median's relative standard error is this small: two medians that err by so much differ
#: by less than 1.4 % in 95 of 100 pairs, which is below what fresh processes differ by.
SMALL_ERROR = 0.005
#: Into so many batches the calls are split for the standard error of the median. Simulated on series whose neighbours
#: correlate by 0.9, with both splits the medians err by what is stated; with ten batches alone by 1.3 times as much.
BATCHES = (10, 5)
#: Fewer processes than this bear no interval.
INTERVAL_PROCESSES = 3


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
    """Standard deviation over mean; 0 for a single value and where all are 0."""
    return statistics.stdev(values) / statistics.fmean(values) if len(values) > 1 and any(values) else 0.0


def median_standard_error(values: Sequence[float]) -> float:
    """Standard error of the median of calls made one after the other, in the values' unit; infinite under 10 of them.

    The largest of these estimates. Order statistics: half the distance between the values sqrt(n)/2 ranks to either
    side of the middle, right where calls are independent. Non-overlapping batches (Munoz and Glynn 1997): the deviation
    of the medians of b consecutive batches over sqrt(b), which sees that neighbouring calls resemble each other; what
    changes more slowly than that only further processes show.
    """
    count = len(values)
    if count < max(BATCHES):
        return math.inf
    ordered = np.sort(np.asarray(values, np.float64))
    low, high = (count - 1) / 2 - math.sqrt(count) / 2, (count - 1) / 2 + math.sqrt(count) / 2
    by_order = (ordered[min(math.ceil(high), count - 1)] - ordered[max(math.floor(low), 0)]) / 2
    return float(max(by_order, *(_error_by_batches(values, batches) for batches in BATCHES)))


def _error_by_batches(values: Sequence[float], batches: int) -> float:
    length = len(values) // batches
    split = np.asarray(values[len(values) - batches * length :], np.float64).reshape(batches, length)
    return float(np.median(split, axis=1).std(ddof=1)) / math.sqrt(batches)


def relative_standard_error(values: Sequence[float]) -> float:
    """The median's standard error over the median; infinite under 10 values, and where the median is 0."""
    error, middle = median_standard_error(values), median(values)
    return error / middle if middle else math.inf


def bootstrap_median(values: Sequence[float], confidence: float = 0.95) -> tuple[float, float] | None:
    """Percentile bootstrap interval of the median over processes, an entry each; None under three of them."""
    if len(values) < INTERVAL_PROCESSES:
        return None
    from scipy import stats  # type: ignore[import-untyped]

    found = stats.bootstrap(
        (np.asarray(values, np.float64),),
        np.median,
        confidence_level=confidence,
        method="percentile",
        random_state=np.random.default_rng(0),
    ).confidence_interval
    return float(found.low), float(found.high)


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
