"""A comparison of two sets of records as one offline page, in the style of the report."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from statistics import median
from typing import Any

import altair as alt

from vggbench.gate import Comparison, Row
from vggbench.gate_axes import BACKEND_LIBRARIES
from vggbench.report.figures import COLOURS, NARROW, WIDE, Figure, svg
from vggbench.report.page import rendered
from vggbench.report.rows import signed

#: Verdict -> the style of its badge and the colour's name in charts.
STYLES = {
    "regressed": ("not shown", "bad"),
    "inconclusive": ("not decided", "open"),
    "not comparable": ("plain", "quoted"),
    "better": ("shown", "good"),
    "same": ("reproduced", "good"),
}
HEADLINES = {
    "regressed": "Regressed",
    "inconclusive": "Not decided",
    "not comparable": "Not comparable",
    "better": "Passed, and better",
    "same": "Passed",
}
#: Metric -> (title, unit of the change, what one unit of the stored change is shown as).
UNITS = {
    "time": ("Time", "%", 100.0),
    "time per image": ("Time per image", "%", 100.0),
    "top-1 error": ("Top-1 error", "points", 1.0),
    "top-5 error": ("Top-5 error", "points", 1.0),
    "logit drift": ("Logit drift", "% of the norm", 100.0),
}
#: Rows in a chart; a longer table is read as a table.
DRAWN = 40


def page(found: Comparison) -> str:
    """The HTML. The same comparison gives the same bytes."""
    return rendered(
        "gate.html.j2",
        ("page.css", "gate.css"),
        found=found,
        rows=[shown_row(number, row) for number, row in enumerate(found.rows, start=1)],
        figures=figures(found),
        styles=STYLES,
        headline=HEADLINES[found.verdict],
        machines=_machines(found),
        libraries=BACKEND_LIBRARIES,
    )


def shown_row(number: int, row: Row) -> dict[str, Any]:
    """A row's cells as text, and the numbers to sort them by."""
    title, unit, factor = UNITS[row.metric]
    return {
        "number": number,
        "row": row,
        "metric": title,
        "base": value_text(row, row.base),
        "head": value_text(row, row.head),
        "change": None if row.change is None else f"{signed(factor * row.change, 2)} {unit}",
        "interval": interval_text(row),
        "counts": f"{row.counts[0]:,} / {row.counts[1]:,}",
        "json": json.dumps(asdict(row), indent=1, ensure_ascii=False),
    }


def value_text(row: Row, value: float | None) -> str:
    """A value with its unit: "12.3 ms", "7.25 %"."""
    if value is None:
        return "\N{EN DASH}"
    return f"{1000 * value:.4g} ms" if row.metric.startswith("time") else f"{_percent(row, value):.2f} %"


def interval_text(row: Row) -> str:
    """ "-1.20 to +3.40", in the unit of the change; a dash where there is none."""
    if row.low is None or row.high is None:
        return "\N{EN DASH}"
    factor = UNITS[row.metric][2]
    return f"{signed(factor * row.low, 2)} to {signed(factor * row.high, 2)}"


def _percent(row: Row, value: float) -> float:
    return 100 * value if row.metric == "logit drift" else value


def figures(found: Comparison) -> list[Figure]:
    """Intervals drawn, one chart a unit: times with each process' median, errors and drift with the interval alone."""
    groups: dict[str, list[tuple[int, Row]]] = {}
    for number, row in enumerate(found.rows, start=1):
        if row.low is not None:
            groups.setdefault(UNITS[row.metric][1], []).append((number, row))
    return [_figure(unit, rows[:DRAWN]) for unit, rows in groups.items()]


def _figure(unit: str, rows: Sequence[tuple[int, Row]]) -> Figure:
    times = unit == "%"
    what = "Times" if times else "Errors" if unit == "points" else "Logit drift"
    id_ = f"chart-{what.lower().replace(' ', '-')}"
    description = (
        f"Change from BASE to HEAD in {unit}, the bar its interval; the grey band is the tolerance, "
        + ("to the right is slower." if times else "to the right is worse.")
        + (" Small dots: each process' median against BASE's." if times else "")
    )
    wide, narrow = (svg(_draw(unit, rows, width), f"{id_}-{width}", what, description) for width in (WIDE, NARROW))
    present = dict.fromkeys(row.verdict for _, row in rows)
    legend = [(STYLES[verdict][1], "●", verdict) for verdict in present]
    if times:
        legend += [("one", "○", "a process of BASE"), ("two", "○", "a process of HEAD")]
    return Figure(id_, what, description, wide, narrow, "#rows", "the table of rows", tuple(legend))


def _draw(unit: str, rows: Sequence[tuple[int, Row]], width: str) -> Any:
    """Rows downward by their number in the table; the change to the right."""
    factor = {"%": 100.0, "points": 1.0}.get(unit, 100.0)
    order = [str(number) for number, _ in rows]
    values, dots = [], []
    for number, row in rows:
        if row.low is None or row.high is None or row.change is None or row.tolerance is None:
            continue
        lower = 1 / (1 + row.tolerance) - 1 if unit == "%" else -row.tolerance
        numbers = {"change": row.change, "low": row.low, "high": row.high, "upper": row.tolerance, "lower": lower}
        scaled = {key: factor * value for key, value in numbers.items()}
        values.append({"row": str(number), "colour": COLOURS[STYLES[row.verdict][1]], **scaled})
        for side, side_colour in (("base", COLOURS["one"]), ("head", COLOURS["two"])):
            seen = row.detail.get(f"{side}_process_seconds", [])
            middle = median(row.detail["base_process_seconds"]) if seen else 1.0
            dots += [{"row": str(number), "colour": side_colour, "change": factor * (one / middle - 1)} for one in seen]
    y = alt.Y("row:N", sort=order, title="row", axis=alt.Axis(grid=False, ticks=False, labelAngle=0))
    colour = alt.Color("colour:N", scale=None, legend=None)
    base = alt.Chart(alt.InlineData(values=values)).encode(y=y)
    x: dict[str, Any] = {"title": f"change, {unit}", "scale": alt.Scale(nice=True, padding=6)}
    layers = [
        base.mark_bar(color=COLOURS["line"], opacity=0.6, height={"band": 0.9}).encode(
            x=alt.X("lower:Q", **x), x2="upper:Q"
        ),
        base.mark_rule(strokeWidth=2.5).encode(x=alt.X("low:Q", **x), x2="high:Q", color=colour),
        base.mark_point(size=80, filled=True, opacity=1).encode(x=alt.X("change:Q", **x), color=colour),
    ]
    if dots:
        layers.append(
            alt.Chart(alt.InlineData(values=dots))
            .mark_point(size=22, strokeWidth=1.2, opacity=0.9)
            .encode(y=y, x=alt.X("change:Q", **x), color=colour, yOffset=alt.value(9))
        )
    size: dict[str, Any] = {"width": 720 if width == WIDE else 250, "height": alt.Step(34)}
    return alt.layer(*layers).properties(**size)


def _machines(found: Comparison) -> list[tuple[str, str, str]]:
    """(name, BASE's, HEAD's) of the environments, what differs first; "" where one has none."""
    base, head = ({key: str(value) for key, value in side.items() if value is not None} for side in found.machine)
    names = sorted({*base, *head}, key=lambda key: (base.get(key) == head.get(key), key))
    return [(name.replace("_", " "), base.get(name, ""), head.get(name, "")) for name in names]
