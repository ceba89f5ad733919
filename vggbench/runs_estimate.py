"""What a run would cost, before it runs: images, passes, crop-equivalents and time."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass, replace
from statistics import median
from typing import Any

from PIL import Image

from vgg_reference.weights import Weights, random_weights
from vggbench import paper, plan, runs_inputs, runs_parts, runs_precision
from vggbench.images import Dataset
from vggbench.measure.accuracy import missing_views
from vggbench.measure.pipeline import default_workers
from vggbench.measure.shards import resolve
from vggbench.precisions import QUANTIZED
from vggbench.progress import Report, silent
from vggbench.protocols import Pass
from vggbench.report.rows import IMAGENET_IMAGES
from vggbench.runs_inputs import Request, Setting

#: Images whose headers give the typical shape.
SHAPES = 100


@dataclass(frozen=True)
class Estimate:
    """networks: one flat dict each. views_to_compute: those that the cache does not hold.

    images, of_images: of the row with most, and all there are. rows: of the paper; other_rows: beside none of its rows,
    as the center crops that other people's figures need. no_verdict: why the paper's rows will get none.
    seconds: of the slower of network and preparing, network by network; limits: which it is, over all. preparing:
    seconds an image on one thread. disk_bytes: in the cache when all has run, at most, and what of it; free_bytes: on
    its disk. downloads: published models named and not here; public: missing networks that are published -> bytes.
    """

    data: str
    layout: str
    images: int
    of_images: int
    rows: int
    other_rows: int
    no_verdict: tuple[str, ...]
    networks: list[dict[str, Any]]
    crop_equivalents: float
    views: int
    views_to_compute: int
    seconds: float
    speed: str
    missing: tuple[str, ...]
    network_seconds: float
    preparing_seconds: float
    workers: int
    limits: str
    preparing: dict[str, Any]
    disk: dict[str, int]
    disk_bytes: int
    free_bytes: int
    downloads: dict[str, int]
    public: dict[str, int]


def estimate(request: Request, progress: Report = silent, crops_per_second: float | None = None) -> Estimate:
    """Plans the run and times short trials of its first network and of preparing images; the other networks, at every
    precision, are taken to be as fast per multiply-accumulate. What the cache holds of int8 is not counted: that would
    need its ranges. crops_per_second: of the first network, instead of the trial. Raises any VggbenchError."""
    request = replace(request, only_planned=True)
    dataset = runs_inputs.dataset_of(request, progress)
    work = runs_inputs.plan_of(request, dataset)
    macs_per_second, speed = _speed(work.networks[0].weights, request.setting, crops_per_second)
    prepared = _prepared(work, request.setting, dataset)
    workers = default_workers(resolve(request.setting.backend, request.setting.device))
    jobs = [
        (network, each.setting)
        for each in (request, *runs_precision.others(request))
        for network in (work if each is request else runs_inputs.plan_of(each, dataset)).networks
    ]
    aspect = typical_aspect(dataset)
    lines = [_line(network, dataset, setting, aspect, macs_per_second, prepared, workers) for network, setting in jobs]
    disk = runs_parts.kept_bytes(jobs)
    network_seconds, preparing_seconds = _sum(lines, "network_seconds"), _sum(lines, "preparing_seconds")
    return Estimate(
        data=f"{dataset.name} ({dataset.split})",
        layout=dataset.layout,
        images=max(row.images for row in work.rows),
        of_images=dataset.total,
        rows=sum(row.claim is not None for row in work.rows),
        other_rows=sum(row.claim is None for row in work.rows),
        no_verdict=() if request.on_sample else _no_verdict(dataset, work),
        networks=lines,
        crop_equivalents=_sum(lines, "crop_equivalents"),
        views=_sum(lines, "views"),
        views_to_compute=_sum(lines, "views_to_compute"),
        seconds=_sum(lines, "seconds"),
        speed=speed,
        missing=work.missing,
        network_seconds=network_seconds,
        preparing_seconds=preparing_seconds,
        workers=workers,
        limits="the network" if network_seconds >= preparing_seconds else "decoding and rescaling",
        preparing=runs_parts.as_line(prepared),
        disk=disk,
        disk_bytes=sum(disk.values()),
        free_bytes=runs_parts.free_bytes(),
        downloads=_downloads(work),
        public=runs_parts.downloads(work.missing),
    )


def _speed(weights: Weights, setting: Setting, crops_per_second: float | None) -> tuple[float, str]:
    """Multiply-accumulates a second of a network, and where that is from."""
    if crops_per_second is not None:
        words = f"{crops_per_second:,.1f} crops/s of {weights.network}, as given"
        return crops_per_second * plan.crop_macs(weights), words
    # Of a stand-in only the shapes are true, and any random network has those: its graph is kept for the next.
    tried = weights if weights.path else random_weights(weights.network, batch_norm=weights.batch_norm, **weights.size)  # type: ignore[arg-type]
    found = runs_parts.macs_per_second(tried, setting)
    return found, f"{found / 1e9:.0f} billion multiply-accumulates/s in a trial of {weights.network}"


def _prepared(work: plan.Plan, setting: Setting, dataset: Dataset) -> runs_parts.Preparing:
    """A trial of preparing images for every pass of the plan."""
    steps = tuple({step: None for network in work.networks for step, _ in network.passes})
    crop_size = work.networks[0].weights.crop_size
    return runs_parts.preparing(dataset, steps, crop_size, setting.choices, setting.decoder)


def _sum(lines: Sequence[dict[str, Any]], key: str) -> Any:
    return sum(line[key] for line in lines)


def _downloads(work: plan.Plan) -> dict[str, int]:
    """Of the plan's networks, the published files that are not here -> bytes."""
    weights = [network.weights for network in work.networks]
    return {each.name: runs_parts.tensor_bytes(each) for each in weights if _to_come(each)}


