"""Accuracy records whose findings are known."""

from __future__ import annotations

import numpy as np

from vggbench.findings import judge
from vggbench.paper import claims
from vggbench.results import NetworkRun, Record, Samples, Workload

IMAGES = 2000
BY_ID = {claim.id: claim for claim in claims()}


def record(key, wrong, seed=0, *, origin="measured", bad=(), choices=None, status="sample", **data):
    """A record of a row (a claim's id, or "center/B/256") whose images are wrong where ``wrong`` is."""
    claim = BY_ID.get(key)
    entries = [tuple(key.split("/")[1:])]
    if claim:
        entries = [(entry.network, entry.train_scale) for entry in claim.entries]
    networks = [
        NetworkRun(
            network=network,
            weights={"train_scale": scale, "status": status},
            passes=[],
            backend="onnxruntime",
            precision="fp32",
        )
        for network, scale in entries
    ]
    fields = {"name": "sample", "split": "test", "fingerprint_full": "f" * 64, "fingerprint": f"{len(wrong)}"} | data
    fields["bad"] = [{"id": name, "why": "truncated"} for name in bad]
    return Record(
        kind="accuracy",
        claim=key if claim else None,
        networks=networks,
        workload=Workload(protocol=key.split("/")[0], choices=choices or {"score_pool": "mean_logits"}, data=fields),
        samples=Samples(unit="rank", values=[int(7 * value) for value in wrong]),
        seed=seed,
        origin=origin,
    )


def errors(percent, seed=0, images=IMAGES, luck_points=0.0, who=""):
    """Which images are wrong: the hardest ones by a fixed difficulty, jittered a little by each network and seed."""
    difficulty = np.random.default_rng(7).permutation(images) / images
    rng = np.random.default_rng((seed, round(1000 * percent), *who.encode()))
    noisy = difficulty + rng.normal(0, 0.01, images)
    share = (percent + luck_points * rng.normal()) / 100
    return noisy < np.quantile(noisy, share)


def family(percents, seeds=3, luck_points=0.1, images=IMAGES, **changes):
    return [
        record(key, errors(percent, seed, images, luck_points, key), seed, **changes)
        for key, percent in percents.items()
        for seed in range(seeds)
    ]


def only(identifier, records):
    return next(finding for finding in judge(records) if finding.id == identifier)


DEPTH = {"table3/A/256": 24.0, "table3/B/256": 18.0}
