"""Every name of TensorRT's that the code uses is in 8.6, 10 and 11; what differs stands in adapter.py."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest
from fake_tensorrt import SURFACES
from fake_tensorrt_build import build_classes
from fake_tensorrt_run import run_classes

ROOT = Path(__file__).parents[1]
ENGINES = ROOT / "vggbench" / "engines"
ADAPTER = ENGINES / "adapter.py"
#: Providers of buffers use CUDA alone.
USERS = [path for path in sorted(ENGINES.glob("*.py")) if not path.stem.startswith("buffers_")]
USERS.append(ROOT / "vggbench" / "backends" / "tensorrt.py")

#: Names of variables and attributes that hold an object of TensorRT's, wherever they stand in USERS.
HOLDERS = {
    "builder": "Builder",
    "network": "INetworkDefinition",
    "parser": "OnnxParser",
    "config": "IBuilderConfig",
    "dimensions": "IOptimizationProfile",
    "engine": "ICudaEngine",
    "context": "IExecutionContext",
    "inspector": "EngineInspector",
    "_runtime": "Runtime",
}
#: Not methods of classes that the binding describes.
PYTHON = {"__version__", "__members__", "__init__", "__name__"}


def uses(source):
    """(class or "", name, positional arguments or None) of each attribute of TensorRT's in a module's source."""
    tree = ast.parse(source)
    calls = {id(node.func): node for node in ast.walk(tree) if isinstance(node, ast.Call)}
    for node in ast.walk(tree):
        if not isinstance(node, ast.Attribute) or node.attr in PYTHON:
            continue
        call = calls.get(id(node))
        starred = call is not None and any(isinstance(each, ast.Starred) for each in call.args)
        count = len(call.args) if call is not None and not starred else None
        held, owner = node.value, ""
        if isinstance(held, ast.Attribute) and isinstance(held.value, ast.Name) and held.value.id == "trt":
            owner = held.attr  # trt.BuilderFlag.TF32
        elif isinstance(held, ast.Name) and held.id != "trt":
            owner = HOLDERS.get(held.id, "?")
        elif isinstance(held, ast.Attribute):
            owner = HOLDERS.get(held.attr, "?")
        elif not isinstance(held, ast.Name):
            continue
        if owner != "?":
            yield owner, node.attr, count


def lacking(source, surface):
    """What of it a version does not have, or takes other arguments for."""
    for owner, name, count in uses(source):
        if not owner:
            if name not in {*surface["classes"], *surface["functions"], *surface["names"]}:
                yield f"tensorrt.{name}"
            continue
        known = surface["classes"].get(owner)
        if known is None:
            yield f"tensorrt.{owner}"
        elif name in known.get("methods", {}):
            signatures = known["methods"][name]
            if count is not None and not any(accepts(signature, count) for signature in signatures):
                yield f"tensorrt.{owner}.{name} with {count} arguments: {signatures}"
        elif name not in {*known.get("members", {}), *known.get("properties", {})}:
            inner = surface["classes"].get(f"{owner}.{name}")
            if inner is None:
                yield f"tensorrt.{owner}.{name}"


def accepts(signature, count):
    """Whether a method's signature takes so many positional arguments beside self."""
    inside = re.sub(r"<[^>]*>|\[[^\]]*\]", "", signature.partition("(")[2].rpartition(") ->")[0])
    parameters = [part for part in inside.split(",") if part.strip()][1:]
    return sum("=" not in part for part in parameters) <= count <= len(parameters)


@pytest.mark.parametrize("version", SURFACES)
@pytest.mark.parametrize("path", [path for path in USERS if path != ADAPTER], ids=lambda path: path.stem)
def test_every_version_has_what_the_code_uses_outside_the_adapter(path, version):
    assert not list(lacking(path.read_text(encoding="utf-8"), SURFACES[version]))


def test_the_code_is_seen_to_use_what_it_does():
    found = {(owner, name) for path in USERS for owner, name, _ in uses(path.read_text(encoding="utf-8"))}
    for wanted in (
        ("", "Builder"),
        ("Builder", "build_serialized_network"),
        ("OnnxParser", "parse_from_file"),
        ("IBuilderConfig", "set_timing_cache"),
        ("BuilderFlag", "TF32"),
        ("Runtime", "deserialize_cuda_engine"),
        ("ICudaEngine", "get_tensor_profile_shape"),
        ("IExecutionContext", "execute_async_v3"),
        ("EngineInspector", "get_engine_information"),
    ):
        assert wanted in found
    assert len(found) > 40


