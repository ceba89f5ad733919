"""Puts the sections into one file: templates, style, script, and a policy under which no request can leave."""

from __future__ import annotations

import base64
import functools
import hashlib
from collections.abc import Sequence
from importlib import resources
from typing import TYPE_CHECKING, Any

import jinja2
from markupsafe import Markup

import vggbench
from vggbench import paper
from vggbench.report import ReportContext, sections, tables
from vggbench.report.rows import signed, titled
from vggbench.results import Record
from vggbench.results_names import precision_name

if TYPE_CHECKING:
    from vggbench.findings import Finding


def page(records: list[Record], findings: list[Finding], context: ReportContext) -> str:
    """The HTML of the whole page."""
    given = sections.inputs(records, findings, context)
    return rendered(
        "page.html.j2",
        given=given,
        context=context,
        summary=sections.summary(given),
        sections=sections.sections(given),
        paper=paper.source(),
    )


def rendered(template: str, sheets: Sequence[str] = ("page.css",), /, **shown: Any) -> str:
    """A whole page by its template: what is shown, and with it style, script, policy and version."""
    style, script = "".join(map(_text, sheets)), _text("page.js")
    return (
        _environment()
        .get_template(template)
        .render(
            version=vggbench.__version__,
            style=Markup(style),
            script=Markup(script),
            policy=_policy(style, script),
            **shown,
        )
    )


def _policy(style: str, script: str) -> str:
    """Content-Security-Policy: this style, this script, images inside the page; nothing else, from nowhere."""
    return (
        f"default-src 'none'; img-src data:; style-src '{_source_hash(style)}'; script-src '{_source_hash(script)}'; "
        "base-uri 'none'; form-action 'none'"
    )


def _source_hash(text: str) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()


def _text(name: str) -> str:
    return resources.files("vggbench.report").joinpath("templates", name).read_text(encoding="utf-8")


@functools.cache
def _environment() -> jinja2.Environment:
    environment = jinja2.Environment(
        loader=jinja2.FunctionLoader(_text),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "percent": lambda value: f"{value:.1f}",
        "signed": signed,
        "p": p_value,
        "p_equals": lambda value: text if (text := p_value(value)).startswith("<") else f"= {text}",
        "quoted": tables.quoted_value,
        "duration": duration,
        "slug": lambda text: str(text).replace(" ", "-"),
        "rate": rate,
        "thousands": lambda value: f"{value:,}",
        "plural": plural,
        "precision_name": precision_name,
        "titled": titled,
    }
    return environment


def plural(count: int, one: str, many: str | None = None) -> str:
    """ "1 row", "3 rows"."""
    return f"{count:,} {one if count == 1 else many or one + 's'}"


def rate(value: float) -> str:
    """Three digits: "7.10", "28.4", "1,830", "0.00712"."""
    return f"{value:,.0f}" if value >= 99.95 else f"{value:#.3g}"


def p_value(value: Any) -> str:
    """A p-value to two digits, "< 0.001" below that."""
    number = float(value)
    return "< 0.001" if number < 0.001 else f"{number:.3f}" if number < 0.1 else f"{number:.2f}"


def duration(seconds: float | None) -> str:
    """ "8 min 20 s"."""
    if seconds is None:
        return "not recorded"
    whole = round(seconds)
    if whole < 60:
        return f"{seconds:.1f} s" if seconds < 10 else f"{whole} s"
    minutes, rest = divmod(whole, 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {rest} s"
