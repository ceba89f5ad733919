"""Records for tests of the gate: timings of processes, and ranks over images."""

from __future__ import annotations

import numpy as np

from vggbench.results import NetworkRun, Numerics, Record, Samples, Workload

MACHINE = {"cpu": "Example CPU 9000", "cores": 2, "machine": "x86_64", "vggbench": "0.1.0", "python": "3.11.2"}
HOSTILE = '<img src=x onerror=alert(1)> | `a` @x \x00 "q"\n# no'


def timing(
    median=0.1,
    seed=0,
    *,
    process=0,
    network="D",
    backend="onnxruntime",
    precision="fp32",
    batch=1,
    spread=0.01,
    library="1.32.0",
    environment=None,
    session=None,
    conditions=None,
):
    """A process' record: calls that scatter by ``spread`` about a level that does, too."""
    random = np.random.default_rng([seed, process])
    values = median * np.exp(random.normal(0, spread) + random.normal(0, spread, 20))
    info = {"device": "cpu", "threads": 2, "form": "crop", "arithmetic": precision, backend: library, **(session or {})}
    run = NetworkRun(network=network, weights={"width": 1.0, "num_classes": 1000, "crop_size": 224}, passes=[],
                     backend=backend, precision=precision, session=info)  # fmt: skip
    return Record(
        kind="latency",
        networks=[run],
        workload=Workload(batch=batch, size=[224, 224], scenario="latency"),
        samples=Samples(unit="seconds", values=values.tolist()),
        environment={**MACHINE, **(environment or {})},
        process=process,
        conditions=conditions or {},
        started="2026-11-23T10:00:00Z",
    )


def timings(median=0.1, seed=0, count=7, **more):
    """One record a process."""
    return [timing(median, seed, process=number, **more) for number in range(count)]


def ranks(images=2400, seed=0, wrong=0.2):
    """Ranks of the true label; a fifth of the answers is wrong."""
    random = np.random.default_rng(seed)
    return np.where(random.random(images) < wrong, random.integers(1, 12, images), 0).tolist()


def judged(values, *, network="D", precision="fp32", data="f" * 64, full=None, bad=(), environment=None,
           name="sample/D", library="1.32.0", decoder="Pillow 13", **more):  # fmt: skip
    """An accuracy record."""
    run = NetworkRun(network=network, weights={"name": name, "digest": "d" * 64}, backend="onnxruntime",
                     passes=[{"form": "dense", "scale": 73, "grid": "whole", "flip": True}], precision=precision,
                     session={"device": "cpu", "onnxruntime": library})  # fmt: skip
    about = {"name": "sample", "fingerprint": data, "fingerprint_full": full or data, "decoder": decoder,
             "bad": [{"id": each, "why": "cut"} for each in bad]}  # fmt: skip
    return Record(
        kind="accuracy",
        networks=[run],
        workload=Workload(protocol="dense", data=about),
        samples=Samples(unit="rank", values=list(values)),
        environment={**MACHINE, **(environment or {})},
        **more,
    )


def drifted(values, **more):
    """A numerics record with these relative distances."""
    base = judged([0], **more)
    numbers = Numerics(reference=base.networks[0], images=len(values), reference_errors=0, variant_errors=0, flips=0,
                       lost=0, gained=0, p_value=1.0, layers=[], changed=[])  # fmt: skip
    return base.model_copy(
        update={"kind": "numerics", "numerics": numbers, "samples": Samples(unit="ratio", values=list(values))}
    )
