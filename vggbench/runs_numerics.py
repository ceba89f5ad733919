"""What a precision moves: one network's FP32 run against its variants on the same images, layer by layer."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import numpy as np

from vgg_reference.weights import Weights
from vggbench import backends, environment, runs_inputs, runs_thumbnails
from vggbench import report as pages
from vggbench.backends.choice import choose
from vggbench.errors import CalibrationError, UsageError
from vggbench.images import Dataset
from vggbench.measure.batches import Views
from vggbench.measure.compare import Bench, numerics_of
from vggbench.measure.numerics import moved, rounded
from vggbench.measure.records import describe
from vggbench.measure.sensitivity import costs, outcome
from vggbench.precisions import QUANTIZED
from vggbench.progress import Report, silent
from vggbench.protocols import Pass, as_flat_dict, default_scales
from vggbench.ranges import LAYOUTS, Quantization, Ranges
from vggbench.results import Record, Samples, Workload, write_records
from vggbench.results_names import float_layers_of
from vggbench.runs_inputs import Setting
from vggbench.samples import median, percentile
from vggbench.sizes import Sizes, check_forms
from vggbench.statistics import holm
from vggbench.variants import Variant

#: One view an image, by form: name of the protocol in records, grid.
FORMS = {"crop": ("center", "center"), "dense": ("whole image", "whole")}
GRAMMAR = "PRECISION[@BACKEND][/LAYOUT], as bf16, int8@openvino, int8@onnxruntime/tensorrt"


@dataclass(frozen=True)
class Spec:
    """One way to run the network, as typed. backend: None takes the one that runs the precision best here."""

    precision: str
    backend: str | None = None
    layout: str = ""


@dataclass(frozen=True)
class Asked:
    """What `numerics` was asked for. setting: its device, threads, on_bad and choices hold for all.

    reference, variants: see GRAMMAR. form: "crop" (center crop) or "dense" (whole image, no mirror image). scale: None
    takes the training scale's. calibration: file of ranges for int8; None takes the sample set's own. float_layers: of
    every int8 and fp8 network stay in floating point. sensitivity: of int8 variants; keep: how many of the worst layers
    to keep in floating point then, beside those. sizes: what engines are built for, of the variants that have any.
    """

    setting: Setting
    reference: str = "fp32"
    variants: tuple[str, ...] = ("bf16",)
    form: str = "crop"
    scale: int | None = None
    calibration: Path | None = None
    float_layers: tuple[str, ...] = ()
    sensitivity: bool = False
    keep: tuple[int, ...] = (1, 2, 3)
    sizes: Sizes | None = None


def parse(text: str) -> Spec:
    """ "int8@onnxruntime/tensorrt" -> its parts. Raises UsageError for another grammar or an unknown name."""
    rest, slash, layout = text.partition("/")
    precision, at, backend = rest.partition("@")
    if not precision or (at and not backend) or (slash and not layout):
        raise UsageError(f"Variant {text!r}: accepted is {GRAMMAR}.")
    if precision not in backends.PRECISIONS:
        raise UsageError(f"Variant {text!r}: no precision {precision!r}. Known: {', '.join(backends.PRECISIONS)}.")
    if backend and backend != backends.AUTO:
        backends.module(backend)
    if layout and (layout not in LAYOUTS or precision != "int8"):
        raise UsageError(f"Variant {text!r}: a layout goes with int8 only, and is {' or '.join(LAYOUTS)}.")
    return Spec(precision, backend or None, layout)


def open_inputs(
    asked: Asked,
    *,
    network: str = "D",
    weights: str = "sample",
    data: str = runs_inputs.SAMPLE,
    labels: Path | None = None,
    split: str = "test",
    images: int | None = 256,
    train_scale: str | None = None,
    preprocess: str | None = None,
    progress: Report = silent,
) -> tuple[Dataset, Weights]:
    """What ``numerics`` takes; names are checked before the data is looked at. Raises any VggbenchError."""
    runs_inputs.check_names(network, "center")
    for text in (asked.reference, *asked.variants):
        parse(text)
    dataset = runs_inputs.open_images(data, labels, progress, split).first(images)
    size = runs_inputs.SAMPLE_SIZE if data == runs_inputs.SAMPLE else {}
    return dataset, runs_inputs.weights_of(weights, network, train_scale, len(dataset.classes), preprocess, size)


def numerics(dataset: Dataset, weights: Weights, asked: Asked, progress: Report = silent) -> list[Record]:
    """One record a variant: its logits and layers against the reference's on every image. Raises any VggbenchError."""
    if dataset.label_set:
        raise UsageError(f"{dataset.label_set} labels: errors are compared by one label an image. Leave --labels out.")
    started = datetime.now(timezone.utc).isoformat(timespec="seconds")
    reference, *others = variants_of(dataset, weights, asked, progress)
    views = Views(dataset, weights, step_of(weights, asked), asked.setting.choices, asked.setting.on_bad)
    bench = Bench(views, asked.setting.device, asked.setting.threads, progress)
    base = bench.logits(reference)
    kept = [dataset.images[index] for index in views.kept()]
    ids, labels = [image.id for image in kept], np.array([image.label for image in kept], np.int64)
    here = environment.environment()
    records = []
    for variant in others:
        clock = time.monotonic()
        logits = bench.logits(variant)
        found = moved(base.values, logits.values, labels)
        measured = numerics_of(base.run, found, ids, labels, *bench.layers(reference, variant))
        if asked.sensitivity and variant.precision == "int8":
            known = outcome(base.values, logits.values, labels)
            measured = measured.model_copy(update=costs(bench, variant, base.values, labels, known, asked.keep))
        records.append(
            Record(
                kind="numerics",
                networks=[logits.run],
                workload=_workload(views, asked),
                samples=Samples(unit="ratio", values=[rounded(ratio) for ratio in found.ratios]),
                seed=None if weights.status == "random" else weights.seed,
                environment=here,
                started=started,
                elapsed_seconds=time.monotonic() - clock,
                numerics=measured,
            )
        )
    return records


