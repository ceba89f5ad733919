"""One way to run one set of weights, and the digest that names it."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from dataclasses import dataclass
from typing import Any

from vgg_reference.weights import Weights
from vggbench.precisions import QUANTIZED
from vggbench.ranges import Quantization
from vggbench.sizes import Sizes

#: The INT8 layout (ranges.LAYOUTS) that a backend runs best; "tensorrt" for all others, and for FP8.
BEST_LAYOUT = {"onnxruntime": "cpu"}


@dataclass(frozen=True)
class Variant:
    """Weights x form x backend x precision, with the two open choices that change the network itself.

    form: "crop" or "dense". quantization: for "int8" and "fp8" only. pool_rounding and score_pool (see
    protocols.Choices) act in dense form only, and are normalized to "floor" and "mean_logits" in crop form, where they
    change nothing. sizes: what engines are asked to be built for, of backends that have a profile (see
    backends.check_sizes), batch and input alone in crop form; None for their default, and an input of floats.
    """

    weights: Weights
    form: str
    backend: str
    precision: str = "fp32"
    pool_rounding: str = "ceil"
    score_pool: str = "mean_logits"
    quantization: Quantization | None = None
    sizes: Sizes | None = None

    def __post_init__(self) -> None:
        if self.form == "crop":
            object.__setattr__(self, "sizes", self.sizes and self.sizes.of_crops())
            object.__setattr__(self, "pool_rounding", "floor")
            object.__setattr__(self, "score_pool", "mean_logits")
        if self.precision not in QUANTIZED:
            object.__setattr__(self, "quantization", None)
        elif self.quantization is not None and not self.quantization.layout:
            layout = BEST_LAYOUT.get(self.backend, "tensorrt") if self.precision == "int8" else "tensorrt"
            object.__setattr__(self, "quantization", dataclasses.replace(self.quantization, layout=layout))

    @property
    def takes_pixels(self) -> bool:
        """Whether its engine takes views as they are, (n, h, w, 3) uint8, and normalizes them itself."""
        return self.sizes is not None and self.sizes.input == "pixels"

    @property
    def identity(self) -> dict[str, Any]:
        """Everything that decides this variant's scores, flat, without paths and display names.

        But for what steers an engine, which decides their last bits: see backends.identity.
        """
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
            **self._quantized,
        }

    @property
    def _quantized(self) -> dict[str, Any]:
        """Nothing for other precisions, whose digests stay as they were."""
        how = self.quantization
        if how is None:
            return {}
        return {"ranges": how.ranges.digest, "layout": how.layout, "float_layers": " ".join(how.float_layers)}

    @property
    def digest(self) -> str:
        return digest_of(self.identity)


def digest_of(fields: dict[str, Any]) -> str:
    """SHA-256 over sorted JSON: the one way to name things by what decides them."""
    return hashlib.sha256(json.dumps(fields, sort_keys=True).encode()).hexdigest()
