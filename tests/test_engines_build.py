"""Plans are built alike for every version of TensorRT, kept under everything that decides them, and never trusted."""

from __future__ import annotations

import dataclasses
import errno
import json
import logging

import pytest
from backend_inputs import make
from fake_tensorrt import DEVICE, MAJORS, install

from vggbench import cache
from vggbench.backends.tensorrt import graph_file
from vggbench.engines.build import Options, build_plan
from vggbench.engines.plans import key_fields, plan_for
from vggbench.engines.profile import Profile, profile_for
from vggbench.errors import BackendUnavailable, UsageError
from vggbench.graphs import graph_sha256
from vggbench.sizes import parse

DEFAULT = Options()
PROFILE = Profile((1, 2, 4), (64, 64, 64), (64, 64, 64))


@pytest.fixture(autouse=True)
def _own_cache(monkeypatch, tmp_path):
    monkeypatch.setenv("VGGBENCH_CACHE", str(tmp_path))


def graph_of(precision="fp32"):
    with graph_file(make("tensorrt", precision=precision)) as path:
        return path


def planned(trt, precision="fp32", profile=PROFILE, options=DEFAULT, device=DEVICE, **more):
    graph = graph_of("fp32" if precision == "tf32" else precision)
    root = cache.root()
    return plan_for(trt, graph, graph_sha256(graph), precision, profile, device, root, options, **more)


def kept():
    return sorted((cache.root() / "engines").glob("*.plan"))


@pytest.mark.parametrize("version", MAJORS)
class TestEveryVersion:
    @pytest.mark.parametrize("precision", ["fp32", "tf32", "fp16", "int8"])
    def test_it_builds_the_graph_of_a_precision(self, version, precision, monkeypatch):
        trt, _, _ = install(monkeypatch, version)
        built = build_plan(trt, graph_of("fp32" if precision == "tf32" else precision), precision, PROFILE)
        said = json.loads(built.plan.partition(b"\n")[0])
        assert said["tf32"] == (precision == "tf32")
        assert said["detailed"]
        assert said["profile"] == [[1, 3, 64, 64], [2, 3, 64, 64], [4, 3, 64, 64]]
        assert built.timings

    def test_options_reach_the_builder(self, version, monkeypatch):
        trt, _, _ = install(monkeypatch, version)
        seen = []
        real = trt.Builder.build_serialized_network
        monkeypatch.setattr(
            trt.Builder,
            "build_serialized_network",
            lambda self, network, config: seen.append(config) or real(self, network, config),
        )
        build_plan(trt, graph_of(), "fp32", PROFILE, Options(workspace_bytes=1 << 28, optimization_level=5))
        assert seen[0]._pools == {trt.MemoryPoolType.WORKSPACE: 1 << 28}
        assert seen[0].builder_optimization_level == 5

    def test_a_graph_that_does_not_parse_and_one_that_does_not_build_are_one_line_each(self, version, monkeypatch):
        trt, _, _ = install(monkeypatch, version, parse="Assertion failed: no importer\nfor operator X")
        with pytest.raises(BackendUnavailable, match=r"does not read.*no importer for operator X") as error:
            planned(trt)
        assert "\n" not in str(error.value)
        trt, _, faults = install(monkeypatch, version, build="Error Code 10: Could not find any implementation")
        with pytest.raises(BackendUnavailable, match=r"built no fp32 engine.*any implementation") as error:
            planned(trt)
        assert "\n" not in str(error.value)
        faults.build = "Requested amount of GPU memory (5 bytes) could not be allocated"
        with pytest.raises(BackendUnavailable, match=r"memory.*--batch, --sizes \(of latency: --size\)\.$"):
            planned(trt)
        assert not kept()

    def test_progress_is_reported_where_there_is_a_monitor_and_stops_the_build(self, version, monkeypatch):
        trt, _, _ = install(monkeypatch, version)
        steps = []
        build_plan(trt, graph_of(), "fp32", PROFILE, report=lambda *step: steps.append(step))
        assert [step[1:3] for step in steps] == ([] if version == "8.6.0" else [(1, 3), (2, 3), (3, 3)])

        def stop(*step):
            raise KeyboardInterrupt

        if version != "8.6.0":
            with pytest.raises(KeyboardInterrupt):
                build_plan(trt, graph_of(), "fp32", PROFILE, report=stop)

    def test_a_builder_that_cannot_be_made_is_one_line(self, version, monkeypatch):
        trt, _, _ = install(monkeypatch, version)

        def nothing(self, logger):
            raise TypeError("pybind11::init(): factory function returned nullptr")

        monkeypatch.setattr(trt.Builder, "__init__", nothing)
        with pytest.raises(BackendUnavailable, match=r"makes no Builder here \(CUDA does not start\)"):
            planned(trt)


