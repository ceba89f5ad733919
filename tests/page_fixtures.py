"""Plausible records for tests of the page: one latent difficulty an image, one quality a row, noise by network."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
from PIL import Image

from vggbench import paper
from vggbench.report import ReportContext
from vggbench.results import NetworkRun, Record, Samples, Workload

HOSTILE = "<img src=x onerror=alert(1)>.jpg"
CLASSES = [
    f"{colour} {shape}"
    for colour in ("red", "green", "blue", "white", "black", "gold")
    for shape in ("disc", "ring", "star", "cross", "bar", "wave", "grid", "cone", "leaf", "knot")
]
CHOICES = {
    "score_pool": "mean_logits",
    "pool_rounding": "ceil",
    "grid_extent": "whole",
    "grid_rounding": "round",
    "resize_filter": "bicubic",
    "side_rounding": "round",
    "exif": "ignore",
}
MACHINE = {
    "vggbench": "0.1.0",
    "commit": "d4856c5",
    "command": "vggbench reproduce --out report",
    "cpu": "Example CPU 9000 (2.5 GHz)",
    "cores": 2,
    "memory_bytes": 8_000_000_000,
    "gpu": None,
    "python": "3.11.9",
    "torch": "2.13.0+cpu",
    "onnxruntime": "1.32.0",
}


def dataset(images: int, bad: bool = False, **changes: Any) -> dict[str, Any]:
    """The description of the sample set's reported split."""
    return {
        "name": "sample",
        "split": "test",
        "fingerprint": "5f1d" * 16,
        "layout": "one folder, labels in annotations.csv",
        "classes": len(CLASSES),
        "images": images,
        "total": 2400,
        "decoder": "Pillow 13.0.0, libjpeg-turbo 3.1.2",
        "bad": [{"id": HOSTILE, "why": "cannot identify image file <b>bold</b>"}] if bad else [],
        **changes,
    }


def network_run(claim: paper.Claim, entry: paper.Entry, status: str, factor: float, seed: int | None) -> NetworkRun:
    """One network's part of a claim, at the paper's scales times ``factor``."""
    scales = [round(scale * factor) for scale in entry.test_scales]
    passes = [
        {"form": "dense", "scale": q, "grid": "whole", "flip": True} for q in scales if "dense" in claim.technique
    ]
    passes += [{"form": "crop", "scale": q, "grid": "5x5", "flip": True} for q in scales if "crop" in claim.technique]
    weights = {
        "name": f"{status}/{entry.network}/{entry.train_scale}/seed{seed}",
        "network": entry.network,
        "train_scale": entry.train_scale,
        "status": status,
        "digest": f"{hash_of(entry.network, entry.train_scale, seed):016x}" * 4,
        "width": 0.125,
        "num_classes": 60,
        "crop_size": 64,
    }
    return NetworkRun(
        network=entry.network,
        weights=weights,
        passes=passes,
        backend="onnxruntime",
        precision="fp32",
        session={"threads": 2, "device": "cpu"},
    )


def hash_of(*parts: object) -> int:
    """Stable over runs, unlike hash()."""
    return sum((i + 1) * ord(c) for i, c in enumerate(repr(parts))) * 2_654_435_761 % 2**64


def ranks(error: float, seed: int | None, key: str, images: int) -> list[int]:
    """Ranks with about this top-1 error; the same images are hard for all."""
    hard = np.random.default_rng(1).normal(size=images)
    own = np.random.default_rng(hash_of(key, seed) % 2**32).normal(size=images)
    score = 0.99 * hard + 0.14 * own
    threshold = np.quantile(np.random.default_rng(2).normal(size=20000), 1 - error)
    beyond = score - threshold
    return [0 if b < 0 else 1 + int(b * 9) for b in beyond]


