"""Calibration: images through the FP32 graph, and the range of every tensor that INT8 quantizes."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime  # type: ignore[import-untyped]
from onnx import TensorProto, helper, numpy_helper

import vggbench
from vgg_reference.architectures import architecture
from vgg_reference.weights import Weights
from vggbench import cache
from vggbench.errors import CalibrationError, WeightsError
from vggbench.graphs import INPUT, graph_path
from vggbench.images import Dataset
from vggbench.images.decode import DECODER
from vggbench.progress import Report, silent
from vggbench.protocols import Choices, Pass, default_scales
from vggbench.quantize_histogram import Histogram
from vggbench.quantize_images import Used, input_batches
from vggbench.quantize_methods import check_method, new_histogram, range_of
from vggbench.ranges import DEFAULT_METHOD, DEFAULT_PERCENTILE, Ranges, quantized_inputs
from vggbench.variants import Variant

#: Images of a session's call. The tensors of two calls are held at a time, 54 MB an image for VGG-16 at 224.
BATCH = 4

Floats = npt.NDArray[np.float32]


def calibrate(
    weights: Weights,
    dataset: Dataset,
    *,
    method: str = DEFAULT_METHOD,
    percentile: float = DEFAULT_PERCENTILE,
    images: int = 512,
    choices: Choices = Choices(),  # noqa: B008 - frozen
    scale: int | None = None,
    threads: int | None = None,
    batch: int = BATCH,
    on_bad: str = "stop",
    progress: Report = silent,
    cache_root: Path | None = None,
) -> Ranges:
    """Ranges from center crops of the first ``images`` images, which the dataset's order keeps even over classes.

    method: one of ranges.METHODS; percentile acts on that method only. scale: shorter side in pixels; None: as the
    protocol "center". One pass: memory does not grow with the images. The ranges are the same for any order of the
    images, batch and threads: see Histogram, and a test shows that the network's own values do not depend on the batch.
    on_bad: an image that cannot be decoded ends the run ("stop") or is left out and named in ``data`` ("skip").
    Raises CalibrationError (no images, values that are not finite, a tensor without range), UsageError, DataError,
    WeightsError, StorageError.
    """
    check_method(method, percentile)
    if images < 1 or not dataset.images:
        have = f"{dataset.name} has {len(dataset.images):,} images, {images:,} were asked for"
        raise CalibrationError(f"Nothing to calibrate on: {have}. Give at least one, better 512.")
    chosen = dataset.first(images)
    step = Pass("crop", scale or default_scales("center", weights.train_scale, weights.crop_size)[0], "center", False)
    names = dict.fromkeys(quantized_inputs(architecture(weights.network, weights.batch_norm)).values())
    seen = {name: new_histogram(method) for name in names}
    session = _session(weights, list(names), threads, cache.root() if cache_root is None else cache_root)
    used = Used()
    with closing(input_batches(chosen, weights, step, choices, batch, on_bad, used, progress)) as batches:
        _collect(session, batches, seen)
    return Ranges(
        network=weights.network,
        weights=weights.digest,
        method=method,
        percentile=percentile if method == "percentile" else None,
        data=_described(chosen, used),
        views=views_of(weights, step, choices),
        versions={
            "vggbench": vggbench.__version__,
            "onnxruntime": onnxruntime.__version__,
            "numpy": np.__version__,
            "decoder": DECODER,
        },
        tensors=tuple(range_of(name, each, method, percentile) for name, each in seen.items()),
        images=tuple(sorted(used.images, key=lambda image: image.id)),
    )


def check_disjoint(ranges: Ranges, dataset: Dataset) -> None:
    """Raises CalibrationError naming a file that was calibrated on and is in ``dataset`` too.

    By content, whatever the names, over the digests that a dataset has: no file is read. dataset: what is evaluated,
    so dataset.first(n) where only n images are.
    """
    calibrated = {image.sha256: image.id for image in ranges.images}
    found = [
        (image.id, calibrated[digest])
        for image, digest in zip(dataset.images, dataset.digests, strict=True)
        if digest in calibrated
    ]
    if not found:
        return
    here, there = found[0]
    name = repr(here) if here == there else f"{here!r} (calibrated on as {there!r})"
    more = f" and {len(found) - 1:,} more are" if len(found) > 1 else " is"
    raise CalibrationError(
        f"{name}{more} both in the images evaluated and in those that the ranges were taken from. Calibrate on others, "
        "as --split train or another folder: vggbench calibrate --data."
    )


def views_of(weights: Weights, step: Pass, choices: Choices) -> dict[str, str]:
    """How an image became an input, as text: what acts on a center crop."""
    return {
        "form": step.form,
        "grid": step.grid,
        "scale": str(step.scale),
        "crop_size": str(weights.crop_size),
        "resize_filter": choices.resize_filter,
        "side_rounding": choices.side_rounding,
        "grid_rounding": choices.grid_rounding,
        "exif": choices.exif,
        "input": input_of(weights),
    }


def input_of(weights: Weights) -> str:
    """What is done to a pixel, by channel: the range of "images" rests on it."""
    how = weights.preprocess
    mean, factor = (" ".join(f"{value:g}" for value in values) for values in (how.mean, how.scale))
    return f"{how.order}, minus {mean}, times {factor}"


def _session(weights: Weights, names: list[str], threads: int | None, cache_root: Path) -> Any:
    """The FP32 graph with these tensors as outputs. Raises WeightsError for weights that are not finite."""
    model = onnx.load(str(graph_path(Variant(weights, "crop", "onnxruntime"), cache_root)))
    for tensor in model.graph.initializer:
        # Here, for a ReLU may turn a NaN into 0.
        if not np.isfinite(numpy_helper.to_array(tensor)).all():
            raise WeightsError(f"{weights.name}: {tensor.name} has values that are not finite: it is damaged.")
    del model.graph.output[:]
    wanted = [name for name in names if name != INPUT]
    model.graph.output.extend(helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in wanted)
    data = model.SerializeToString()
    del model  # half a gigabyte, as the bytes and the session each
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads or 0
    options.log_severity_level = 3
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    return onnxruntime.InferenceSession(data, options, providers=["CPUExecutionProvider"])


def _collect(session: Any, batches: Iterator[Floats], seen: dict[str, Histogram]) -> None:
    """Every batch through the network; a second thread counts its values while the next one runs."""
    names = [name for name in seen if name != INPUT]
    with ThreadPoolExecutor(1, thread_name_prefix="count") as pool:
        counting: Future[None] | None = None
        for inputs in batches:
            tensors = session.run(names, {INPUT: inputs})
            if counting:
                counting.result()
            counting = pool.submit(_count, seen, {INPUT: inputs, **dict(zip(names, tensors, strict=True))})
            del tensors, inputs
        if counting:
            counting.result()


def _count(seen: dict[str, Histogram], tensors: dict[str, Floats]) -> None:
    """Raises CalibrationError for a value that is not finite."""
    for name in seen:  # in the network's order: the first that is not finite is the cause
        try:
            seen[name].add(tensors.pop(name))  # freed as soon as it is counted
        except ValueError as error:
            raise CalibrationError(
                f"{name} has {error} on a calibration image: the network overflows, or its weights are damaged. "
                "Ranges need finite values; check the weights: vggbench weights info."
            ) from None


def _described(dataset: Dataset, used: Used) -> dict[str, str]:
    """The images as text, for the artefact."""
    skipped = "; ".join(f"{image}: {why}" for image, why in used.skipped.items())
    found = {"name": dataset.name, "split": dataset.split, "fingerprint": dataset.fingerprint}
    return {**found, "skipped": skipped} if skipped else found