def _to_come(weights: Weights) -> bool:
    """Whether these are a stand-in of a published model that was not fetched."""
    return weights.path is None and weights.source is not None


def _no_verdict(dataset: Dataset, work: plan.Plan) -> tuple[str, ...]:
    """What keeps every row of the paper from a verdict, as far as it can be known before."""
    rows = [row for row in work.rows if row.claim is not None]
    found = []
    if not runs_inputs.on_imagenet(dataset):
        found.append(f"images of {dataset.name}, not the ILSVRC-2012 validation set")
    elif rows and (images := max(row.images for row in rows)) != IMAGENET_IMAGES:
        found.append(f"{images:,} of the {IMAGENET_IMAGES:,} validation images")
    strange = [[part.weights.network for part in row.parts if part.weights.status != "authors"] for row in rows]
    if all(strange):
        names = ", ".join(dict.fromkeys(name for each in strange for name in each))
        found.append(f"weights of {names} not known to be the authors' (--authors-weights states it)")
    return tuple(found) if rows else ()


def typical_aspect(dataset: Dataset) -> float:
    """Median of longer over shorter side of the first images, from their headers; 4/3 if none can be read."""
    found = []
    for image in dataset.images[:SHAPES]:
        try:
            with Image.open(io.BytesIO(image.path.read_bytes())) as picture:
                found.append(max(picture.size) / min(picture.size))
        except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):
            continue
    return median(found) if found else 4 / 3


def _line(
    network: plan.NetworkPlan,
    dataset: Dataset,
    setting: Setting,
    aspect: float,
    macs_per_second: float,
    prepared: runs_parts.Preparing,
    workers: int,
) -> dict[str, Any]:
    """One network's share."""
    weights = network.weights
    absent: dict[Pass, int] = {}
    if setting.precision in QUANTIZED:
        absent = {step: images * step.views for step, images in network.passes}
    for images, steps in () if absent else network.batches:
        views = missing_views(
            dataset.first(images),
            weights,
            steps,
            backend=setting.backend,
            precision=setting.precision,
            choices=network.choices(setting.choices),
            device=setting.device,
            decoder=setting.decoder,
            sizes=setting.sizes,
        )
        for step, count in views.items():
            absent[step] = max(absent.get(step, 0), count)
    crops = {step: plan.image_crops(weights, step, setting.choices, aspect) for step, _ in network.passes}
    to_do = sum(count / step.views * crops[step] for step, count in absent.items())
    left = [(step, -(-absent.get(step, 0) // step.views)) for step, _ in network.passes]
    network_seconds = to_do * plan.crop_macs(weights) / macs_per_second
    preparing_seconds = prepared.seconds(left) / workers
    return {
        "network": weights.network,
        "precision": setting.precision,
        "train_scale": weights.train_scale,
        "taken_for": weights.train_scale or paper.PUBLIC_TRAIN_SCALE,
        "weights": weights.name,
        "resize_filter": network.resize_filter,
        "passes": {runs_parts.pass_name(step): images for step, images in network.passes},
        "claims": list(network.claims),
        "crop_equivalents": plan.crop_equivalents(network, setting.choices, aspect),
        "views": sum(images * step.views for step, images in network.passes),
        "views_to_compute": sum(absent.values()),
        "network_seconds": network_seconds,
        "preparing_seconds": preparing_seconds,
        "seconds": max(network_seconds, preparing_seconds),
        "disk_bytes": runs_parts.posterior_bytes(weights, network.passes),
    }
