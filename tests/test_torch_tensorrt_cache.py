"""Engines of torch-tensorrt in the cache: a second opening builds nothing, and no other engine is taken for it."""

import dataclasses
import errno
import json
import logging
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from backend_inputs import TOLERANCE, images, make, reference, relative
from fake_torch_tensorrt import DEVICE, SURFACE, install, install_modelopt

from vggbench import cache
from vggbench.backends import torch_tensorrt_engines
from vggbench.backends.plain_network import shapes_for
from vggbench.backends.torch_tensorrt import profile_of
from vggbench.sizes import parse

BATCH = images(2)


@pytest.fixture
def session(monkeypatch, tmp_path):
    return install(monkeypatch, tmp_path)


@pytest.fixture(autouse=True)
def _words(caplog):
    caplog.set_level(logging.WARNING, "vggbench.engines")


def kept(kind="engines"):
    return sorted((cache.root() / kind).glob("*"))


@pytest.mark.parametrize("version", sorted(SURFACE))
def test_a_second_opening_builds_nothing_reads_no_weights_and_scores_the_same_bits(session, version, monkeypatch):
    first, _ = session(version)
    scores = first(BATCH)
    assert (first.info["engine_source"], first.info["engine_kept"], first.info["compilations"]) == ("built", True, 1)
    monkeypatch.setattr(torch_tensorrt_engines, "program", None)
    second, library = session(version)
    assert np.array_equal(second(BATCH), scores)
    assert library.calls == []
    (module,) = library.opened
    assert (module.name, module.input_binding_names, module.output_binding_names, module.unowned) == (
        "_run_on_acc_0", ["images"], ["output0"], True
    )  # fmt: skip
    assert (module.settings.device.gpu_id, module.settings.immutable_weights) == (0, True)
    assert (second.info["engine_source"], second.info["compilations"], second.info["compile_seconds"]) == (
        "cache",
        0,
        0,
    )
    assert second.info["engine_key"] == first.info["engine_key"] == kept()[0].stem
    assert second.plan(64, 64) == first.plan(64, 64)


def test_the_same_module_is_run_whether_it_was_built_or_kept(session):
    for _ in range(2):
        opened, library = session()
        opened(BATCH)
        assert opened._engine.module is library.opened[0]
        assert opened.info["engine_module"] == "TorchTensorRTModule"


def test_int8_engines_are_kept_with_their_ranges(session, monkeypatch):
    install_modelopt(monkeypatch)
    scores = session(precision="int8")[0](BATCH)
    again, library = session(precision="int8")
    assert np.array_equal(again(BATCH), scores)
    assert library.calls == []
    whole, library = session()
    assert relative(whole(BATCH), reference(make("torch-tensorrt"), BATCH)) <= TOLERANCE["fp32"]
    assert len(library.calls) == 1


def fields_of(variant):
    shapes = shapes_for(64, 64, variant, profile_of(variant))
    return torch_tensorrt_engines.key_fields(variant, shapes, DEVICE)


def test_whatever_decides_an_engine_is_in_its_key(session, monkeypatch):
    session()
    base = make("torch-tensorrt")
    other = dataclasses.replace(base, weights=dataclasses.replace(base.weights, digest="0" * 64))
    quantized = make("torch-tensorrt", precision="int8")
    variants = [base, other, make("torch-tensorrt", precision="fp16"), make("torch-tensorrt", precision="tf32")]
    variants += [make("torch-tensorrt", sizes=parse("1:2:64", None)), make("torch-tensorrt", "C"), quantized]
    variants += [dataclasses.replace(quantized, quantization=quantized.quantization.keeping("fc8"))]
    found = [json.dumps(fields_of(variant)) for variant in variants]
    shapes = shapes_for(64, 64, base, profile_of(base))
    for change in ({"name": "X"}, {"sm": 89}, {"driver": "1"}):
        gpu = dataclasses.replace(DEVICE, **change)
        found.append(json.dumps(torch_tensorrt_engines.key_fields(base, shapes, gpu)))
    session("2.14.0")
    found.append(json.dumps(fields_of(base)))
    session()
    monkeypatch.setattr("tensorrt.__version__", "10.16.1", raising=False)
    found.append(json.dumps(fields_of(base)))
    for owner, name in ((torch, "__version__"), (torch.version, "cuda")):
        monkeypatch.setattr(owner, name, "9.9")
        found.append(json.dumps(fields_of(base)))
    for name, value in (("settings", lambda variant: {"optimization_level": 5}), ("_sources", lambda: "other code")):
        monkeypatch.setattr(torch_tensorrt_engines, name, value)
        found.append(json.dumps(fields_of(base)))
    assert len(set(found)) == len(found) == 17


