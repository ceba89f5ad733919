"""The page of a history: every row over time, its changes, and what changed with them."""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Sequence
from typing import Any

import altair as alt

from vggbench.history import Change, History, Series
from vggbench.history_changes import FEWEST_RUNS, PERMUTATIONS
from vggbench.report.figures import COLOURS, NARROW, WIDE, Figure, svg
from vggbench.report.page import rendered
from vggbench.report.rows import signed

#: Facts of a change that are shown at once; the others on request.
FACTS = 4


def history_page(found: History, command: str = "") -> str:
    """The whole page, offline. The same history gives the same bytes."""
    rows = [_row(number, series, found) for number, series in enumerate(found.series, start=1)]
    changes = [change for row in rows for change in row["changes"]]
    return rendered(
        "history.html.j2",
        found=found,
        rows=rows,
        changes=changes,
        changed_rows=sum(1 for row in rows if row["changes"]),
        judged_rows=sum(1 for row in rows if not row["series"].why),
        runs=[
            (number, run, json.dumps(run.environment, indent=1, ensure_ascii=False, default=str))
            for number, run in enumerate(found.runs, start=1)
        ],
        command=command,
        facts=FACTS,
        fewest_runs=FEWEST_RUNS,
        permutations=PERMUTATIONS,
    )


def _row(number: int, series: Series, found: History) -> dict[str, Any]:
    """What the template shows of one row."""
    places = {id(run): place for place, run in enumerate(found.runs, start=1)}
    numbers = [places[id(point.run)] for point in series.points]
    shown = _scale(series)
    changes = [
        {
            "number": index,
            "row": number,
            "name": series.name,
            "change": change,
            "run": numbers[change.index],
            "previous": numbers[change.index - 1],
            "point": series.points[change.index],
            "before": shown(change.before),
            "after": shown(change.after),
            "percent": percent(change),
            "kind": "worse" if change.after > change.before else "better",
            "drift": series.drift_percent is not None,
        }
        for index, change in enumerate(series.changes, start=1)
    ]
    values = [
        {
            "run": place,
            "started": point.run.started,
            "label": point.run.label,
            "value": shown(point.value),
            "each": [shown(value) for value in point.values],
        }
        for place, point in zip(numbers, series.points, strict=True)
    ]
    return {
        "number": number,
        "series": series,
        "unit": "ms" if series.unit == "seconds" else "top-1 error, %",
        "changes": changes,
        "values": values,
        "figure": _figure(number, series, numbers) if len(series.points) > 1 else None,
        "drift": None if series.drift_percent is None else signed(series.drift_percent, 2),
    }


def percent(change: Change) -> str:
    """ "+5.1 %" of the level before; "new" where that was zero."""
    return f"{signed(change.percent)} %" if math.isfinite(change.percent) else "new"


def _scale(series: Series) -> Any:
    """Seconds as milliseconds to four digits, errors as percent to two places."""
    if series.unit == "error":
        return lambda value: f"{100 * value:.2f}"
    return lambda value: f"{1000 * value:.4g}"


def _figure(number: int, series: Series, places: Sequence[int]) -> Figure:
    """Every process as a dot, medians of runs, levels between changes."""
    id_, title = f"chart-{number}", f"Row {number} over time"
    factor, unit = (1000, "ms a call") if series.unit == "seconds" else (100, "top-1 error, %")
    found = len(series.changes)
    description = (
        f"{len(places)} runs in order of time; "
        + ("no change found." if not found else f"{found} change{'s' if found > 1 else ''}: ")
        + "; ".join(f"at run {places[c.index]} {percent(c)}" for c in series.changes)
        + ("." if found else "")
    )
    wide, narrow = (
        svg(_chart(series, places, factor, unit, width), f"{id_}-{width}", series.name, description)
        for width in (WIDE, NARROW)
    )
    legend = [("plain", "•", "one process")] if series.unit == "seconds" else []
    legend += [("one", "●", "run's median" if series.unit == "seconds" else "run")]
    legend += [("two", "▬", "level")] if found else []
    legend += [("bad", "▲", "worse from here")] if any(c.after > c.before for c in series.changes) else []
    legend += [("good", "▼", "better from here")] if any(c.after <= c.before for c in series.changes) else []
    return Figure(id_, title, description, wide, narrow, f"#numbers-{number}", "all runs of the row", tuple(legend))


