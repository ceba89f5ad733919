"""Records TensorRT's Python interface as JSON: names, signatures, members of enumerations; runs nothing of it.

    python tests/trt_surface.py OUT.json                 the installed binding
    python tests/trt_surface.py OUT.json WHEEL.whl       a wheel of bindings, with a Python of the wheel's version
    python tests/trt_surface.py OUT.json --cuda          functions and names of cuda-python's runtime bindings

A wheel of bindings comes without TensorRT's libraries. Its binding library still loads, and describes itself, when
functions of the names it wants are there: a C compiler and nm make such stand-ins. None of them is ever called.
"""

from __future__ import annotations

import ast
import ctypes
import importlib
import importlib.machinery
import importlib.metadata
import importlib.util
import inspect
import json
import re
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path
from types import ModuleType
from typing import Any

#: Its own functions and those of enumerations and context managers, which say nothing of the interface.
_LEFT_OUT = re.compile(r"_(?!_init__)|pybind11")
_OVERLOAD = re.compile(r"^\d+\. (\w+\(.*)$", re.MULTILINE)
_PREFIX = re.compile(r"tensorrt(_bindings)?\.(tensorrt\.)?(plugin\.)?")


def surface(module: ModuleType, version: str, names: set[str]) -> dict[str, Any]:
    """What a binding offers. names: further ones that its Python file defines."""
    found: dict[str, Any] = {"version": version, "names": [], "classes": {}, "functions": {}}
    for name in sorted({*dir(module), *names}):
        if _LEFT_OUT.match(name):
            continue
        value = getattr(module, name, None)
        if inspect.ismodule(value):
            continue
        if inspect.isclass(value):
            found["classes"][name] = _class(value)
            for inner, kind in vars(value).items():
                if inspect.isclass(kind) and not _LEFT_OUT.match(inner):
                    found["classes"][f"{name}.{inner}"] = _class(kind)
        elif callable(value):
            found["functions"][name] = _signatures(value)
        else:
            found["names"].append(name)
    return found


def _class(kind: type) -> dict[str, Any]:
    described: dict[str, Any] = {}
    bases = [base.__name__ for base in kind.__bases__ if not base.__name__.startswith(("object", "pybind11"))]
    if bases:
        described["bases"] = bases
    members = getattr(kind, "__members__", None)
    if members:
        return {**described, "members": {name: int(value) for name, value in members.items()}}
    methods, properties = {}, {}
    for name, value in vars(kind).items():
        if _LEFT_OUT.match(name) or inspect.isclass(value):
            continue
        if isinstance(value, property):
            properties[name] = "read and write" if value.fset else "read"
        elif callable(value) or isinstance(value, staticmethod):
            methods[name] = _signatures(getattr(kind, name))
        else:
            properties[name] = "constant"
    return {**described, "methods": methods, "properties": properties}


def _signatures(function: Any) -> list[str]:
    """Of every overload, from the first line of what pybind11 documents; the module's own prefix left out."""
    text = (function.__doc__ or "").strip()
    first = text.partition("\n")[0]
    found = _OVERLOAD.findall(text) if first.endswith("(*args, **kwargs)") else [first] if "(" in first else []
    return [re.sub(r" object at 0x[0-9a-f]+", "", _PREFIX.sub("", line)) for line in found]


def read_installed() -> dict[str, Any]:
    """The binding that `import tensorrt` finds."""
    module = importlib.import_module("tensorrt")
    return surface(module, module.__version__, set())


def read_cuda() -> dict[str, Any]:
    """Functions, with their signatures, members of enumerations and constants of cuda-python's runtime bindings."""
    module = importlib.import_module("cuda.bindings.runtime")
    names = [name for name in dir(module) if name.startswith("cuda")]
    kinds = {name: _class(getattr(module, name)) for name in ("cudaError_t", "cudaMemcpyKind", "cudaStreamCaptureMode")}
    return {
        "version": importlib.metadata.version("cuda-bindings"),
        "names": [name for name in names if isinstance(getattr(module, name), int)],
        "classes": kinds,
        "functions": {
            name: _signatures(getattr(module, name)) for name in names if inspect.isroutine(vars(module)[name])
        },
    }


def read_wheel(wheel: Path) -> dict[str, Any]:
    """A wheel's binding. Raises OSError where the compiler or nm is missing, ImportError for another Python's wheel."""
    with tempfile.TemporaryDirectory() as folder, zipfile.ZipFile(wheel) as archive:
        wanted = [name for name in archive.namelist() if name.endswith((".py", "/tensorrt.so"))]
        archive.extractall(folder, wanted)
        library = next(Path(folder).rglob("tensorrt.so"))
        _stand_in(library)
        loader = importlib.machinery.ExtensionFileLoader("tensorrt", str(library))
        spec = importlib.util.spec_from_file_location("tensorrt", library, loader=loader)
        assert spec is not None
        module = importlib.util.module_from_spec(spec)
        loader.exec_module(module)
        code = ast.parse((library.parent / "__init__.py").read_text(encoding="utf-8"))
        names = {node.name for node in code.body if isinstance(node, ast.FunctionDef)}
        return surface(module, wheel.name.split("-")[1], names)


def _stand_in(library: Path) -> None:
    """Load, under the names of the libraries that the binding wants, functions that return 0."""
    said = subprocess.run(["nm", "-D", "--undefined-only", library], capture_output=True, text=True, check=True).stdout
    symbols = [line.split()[1] for line in said.splitlines() if line.split()[0] == "U" and "@" not in line]
    functions = [name for name in symbols if not name.startswith(("Py", "_Py", "dl"))]
    headers = subprocess.run(["readelf", "-d", library], capture_output=True, text=True, check=True).stdout
    for name in re.findall(r"\[(libnv\S+)\]", headers):
        code = "".join(f"int {function}(void) {{ return 0; }}\n" for function in functions)
        built = library.parent / name
        command = ["cc", "-shared", "-fPIC", f"-Wl,-soname,{name}", "-x", "c", "-o", str(built), "-"]
        subprocess.run(command, input=code, text=True, check=True)
        ctypes.CDLL(str(built), ctypes.RTLD_GLOBAL)


if __name__ == "__main__":
    asked = sys.argv[2] if len(sys.argv) > 2 else ""
    described = read_cuda() if asked == "--cuda" else read_wheel(Path(asked)) if asked else read_installed()
    text = json.dumps(described, indent=0, sort_keys=True)
    Path(sys.argv[1]).write_text(text + "\n", encoding="utf-8")
    print(f"{sys.argv[1]}: {described['version']}, {len(described['classes'])} classes, {len(text)} bytes")
