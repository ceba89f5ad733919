"""What each layer of an engine really runs in, from TensorRT's inspector: types, tactic, and what was fused."""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from vggbench.engines import adapter

#: Falling back is said in the record, which who prints it warns of once; here for those who listen to a library's log.
LOG = logging.getLogger("vggbench.engines.layers")
LOG.addHandler(logging.NullHandler())

#: A layer with weights, as vggbench.graphs names them.
_WEIGHTED = r"(?<![\w.])(?:block\d+\.conv\d+|fc\d+)(?![\w.])"
#: In a layer's metadata, of 8.6 on: a node of the ONNX file that went into it, perhaps with the functions around it.
_MEMBER = r"\[ONNX Layer: ([^\]|]*[^\]|\s])"
#: Characters of a name and of a tactic, and fused members, that a record keeps.
_NAME, _TACTIC, _MEMBERS = 60, 80, 12
#: As the versions write types of tensors, in the order of the search: "BFloat16" holds "Float". Pixels, which a layer
#: may take that the normalization was fused into, do not say what it multiplies in.
_TYPES = (
    ("", r"UInt8|UINT8"),
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
    output: of its first output; members: everything of the graph that was fused into it.
    """

    name: str
    kind: str
    names: tuple[str, ...]
    precision: str
    format: str
    tactic: str
    output: str = ""
    members: tuple[str, ...] = ()


def layers_of(trt: Any, engine: Any, context: Any, names: Sequence[str] | None) -> list[Layer]:
    """The engine's layers in their order. names: of the graph's layers with weights; None: all that are named so.

    context: with its input's shape set, without which formats are not known where sizes are dynamic. What cannot be
    read is no layer: an engine runs whatever its inspector says.
    """
    inspector = engine.create_engine_inspector()
    inspector.execution_context = context
    text = inspector.get_engine_information(trt.LayerInformationFormat.JSON)
    try:
        said = json.loads(text)
    except ValueError as error:
        LOG.warning("TensorRT's inspector gave no JSON (%s); layers are not known.", error)
        return []
    entries = said.get("Layers", []) if isinstance(said, dict) else []
    names = weighted(text) if names is None else names
    return [_layer(entry, names) for entry in entries if isinstance(entry, str | dict)]


def weighted(text: str) -> list[str]:
    """Layers with weights that a text names, in its order."""
    return list(dict.fromkeys(re.findall(_WEIGHTED, text)))


def _layer(entry: Any, names: Sequence[str]) -> Layer:
    if isinstance(entry, str):  # a plan that was built without details
        return Layer(entry, "", _named(entry, names), "", "", "")
    name = str(entry.get("Name", ""))
    inputs = entry.get("Inputs") or [{}]
    form = adapter.tensor_format(inputs[0]).strip()
    tactic = str(entry.get("TacticName") or entry.get("TacticValue") or "")
    found = _named(f"{name} {entry.get('Metadata', '')}", names)
    kind = str(entry.get("LayerType", ""))
    members = re.findall(_MEMBER, str(entry.get("Metadata", ""))) or name.split(" + ")
    if kind.lower() in ("reformat", "noop", "shape"):
        found, members = (), []
    outputs = entry.get("Outputs") or [{}]
    output = _precision(adapter.tensor_format(outputs[0]), "")
    return Layer(name, kind, found, _precision(form, tactic), form, tactic, output, tuple(dict.fromkeys(members)))


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


def described(
    layers: Sequence[Layer], names: Sequence[str], precision: str, engine: str, profile: str
) -> dict[str, Any]:
    """What a session's info says of its engine's layers, flat; vggbench.results makes typed engines of it.

    names: of the graph's layers that were to run in ``precision``. engine: what names the engine among others.
    """
    fell_back = fallbacks(layers, names, precision)
    head = {"engine": engine, "profile": profile, "precision": precision, "asked": len(names)}
    return {
        "layers": json.dumps({**head, "layers": _rows(layers, names, precision)}, separators=(",", ":")),
        "fallbacks": ", ".join(fell_back),
        "layers_unseen": ", ".join(unseen(layers, names)),
        **({"arithmetic": f"mixed: {len(fell_back)} of {len(names)} layers fell back"} if fell_back else {}),
    }


def warn(info: dict[str, Any], names: Sequence[str], precision: str) -> None:
    """Where layers fell back."""
    if info["fallbacks"]:
        count = len(info["fallbacks"].split(", "))
        LOG.warning("TensorRT runs %d of %d layers wider than %s: %s.", count, len(names), precision, info["fallbacks"])


def _rows(layers: Sequence[Layer], names: Sequence[str], precision: str) -> list[list[Any]]:
    """[layers of the graph or the engine's own name, precision, kind, tactic, output, [members], 1 if it fell back]."""
    return [
        [
            " + ".join(one.names) or one.name[:_NAME],
            one.precision,
            one.kind,
            one.tactic[:_TACTIC],
            one.output,
            [member[:_NAME] for member in one.members[:_MEMBERS]],
            int(bool(fallbacks([one], [name for name in names if name in one.names], precision))),
        ]
        for one in layers
    ]
