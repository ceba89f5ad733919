"""Which layers an INT8 network owes its drift to, and what keeping the worst of them in floating point gives back."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from vgg_reference.architectures import architecture
from vggbench.measure.compare import Bench, forget, label
from vggbench.measure.numerics import moved, relative_l2
from vggbench.ranges import quantized_inputs
from vggbench.results import Recovery, Sensitivity
from vggbench.variants import Variant

Array = npt.NDArray[np.float32]
#: Float layers -> what the network with these layers in floating point, and all others quantized, gives.
Measure = Callable[[tuple[str, ...]], "Outcome"]


@dataclass(frozen=True)
class Outcome:
    """Against the reference: relative L2 of all logits, answers that flipped; top-1 errors."""

    relative_l2: float
    flips: int
    errors: int


def outcome(reference: Array, logits: Array, labels: npt.NDArray[np.int64]) -> Outcome:
    found = moved(reference, logits, labels)
    return Outcome(relative_l2(reference, logits), int(found.flipped.sum()), found.variant_errors)


def keeping(variant: Variant, layers: Sequence[str]) -> Variant:
    """The INT8 variant with these layers, and no others, in floating point."""
    assert variant.quantization is not None
    return replace(variant, quantization=variant.quantization.keeping(*layers))


def costs(
    bench: Bench,
    variant: Variant,
    reference: Array,
    labels: npt.NDArray[np.int64],
    whole: Outcome,
    keep: Sequence[int],
) -> dict[str, list[Any]]:
    """Sensitivity and recovery of an INT8 variant's quantized layers, as Numerics has them; others stay as they are.

    whole: the variant's own outcome. keep: how many of the worst layers to keep in floating point, each a session. Two
    sessions a layer beside; what ran once is not run again.
    """
    weights, how = variant.weights, variant.quantization
    assert how is not None
    layers = [name for name in quantized_inputs(architecture(weights.network)) if name not in how.float_layers]
    counts = sorted({count for count in keep if 0 < count <= len(layers)})
    total = 2 * len(layers) + sum(count > 1 for count in counts)
    stage = f"Sensitivity, {label(variant)}, {total} sessions"
    known = {how.float_layers: whole}

    def measure(float_layers: tuple[str, ...]) -> Outcome:
        key = tuple(sorted({*how.float_layers, *float_layers}))
        if key not in known:
            kept = keeping(variant, key)
            logits = bench.logits(kept, stage, len(known) - 1, total)
            forget(kept)
            known[key] = outcome(reference, logits.values, labels)
        return known[key]

    worst = sensitivity(layers, measure)
    return {"sensitivity": worst, "recovery": recovery(worst, counts, measure, how.float_layers)}


def sensitivity(layers: Sequence[str], measure: Measure) -> list[Sensitivity]:
    """Each layer quantized alone, and all but it; the costliest alone first."""
    found = []
    for layer in layers:
        alone = measure(tuple(other for other in layers if other != layer))
        without = measure((layer,))
        found.append(
            Sensitivity(
                layer=layer,
                alone_relative_l2=alone.relative_l2,
                alone_flips=alone.flips,
                without_relative_l2=without.relative_l2,
                without_flips=without.flips,
            )
        )
    return sorted(found, key=lambda each: -each.alone_relative_l2)


def recovery(
    worst: Sequence[Sensitivity], counts: Sequence[int], measure: Measure, kept_before: Sequence[str] = ()
) -> list[Recovery]:
    """What keeping the worst 0 and then each of ``counts`` layers in floating point, beside others, gives."""
    found = []
    for count in sorted({0, *counts}):
        kept = [*kept_before, *(each.layer for each in worst[:count])]
        seen = measure(tuple(kept))
        found.append(
            Recovery(float_layers=kept, relative_l2=seen.relative_l2, flips=seen.flips, top1_errors=seen.errors)
        )
    return found
