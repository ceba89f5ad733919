"""Charts of what a precision moves: SQNR over depth, and each image's margin against its drift."""

from __future__ import annotations

import math
from typing import Any

import altair as alt

from vggbench.report.charts import by, figure
from vggbench.report.figures import COLOURS, WIDE, Figure
from vggbench.report.numerics import Group, layer_rows, with_layers

#: Colour, shape and glyph of a group's variants, in turn.
_STYLES = (("one", "circle", "●"), ("two", "square", "■"), ("three", "triangle-up", "▲"), ("quoted", "diamond", "◆"))
#: Images a variant in the scatter, beside those that flipped.
POINTS = 150


def series_of(group: Group) -> list[tuple[str, str, str]]:
    """(colour, shape, glyph) of each variant."""
    return [_STYLES[index % len(_STYLES)] for index in range(len(group.rows))]


def short(layer: str) -> str:
    """ "block3.relu2" -> "3-2", "fc6.relu" -> "fc6", "images" -> "input"."""
    if layer.startswith("block"):
        block, _, place = layer.removeprefix("block").partition(".")
        return f"{block}-{place.removeprefix('relu')}"
    return {"images": "input"}.get(layer, layer.removesuffix(".relu"))


def sqnr(group: Group) -> Figure | None:
    """Signal to noise of every layer, by variant."""
    rows = with_layers(group)
    names = {row.anchor: style for row, style in zip(group.rows, series_of(group), strict=True)}
    layers = layer_rows(group)
    points = [
        {"layer": short(layer), "db": drift.sqnr_db, "variant": row.anchor}
        for layer, drifts in layers
        for row, drift in zip(rows, drifts, strict=True)
        if drift is not None and drift.sqnr_db is not None
    ]
    if not points:
        return None
    order = [short(layer) for layer, _ in layers]
    styles = [names[row.anchor] for row in rows]

    def draw(width: str) -> Any:
        colour, shape = by(
            "variant:N", [row.anchor for row in rows], [COLOURS[s[0]] for s in styles], [s[1] for s in styles]
        )
        axis = alt.Axis(labelAngle=0 if width == WIDE else -90, grid=False, labelOverlap=False)
        x = alt.X("layer:N", sort=order, scale=alt.Scale(domain=order), title="block-layer", axis=axis)
        y = alt.Y("db:Q", title="SQNR, dB", scale=alt.Scale(zero=False, padding=10), axis=alt.Axis(tickCount=6))
        base = alt.Chart(alt.InlineData(values=points)).encode(x=x, y=y, color=colour)
        layered = alt.layer(
            base.mark_line(strokeWidth=1.5, opacity=0.8), base.mark_point(size=50, filled=True).encode(shape=shape)
        )
        return layered.properties(width=820 if width == WIDE else 262, height=230)

    return figure(
        f"chart-sqnr-{group.id}",
        f"Signal to noise over depth, {group.title}",
        "Power of each layer's output in the reference over the power of what the variant changed, in decibels; higher "
        "is closer, 20 dB is a relative L2 of 10 %, 40 dB of 1 %. Layers without any difference have no mark.",
        draw,
        (f"#{group.id}-layers", "the table of layers"),
        tuple((style[0], style[2], row.label) for row, style in zip(rows, styles, strict=True)),
    )


def margins(group: Group) -> Figure | None:
    """What an image had to spare against what it was moved by, on logarithmic axes."""
    points = [point for row in group.rows for point in _points(row)]
    points = [point for point in points if point["margin"] > 0 and point["drift"] > 0]
    if not points:
        return None
    low = min(point["margin"] for point in points)
    high = max(point["margin"] for point in points)
    line = [{"margin": value, "drift": value / 2} for value in (low, high)]
    rows, styles = group.rows, series_of(group)

    def draw(width: str) -> Any:
        colour, shape = by(
            "variant:N", [row.anchor for row in rows], [COLOURS[s[0]] for s in styles], [s[1] for s in styles]
        )
        scale = alt.Scale(type="log", nice=False, padding=12)
        x = alt.X("margin:Q", title="margin of the reference's answer", scale=scale, axis=_decades(points, "margin"))
        y = alt.Y("drift:Q", title="largest change of a logit", scale=scale, axis=_decades(points, "drift"))
        base = alt.Chart(alt.InlineData(values=points)).encode(x=x, y=y, color=colour, shape=shape)
        half = alt.Chart(alt.InlineData(values=line)).mark_line(color=COLOURS["muted"], strokeDash=[5, 4])
        kept = base.transform_filter("!datum.flipped").mark_point(size=16, filled=True, opacity=0.35)
        flips = base.transform_filter("datum.flipped").mark_point(
            size=75, filled=True, opacity=1, stroke=COLOURS["ink"], strokeWidth=1.2
        )
        size: dict[str, Any] = {"width": 640, "height": 300} if width == WIDE else {"width": 248, "height": 260}
        return alt.layer(half.encode(x=x, y=y), kept, flips).properties(**size)

    legend = [(style[0], style[2], row.label) for row, style in zip(rows, styles, strict=True)]
    return figure(
        f"chart-margin-{group.id}",
        f"Margin against drift, {group.title}",
        "One mark an image: the lead of the reference's best logit over its second against the largest change of a "
        f"logit; up to {POINTS} images a variant, and those that flipped, large and outlined. Below the dashed line "
        "(drift is half the margin) no answer can flip.",
        draw,
        (f"#{group.id}", "the table of variants"),
        (*legend, ("plain", "╌", "drift = margin / 2")),
    )


def _decades(points: list[dict[str, Any]], name: str) -> Any:
    """A line a power of ten; the default draws nine to each."""
    ends = [math.log10(pick(point[name] for point in points)) for pick in (min, max)]
    return alt.Axis(values=[10.0**power for power in range(math.floor(ends[0]), math.ceil(ends[1]) + 1)], format="~g")


def _points(row: Any) -> list[dict[str, Any]]:
    """The first images, and all named ones that flipped."""
    measured, name = row.numerics, row.anchor
    flips = [each for each in measured.changed if each.reference_class != each.variant_class]
    known = {(each.margin, each.drift) for each in flips}
    first = zip(measured.margins[:POINTS], measured.drifts[:POINTS], strict=False)
    found = [
        {"margin": margin, "drift": drift, "flipped": False, "variant": name}
        for margin, drift in first
        if (margin, drift) not in known
    ]
    return found + [{"margin": each.margin, "drift": each.drift, "flipped": True, "variant": name} for each in flips]