@pytest.fixture
def trt(monkeypatch):
    return install(monkeypatch, "11.0.0")[0]


def test_a_second_time_the_plan_comes_from_the_cache(trt):
    first, second = planned(trt), planned(trt)
    assert (first.source, second.source) == ("built", "cache")
    assert first.data == second.data
    assert second.build_seconds == 0
    assert second.kept == str(kept()[0])


def test_whatever_decides_a_plan_is_in_its_key(trt, monkeypatch):
    base = ("0" * 64, "fp32", PROFILE, Options(), DEVICE)
    fields = key_fields(trt, *base)
    others = [
        ("1" * 64, *base[1:]),
        (base[0], "tf32", *base[2:]),
        (*base[:2], Profile((1, 2, 5), (64, 64, 64), (64, 64, 64)), *base[3:]),
        (*base[:3], Options(workspace_bytes=1), base[4]),
        (*base[:3], Options(optimization_level=1), base[4]),
        *(
            (*base[:4], dataclasses.replace(DEVICE, **change))
            for change in ({"sm": 89}, {"name": "X"}, {"driver": "1"})
        ),
    ]
    found = [json.dumps(key_fields(trt, *other)) for other in others]
    other_version, _, _ = install(monkeypatch, "11.4.0")
    found.append(json.dumps(key_fields(other_version, *base)))
    assert len({*found, json.dumps(fields)}) == len(others) + 2


