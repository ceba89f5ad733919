"""Numerics records for tests of the page."""

from __future__ import annotations

import numpy as np
import page_fixtures as fixtures

from vggbench import paper
from vggbench.results import (
    ImageDrift,
    LayerDrift,
    NetworkRun,
    Numerics,
    Record,
    Recovery,
    Samples,
    Sensitivity,
    Workload,
)
from vggbench.statistics import holm

LAYERS = ["images", "block1.relu1", "block2.relu1", "fc6.relu", "fc7.relu", "scores"]
#: Precision, backend, layout -> (noise, lost, gained).
VARIANTS = {
    ("bf16", "pytorch", ""): (0.003, 1, 1),
    ("int8", "onnxruntime", "cpu"): (0.02, 14, 2),
    ("int8", "onnxruntime", "tensorrt"): (0.018, 3, 3),
}


def network(precision: str, backend: str, layout: str = "", name: str = "D") -> NetworkRun:
    claim = next(claim for claim in paper.claims() if claim.id == "table3/D/256")
    run = fixtures.network_run(claim, claim.entries[0], "sample", 64 / 224, 0)
    weights = run.weights | {"network": name, "digest": f"{fixtures.hash_of(name):016x}" * 4}
    changes = {"network": name, "weights": weights, "precision": precision, "backend": backend}
    calibration = {"layout": layout, "method": "minmax", "float_layers": []} if layout else {}
    return run.model_copy(update={**changes, "calibration": calibration})


def numerics_record(precision: str, backend: str, layout: str = "", name: str = "D", images: int = 60) -> Record:
    """Flips are the first images; layers grow noisier with depth; int8 has a sensitivity."""
    noise, lost, gained = VARIANTS[precision, backend, layout]
    generator = np.random.default_rng(fixtures.hash_of(precision, layout) % 2**32)
    margins = np.abs(generator.normal(1, 1, images)) + 0.01
    drifts = noise * (1 + np.abs(generator.normal(size=images)))
    flips = [image(index, index < lost) for index in range(lost + gained)]
    int8 = precision == "int8"
    return Record(
        kind="numerics",
        networks=[network(precision, backend, layout, name)],
        workload=Workload(protocol="center", choices=fixtures.CHOICES, data=fixtures.dataset(images)),
        samples=Samples(unit="ratio", values=[noise * (1 + index / images) for index in range(images)]),
        seed=0,
        environment=fixtures.MACHINE,
        started="2025-01-15T10:00:00+00:00",
        elapsed_seconds=3.0,
        numerics=Numerics(
            reference=network("fp32", "onnxruntime", "", name),
            images=images,
            reference_errors=20,
            variant_errors=20 + lost - gained,
            flips=lost + gained,
            lost=lost,
            gained=gained,
            p_value=holm([0.5 ** (lost - gained)])[0],
            layers=[layer(name, noise * depth) for depth, name in enumerate(LAYERS)],
            changed=[*flips, image(40, True, flipped=False)],
            sensitivity=[sensitivity("block1.conv1", 0.017), sensitivity("fc6", 0.004)] if int8 else [],
            recovery=[recovered([], 0.02), recovered(["block1.conv1"], 0.0042)] if int8 else [],
            margins=margins.tolist(),
            drifts=drifts.tolist(),
        ),
    )


def layer(name: str, noise: float) -> LayerDrift:
    db = -20 * float(np.log10(noise)) if noise else None
    return LayerDrift(layer=name, relative_l2=noise, max_absolute=5 * noise, sqnr_db=db, cosine=1 - noise**2 / 2)


def image(index: int, lost: bool, flipped: bool = True) -> ImageDrift:
    name = fixtures.HOSTILE if index == 0 else f"{index:05d}.jpg"
    before, now = (3, 7) if lost else (7, 3)
    return ImageDrift(
        id=name,
        label=3,
        margin=0.01 + index / 1000,
        drift=0.2,
        reference_class=before,
        variant_class=now if flipped else before,
        reference_rank=0 if lost else 1,
        variant_rank=1 if lost and flipped else 0,
    )


def sensitivity(name: str, cost: float) -> Sensitivity:
    return Sensitivity(
        layer=name, alone_relative_l2=cost, alone_flips=9, without_relative_l2=0.0203 - cost, without_flips=4
    )


def recovered(layers: list[str], cost: float) -> Recovery:
    return Recovery(float_layers=layers, relative_l2=cost, flips=4, top1_errors=21)
