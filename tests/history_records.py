"""Runs of one machine on a time line: timings with known noise, and ranks."""

from __future__ import annotations

import numpy as np

from vggbench.history import runs_of
from vggbench.results import NetworkRun, Record, Samples, Workload

NOISE = 0.01


def network(**changes):
    fields = {
        "network": "D",
        "weights": {"name": "random:0", "digest": "a" * 64},
        "passes": [],
        "backend": "onnxruntime",
        "precision": "fp32",
        "session": {"device": "cpu", "threads": 2},
    }
    return NetworkRun(**{**fields, **changes})


def environment(index, **changes):
    return {
        "vggbench": "0.1.0",
        "commit": f"c{index:04d}",
        "command": "vggbench latency",
        "cpu": "Example CPU 9000",
        "cores": 2,
        "onnxruntime": "1.32.0",
        **changes,
    }


def timing(index, seconds, generator, processes=3, batch=1, **changes):
    """A run's records of one row, about ``seconds`` a call, with a share of noise common to the run."""
    level = seconds * np.exp(generator.normal(0, NOISE))
    return [
        Record(
            kind="latency",
            networks=[network()],
            workload=Workload(batch=batch, size=[224, 224], scenario="latency"),
            samples=Samples(unit="seconds", values=list(level * np.exp(generator.normal(0, NOISE, 9)))),
            environment=environment(index, **changes),
            started=f"2026-01-{index + 1:02d}T10:00:{process:02d}+00:00",
            process=process,
        )
        for process in range(processes)
    ]


def accuracy(index, ranks, **changes):
    return Record(
        kind="accuracy",
        claim="table3/D/256",
        networks=[network(weights={"name": "sample/D/256/seed0", "train_scale": "256"})],
        workload=Workload(protocol="dense", data={"name": "sample", "split": "test", "fingerprint": "5f" * 32}),
        samples=Samples(unit="rank", values=list(ranks)),
        environment=environment(index, **changes),
        started=f"2026-01-{index + 1:02d}T10:00:00+00:00",
        seed=0,
    )


def over(levels, seed=0, **changes):
    """Runs whose one row has these seconds a call."""
    generator = np.random.default_rng(seed)
    sources = [
        (f"run{index}.jsonl", timing(index, level, generator, **{k: v(index) for k, v in changes.items()}))
        for index, level in enumerate(levels)
    ]
    return runs_of(sources)