@pytest.mark.parametrize(
    ("spoil", "why"),
    [
        (lambda data: data[: len(data) // 2], "cut short or changed"),
        (lambda data: data[:30], "cut short or changed"),
        (lambda data: data[:-1] + bytes([data[-1] ^ 1]), "cut short or changed"),
        (lambda data: b"", "no file of vggbench's"),
        (lambda data: b"ftrt" + bytes(100), "no file of vggbench's"),
        (lambda data: data.replace(b'"sm": 90', b'"sm": 75'), "of another graph, GPU or version"),
    ],
)
def test_a_damaged_or_foreign_plan_is_built_anew_and_said_in_one_line(trt, spoil, why, caplog):
    whole = planned(trt).data
    path = kept()[0]
    path.write_bytes(spoil(path.read_bytes()))
    again = planned(trt)
    assert again.data == whole
    assert again.source.startswith("rebuilt: ")
    assert why in again.source
    (record,) = [record for record in caplog.records if record.name == "vggbench.engines"]
    assert record.levelno == logging.WARNING
    assert "\n" not in record.getMessage()
    assert planned(trt).source == "cache"


def test_another_version_does_not_even_look_at_the_plan(trt, monkeypatch):
    planned(trt)
    other, _, _ = install(monkeypatch, "10.16.1")
    assert planned(other).source == "built"
    assert len(kept()) == 2


@pytest.mark.parametrize("error", [errno.EROFS, errno.ENOSPC])
def test_a_cache_that_takes_nothing_is_one_line_and_done_without(trt, error, monkeypatch, caplog):
    graph = graph_of()

    def refuse(path, data):
        with cache.storage_errors(path):
            raise OSError(error, "Read-only file system" if error == errno.EROFS else "No space left on device")

    monkeypatch.setattr(cache, "write_atomic", refuse)
    plan = plan_for(trt, graph, "0" * 64, "fp32", PROFILE, DEVICE, cache.root(), Options())
    assert (plan.source, plan.kept) == ("built", "")
    (record,) = [record for record in caplog.records if record.name == "vggbench.engines"]
    assert "The engine works" in record.getMessage()
    assert "\n" not in record.getMessage()


def test_without_a_cache_nothing_is_written(trt):
    graph = graph_of()
    plan_for(trt, graph, "0" * 64, "fp32", PROFILE, DEVICE, None, Options())
    assert not (cache.root() / "engines").exists()


def test_timings_of_a_build_serve_the_next_and_refused_ones_are_left_aside(monkeypatch, caplog):
    trt, _, faults = install(monkeypatch, "10.16.1")
    planned(trt)
    (file,) = (cache.root() / "timing-caches").iterdir()
    once = file.read_bytes().count(b"timed;")
    planned(trt, "tf32")
    assert file.read_bytes().count(b"timed;") == once + 1
    faults.refuse_timings = True
    assert planned(trt, "fp16").source == "built"
    assert "refused the timings" in caplog.text
    assert file.read_bytes().count(b"timed;") == 1


def test_an_engine_that_is_not_kept_leaves_its_timings_and_reads_those_of_others(trt):
    """Numerics builds an engine with every layer's output for each network: minutes, if every kernel is timed anew."""
    assert (planned(trt, cached=False).kept, planned(trt, cached=False).source) == ("", "built")
    assert not kept()
    (file,) = (cache.root() / "timing-caches").iterdir()
    assert file.read_bytes().count(b"timed;") == 2


def test_engines_are_kinds_of_the_cache_and_can_be_pruned(trt):
    planned(trt)
    assert {entry.kind for entry in cache.entries(cache.root())} >= {"engines", "timing-caches"}
    assert cache.prune(cache.root(), everything=True, kinds=("engines", "timing-caches")) > 0
    assert not kept()


def test_tensorrts_log_goes_through_logging(monkeypatch, caplog):
    trt, _, _ = install(monkeypatch, "8.6.0", build="no kernel")
    with pytest.raises(BackendUnavailable):
        planned(trt)
    assert ("tensorrt", logging.ERROR, "no kernel") in caplog.record_tuples


def test_8_6_reads_opset_17_and_no_newer(monkeypatch):
    from vggbench.graphs import export_onnx, newest_opset

    trt, _, _ = install(monkeypatch, "8.6.0")
    path = cache.root() / "new.onnx"
    path.write_bytes(export_onnx(make("tensorrt"), max(18, newest_opset() - 1)))
    with pytest.raises(BackendUnavailable, match="newer than this parser"):
        build_plan(trt, path, "fp32", PROFILE)


def test_profiles_are_read_from_what_was_asked_for():
    assert profile_for(224, False) == Profile((1, 32, 64), (224,) * 3, (224,) * 3)
    assert profile_for(224, False, parse("8", None)).batch == (8, 8, 8)
    dense = profile_for(224, True, parse("1:2:4", "224:384:640"))
    assert (dense.batch, dense.height, dense.width) == ((1, 2, 4), (224, 384, 640), (224, 384, 640))
    assert profile_for(224, True, parse(None, "224x256:384x512:640x1024")).width == (256, 512, 1024)
    assert profile_for(224, True).shapes() == ((1, 3, 224, 224), (1, 3, 385, 385), (1, 3, 1792, 1792))


@pytest.mark.parametrize(
    ("dense", "batch", "sizes", "why"),
    [
        (False, "8:4:2", None, "least, the best and the greatest"),
        (False, "0", None, "MIN:OPT:MAX"),
        (False, "1:2", None, "MIN:OPT:MAX"),
        (False, "many", None, "MIN:OPT:MAX"),
        (False, None, "224", "dense form alone"),
        (True, None, "100:384:640", "from 224 pixels on"),
        (True, None, "224x:384x384:640x640x2", "MIN:OPT:MAX"),
    ],
)
def test_a_profile_that_cannot_be_is_one_line(dense, batch, sizes, why):
    with pytest.raises(UsageError, match=why) as error:
        profile_for(224, dense, parse(batch, sizes))
    assert "\n" not in str(error.value)