def variants_of(dataset: Dataset, weights: Weights, asked: Asked, progress: Report = silent) -> list[Variant]:
    """The reference's variant, then the others', before anything costly.

    Raises UsageError, BackendUnavailable, and CalibrationError where int8 has no ranges, or has ones of other weights
    or of images that are evaluated too.
    """
    if asked.form not in FORMS:
        raise UsageError(f"No form {asked.form!r}. Known: {', '.join(FORMS)}.")
    if not asked.variants:
        raise UsageError(f"No variant to compare. Give one or more: --variant {GRAMMAR}.")
    specs = [parse(text) for text in (asked.reference, *asked.variants)]
    if asked.sensitivity and not any(spec.precision == "int8" for spec in specs[1:]):
        raise UsageError(
            f"The sensitivity is that of int8 variants; asked were {', '.join(asked.variants)}. Leave --sensitivity "
            "out, or add --variant int8."
        )
    check_forms(asked.sizes, [asked.form])
    chosen = [_backend(spec, asked.setting.device) for spec in specs]
    if not any(map(backends.has_profile, chosen)):
        backends.check_sizes(chosen[-1], asked.sizes)
    ranges = _ranges(dataset, weights, asked, progress) if any(spec.precision in QUANTIZED for spec in specs) else None
    choices, found = asked.setting.choices, list[Variant]()
    for spec, backend in zip(specs, chosen, strict=True):
        quantization = (
            Quantization(ranges, asked.float_layers, spec.layout) if ranges and spec.precision in QUANTIZED else None
        )
        pooled = (choices.pool_rounding, choices.score_pool)
        sizes = asked.sizes if backends.has_profile(backend) else None
        found.append(Variant(weights, asked.form, backend, spec.precision, *pooled, quantization, sizes))
    return found


