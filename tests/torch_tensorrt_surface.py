"""Records what torch-tensorrt's dynamo functions take, out of its wheels, as JSON; imports nothing of it.

python tests/torch_tensorrt_surface.py OUT.json WHEEL.whl WHEEL.whl ...
"""

from __future__ import annotations

import ast
import json
import sys
import zipfile
from pathlib import Path

PLACES = {
    "torch_tensorrt/dynamo/_compiler.py": ("compile", "convert_exported_program_to_serialized_trt_engine"),
    "torch_tensorrt/_Input.py": ("Input",),
    "torch_tensorrt/_Device.py": ("Device",),
    "torch_tensorrt/dynamo/_settings.py": ("CompilationSettings",),
    "torch_tensorrt/dynamo/runtime/_TorchTensorRTModule.py": ("TorchTensorRTModule",),
}
#: Classes that take anything: what their docstring names of these is taken to be accepted.
DOCUMENTED = {"Input": ("shape", "min_shape", "opt_shape", "max_shape", "dtype"), "Device": ("gpu_id",)}
#: Of a module that holds an engine: what is called and read.
USED = ("set_output_tensors_as_unowned", "forward")


def surface(wheel: Path) -> dict[str, list[str]]:
    """Function or class -> names of what may be given by keyword; "NAME." -> methods and attributes that are used."""
    found: dict[str, list[str]] = {}
    with zipfile.ZipFile(wheel) as archive:
        for path, names in PLACES.items():
            for node in ast.parse(archive.read(path)).body:
                if getattr(node, "name", "") in names:
                    found |= _taken(node)
    return found


def _taken(node: ast.AST) -> dict[str, list[str]]:
    if isinstance(node, ast.FunctionDef):
        return {node.name: _arguments(node)}
    assert isinstance(node, ast.ClassDef)
    methods = {each.name: each for each in node.body if isinstance(each, ast.FunctionDef)}
    if node.name in DOCUMENTED:
        text = ast.get_docstring(methods["__init__"]) or ""
        return {node.name: [key for key in DOCUMENTED[node.name] if key in text]}
    if "__init__" not in methods:  # a dataclass
        fields = [each.target for each in node.body if isinstance(each, ast.AnnAssign)]
        return {node.name: [each.id for each in fields if isinstance(each, ast.Name)]}
    targets = [target for each in ast.walk(node) if isinstance(each, ast.Assign) for target in each.targets]
    annotated = [each.target for each in ast.walk(node) if isinstance(each, ast.AnnAssign)]
    stored = {each.attr for each in (*targets, *annotated) if isinstance(each, ast.Attribute)}
    given = _arguments(methods["__init__"])[1:]
    used = [name for name in USED if name in methods] + sorted(stored & {*given})
    return {node.name: given, f"{node.name}.": used}


def _arguments(node: ast.FunctionDef) -> list[str]:
    return [each.arg for each in (*node.args.args, *node.args.kwonlyargs)]


if __name__ == "__main__":
    out, *wheels = map(Path, sys.argv[1:])
    versions = {wheel.name.split("-")[1]: surface(wheel) for wheel in wheels}
    out.write_text(json.dumps(dict(sorted(versions.items())), indent=1) + "\n", encoding="utf-8")
