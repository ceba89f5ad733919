"""Providers of buffers use only what cuda-python and pycuda really have, never stream 0, and free what they took."""

from __future__ import annotations

import ast
import ctypes
import json
import re
import sys
import types
from pathlib import Path

import numpy as np
import pytest
import torch
from backend_inputs import images, make, relative
from fake_cuda import Fake
from fake_tensorrt import install

from vggbench.backends import tensorrt
from vggbench.engines import buffers, buffers_cuda, buffers_pycuda
from vggbench.engines.buffers import PROVIDERS, Buffers

ROOT = Path(__file__).parents[1]
SURFACE = json.loads((ROOT / "tests" / "data" / "cuda_runtime_surface.json").read_text(encoding="utf-8"))


@pytest.fixture(autouse=True)
def _own_cache(monkeypatch, tmp_path):
    monkeypatch.setenv("VGGBENCH_CACHE", str(tmp_path))


def used(source):
    """(name, arguments or None) of everything called cuda... in a source, as attribute or as _call's first argument."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "_call" and hasattr(node.args[0], "value"):
            yield node.args[0].value, len(node.args) - 1
        elif isinstance(node, ast.Call) and getattr(node.func, "attr", "").startswith("cuda"):
            yield node.func.attr, len(node.args)
        elif isinstance(node, ast.Attribute) and node.attr.startswith("cuda"):
            yield node.attr, None


def lacking(source):
    members = {name for kind in SURFACE["classes"].values() for name in kind["members"]}
    for name, count in used(source):
        if name in SURFACE["functions"]:
            (signature,) = SURFACE["functions"][name]
            inside = signature.partition("(")[2].rpartition(")")[0]
            expected = len([part for part in inside.split(",") if part.strip()])
            if count is not None and count != expected:
                yield f"{name} with {count} arguments: {signature}"
        elif name not in {*members, *SURFACE["classes"], *SURFACE["names"]}:
            yield name


def test_cuda_python_has_every_name_that_is_used_with_as_many_arguments():
    source = Path(buffers_cuda.__file__).read_text(encoding="utf-8")
    assert len({name for name, _ in used(source)}) > 25
    assert not list(lacking(source))
    for planted in (
        source.replace("cudaMallocHost", "cudaHostMalloc"),
        source.replace("cudaStreamNonBlocking", "cudaStreamNotBlocking"),
        source.replace('_call("cudaGraphInstantiate", graph, 0)', '_call("cudaGraphInstantiate", graph)'),
    ):
        assert planted != source
        assert list(lacking(planted))


def test_the_fake_runtime_has_the_real_ones_names_and_numbers():
    fake = Fake().module()
    for name, value in vars(fake).items():
        if name in SURFACE["functions"]:
            count = len(re.findall(r"\w+(?=,|\)$)", SURFACE["functions"][name][0]))
            assert getattr(Fake, name).__code__.co_argcount - 1 == count, name
        elif name in SURFACE["classes"]:
            for member in value:
                assert SURFACE["classes"][name]["members"][member.name] == member.value
        elif name.startswith("cuda"):
            assert name in SURFACE["names"]


@pytest.mark.parametrize("name", PROVIDERS)
def test_a_provider_is_a_module_with_the_functions_of_the_protocol(name):
    import importlib

    found = importlib.import_module(PROVIDERS[name])
    for function, described in vars(Buffers).items():
        if not function.startswith("_") and callable(described):
            expected = described.__code__.co_varnames[1 : described.__code__.co_argcount]
            given = getattr(found, function).__code__
            assert given.co_varnames[: given.co_argcount] == expected, function
    assert isinstance(found.CAPTURES, bool)


def test_torch_has_what_is_asked_of_its_streams_and_events():
    sources = [ROOT / "vggbench" / "engines" / f"buffers_{name}.py" for name in ("torch", "objects")]
    text = "".join(source.read_text(encoding="utf-8") for source in sources)
    found = set(re.findall(r"(?:stream\.keep|event|start)\.(\w+)\(", text))
    assert found == {"synchronize", "wait_event", "record", "elapsed_time"}
    for name in found:
        assert any(callable(getattr(kind, name, None)) for kind in (torch.cuda.Stream, torch.cuda.Event)), name


def pycuda_driver(cuda, popped):
    """pycuda.driver on the fake runtime's memory, with the names that pycuda 2026.1 has."""

    class Stream:
        def __init__(self, flags=0):
            self.handle = cuda.cudaStreamCreateWithFlags(flags)[1]

        def synchronize(self):
            cuda.cudaStreamSynchronize(self.handle)

        def wait_for_event(self, event):
            cuda.cudaStreamWaitEvent(self.handle, event.handle, 0)

        def __del__(self):
            cuda.cudaStreamDestroy(self.handle)

    class Event:
        def __init__(self, flags=0):
            self.handle = cuda.cudaEventCreateWithFlags(flags)[1]

        def record(self, stream):
            cuda.cudaEventRecord(self.handle, stream.handle)

        def synchronize(self):
            cuda.cudaEventSynchronize(self.handle)

        def time_till(self, other):
            return cuda.cudaEventElapsedTime(self.handle, other.handle)[1]

        def __del__(self):
            cuda.cudaEventDestroy(self.handle)

    class Allocation:
        def __init__(self, size):
            status, self.pointer = cuda.cudaMalloc(size)
            if status:
                raise driver.MemoryError("cuMemAlloc failed: out of memory")

        def __int__(self):
            return self.pointer

        def free(self):
            cuda.cudaFree(self.pointer)

    class Context:
        def push(self):
            popped.append(False)

        def pop(self):
            popped[-1] = True

    driver = types.ModuleType("pycuda.driver")
    driver.MemoryError = type("MemoryError", (Exception,), {})
    driver.init, driver.mem_get_info = (lambda: None), (lambda: (cuda.memory_bytes - cuda.used, cuda.memory_bytes))
    driver.Device = lambda number: types.SimpleNamespace(retain_primary_context=Context)
    driver.Stream, driver.mem_alloc, driver.Event = Stream, Allocation, Event
    driver.event_flags = types.SimpleNamespace(BLOCKING_SYNC=1)
    driver.pagelocked_empty = np.empty
    copy = ctypes.memmove
    driver.memcpy_htod_async = lambda to, array, stream: cuda.enqueue(
        stream.handle, lambda: copy(to, array.ctypes.data, array.nbytes)
    )
    driver.memcpy_dtoh_async = lambda array, source, stream: cuda.enqueue(
        stream.handle, lambda: copy(array.ctypes.data, source, array.nbytes)
    )
    return driver


