"""A small network, its images and its INT8 ranges, for tests of what a precision moves."""

from __future__ import annotations

import measuring
import numpy as np

from vgg_reference.weights import random_weights
from vggbench.backends import fake, layers
from vggbench.ranges import CalibrationImage, Ranges, TensorRange
from vggbench.runs_inputs import Setting
from vggbench.runs_numerics import Asked
from vggbench.variants import Variant

LAYERS = ["images", "block1.relu1", "block2.relu1", "block3.relu1", "block3.relu2", "block4.relu1", "block4.relu2"]
LAYERS += ["block5.relu1", "block5.relu2", "fc6.relu", "fc7.relu", "scores"]
WEIGHTS = random_weights("A", 0, width=1 / 32, hidden_width=1 / 64, num_classes=measuring.CLASSES, crop_size=32)


def asked(*variants, **changes) -> Asked:
    return Asked(Setting("onnxruntime", device="cpu", threads=1), **{"variants": variants, "scale": 40, **changes})


def images(form="crop", count=3):
    shape = (count, 3, 32, 32) if form == "crop" else (count, 3, 45, 38)
    return (60 * np.random.default_rng(1).normal(size=shape)).astype(np.float32)


def ranges(weights=WEIGHTS, **wider) -> Ranges:
    """Of random images; wider: tensor -> factor, with "_" for ".", by which its range is made too wide."""
    with layers.layer_outputs(Variant(weights, "crop", "onnxruntime"), "cpu", 1) as outputs:
        found = outputs(images(count=8))
    limits = {
        name: wider.get(name.replace(".", "_"), 1) * float(np.abs(values).max()) for name, values in found.items()
    }
    tensors = [TensorRange(name, -limit, limit) for name, limit in limits.items() if name != "scores"]
    used = (CalibrationImage("other.jpg", "f" * 64),)
    return Ranges(weights.network, weights.digest, "minmax", None, {"name": "small"}, {}, {}, tuple(tensors), used)


def with_ranges(monkeypatch, found):
    """Ranges without calibrating."""
    monkeypatch.setattr("vggbench.runs_calibrate.ranges_for", lambda weights, **_: found)


class Moving(fake.FakeSession):
    """The fake's scores; for bf16 the best logit of every third image is exchanged with the next class's."""

    def __init__(self, variant, **changes):
        super().__init__(variant, **changes)
        self.seen = 0
        self.moves = variant.precision == "bf16"

    def __call__(self, images):
        scores = super().__call__(images)
        for row in scores:
            if self.moves and self.seen % 3 == 0:
                best = int(row.argmax())
                other = (best + 1) % len(row)
                row[best], row[other] = row[other], row[best]
            self.seen += 1
        return scores