@pytest.mark.parametrize("name", ["architectures", "model", "ranges", "quantize_modelopt", "plain_network"])
def test_code_that_draws_the_network_names_its_engines(monkeypatch, name):
    sources, read = torch_tensorrt_engines._sources.__wrapped__, Path.read_bytes
    before = sources()
    monkeypatch.setattr(Path, "read_bytes", lambda path: read(path) + b"# changed" * (path.stem == name))
    assert sources() != before


@pytest.mark.parametrize(
    ("spoil", "why"),
    [
        (lambda data: data[: len(data) // 2], "cut short or changed"),
        (lambda data: data[:-1] + bytes([data[-1] ^ 1]), "cut short or changed"),
        (lambda data: b"", "no file of vggbench's"),
        (lambda data: b"ftrt" + bytes(100), "no file of vggbench's"),
        (lambda data: data.replace(b'"sm": 90', b'"sm": 75'), "of another graph, GPU or version"),
    ],
)
def test_a_damaged_or_foreign_engine_is_built_anew_and_said_in_one_line(session, spoil, why, caplog):
    scores = session()[0](BATCH)
    (path,) = kept()
    path.write_bytes(spoil(path.read_bytes()))
    again, library = session()
    assert np.array_equal(again(BATCH), scores)
    assert len(library.calls) == 1
    assert why in again.info["engine_source"]
    (record,) = caplog.records
    assert why in record.getMessage()
    assert "\n" not in record.getMessage()
    third, library = session()
    third(BATCH)
    assert (library.calls, third.info["engine_source"]) == ([], "cache")


def test_an_engine_that_tensorrt_refuses_is_built_anew_and_said(session, caplog):
    first, library = session()
    first(BATCH)
    fields = fields_of(make("torch-tensorrt"))
    head = json.dumps({"name": "x", "inputs": ["images"], "outputs": ["output0"]}).encode()
    assert torch_tensorrt_engines.plans.keep(kept()[0], fields, head + b"\nno plan of TensorRT's")
    again, library = session()
    assert relative(again(BATCH), reference(make("torch-tensorrt"), BATCH)) <= TOLERANCE["fp32"]
    assert len(library.calls) == 1
    assert again.info["engine_source"].startswith("rebuilt: torch-tensorrt does not take it: ")
    assert len(caplog.records) == 1


@pytest.mark.parametrize("reason", [errno.EROFS, errno.ENOSPC, errno.EACCES])
def test_a_cache_that_takes_nothing_is_one_line_and_the_run_goes_on(session, monkeypatch, reason, caplog):
    def refuse(path, data):
        with cache.storage_errors(path):
            raise OSError(reason, os.strerror(reason))

    monkeypatch.setattr(cache, "write_atomic", refuse)
    opened, _ = session()
    assert relative(opened(BATCH), reference(make("torch-tensorrt"), BATCH)) <= TOLERANCE["fp32"]
    assert (opened.info["engine_kept"], kept(), kept("timing-caches")) == (False, [], [])
    (record,) = caplog.records
    assert os.strerror(reason).lower() in record.getMessage()
    assert "\n" not in record.getMessage()


def test_timings_of_kernels_serve_the_next_build_and_are_written_whole(session):
    session()[0](BATCH)
    (path,) = kept("timing-caches")
    assert path.read_bytes().endswith(b"\ntimed ")
    opened, library = session(precision="fp16")
    opened(BATCH)
    assert path.read_bytes().endswith(b"\ntimed timed ")
    given = library.calls[0]["timing_cache_path"]
    assert not given.startswith(str(cache.root())), "torch-tensorrt writes in place"
    session("2.14.0")[0](BATCH)
    assert len(kept("timing-caches")) == 2


def test_without_a_driver_that_names_its_gpu_nothing_is_kept(session, monkeypatch):
    opened, library = session()
    monkeypatch.setattr(torch_tensorrt_engines, "first_device", lambda: None)
    opened(BATCH)
    assert (opened.info["engine_kept"], kept(), len(library.calls)) == (False, [], 1)


def test_an_engine_that_its_plan_alone_does_not_make_is_run_and_not_kept(session, caplog):
    opened, library = session("2.14.0")
    wrapped = library.module.runtime.TorchTensorRTModule.__init__

    def with_aliases(self, *given, **more):
        wrapped(self, *given, **more)
        self.aliased_io = {"output0": ("images", "")}

    library.module.runtime.TorchTensorRTModule.__init__ = with_aliases
    assert relative(opened(BATCH), reference(make("torch-tensorrt"), BATCH)) <= TOLERANCE["fp32"]
    assert (opened.info["engine_kept"], kept()) == (False, [])
    assert "not kept" in caplog.text
