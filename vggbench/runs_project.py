"""Hours for the comparable rows of Tables 3-6 on other machines, from parts that were measured, and what limits there.

What was measured on no such device is "no record", and never guessed: a GPU's speed comes from a record of
`vggbench latency --device cuda` or from who asks.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vgg_reference.weights import Weights, random_weights
from vggbench import paper, plan, runs_parts
from vggbench.backends import default_threads
from vggbench.errors import RecordError, UsageError
from vggbench.images import Dataset
from vggbench.plan import NetworkPlan
from vggbench.results import Record, read_records
from vggbench.runs_inputs import Setting

#: Images of ILSVRC-2012's validation set.
IMAGES = 50_000
GPUS = (1, 8, 64)


@dataclass(frozen=True)
class Parts:
    """What a projection rests on; None where nothing was measured or said.

    cpu_crops_per_second, gpu_crops_per_second: of VGG-16 (D), 224 pixels. preparing: core-seconds of all images.
    cores_per_gpu: that prepare images beside each. said: where each comes from, in words.
    """

    cpu_crops_per_second: float
    cpu_threads: int
    gpu_crops_per_second: float | None
    preparing_seconds: float
    cores_per_gpu: int
    said: dict[str, str]


@dataclass(frozen=True)
class Line:
    """One machine: hours and what limits, or why there are none."""

    machine: str
    hours: float | None
    compute_hours: float | None
    preparing_hours: float | None
    limits: str


def networks() -> tuple[NetworkPlan, ...]:
    """The passes of every row whose networks have public weights, over the whole validation set."""
    available: dict[tuple[str, str], Weights] = {
        (network, paper.PUBLIC_TRAIN_SCALE): random_weights(network, 0) for network in paper.PUBLIC_NETWORKS
    }
    claims = plan.choose_claims(None)
    return plan.plan(claims, available, IMAGES, None).networks


def crop_equivalents(work: Sequence[NetworkPlan], setting: Setting, aspect: float) -> float:
    """In crops of D."""
    unit = plan.crop_macs(random_weights("D", 0))
    return sum(
        plan.crop_equivalents(each, setting.choices, aspect) * plan.crop_macs(each.weights) / unit for each in work
    )


def measure(
    dataset: Dataset,
    setting: Setting,
    gpu_crops_per_second: float | None = None,
    records: Path | None = None,
    cores_per_gpu: int | None = None,
) -> Parts:
    """The parts: D's speed on this CPU and preparing these images now, the GPU's as given.

    Raises UsageError for a speed given twice, RecordError for records without what is needed, DataError.
    """
    if gpu_crops_per_second is not None and records is not None:
        raise UsageError("Both --gpu-crops-per-second and --records were given. Give one of them.")
    work = networks()
    speed, source = gpu_crops_per_second, "as given"
    if records is not None:
        speed, source = from_records(read_records(records), records)
    steps = tuple({step: None for each in work for step, _ in each.passes})
    found = runs_parts.preparing(dataset, steps, 224, setting.choices, setting.decoder)
    network = random_weights("D", 0)
    cpu = runs_parts.macs_per_second(network, dataclasses.replace(setting, device="cpu"), 4) / plan.crop_macs(network)
    return Parts(
        cpu_crops_per_second=cpu,
        cpu_threads=setting.threads or default_threads(),
        gpu_crops_per_second=speed,
        preparing_seconds=sum(found.seconds(each.passes) for each in work),
        cores_per_gpu=cores_per_gpu or default_threads(),
        said={
            "cpu": f"measured here: {setting.backend} {setting.precision}",
            "gpu": source if speed is not None else "no record",
            "preparing": f"measured here on the first images of {dataset.name}, {setting.decoder}",
            "cores_per_gpu": "as given" if cores_per_gpu else "as many as this machine has",
        },
    )


def from_records(records: Sequence[Record], path: Path) -> tuple[float, str]:
    """The fastest throughput of a full-size D on a GPU, in crops a second, and where it stands. Raises RecordError."""
    found = []
    for record in records:
        run = record.networks[0] if record.networks else None
        if record.kind != "latency" or run is None or run.network != "D" or record.workload.size != [224, 224]:
            continue
        full = run.weights.get("width", 1.0) == 1.0 and run.weights.get("crop_size", 224) == 224
        if full and str(run.session.get("device", "")).startswith("cuda") and record.samples.values:
            calls = sorted(record.samples.values)
            speed = (record.workload.batch or 1) / calls[len(calls) // 2]
            gpu = record.environment.get("gpu") or "a GPU"
            found.append((speed, f"a record of {run.backend} {run.precision} on {gpu}, batch {record.workload.batch}"))
    if not found:
        raise RecordError(
            f"{path}: no latency record of D at full size on a GPU. Take one there: vggbench latency --network D "
            "--weights random:0 --device cuda --batch 32."
        )
    return max(found)


def project(parts: Parts, crops: float) -> list[Line]:
    """crops: crop-equivalents of D in all. Preparing and computing overlap on a GPU, and share the cores of a CPU."""
    compute = crops / parts.cpu_crops_per_second * parts.cpu_threads / 2 / 3600
    prepare = parts.preparing_seconds / 2 / 3600
    limits = "the network" if compute > prepare else "decoding and rescaling"
    lines = [Line("two CPU cores", compute + prepare, compute, prepare, limits)]
    beside = f"{parts.cores_per_gpu} core{'s' if parts.cores_per_gpu > 1 else ''} each"
    for count in GPUS:
        name = f"{count} GPU{'s' if count > 1 else ''}, {beside}"
        prepare = parts.preparing_seconds / (parts.cores_per_gpu * count) / 3600
        if parts.gpu_crops_per_second is None:
            lines.append(Line(name, None, None, prepare, "no record of a GPU's speed"))
            continue
        compute = crops / parts.gpu_crops_per_second / count / 3600
        limits = "the network" if compute > prepare else "decoding and rescaling"
        lines.append(Line(name, max(compute, prepare), compute, prepare, limits))
    return lines


def as_document(parts: Parts, crops: float, lines: Sequence[Line]) -> dict[str, Any]:
    return {
        "images": IMAGES,
        "networks": sorted(paper.PUBLIC_NETWORKS),
        "crop_equivalents_of_D": crops,
        "parts": dataclasses.asdict(parts),
        "machines": [dataclasses.asdict(line) for line in lines],
    }
