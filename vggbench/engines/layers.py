"""What each layer of an engine really runs in, from TensorRT's inspector: its type, its tactic."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from vggbench.engines import adapter

#: As the versions write types of tensors, in the order of the search: "BFloat16" holds "Float".
_TYPES = (
    ("fp8", r"FP8|E4M3"),
    ("int8", r"Int8|INT8"),
    ("bf16", r"BF16|BFloat16"),
    ("fp16", r"FP16|Half|Float16"),
    ("fp32", r"FP32|Float"),
    ("int32", r"Int32|INT32"),
)


@dataclass(frozen=True)
class Layer:
    """A layer of the engine. names: those of the graph's layers that it computes, of the ones asked for.

    precision: of its first input, which is what it multiplies in; "tf32" by its tactic's name; "" if not said.
    """

    name: str
    kind: str
    names: tuple[str, ...]
    precision: str
    format: str
    tactic: str


def layers_of(trt: Any, engine: Any, context: Any, names: Sequence[str]) -> list[Layer]:
    """The engine's layers in their order. names: of the graph's layers with weights.

    context: with its input's shape set, without which formats are not known where sizes are dynamic.
    """
    inspector = engine.create_engine_inspector()
    inspector.execution_context = context
    said = json.loads(inspector.get_engine_information(trt.LayerInformationFormat.JSON))
    return [_layer(entry, names) for entry in said.get("Layers", [])]


def _layer(entry: Any, names: Sequence[str]) -> Layer:
    if isinstance(entry, str):  # a plan that was built without details
        return Layer(entry, "", _named(entry, names), "", "", "")
    name = str(entry.get("Name", ""))
    inputs = entry.get("Inputs") or [{}]
    form = adapter.tensor_format(inputs[0]).strip()
    tactic = str(entry.get("TacticName") or entry.get("TacticValue") or "")
    found = _named(f"{name} {entry.get('Metadata', '')}", names)
    kind = str(entry.get("LayerType", ""))
    if kind.lower() in ("reformat", "noop", "shape"):
        found = ()
    return Layer(name, kind, found, _precision(form, tactic), form, tactic)


def _named(text: str, names: Sequence[str]) -> tuple[str, ...]:
    """Of these layers, those that a fused layer's name or metadata holds: whole, not as a part of another's name.

    What moves or rounds a layer's weights or input bears its name with a suffix, and is not the layer.
    """
    return tuple(name for name in names if re.search(rf"(?<![\w.]){re.escape(name)}(?![\w.])", text))


def _precision(form: str, tactic: str) -> str:
    found = next((name for name, pattern in _TYPES if re.search(pattern, form)), "")
    return "tf32" if found == "fp32" and "tf32" in tactic.lower() else found


def fallbacks(layers: Sequence[Layer], names: Sequence[str], wanted: str) -> list[str]:
    """Of the graph's layers ``names``, those that run in a wider type than ``wanted``, as "block1.conv1 in fp32"."""
    ran = {name: layer.precision for layer in layers for name in layer.names}
    return [f"{name} in {ran[name]}" for name in names if ran.get(name) and _width(ran[name]) > _width(wanted)]


def unseen(layers: Sequence[Layer], names: Sequence[str]) -> list[str]:
    """Layers of the graph of which the engine does not say what they run in."""
    known = {name for layer in layers if layer.precision for name in layer.names}
    return [name for name in names if name not in known]


def _width(precision: str) -> int:
    return {"int8": 8, "fp8": 8, "fp16": 16, "bf16": 16, "tf32": 19}.get(precision, 32)


def as_text(layers: Sequence[Layer]) -> str:
    """The table for a record, JSON: [[layers of the graph or the engine's own name, precision, kind, tactic], ...]."""
    rows = [[" + ".join(one.names) or one.name[:60], one.precision, one.kind, one.tactic[:80]] for one in layers]
    return json.dumps(rows, separators=(",", ":"))
