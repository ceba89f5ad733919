"""What each layer of an engine ran in: a table an engine, whatever number of records it gave; fall-backs marked."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from vggbench.report.rows import anchor_of, titled
from vggbench.results import NetworkRun, Record
from vggbench.results_engines import Engine, runs_of
from vggbench.results_names import precision_name

if TYPE_CHECKING:
    from vggbench.report.sections import Inputs

#: A longer table is closed at first.
OPEN_ROWS = 12


@dataclass(frozen=True)
class Shown:
    """An engine with the records that it gave. id: of its part of the page."""

    id: str
    title: str
    engine: Engine
    anchors: tuple[str, ...]

    @property
    def fallbacks(self) -> list[str]:
        return self.engine.fallbacks

    @property
    def is_open(self) -> bool:
        return len(self.engine.layers) <= OPEN_ROWS

    @property
    def unsaid(self) -> bool:
        """Whether the engine was built without telling what its layers run in."""
        return not any(layer.precision for layer in self.engine.layers)


def section(given: Inputs) -> dict[str, Any] | None:
    """What engine-layers.html.j2 shows; None without engines."""
    found = engines(given.records)
    if not found:
        return None
    return {"engines": found, "fell_back": [each for each in found if each.fallbacks]}


def engines(records: Sequence[Record]) -> list[Shown]:
    """Each engine once, in the records' order: the same layers of the same network on the same backend."""
    found: dict[tuple[str, ...], tuple[str, Engine, dict[str, None]]] = {}
    for record in records:
        for run in runs_of(record):
            for engine in run.engines:
                key = (run.network, str(run.weights.get("digest")), run.backend, engine.model_dump_json())
                title = _title(run, engine)
                found.setdefault(key, (title, engine, {}))[2][anchor_of(record)] = None
    return [
        Shown(f"engine-{number}", title, engine, tuple(anchors))
        for number, (title, engine, anchors) in enumerate(found.values(), 1)
    ]


def _title(run: NetworkRun, engine: Engine) -> str:
    """ "D (random:0), INT8 tensorrt 10.16.1, batch 8:8:8 height 224:224:224 width 224:224:224"."""
    library = run.session.get("tensorrt")
    runner = run.session.get("runner")
    parts = [
        f"{run.network} ({run.weights.get('name', 'unnamed')})",
        f"{titled(precision_name(run))} {run.backend}" + (f" {library}" if isinstance(library, str) else ""),
        f"{runner} runner" if isinstance(runner, str) else "",
        engine.profile,
    ]
    return ", ".join(part for part in parts if part)


def shortened(fields: dict[str, Any]) -> dict[str, Any]:
    """A record's JSON for the page, without layers, which stand in their own section and in the file."""
    runs = [*fields["networks"], *([fields["numerics"]["reference"]] if fields.get("numerics") else [])]
    for run in runs:
        for engine in run.get("engines", ()):
            engine["layers"] = f"{len(engine['layers'])}, under What each layer ran in"
    return fields