def _chart(series: Series, places: Sequence[int], factor: float, unit: str, width: str) -> Any:
    """From the back: the line of medians, changes with their levels, processes, medians."""
    runs = list(zip(places, series.points, strict=True))
    medians = [{"run": place, "value": factor * point.value} for place, point in runs]
    axis = alt.Axis(tickMinStep=1, format="d", tickCount=10 if width == WIDE else 5, grid=False)
    scale = alt.Scale(domain=[places[0] - 0.7, places[-1] + 0.7], nice=False)
    x: dict[str, Any] = {"title": "run", "axis": axis, "scale": scale}
    y = alt.Y("value:Q", title=unit, scale=alt.Scale(zero=False, nice=False, padding=16), axis=alt.Axis(tickCount=5))
    layers = [_data(medians).mark_line(color=COLOURS["line"], strokeWidth=1.5).encode(x=alt.X("run:Q", **x), y=y)]
    if series.changes:
        layers += _marks(series, places, width, x)
        layers.append(
            _data(_levels(series, places, factor))
            .mark_rule(color=COLOURS["two"], strokeWidth=2.5)
            .encode(x=alt.X("from:Q", **x), x2="to:Q", y=y)
        )
    if series.unit == "seconds":
        each = [{"run": place, "value": factor * value} for place, point in runs for value in point.values]
        layers.append(
            _data(each)
            .mark_point(size=12, filled=True, opacity=0.7, color=COLOURS["muted"])
            .encode(x=alt.X("run:Q", **x), y=y)
        )
    layers.append(
        _data(medians)
        .mark_point(size=45, filled=True, opacity=1, color=COLOURS["one"])
        .encode(x=alt.X("run:Q", **x), y=y)
    )
    size: dict[str, Any] = {"width": 880, "height": 220} if width == WIDE else {"width": 262, "height": 200}
    return alt.layer(*layers).properties(**size)


def _levels(series: Series, places: Sequence[int], factor: float) -> list[dict[str, float]]:
    """From half a run before a level's first to half a run after its last."""
    bounds = [0, *(change.index for change in series.changes), len(places)]
    values = [series.changes[0].before, *(change.after for change in series.changes)]
    return [
        {"from": places[low] - 0.5, "to": places[high - 1] + 0.5, "value": factor * value}
        for (low, high), value in zip(itertools.pairwise(bounds), values, strict=True)
    ]


def _marks(series: Series, places: Sequence[int], width: str, x: dict[str, Any]) -> list[Any]:
    """A dashed line before each change, and how large it is; on a narrow page its number."""
    marks = [
        {
            "at": places[change.index] - 0.5,
            "kind": "worse" if change.after > change.before else "better",
            "text": f"{'▲' if change.after > change.before else '▼'} {percent(change) if width == WIDE else index}",
        }
        for index, change in enumerate(series.changes, start=1)
    ]
    colour = alt.Color(
        "kind:N", scale=alt.Scale(domain=["worse", "better"], range=[COLOURS["bad"], COLOURS["good"]]), legend=None
    )
    return [
        _data(marks).mark_rule(strokeDash=[4, 3], strokeWidth=1.5).encode(x=alt.X("at:Q", **x), color=colour),
        _data(marks)
        .mark_text(align="left", dx=4, fontSize=12, baseline="bottom")
        .encode(x=alt.X("at:Q", **x), y=alt.value(-2), text="text:N", color=colour),
    ]


def _data(values: Sequence[dict[str, Any]]) -> Any:
    return alt.Chart(alt.InlineData(values=list(values)))
