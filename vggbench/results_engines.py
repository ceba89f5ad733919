"""Engines in a record: what each of their layers ran in, made typed of the text that a session's info has."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

if TYPE_CHECKING:
    from vggbench.results import NetworkRun, Record


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class EngineLayer(_Frozen):
    """A layer as it runs. name: of the graph's layers with weights that it computes, else the engine's own, cut.

    precision: of its input, output: of its output, "" where not said. members: what of the graph was fused into it, the
    first of them. fell_back: it was to run in a narrower type.
    """

    name: str
    precision: str = ""
    kind: str = ""
    tactic: str = ""
    output: str = ""
    members: list[str] = Field(default_factory=list)
    fell_back: bool = False


class Engine(_Frozen):
    """engine: names it among a record's others; precision: asked for; asked: of so many layers with weights."""

    engine: str = ""
    profile: str = ""
    precision: str = ""
    asked: int = 0
    layers: list[EngineLayer] = Field(default_factory=list)

    @property
    def fallbacks(self) -> list[str]:
        """ "fc8 in fp32", in the engine's order."""
        return [f"{layer.name} in {layer.precision}" for layer in self.layers if layer.fell_back]


def with_engines(run: Any) -> Any:
    """A network run's fields, with what its session says of layers taken out of it and made ``engines``.

    One text an engine; several where a record's passes ran on several. What is no such text stays where it is.
    """
    session = run.get("session") if isinstance(run, dict) else None
    if not isinstance(session, dict) or "layers" not in session or run.get("engines"):
        return run
    texts = session["layers"] if isinstance(session["layers"], list) else [session["layers"]]
    try:
        engines = [_engine(json.loads(text), session) for text in texts]
    except (ValueError, TypeError, ValidationError):
        return run
    rest = {key: value for key, value in session.items() if key != "layers"}
    return {**run, "session": rest, "engines": engines}


def without_no_engines(run: dict[str, Any]) -> dict[str, Any]:
    """A network run's fields as they are written: records of other backends stay as they were."""
    return {key: value for key, value in run.items() if value or key != "engines"}


def _engine(said: Any, session: dict[str, Any]) -> Engine:
    """Raises TypeError, ValueError. Before engines had names, the text was their rows alone."""
    fields = said if isinstance(said, dict) else {"precision": str(session.get("precision", "")), "layers": said}
    rows = fields.get("layers")
    if not isinstance(rows, list) or not all(isinstance(row, list) for row in rows):
        raise ValueError("Layers are rows.")
    names = list(EngineLayer.model_fields)
    layers = [EngineLayer(**dict(zip(names, row, strict=False))) for row in rows]
    return Engine(**{**fields, "layers": layers})


def runs_of(record: Record) -> list[NetworkRun]:
    """The networks of a record, and what they were compared with."""
    return [*record.networks, *([record.numerics.reference] if record.numerics else [])]


def fallback_line(records: Iterable[Record]) -> str:
    """One line for a terminal: which layers ran in a wider type than was asked for; "" if none did."""
    found: dict[str, dict[str, None]] = {}
    for record in records:
        for run in runs_of(record):
            for engine in run.engines:
                name = f"{run.network} {run.precision} {run.backend}"
                found.setdefault(name, {}).update(dict.fromkeys(engine.fallbacks))
    parts = [f"{name}: {', '.join(layers)}" for name, layers in found.items() if layers]
    return f"Layers ran in a wider type than was asked for; {'; '.join(parts)}." if parts else ""