def _backend(spec: Spec, device: str) -> str:
    """The one that was named, or the fastest here. Raises UsageError, BackendUnavailable."""
    if spec.backend is None or spec.backend == backends.AUTO:
        return choose(spec.precision, device).backend
    backends.check_runs(spec.backend, spec.precision, device)
    return spec.backend


def _ranges(dataset: Dataset, weights: Weights, asked: Asked, progress: Report) -> Ranges:
    """From the file given; for the sample set else its own."""
    if asked.calibration is None and dataset.name != runs_inputs.SAMPLE:
        raise CalibrationError(
            f"INT8 needs ranges of {weights.network}, taken from other images than the evaluated ones. Make them: "
            f"vggbench calibrate --network {weights.network}, and give them: --calibration FILE."
        )
    from vggbench.quantize import check_disjoint
    from vggbench.runs_calibrate import ranges_for

    ranges: Ranges = ranges_for(weights, file=asked.calibration, threads=asked.setting.threads, progress=progress)
    check_disjoint(ranges, dataset)
    return ranges


def step_of(weights: Weights, asked: Asked) -> Pass:
    """One view an image."""
    scale = asked.scale or default_scales("center", weights.train_scale, weights.crop_size)[0]
    return Pass(asked.form, scale, FORMS[asked.form][1], False)


def _workload(views: Views, asked: Asked) -> Workload:
    bad = [{"id": each.id, "why": each.why} for each in views.bad.values()]
    return Workload(
        protocol=FORMS[asked.form][0],
        choices=as_flat_dict(asked.setting.choices),
        data={**describe(views.dataset, [], len(views.kept())), "bad": bad},
    )


def save(dataset: Dataset, records: Sequence[Record], out: Path, choices: Any) -> Path:
    """records.jsonl and index.html in ``out``; returns the page. Raises StorageError."""
    context = pages.context_from(records)
    shown = [record.model_copy(update={"hardest": _named(record)}) for record in records]
    context = dataclasses.replace(
        context,
        dataset={**records[0].workload.data, "classes": list(dataset.classes)},
        thumbnails=runs_thumbnails.thumbnails(dataset, shown, choices),
    )
    write_records(out / "records.jsonl", records)
    pages.write_page(out / "index.html", pages.render(records, [], context))
    return out / "index.html"


def _named(record: Record) -> list[dict[str, Any]]:
    """The changed images in the shape of hardest ones, flips first."""
    changed = record.numerics.changed if record.numerics else []
    return [
        {"id": each.id, "posterior": (each.reference_class != each.variant_class) + each.drift / (1 + each.drift)}
        for each in changed
    ]


def summaries(records: Sequence[Record]) -> list[dict[str, Any]]:
    """A row a record: what `numerics --json` prints. p_holm: over these records."""
    adjusted = holm([record.numerics.p_value for record in records if record.numerics])
    found = []
    for record, p_holm in zip(records, adjusted, strict=True):
        run, measured = record.networks[0], record.numerics
        assert measured is not None
        ratios = [float(value) for value in record.samples.values]
        layout = run.calibration.get("layout")
        found.append(
            {
                "network": run.network,
                "variant": f"{run.precision}@{run.backend}" + (f"/{layout}" if layout else ""),
                "float_layers": float_layers_of(run),
                "reference": f"{measured.reference.precision}@{measured.reference.backend}",
                "images": measured.images,
                "relative_l2_median": median(ratios),
                "relative_l2_p95": percentile(ratios, 95),
                "largest_drift": max(measured.drifts),
                "reference_errors": measured.reference_errors,
                "variant_errors": measured.variant_errors,
                "flips": measured.flips,
                "lost": measured.lost,
                "gained": measured.gained,
                "p": measured.p_value,
                "p_holm": p_holm,
            }
        )
    return found
