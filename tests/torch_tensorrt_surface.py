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
}


def surface(wheel: Path) -> dict[str, list[str]]:
    """Function or class -> names of what may be given by keyword."""
    found = {}
    with zipfile.ZipFile(wheel) as archive:
        for path, names in PLACES.items():
            for node in ast.parse(archive.read(path)).body:
                if isinstance(node, ast.FunctionDef) and node.name in names:
                    found[node.name] = [each.arg for each in (*node.args.args, *node.args.kwonlyargs)]
                if isinstance(node, ast.ClassDef) and node.name in names:
                    text = ast.get_docstring(
                        next(each for each in node.body if getattr(each, "name", "") == "__init__")
                    )
                    keys = ("shape", "min_shape", "opt_shape", "max_shape", "dtype")
                    found[node.name] = [key for key in keys if text and key in text]
    return found


if __name__ == "__main__":
    out, *wheels = map(Path, sys.argv[1:])
    versions = {wheel.name.split("-")[1]: surface(wheel) for wheel in wheels}
    out.write_text(json.dumps(dict(sorted(versions.items())), indent=1) + "\n", encoding="utf-8")
