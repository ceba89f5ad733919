"""A training run's curve as a page of its own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib import resources

import altair as alt
from markupsafe import Markup

from vggbench.report.figures import COLOURS, svg

_PAGE = Markup(
    '<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>{title}</title>'
    '<meta name="viewport" content="width=device-width, initial-scale=1"><style>{css}</style></head>'
    '<body><main class="top"><h1>{title}</h1><p class="lead">{recipe}</p>'
    '<figure class="chart">{loss}</figure><figure class="chart">{error}</figure>'
    '<div class="scroll" role="region" tabindex="0" aria-label="Every epoch"><table><caption>Every epoch</caption>'
    "<thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table></div></main></body></html>\n"
)
_COLUMNS = {
    "epoch": "Epoch",
    "learning_rate": "Learning rate",
    "training_loss": "Training loss",
    "tuning_top1_error_percent": "Tuning top-1 error, %",
}


def curve_page(title: str, recipe: str, history: Sequence[Mapping[str, float]]) -> str:
    """Training loss and tuning error by epoch, as charts and as a table. history: rows of curve.jsonl."""
    css = resources.files("vggbench.report").joinpath("templates/page.css").read_text(encoding="utf-8")
    rows = Markup("").join(
        Markup("<tr>{}</tr>").format(Markup("").join(Markup("<td>{}</td>").format(f"{row[key]:g}") for key in _COLUMNS))
        for row in history
    )
    return str(
        _PAGE.format(
            title=title,
            css=Markup(css),
            recipe=recipe,
            loss=_line(history, "training_loss", "one"),
            error=_line(history, "tuning_top1_error_percent", "two"),
            head=Markup("").join(Markup('<th scope="col">{}</th>').format(name) for name in _COLUMNS.values()),
            rows=rows,
        )
    )


def _line(history: Sequence[Mapping[str, float]], key: str, colour: str) -> Markup:
    title = f"{_COLUMNS[key]} by epoch"
    values = [{"epoch": row["epoch"], "value": row[key]} for row in history]
    chart = (
        alt.Chart(alt.InlineData(values=values), width=560, height=200)
        .mark_line(point=True, color=COLOURS[colour])
        .encode(
            x=alt.X("epoch:Q", title="epoch", axis=alt.Axis(tickMinStep=1, format="d")),
            y=alt.Y("value:Q", title=_COLUMNS[key], scale=alt.Scale(zero=False)),
        )
    )
    last = f"From {history[0][key]:.3g} in epoch 1 to {history[-1][key]:.3g} in epoch {len(history)}."
    return svg(chart, key, title, last)