def sample_records(seeds: tuple[int, ...] = (0, 1, 2), images: int = 1200, hostile: bool = False) -> list[Record]:
    """All rows of Tables 3-6 on the sample set, the later seeds as recorded ones; row 1 of Table 6 is left out."""
    records = []
    for claim in paper.claims():
        if len(claim.entries) > 2:
            continue
        count = images // 2 if "crop" in claim.technique else images
        for seed in seeds:
            error = 0.14 + 0.022 * ((claim.top1_error_percent or 25) - 24.0) + 0.001 * (seed - 1)
            networks = [network_run(claim, entry, "sample", 64 / 224, seed) for entry in claim.entries]
            hardest = [
                {
                    "id": HOSTILE if hostile and i == 0 else f"{i:05d}.jpg",
                    "label": (7 * i) % 60,
                    "answer": (11 * i + 3) % 60,
                    "posterior": 0.99 - 0.01 * i - 0.001 * seed,
                    "true_posterior": 0.003 + 0.001 * i,
                }
                for i in range(16)
            ]
            records.append(
                Record(
                    kind="accuracy",
                    claim=claim.id,
                    networks=networks,
                    workload=Workload(protocol=claim.technique, choices=CHOICES, data=dataset(count, bad=hostile)),
                    samples=Samples(unit="rank", values=ranks(error, seed, claim.id, count)),
                    seed=seed,
                    origin="measured" if seed == 0 else "recorded",
                    environment=MACHINE,
                    started="2025-01-15T10:00:00+00:00",
                    elapsed_seconds=4.0,
                    hardest=hardest if seed == 0 else [],
                )
            )
    return records


def imagenet_record(claim: paper.Claim, top1: float, top5: float, images: int = 50_000, **choices: str) -> Record:
    """The authors' weights on ImageNet with the given errors in percent."""
    wrong1, wrong5 = round(images * top1 / 100), round(images * top5 / 100)
    values = [7] * wrong5 + [1] * (wrong1 - wrong5) + [0] * (images - wrong1)
    networks = [network_run(claim, entry, "authors", 1.0, None) for entry in claim.entries]
    data = dataset(images, name="ILSVRC-2012", split="val", classes=1000, total=50_000, layout="ImageNet validation")
    return Record(
        kind="accuracy",
        claim=claim.id,
        networks=networks,
        workload=Workload(protocol=claim.technique, choices={**CHOICES, **choices}, data=data),
        samples=Samples(unit="rank", values=values),
        environment=MACHINE,
        started="2025-01-15T10:00:00+00:00",
    )


def other_records(images: int = 600) -> list[Record]:
    """A center-crop row that stands beside no claim, and a latency run."""
    claim = next(claim for claim in paper.claims() if claim.id.startswith("table3/B"))
    run = network_run(claim, claim.entries[0], "sample", 64 / 224, 0)
    center = run.model_copy(update={"passes": [{"form": "crop", "scale": 73, "grid": "center", "flip": False}]})
    workload = Workload(protocol="center", choices=CHOICES, data=dataset(images))
    return [
        Record(
            kind="accuracy",
            networks=[center],
            workload=workload,
            seed=0,
            environment=MACHINE,
            samples=Samples(unit="rank", values=ranks(0.3, 0, "center", images)),
        ),
        Record(
            kind="latency",
            networks=[center],
            workload=Workload(batch=1, size=[224, 224]),
            environment=MACHINE,
            samples=Samples(unit="seconds", values=[0.2, 0.21, 0.19]),
        ),
    ]


def thumbnail(index: int) -> bytes:
    """A small JPEG."""
    y, x = np.mgrid[0:96, 0:128]
    pixels = np.stack([(x * 2 + 40 * index) % 256, (y * 2 + 15 * index) % 256, (x + y + 60 * index) % 256], -1)
    buffer = io.BytesIO()
    Image.fromarray(pixels.astype(np.uint8)).save(buffer, "JPEG", quality=70)
    return buffer.getvalue()


def context(images: int = 1200, hostile: bool = False) -> ReportContext:
    """The run that made the records."""
    data = {**dataset(images, bad=hostile), "classes": CLASSES}
    return ReportContext(
        title="The VGG paper, reproduced on the sample set",
        command="vggbench reproduce --out report" + (f" --data '{HOSTILE}'" if hostile else ""),
        started="2025-01-15T10:00:00+00:00",
        elapsed_seconds=431.0,
        dataset=data,
        machine=MACHINE,
        thumbnails={HOSTILE: thumbnail(0), **{f"{i:05d}.jpg": thumbnail(i) for i in range(16)}},
        notes=["Multi-crop rows used the first 600 images; --full takes all."],
    )