def test_pycuda_runs_an_engine_in_the_primary_context_without_graphs(monkeypatch):
    _, cuda, _ = install(monkeypatch, "11.0.0")
    popped, registered = [], []
    package, driver = types.ModuleType("pycuda"), pycuda_driver(cuda, popped)
    package.driver = driver
    monkeypatch.setitem(sys.modules, "pycuda", package)
    monkeypatch.setitem(sys.modules, "pycuda.driver", driver)
    monkeypatch.setattr(buffers, "PROVIDERS", {"pycuda": PROVIDERS["pycuda"]})
    monkeypatch.setattr(buffers_pycuda, "_contexts", [])
    monkeypatch.setattr(buffers_pycuda.atexit, "register", registered.append)
    variant, batch = make("tensorrt"), images(70)
    session = tensorrt.open_session(variant, "cuda", 1)
    again = tensorrt.open_session(variant, "cuda", 1)
    assert relative(session(batch), again(batch)) == 0
    assert len(session.time_calls(batch[:2], 5, True)) == 5
    assert session.info["buffers"] == "pycuda"
    assert "captures none" in session.info["cuda_graph"]
    assert popped == [False]
    for each in (session, again):
        each.close()
    (pop,) = registered
    pop()
    assert popped == [True]
    del session, again, each
    assert not any(cuda.live.values())


def test_no_source_names_autoinit_or_the_default_stream():
    for path in (ROOT / "vggbench" / "engines").glob("buffers_*.py"):
        code = ast.unparse(ast.parse(path.read_text(encoding="utf-8")))
        assert "import pycuda.autoinit" not in code
        assert "default_stream" not in code
