"""Imports point downward only, in the order of LAYERS, held over the syntax trees."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

#: From the ground up. A module imports from layers below its own; within a layer only where the layer says so.
#: A name stands for a module, a package, and what starts with it and an underscore (cli_common, runs_train).
LAYERS: list[tuple[str, set[str]]] = [
    (
        "apart",
        {
            "vgg_reference",
            "errors",
            "interrupts",
            "paper",
            "environment",
            "samples",
            "statistics",
            "questions",
            "progress",
            "precisions",
            "modes",
        },
    ),
    (
        "together",
        {
            "ranges",
            "protocols",
            "variants",
            "views",
            "resample",
            "images",
            "cache",
            "results",
            "plan",
            "weights",
            "shares",
        }
        | {"distributed", "sizes"},
    ),
    ("together", {"graphs", "graph", "quantize", "qdq", "engines"}),
    ("apart", {"backends"}),
    ("apart", {"measure", "train", "findings", "gate", "history"}),
    ("apart", {"report"}),
    ("together", {"runs", "doctor", "pytest"}),
    ("together", {"cli", "__main__"}),
]

#: What reads records may import nothing of HEAVY, neither at top level nor inside a function.
WITHOUT_TORCH = {"paper", "results", "statistics", "questions", "findings", "report", "gate", "history"}
HEAVY = {"torch", "onnx", "onnxruntime", "tensorrt", "backends", "measure", "graphs", "runs", "train", "views"}


def _files():
    found = {}
    for top in (ROOT / "vggbench", ROOT / "reference" / "vgg_reference"):
        for path in sorted(top.rglob("*.py")):
            parts = path.relative_to(top.parent).with_suffix("").parts
            found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


FILES = _files()


def _imports(module):
    """Every module that a file names in an import, wherever it stands, in full."""
    path = FILES[module]
    package = module if path.name == "__init__.py" else module.rpartition(".")[0]
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (name.name for name in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                above = package.split(".")[: len(package.split(".")) - node.level + 1]
                base = ".".join([*above, *([base] if base else [])])
            for name in node.names:
                inner = f"{base}.{name.name}"
                yield inner if inner in FILES else base


def _part(module):
    """vggbench.report.rows -> report; vgg_reference.model -> vgg_reference; torch.nn -> torch; vggbench -> ''."""
    first, _, rest = module.partition(".")
    return rest.partition(".")[0] if first == "vggbench" else first


def _layer(part):
    for number, (_, names) in enumerate(LAYERS):
        if any(part == name or part.startswith(f"{name}_") for name in names):
            return number
    return None


def _sibling_name(part):
    return next(name for _, names in LAYERS for name in names if part == name or part.startswith(f"{name}_"))


def _broken(module):
    part = _part(module)
    for target in _imports(module):
        aim = _part(target)
        if target.partition(".")[0] not in ("vggbench", "vgg_reference") or not aim or aim == part:
            continue
        here, there = _layer(part), _layer(aim)
        together = LAYERS[here][0] == "together" or _sibling_name(part) == _sibling_name(aim)
        if there is None or there > here or (there == here and not together):
            yield f"{module} imports {target}"


def test_every_module_has_a_place():
    homeless = [module for module in FILES if _part(module) and _layer(_part(module)) is None]
    assert not homeless, f"{homeless}: give each a layer in tests/test_imports.py"


@pytest.mark.parametrize("module", [module for module in FILES if _part(module)])
def test_imports_point_downward(module):
    assert not list(_broken(module))


def test_the_paper_imports_nothing_of_ours():
    assert not [target for target in _imports("vggbench.paper") if target.startswith(("vggbench", "vgg_reference"))]


def test_the_reference_knows_nothing_of_the_harness():
    for module in FILES:
        if module.startswith("vgg_reference"):
            assert not [target for target in _imports(module) if target.startswith("vggbench")], module


def test_records_page_and_gate_never_name_what_runs_networks():
    for module in FILES:
        if module.startswith("vggbench") and _part(module) in WITHOUT_TORCH:
            assert not {_part(target) for target in _imports(module)} & HEAVY, module


def test_a_page_is_judged_and_read_without_loading_torch():
    code = (
        "import sys\n"
        "from vggbench.findings import judge; import vggbench.report, vggbench.results\n"
        "assert judge([])\n"
        "assert not {'torch', 'onnx', 'onnxruntime'} & set(sys.modules)"
    )
    path = f"{ROOT}:{ROOT / 'reference'}"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env={"PYTHONPATH": path, "PATH": ""}, timeout=600
    )
    assert done.returncode == 0, done.stderr


def test_the_checks_here_can_fail(tmp_path, monkeypatch):
    wrong = tmp_path / "paper.py"
    wrong.write_text("def f():\n    from vggbench.backends import open_session\n    from .measure import accuracy\n")
    monkeypatch.setitem(FILES, "vggbench.paper", wrong)
    assert list(_broken("vggbench.paper")) == [
        "vggbench.paper imports vggbench.backends",
        "vggbench.paper imports vggbench.measure.accuracy",
    ]
