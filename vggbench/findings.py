"""The paper's findings as data, and their judgement from records (top-1 error, paired by image).

The rule. Each finding has one null hypothesis, tested over training seeds and images at once
(statistics.crossed_effect), and its p-value is adjusted by Holm over all findings that were measured:

- a difference ("better"): the null is no effect. Shown: p_holm < .05 in the paper's direction. Not shown: the 95 %
  interval excludes an effect of SMALLEST_EFFECT_POINTS in that direction.
- an equality ("equal", "no-gain"): the null is an effect of MARGIN_POINTS (either way; a gain). Shown: p_holm < .05
  within the margin. Not shown: the 95 % interval lies outside it.
- all else is not decided; so is what was measured on fewer than MIN_IMAGES images, and a finding about training
  recipes with one seed only, which cannot tell the recipe from the luck of one training run.

Where a finding says several things (each), the weakest of them decides. Records pair by image over the common prefix
of one fixed order and by seed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from vggbench.findings_rows import Array, Differences, Row, Rows, aligned, differences_of, rows_of
from vggbench.questions import QUESTIONS, TITLES, Contrast, Question, label
from vggbench.results import Record, main_precision, precision_of
from vggbench.statistics import Effect, crossed_effect, holm

Verdict = Literal["shown", "not shown", "not decided"]

#: Percentage points of top-1 error. A smaller effect than the first counts as none of interest; two recipes within the
#: second count as equal. MIN_IMAGES: with fewer, nothing is decided.
SMALLEST_EFFECT_POINTS = 0.5
MARGIN_POINTS = 1.0
MIN_IMAGES = 100
ALPHA = 0.05

#: The rule for readers of a page.
RULE = (
    f"Shown: p < {ALPHA:g} after Holm over all findings, in the paper's direction (for a claim of equality: within "
    f"{MARGIN_POINTS:g} point). Not shown: the 95 % interval excludes an effect of {SMALLEST_EFFECT_POINTS:g} points "
    "in the paper's direction, or lies outside the margin. Not decided: all else, fewer than "
    f"{MIN_IMAGES} images, or a finding about training recipes measured with one training seed."
)


@dataclass(frozen=True)
class Comparison:
    """Two measured rows side by side, over the images and seeds that both have; effect = error_a - error_b, points."""

    label_a: str
    label_b: str
    error_a_percent: float
    error_b_percent: float
    effect_points: float
    low: float
    high: float
    p: float
    seeds: int
    images: int


@dataclass(frozen=True)
class Finding:
    """One statement of the paper, judged. Effects in percentage points of top-1 error, positive as the paper says."""

    id: str
    statement: str
    verdict: Verdict
    effect_points: float | None
    low: float | None
    high: float | None
    p: float | None
    p_holm: float | None
    comparisons: tuple[Comparison, ...]
    judged_over: str
    note: str

    @property
    def title(self) -> str:
        """Its name in a few words."""
        return TITLES.get(self.id, self.id)


@dataclass(frozen=True)
class _Judged:
    """A question's measurement before Holm's adjustment. enough: whether a verdict may be drawn from it."""

    effect: Effect | None
    comparisons: tuple[Comparison, ...]
    over: str
    notes: tuple[str, ...]
    enough: bool


def judge(records: Sequence[Record]) -> list[Finding]:
    """Every finding of QUESTIONS, judged from accuracy records of one precision, data set, choices and kind of weights.

    Of several such sets the one with most records measured in this run is taken; notes say how many were left out.
    """
    precision = main_precision(records)
    rows, left_out = rows_of([record for record in records if precision_of(record) == precision])
    judged = [_judge(question, rows) for question in QUESTIONS]
    adjusted = iter(holm([found.effect.p for found in judged if found.effect]))
    remark = (f"{left_out} records of other data, choices or weights were left out.",) if left_out else ()
    return [
        _finding(question, replace(found, notes=found.notes + remark), next(adjusted) if found.effect else 1.0)
        for question, found in zip(QUESTIONS, judged, strict=True)
    ]


def _finding(question: Question, found: _Judged, p_holm: float) -> Finding:
    """The finding with its verdict, by the rule at the top."""
    effect, note = found.effect, " ".join(found.notes)
    about = (question.id, question.statement)
    if effect is None:
        return Finding(*about, "not decided", None, None, None, None, None, found.comparisons, found.over, note)
    mean, low, high = 100 * effect.mean, 100 * effect.low, 100 * effect.high
    verdict = _verdict(question.kind, mean, low, high, p_holm) if found.enough else "not decided"
    if verdict == "shown" and question.kind == "better" and high < SMALLEST_EFFECT_POINTS:
        note = f"{note} The effect is below {SMALLEST_EFFECT_POINTS:g} points.".strip()
    return Finding(*about, verdict, mean, low, high, effect.p, p_holm, found.comparisons, found.over, note)


def _verdict(kind: str, mean: float, low: float, high: float, p_holm: float) -> Verdict:
    """In percentage points. The p-value of an equality is 1 outside its margin, so a low one is in its direction."""
    if p_holm < ALPHA and (mean > 0 or kind != "better"):
        return "shown"
    if kind == "better":
        return "not shown" if high < SMALLEST_EFFECT_POINTS else "not decided"
    outside = high < -MARGIN_POINTS or (kind == "equal" and low > MARGIN_POINTS)
    return "not shown" if outside else "not decided"


def _judge(question: Question, rows: Rows) -> _Judged:
    comparisons: list[Comparison] = []
    notes = [question.note] if question.note else []
    judged: list[tuple[Effect, Array]] = []
    used: list[Row] = []
    missing = {key: label(key) for group in question.each for pair in group for key in (pair.a, pair.b)}
    missing = {key: name for key, name in missing.items() if key not in rows}
    if missing:
        notes.append(f"Not measured: {', '.join(missing.values())}.")
    for group in question.each:
        measured: list[Differences] = []
        for contrast in group:
            if contrast.a in missing or contrast.b in missing:
                continue
            differences = differences_of(contrast, rows)
            if isinstance(differences, str):
                notes.append(differences)
                continue
            measured.append(differences)
            comparisons.append(_comparison(contrast, rows, differences))
            used += [rows[key][seed] for key in (contrast.a, contrast.b) for seed in differences]
        if measured and not aligned(used):
            notes.append("Its rows skipped different bad images, so they cannot be averaged by image.")
        elif measured:
            pooled = _pool(measured, notes)
            judged.append((_effect(question.kind, pooled), pooled))
    if len(judged) < len(question.each):
        return _Judged(None, tuple(comparisons), "not measured", tuple(notes), False)
    if len(judged) > 1:
        notes.append("Several statements must hold; effect and interval are those of the weakest.")
    effect, pooled = max(judged, key=lambda pair: pair[0].p if pair[0].mean > 0 else 2 - pair[0].p)
    seeds, images = pooled.shape
    over = f"{seeds} training seeds and {images:,} images"
    if seeds == 1:
        over = f"{images:,} images, one training seed: a statement about these weights only"
    if one_seed := seeds == 1 and question.about == "training":
        notes.append("One training seed cannot tell the recipe from the luck of a training run.")
    if images < MIN_IMAGES:
        notes.append(f"{images} images are too few to decide; {MIN_IMAGES} are needed.")
    over += "; recorded runs among them" if any(row.recorded for row in used) else ""
    return _Judged(effect, tuple(comparisons), over, tuple(notes), images >= MIN_IMAGES and not one_seed)


def _comparison(contrast: Contrast, rows: Rows, differences: Differences) -> Comparison:
    values = np.stack(list(differences.values()))
    seeds, images = values.shape
    effect = crossed_effect(values)
    a, b = ([rows[key][seed].errors[:images] for seed in differences] for key in (contrast.a, contrast.b))
    return Comparison(
        label_a=label(contrast.a),
        label_b=label(contrast.b),
        error_a_percent=100 * float(np.mean(a)),
        error_b_percent=100 * float(np.mean(b)),
        effect_points=100 * effect.mean,
        low=100 * effect.low,
        high=100 * effect.high,
        p=effect.p,
        seeds=seeds,
        images=images,
    )


def _pool(measured: list[Differences], notes: list[str]) -> Array:
    """Mean over the comparisons of a group, (seeds, images): over the images that all have, and over the set of seeds
    that keeps most comparisons x seeds."""
    choices = [frozenset(found) for found in measured]
    choices.append(frozenset.intersection(*choices))
    covered = {seeds: [found for found in measured if seeds <= set(found)] for seeds in choices}
    seeds, kept = max(covered.items(), key=lambda item: (len(item[0]) * len(item[1]), len(item[1])))
    if len(kept) < len(measured):
        notes.append(f"Pooled over {len(kept)} of {len(measured)} comparisons, those with the same {len(seeds)} seeds.")
    images = min(len(values) for found in kept for values in found.values())
    order = [seed for seed in kept[0] if seed in seeds]
    pooled: Array = np.mean([[found[seed][:images] for seed in order] for found in kept], axis=0)
    return pooled


def _effect(kind: str, pooled: Array) -> Effect:
    """The effect; for an equality, p is that of the nearer margin, and 1 outside it."""
    if kind == "better":
        return crossed_effect(pooled)
    margin = MARGIN_POINTS / 100
    sides = [crossed_effect(pooled, null=null) for null in ((-margin,) if kind == "no-gain" else (-margin, margin))]
    inside = sides[0].mean > -margin and (kind == "no-gain" or sides[0].mean < margin)
    return replace(sides[0], p=max(side.p for side in sides) if inside else 1.0)
