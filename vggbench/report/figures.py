"""A chart -> an SVG that follows the page's colours: no script, no request, right in print and for screen readers."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

import altair as alt
from markupsafe import Markup

#: Stand-ins in charts for the page's CSS variables, so that one SVG serves the light and the dark scheme.
COLOURS = {
    "ink": "#000001",
    "muted": "#000002",
    "line": "#000003",
    "quoted": "#000004",
    "one": "#000005",
    "two": "#000006",
    "three": "#000007",
    "good": "#000008",
    "bad": "#000009",
    "open": "#00000a",
    "surface": "#00000b",
}

#: Widths in px of the two drawings of a chart; the style sheet shows the one that fits.
WIDE, NARROW = "wide", "narrow"

#: Metrics of the page's own sans-serif faces, known to the renderer on every machine.
_FONT = "Liberation Sans"


@dataclass(frozen=True)
class Figure:
    """id: on the page; title and description: the text alternative; data: href of the table with the same numbers.

    legend: (colour's name, glyph, text) of each series.
    """

    id: str
    title: str
    description: str
    wide: Markup
    narrow: Markup
    data: str
    data_label: str
    legend: tuple[tuple[str, str, str], ...]


def svg(chart: Any, id_: str, title: str, description: str) -> Markup:
    """An Altair chart as inline SVG with <title> and <desc>."""
    import vl_convert

    text = vl_convert.vegalite_to_svg(_styled(chart).to_dict())
    text = _with_page_colours(_with_own_ids(text, id_))
    text = re.sub(r' (?:role|aria-roledescription|aria-hidden|aria-label|class|pointer-events)="[^"]*"', "", text)
    width, height = _size(text)
    head = Markup(
        '<svg role="img" aria-labelledby="{id}-t {id}-d" viewBox="0 0 {w} {h}" width="{w}" height="{h}">'
        '<title id="{id}-t">{title}</title><desc id="{id}-d">{description}</desc>'
    ).format(id=id_, w=width, h=height, title=title, description=description)
    body = re.sub(r"^<svg [^>]*>(<rect [^>]*/>)?", "", text, count=1)
    return head + Markup(body)  # Vega escapes the text that it draws


def _styled(chart: Any) -> Any:
    ink, muted, line = COLOURS["ink"], COLOURS["muted"], COLOURS["line"]
    return chart.configure(
        aria=False,
        font=_FONT,
        background="transparent",
        padding=4,
        axis=alt.AxisConfig(
            labelColor=muted,
            titleColor=muted,
            titleFontWeight="normal",
            titleFontSize=12,
            labelFontSize=12,
            gridColor=line,
            domainColor=line,
            tickColor=line,
            titlePadding=8,
            labelPadding=5,
        ),
        title=alt.TitleConfig(color=ink, fontSize=13, fontWeight="bold", anchor="start", offset=8),
        view=alt.ViewConfig(stroke=None),
    )


def _with_page_colours(text: str) -> str:
    for name, colour in COLOURS.items():
        text = text.replace(f'"{colour}"', f'"var(--{name})"')
    return text.replace(f'font-family="{_FONT}"', "")


def _with_own_ids(text: str, prefix: str) -> str:
    """The renderer counts ids on from chart to chart; here they start anew, so that a page is reproducible."""
    names = list(dict.fromkeys(re.findall(r'\bid="([^"]+)"', text)))
    for number, name in enumerate(names):
        text = re.sub(rf'\bid="{re.escape(name)}"', f'id="{prefix}-c{number}"', text)
        text = text.replace(f"url(#{name})", f"url(#{prefix}-c{number})")
    return text


def _size(text: str) -> tuple[int, int]:
    found = re.search(r'width="([\d.]+)" height="([\d.]+)"', text)
    if found is None:
        raise ValueError("The chart renderer gave no SVG with a size.")
    return round(float(found[1])), round(float(found[2]))
