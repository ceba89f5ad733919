"""From what was seen of a tensor's values to the range that INT8 is to cover: minmax, entropy, percentile."""

from __future__ import annotations

import contextlib
import io

from vggbench.errors import CalibrationError, UsageError
from vggbench.quantize_histogram import Histogram
from vggbench.ranges import METHODS, TensorRange

#: Bins on each side of zero that the entropy method sees, and the levels it compares them with: 2048 and 128 are what
#: TensorRT's calibrator takes. ONNX Runtime's default of 128 bins leaves one candidate, the whole range.
ENTROPY_BINS, ENTROPY_LEVELS = 1024, 128
#: Counts changes of what a method does; part of a stored calibration's name.
METHODS_VERSION = 1


def check_method(method: str, percentile: float) -> None:
    """Raises UsageError."""
    if method not in METHODS:
        raise UsageError(f"No calibration method {method!r}. Known: {', '.join(METHODS)}.")
    if not 50 < percentile <= 100:
        raise UsageError(f"Percentile {percentile:g}: accepted are values above 50, up to 100, as 99.999.")


def new_histogram(method: str) -> Histogram:
    """What a method needs to know of a tensor."""
    return Histogram(counting=method != "minmax")


def range_of(tensor: str, seen: Histogram, method: str, percentile: float) -> TensorRange:
    """The range by a method; 0 lies in it. Entropy and percentile are decided by ONNX Runtime's own calibrators.

    entropy: the cut whose 128 levels lose the least information (Kullback-Leibler), exact zeros left out.
    percentile: half of what is beyond it is cut at each end, so of a ReLU's output, which ends at 0, 0.0005 % at
    99.999. Raises CalibrationError for a tensor that would have no range.
    """
    low, high = float(seen.low), float(seen.high)
    if low == high == 0:
        raise CalibrationError(
            f"{tensor} is 0 on all calibration images, so it has no range: the layer is dead, or the images are "
            "too alike. Give other images, or weights that were trained."
        )
    if method != "minmax":
        low, high = _decided(tensor, seen, method, percentile)
    # The + 0.0 turns the -0.0 that a ReLU may give into 0.0.
    low, high = min(low, 0.0) + 0.0, max(high, 0.0) + 0.0
    if low == high:
        raise CalibrationError(
            f"{tensor}: its {method} range is empty, though values reach {float(seen.high):g}: nearly all are 0. "
            "Give more images or a higher percentile, or take the method minmax."
        )
    return TensorRange(tensor, low, high)


def _decided(tensor: str, seen: Histogram, method: str, percentile: float) -> tuple[float, float]:
    """ONNX Runtime's decision on our histogram."""
    from onnxruntime.quantization.calibrate import HistogramCollector  # type: ignore[import-untyped]

    counts, edges = seen.trimmed()
    if method == "entropy":
        counts, edges = seen.trimmed(ENTROPY_BINS)
        # A ReLU's zeros, half of its values, are exact in any range. Counted, they make the narrowest one look best:
        # the sample network A's logits were 76 % off, and 7 % with this. TensorRT's calibrator fills that bin likewise.
        middle = len(counts) // 2
        counts[middle] = min(counts[middle], counts[middle + 1])
    collector = HistogramCollector(
        method=method,
        symmetric=False,
        num_bins=len(counts),
        num_quantized_bins=ENTROPY_LEVELS,
        percentile=percentile,
        scenario="same",
    )
    collector.histogram_dict = {tensor: (counts, edges, seen.low, seen.high)}
    with contextlib.redirect_stdout(io.StringIO()):  # it prints
        low, high = collector.compute_collection_result()[tensor][:2]
    return float(low), float(high)