@pytest.mark.parametrize(
    ("module", "name", "renamed"),
    [
        ("build", "build_serialized_network", "build_engine"),
        ("build", "set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, options", "set_memory_pool_limit(options"),
        ("build", "ProfilingVerbosity.DETAILED", "ProfilingVerbosity.VERBOSE"),
        ("run", "execute_async_v3", "execute_async_v2"),
        ("run", "set_tensor_address", "set_binding_address"),
        ("run", "get_tensor_profile_shape", "get_profile_shape"),
        ("layers", "execution_context", "context"),
        ("logs", "ILogger.Severity", "ILogger.Level"),
    ],
)
def test_a_call_that_one_version_lacks_is_found(module, name, renamed):
    source = (ENGINES / f"{module}.py").read_text(encoding="utf-8")
    assert name in source
    planted = source.replace(name, renamed)
    assert any(list(lacking(planted, surface)) for surface in SURFACES.values())


def test_what_the_adapter_uses_some_version_has():
    source = ADAPTER.read_text(encoding="utf-8")
    missing = [set(lacking(source, surface)) for surface in SURFACES.values()]
    assert not set.intersection(*missing)


def test_what_differs_between_versions_stands_in_one_short_file():
    assert len(ADAPTER.read_text(encoding="utf-8").splitlines()) <= 120
    for path in USERS:
        text = path.read_text(encoding="utf-8")
        if path != ADAPTER:
            assert not re.search(r"hasattr\((trt|engine|config)|STRONGLY_TYPED|EXPLICIT_BATCH|IProgressMonitor", text)


def test_the_fake_has_no_name_that_no_version_has():
    surface = SURFACES["10.0.1"]
    made = {**build_classes(None, surface, None, None), **run_classes(None, surface, None, None, None)}
    for name, kind in made.items():
        offered = set()
        for one in SURFACES.values():
            known = one["classes"].get(name, {})
            offered |= {*known.get("methods", {}), *known.get("properties", {})}
        assert not {key for key in vars(kind) if not key.startswith("_")} - offered, name


ALLOWED = {
    "numpy", "tensorrt", "vggbench.cache", "vggbench.engines", "vggbench.errors", "vggbench.modes", "vggbench.sizes",
}  # fmt: skip
PROVIDERS = {"buffers_torch": {"torch"}, "buffers_cuda": set(), "buffers_pycuda": {"pycuda"}}


@pytest.mark.parametrize("path", sorted(ENGINES.glob("*.py")), ids=lambda path: path.stem)
def test_engines_import_little_more_than_the_standard_library(path):
    allowed = ALLOWED | PROVIDERS.get(path.stem, set())
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.module == "vggbench":
            names = [f"vggbench.{each.name}" for each in node.names]
        elif isinstance(node, ast.ImportFrom):
            names = [node.module]
        elif isinstance(node, ast.Import):
            names = [each.name for each in node.names]
        else:
            continue
        for name in names:
            top = ".".join(name.split(".")[:2]) if name.startswith("vggbench") else name.split(".")[0]
            assert top in allowed or top in sys.stdlib_module_names, name


def test_engines_import_in_a_python_that_has_only_numpy():
    names = [f"vggbench.engines.{path.stem}" for path in sorted(ENGINES.glob("*.py")) if path.stem != "__init__"]
    absent = ["torch", "onnx", "onnxruntime", "pydantic", "typer", "rich", "platformdirs", "psutil", "safetensors"]
    absent += ["tensorrt", "pycuda", "cuda"]
    code = (
        f"import sys\nfor name in {absent!r}: sys.modules[name] = None\n"
        f"import importlib\nfor name in {names!r}: importlib.import_module(name)\n"
        "from vggbench.engines import buffers\nprint(buffers.missing())"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env={"PYTHONPATH": str(ROOT), "PATH": ""}
    )
    assert "torch: not installed" in done.stdout, done.stderr
    assert "cuda-python: not installed" in done.stdout
