"""The charts, in Altair. Each is drawn twice, for a wide and for a narrow screen."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import altair as alt

from vggbench import paper
from vggbench.report.figures import COLOURS, NARROW, WIDE, Figure, svg
from vggbench.report.rows import Measured, for_claim

if TYPE_CHECKING:
    from vggbench.findings import Finding

TRAIN_SCALES = ("256", "384", "[256;512]")
_SERIES = (COLOURS["one"], COLOURS["two"], COLOURS["three"])
_SHAPES = ("circle", "square", "triangle-up")
PAPER, HERE = "paper", "here"

#: (class, glyph, text) for the page's legend lines; the glyphs are the charts' shapes.
_BY_TRAIN_SCALE = (("one", "●", "S = 256"), ("two", "■", "S = 384"), ("three", "▲", "S in [256;512]"))


def _panels(here: str) -> dict[str, str]:
    return {PAPER: "Paper: ImageNet, 1000 classes", HERE: f"Measured: {here}"}


def figure(
    id_: str,
    title: str,
    description: str,
    draw: Callable[[str], Any],
    data: tuple[str, str],
    legend: Sequence[tuple[str, str, str]],
) -> Figure:
    wide, narrow = (svg(draw(width), f"{id_}-{width}", title, description) for width in (WIDE, NARROW))
    return Figure(id_, title, description, wide, narrow, *data, tuple(legend))


def _side_by_side(width: str, charts: Sequence[Any]) -> Any:
    return alt.hconcat(*charts, spacing=92, bounds="flush") if width == WIDE else alt.vconcat(*charts, spacing=18)


def by(field: str, domain: Sequence[str], colours: Sequence[str], shapes: Sequence[str]) -> tuple[Any, Any]:
    """Colour and shape of a series; its legend stands in HTML above the chart."""
    colour = alt.Color(field, scale=alt.Scale(domain=list(domain), range=list(colours)), legend=None)
    return colour, alt.Shape(field, scale=alt.Scale(domain=list(domain), range=list(shapes)), legend=None)


def error_by_depth(rows: Sequence[Measured], here: str) -> Figure | None:
    """Table 3: top-1 error against the number of weight layers."""
    claims = [claim for claim in paper.claims() if claim.table == 3]
    networks = list(dict.fromkeys(claim.entries[0].network for claim in claims))
    points = [point for claim in claims for point in _depth_points(claim, networks, claims, rows)]
    if not any(point["panel"] == HERE for point in points):
        return None
    ticks = [[name, str(paper.depth(name))] for name in networks]

    def draw(width: str) -> Any:
        panels = {name: [point for point in points if point["panel"] == name] for name in (PAPER, HERE)}
        shown = [_depth_panel(panels[name], ticks, name == HERE, width) for name in panels]
        titled = [chart.properties(title=_panels(here)[name]) for name, chart in zip(panels, shown, strict=True)]
        return _side_by_side(width, titled)

    return figure(
        "chart-depth",
        "Error by depth, one test scale",
        "Top-1 error of networks A to E in the paper and as measured here, by training scale. The two panels show "
        "different data: compare their shapes, not their heights. Bars: 95 % intervals over images; small dots: other "
        "training seeds.",
        draw,
        ("#table3", "Table 3"),
        _BY_TRAIN_SCALE,
    )


def _depth_points(
    claim: paper.Claim, networks: list[str], claims: Sequence[paper.Claim], rows: Sequence[Measured]
) -> list[dict[str, Any]]:
    """What the paper printed, and every record beside it; the training scales of a network stand side by side."""
    entry = claim.entries[0]
    alone = sum(other.entries[0].network == entry.network for other in claims) == 1
    aside = 0 if alone else 0.13 * (TRAIN_SCALES.index(entry.train_scale) - 1)
    base = {"place": networks.index(entry.network) + aside, "S": entry.train_scale, "first": True}
    points = [{**base, "panel": PAPER, "error": claim.top1_error_percent}]
    for number, row in enumerate(for_claim(rows, claim)):
        seen = {"error": row.top1.percent, "low": row.top1.low, "high": row.top1.high}
        points.append({**base, **seen, "panel": HERE, "first": number == 0})
    return points


def _depth_panel(points: list[dict[str, Any]], ticks: list[list[str]], intervals: bool, width: str) -> Any:
    colour, shape = by("S:N", TRAIN_SCALES, _SERIES, _SHAPES)
    axis = alt.Axis(values=list(range(len(ticks))), labelExpr=f"{json.dumps(ticks)}[datum.value]", grid=False)
    scale = alt.Scale(domain=[-0.4, len(ticks) - 0.6], nice=False)
    base = alt.Chart(alt.InlineData(values=points)).encode(
        x=alt.X("place:Q", title="network, weight layers", axis=axis, scale=scale), color=colour
    )
    y: dict[str, Any] = {
        "title": "top-1 error, %",
        "scale": alt.Scale(zero=False, nice=False, padding=14),
        "axis": alt.Axis(tickCount=5),
    }
    first = base.transform_filter("datum.first")
    layers = [
        first.mark_rule(opacity=0.5).encode(y=alt.Y("low:Q", **y), y2="high:Q"),
        first.mark_line(strokeWidth=1.5, opacity=0.8).encode(y=alt.Y("error:Q", **y)),
        base.transform_filter("!datum.first")
        .mark_point(size=14, filled=True, opacity=0.8)
        .encode(y=alt.Y("error:Q", **y)),
        first.mark_point(size=70, filled=True, opacity=1).encode(y=alt.Y("error:Q", **y), shape=shape),
    ]
    size: dict[str, Any] = {"width": 420 if width == WIDE else 268, "height": 230}
    return alt.layer(*(layers if intervals else [layers[1], layers[3]])).properties(**size)


def single_and_multi_scale(rows: Sequence[Measured], here: str) -> Figure | None:
    """Tables 3 and 4: what averaging over three test scales changes."""
    single = {(c.entries[0].network, c.entries[0].train_scale): c for c in paper.claims() if c.table == 3}
    points = []
    for claim in (claim for claim in paper.claims() if claim.table == 4):
        entry = claim.entries[0]
        other = single[(entry.network, entry.train_scale)]
        base: dict[str, Any] = {"network": f"{entry.network}  {entry.train_scale}", "S": entry.train_scale}
        points.append({**base, "panel": PAPER, "one": other.top1_error_percent, "three": claim.top1_error_percent})
        ones, threes = for_claim(rows, other)[:1], for_claim(rows, claim)[:1]
        for one, three in zip(ones, threes, strict=False):
            points.append({**base, "panel": HERE, "one": one.top1.percent, "three": three.top1.percent})
    if not any(point["panel"] == HERE for point in points):
        return None
    order = list(dict.fromkeys(str(point["network"]) for point in points))

    def panel(name: str, width: str) -> Any:
        colour, shape = by("S:N", TRAIN_SCALES, _SERIES, _SHAPES)
        axis = alt.Axis(ticks=False, domain=False, grid=True, labelColor=COLOURS["ink"])
        y = alt.Y("network:N", sort=order, scale=alt.Scale(domain=order), title=None, axis=axis)
        base = alt.Chart(alt.InlineData(values=[p for p in points if p["panel"] == name])).encode(y=y, color=colour)
        x: dict[str, Any] = {
            "title": "top-1 error, %",
            "scale": alt.Scale(zero=False, nice=False, padding=14),
            "axis": alt.Axis(tickCount=6),
        }
        hollow: dict[str, Any] = {"filled": False, "fill": COLOURS["surface"], "strokeWidth": 1.5}
        layers = (
            base.mark_rule(strokeWidth=2, opacity=0.6).encode(x=alt.X("one:Q", **x), x2="three:Q"),
            base.mark_point(size=50, opacity=1, **hollow).encode(x=alt.X("one:Q", **x), shape=shape),
            base.mark_point(size=60, filled=True, opacity=1).encode(x=alt.X("three:Q", **x), shape=shape),
        )
        size: dict[str, Any] = {"width": 390 if width == WIDE else 226, "height": alt.Step(22)}
        return alt.layer(*layers).properties(title=_panels(here)[name], **size)

    return figure(
        "chart-scales",
        "One test scale against three",
        "Top-1 error with one test scale (hollow) and with the mean over three (filled), for each network and training "
        "scale, in the paper and as measured here.",
        lambda width: _side_by_side(width, [panel(PAPER, width), panel(HERE, width)]),
        ("#table4", "Tables 3 and 4"),
        (*_BY_TRAIN_SCALE, ("plain", "○", "one test scale"), ("plain", "●", "three")),
    )


def paper_against_measured(rows: Sequence[Measured], here: str) -> Figure | None:
    """Every row of Tables 3-6 that was measured: printed against measured top-1 error."""
    points = []
    for claim in paper.claims():
        for row in for_claim(rows, claim)[:1]:
            points.append(
                {"paper": claim.top1_error_percent, "measured": row.top1.percent, "low": row.top1.low}
                | {"high": row.top1.high, "table": f"Table {claim.table}"}
            )
    if len(points) < 2:
        return None
    tables = [f"Table {number}" for number in (3, 4, 5, 6)]
    colours, shapes = (*_SERIES, COLOURS["quoted"]), (*_SHAPES, "diamond")

    def draw(width: str) -> Any:
        colour, shape = by("table:N", tables, colours, shapes)
        loose = alt.Scale(zero=False, nice=False, padding=14)
        x = alt.X("paper:Q", title="paper, ImageNet, %", scale=loose, axis=alt.Axis(tickCount=6))
        y: dict[str, Any] = {"title": f"measured, {here}, %", "scale": loose, "axis": alt.Axis(tickCount=6)}
        base = alt.Chart(alt.InlineData(values=points)).encode(x=x, color=colour)
        layers = (
            base.mark_rule(opacity=0.35).encode(y=alt.Y("low:Q", **y), y2="high:Q"),
            base.mark_point(size=55, filled=True, opacity=0.9).encode(y=alt.Y("measured:Q", **y), shape=shape),
        )
        size: dict[str, Any] = {"width": 640, "height": 300} if width == WIDE else {"width": 262, "height": 260}
        return alt.layer(*layers).properties(**size)

    names = ("one", "two", "three", "quoted")
    return figure(
        "chart-scatter",
        "Printed against measured error",
        f"One mark a row of Tables 3 to 6, {len(points)} in all: the top-1 error that the paper prints against the one "
        "measured here, with its 95 % interval.",
        draw,
        ("#table3", "Tables 3 to 6"),
        tuple(zip(names, "●■▲◆", tables, strict=True)),
    )


#: Verdict of a finding -> colour, shape and glyph, never colour alone.
_VERDICTS = {
    "shown": ("good", "circle", "●"),
    "not shown": ("bad", "square", "■"),
    "not decided": ("open", "diamond", "◆"),
}


def forest(findings: Sequence[Finding]) -> Figure | None:
    """Effect and interval of each finding; right of zero is as the paper says."""
    from vggbench.findings import MARGIN_POINTS
    from vggbench.questions import QUESTIONS

    equalities = {question.id for question in QUESTIONS if question.kind != "better"}
    points = [
        {
            "name": f"{number}  {finding.title}",
            "effect": finding.effect_points,
            "low": finding.low,
            "high": finding.high,
        }
        | {"verdict": finding.verdict, "equality": finding.id in equalities}
        for number, finding in enumerate(findings, start=1)
        if finding.effect_points is not None
    ]
    if not points:
        return None
    verdicts = tuple((colour, glyph, name) for name, (colour, _, glyph) in _VERDICTS.items())
    return figure(
        "chart-findings",
        "Effects of the paper's findings",
        "Effect of each finding in percentage points of top-1 error with its 95 % interval. Right of zero is the "
        "direction that the paper reports; a claim of equality asks for an interval within the margin.",
        lambda width: _effects(points, MARGIN_POINTS, width),
        ("#findings-table", "the table of findings"),
        (*verdicts, ("plain", "▬", f"margin of a claim of equality, ±{MARGIN_POINTS:g}")),
    )


def _effects(points: list[dict[str, Any]], margin_points: float, width: str) -> Any:
    """Findings downward; behind a claim of equality its margin."""
    order, styles = [str(point["name"]) for point in points], list(_VERDICTS.values())
    colour, shape = by("verdict:N", list(_VERDICTS), [COLOURS[s[0]] for s in styles], [s[1] for s in styles])
    axis = alt.Axis(ticks=False, domain=False, labelLimit=260 if width == WIDE else 170, labelColor=COLOURS["ink"])
    y = alt.Y("name:N", sort=order, scale=alt.Scale(domain=order), title=None, axis=axis)
    base = alt.Chart(alt.InlineData(values=points)).encode(y=y)
    title, ticks = (
        ("effect in points of top-1 error, + as the paper says", 8) if width == WIDE else ("effect, points", 5)
    )
    x: dict[str, Any] = {"title": title, "axis": alt.Axis(tickCount=ticks)}
    zero = alt.Chart(alt.InlineData(values=[{"zero": 0}])).mark_rule(color=COLOURS["muted"])
    margin = base.transform_filter("datum.equality").mark_bar(size=18, color=COLOURS["line"], opacity=0.8)
    layers = (
        margin.encode(x=alt.X("from:Q", **x), x2="to:Q").transform_calculate(
            **{"from": f"{-margin_points}", "to": f"{margin_points}"}
        ),
        zero.encode(x=alt.X("zero:Q", **x)),
        base.mark_rule(strokeWidth=2).encode(x=alt.X("low:Q", **x), x2="high:Q", color=colour),
        base.mark_point(size=75, filled=True, opacity=1).encode(x=alt.X("effect:Q", **x), color=colour, shape=shape),
    )
    return alt.layer(*layers).properties(width=720 if width == WIDE else 178, height=alt.Step(25))
