"""Ranges for a network: read from a file, or taken from images and kept."""

from __future__ import annotations

from pathlib import Path

from vgg_reference.weights import Weights
from vggbench import backends, cache, quantize, runs_inputs
from vggbench.errors import BackendUnavailable, CalibrationError
from vggbench.images import Dataset
from vggbench.images.decode import DECODER
from vggbench.progress import Report, silent
from vggbench.protocols import Choices, Pass, check_choices, default_scales
from vggbench.quantize_methods import METHODS_VERSION, check_method
from vggbench.ranges import DEFAULT_METHOD, DEFAULT_PERCENTILE, Ranges, read_ranges, to_json
from vggbench.results import write_output
from vggbench.variants import Variant, digest_of

#: Of the sample set: never "test", which is what gets reported. Of a folder with several splits.
SAMPLE_SPLIT, FOLDER_SPLIT = "tune", "train"


def ranges_for(
    weights: Weights,
    *,
    file: Path | None = None,
    data: str | None = None,
    split: str | None = None,
    method: str = DEFAULT_METHOD,
    images: int = 512,
    threads: int | None = None,
    progress: Report = silent,
    percentile: float = DEFAULT_PERCENTILE,
    labels: Path | None = None,
    choices: Choices = Choices(),  # noqa: B008 - frozen
    scale: int | None = None,
    on_bad: str = "stop",
) -> Ranges:
    """The ranges in ``file``, or those of the first ``images`` of ``data``; kept, so that a second call costs nothing.

    data: a folder, or "sample" (None means that too). split: by default "tune" of the sample set, "train" of a folder
    that holds several. The rest is as in quantize.calibrate. Raises CalibrationError, UsageError, DataError,
    WeightsError, StorageError, BackendUnavailable.
    """
    if file is not None:
        return checked(read_ranges(file), weights)
    check_method(method, percentile)
    check_choices(choices)
    if images < 1:
        raise CalibrationError(f"Nothing to calibrate on: {images} images were asked for. Give at least 1, better 512.")
    missing = backends.module("onnxruntime").available()
    if missing is not None:
        raise BackendUnavailable(missing)
    data = data or runs_inputs.SAMPLE
    own = SAMPLE_SPLIT if data == runs_inputs.SAMPLE else FOLDER_SPLIT
    dataset = runs_inputs.open_images(data, labels, progress, split or own, images)
    place = _place(weights, dataset, method, percentile, choices, scale, on_bad)
    kept = _kept(place, weights)
    if kept is not None:
        return kept
    found = quantize.calibrate(
        weights,
        dataset,
        method=method,
        percentile=percentile,
        images=images,
        choices=choices,
        scale=scale,
        threads=threads or backends.default_threads(),
        on_bad=on_bad,
        progress=progress,
    )
    cache.write_atomic(place, to_json(found))
    return found


def checked(ranges: Ranges, weights: Weights) -> Ranges:
    """The same ranges. Raises CalibrationError if they were taken with other weights or another input."""
    ranges.check(weights.network, weights.digest)
    taken, now = ranges.views.get("input"), quantize.input_of(weights)
    if taken != now:
        raise CalibrationError(
            f"These ranges were taken with another input ({taken}) than {weights.name} has now ({now}). Calibrate "
            f"anew: vggbench calibrate --network {weights.network}."
        )
    return ranges


def write(path: Path, ranges: Ranges) -> None:
    """The artefact as a file, whole or not at all. Raises StorageError."""
    write_output(path, to_json(ranges), "the calibration")


def _place(
    weights: Weights,
    dataset: Dataset,
    method: str,
    percentile: float,
    choices: Choices,
    scale: int | None,
    on_bad: str,
) -> Path:
    """Where ranges are kept, by all that decides them."""
    import onnxruntime  # type: ignore[import-untyped]

    side = scale or default_scales("center", weights.train_scale, weights.crop_size)[0]
    identity = {
        **Variant(weights, "crop", "onnxruntime").identity,
        **quantize.views_of(weights, Pass("crop", side, "center", False), choices),
        "data": dataset.fingerprint,
        "images": len(dataset.images),
        "method": method,
        "percentile": percentile if method == "percentile" else None,
        "methods_version": METHODS_VERSION,
        "on_bad": on_bad,
        "decoder": DECODER,
        "onnxruntime": onnxruntime.__version__,
    }
    return cache.root() / "ranges" / f"{digest_of(identity)}.json"


def _kept(place: Path, weights: Weights) -> Ranges | None:
    """Ranges of an earlier call; None if there are none, or a damaged file, which will be written anew."""
    if cache.read(place) is None:
        return None
    try:
        return checked(read_ranges(place), weights)
    except CalibrationError:
        return None
