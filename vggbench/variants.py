"""One way to run one set of weights, and the digest that names it."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from dataclasses import dataclass
from typing import Any

from vgg_reference.weights import Weights


@dataclass(frozen=True)
class Variant:
    """Weights x form x backend x precision, with the two open choices that change the network itself.

    form: "crop" or "dense". pool_rounding and score_pool (see protocols.Choices) act in dense form only, and are
    normalized to "floor" and "mean_logits" in crop form, where they change nothing.
    """

    weights: Weights
    form: str
    backend: str
    precision: str = "fp32"
    pool_rounding: str = "ceil"
    score_pool: str = "mean_logits"

    def __post_init__(self) -> None:
        if self.form == "crop":
            object.__setattr__(self, "pool_rounding", "floor")
            object.__setattr__(self, "score_pool", "mean_logits")

    @property
    def identity(self) -> dict[str, Any]:
        """Everything that decides this variant's scores, flat, without paths and display names."""
        weights = self.weights
        return {
            "weights": weights.digest,
            "network": weights.network,
            "batch_norm": weights.batch_norm,
            "num_classes": weights.num_classes,
            "crop_size": weights.crop_size,
            "lrn_alpha": weights.lrn_alpha,
            **{f"input_{key}": value for key, value in dataclasses.asdict(weights.preprocess).items()},
            "form": self.form,
            "backend": self.backend,
            "precision": self.precision,
            "pool_rounding": self.pool_rounding,
            "score_pool": self.score_pool,
        }

    @property
    def digest(self) -> str:
        return digest_of(self.identity)


def digest_of(fields: dict[str, Any]) -> str:
    """SHA-256 over sorted JSON: the one way to name things by what decides them."""
    return hashlib.sha256(json.dumps(fields, sort_keys=True).encode()).hexdigest()
