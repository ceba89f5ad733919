"""--float-layers, end to end: what it refuses, what it computes, and that nothing of another choice is taken for it."""

from __future__ import annotations

import contextlib
import dataclasses
import json

import numpy as np
import onnx
import pytest
from backend_inputs import PAIRS, images, make
from cli_runs import assert_one_line, run
from fake_tensorrt import DEVICE
from tiny_int8 import LAYERS, TYPED, written

from vggbench import backends, ranges, runs_latency, runs_precision
from vggbench.backends.ort import inference_session
from vggbench.engines import cli_engine
from vggbench.errors import UsageError
from vggbench.graphs import INPUT, OUTPUT, build_graph, export_onnx
from vggbench.qdq_rules import check_graph
from vggbench.runs_inputs import Request, Setting
from vggbench.weights import resolve


def kept(variant, *layers):
    return dataclasses.replace(variant, quantization=variant.quantization.keeping(*layers))


def relative(found, wanted):
    return np.linalg.norm(found - wanted) / np.linalg.norm(wanted)


# What is refused


@pytest.mark.parametrize(
    ("given", "precision", "parts"),
    [
        ("fc9", "int8", ["A has no layer 'fc9'", "Known: block1.conv1, ", "fc8"]),
        ("fc6,", "fp8", ["A has no layer ''", "Known: block1.conv1, "]),
        ("fc6,fc6", "int8", ["'fc6,fc6'", "accepted once"]),
        (TYPED, "fp32", ["--float-layers belongs to int8 and fp8", "asked was fp32", "Leave it out"]),
        (",".join(LAYERS), "int8", ["all 11 layers of A", "fp32"]),
    ],
)
@pytest.mark.parametrize("command", ["export", "evaluate", "latency", "numerics", "reproduce"])
def test_a_choice_that_cannot_be_is_one_line(command, given, precision, parts, tmp_path):
    options = {
        "export": ["--precision", precision, "--out", tmp_path / "A.onnx"],
        "numerics": ["--variant", precision],
        "reproduce": ["--precision", precision, "--backend", "onnxruntime", "--out", tmp_path / "out"],
    }.get(command, ["--precision", precision])
    if precision == "fp8" and command not in ("export", "numerics"):
        options += ["--backend", "onnxruntime"]
    named = [f"A={given}"] if command == "reproduce" else [given, "--network", "A"]
    assert_one_line(run(command, *options, "--float-layers", *named), 2, *parts)


def test_reproduce_takes_the_layers_of_each_network(tmp_path):
    result = run("reproduce", "--precision", "int8", "--float-layers", "fc6", "--out", tmp_path)
    assert_one_line(result, 2, "Float layers 'fc6': accepted is NETWORK=LAYERS, as D=block1.conv1,fc6")


def test_fp8_that_would_be_left_with_no_layer_is_refused():
    variant, layers = make("onnxruntime", precision="fp8"), LAYERS[1:-1]
    with pytest.raises(UsageError, match=r"no layer of A is left for fp8"):
        build_graph(kept(variant, *layers))
    build_graph(kept(variant, *layers[:-1]))


# What is computed


@pytest.mark.parametrize("name", [name for name, precision in PAIRS if precision == "int8"])
def test_the_fewer_layers_are_quantized_the_nearer_are_the_logits_to_fp32(name):
    def logits(variant):
        with contextlib.closing(backends.open_session(variant, "cpu", 1)) as session:
            return session(images(8))

    fp32, int8 = logits(make(name)), make(name, precision="int8")
    all_but_one = [layer for layer in LAYERS if layer != "fc7"]
    away = [relative(logits(kept(int8, *layers)), fp32) for layers in ((), ("block1.conv1",), all_but_one)]
    assert away[1] != away[0]
    assert 0 < away[2] < away[0] / 2
    assert away[2] < 0.02


@pytest.mark.parametrize("layers", [["block2.conv1"], ["block1.conv1", "block4.conv2", "fc6"]])
@pytest.mark.parametrize("form", ["crop", "dense"])
def test_tensorrts_layout_and_the_cpus_agree_with_layers_kept(form, layers):
    found = {}
    for layout in ranges.LAYOUTS:
        variant = make("onnxruntime", form=form, precision="int8", layout=layout)
        session = inference_session(export_onnx(kept(variant, *layers)), threads=1)
        found[layout] = session.run([OUTPUT], {INPUT: images(6)})[0]
    assert relative(found["cpu"], found["tensorrt"]) < 0.02


# Names: of variants, graphs and engines


def test_one_choice_has_one_digest_in_whatever_order_it_was_typed():
    variant = make("onnxruntime", precision="int8")
    choices = (("fc6", "block1.conv1"), ("block1.conv1", "fc6"), (), ("fc6",))
    there, back, none, other = (kept(variant, *layers) for layers in choices)
    assert there == back
    assert export_onnx(there) == export_onnx(back)
    assert len({each.digest for each in (there, back, none, other)}) == 3
    assert len({export_onnx(each) for each in (there, none, other)}) == 3


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    """Files of a network's weights and ranges."""
    return written(tmp_path_factory.mktemp("tiny"))


def evaluated(photos, tiny, *more):
    """The document of evaluate --json at INT8."""
    network, artefact = tiny
    data = ["--data", photos, "--protocol", "center", "--scale", 32, "--threads", 1]
    options = [*data, "--network", "A", "--weights", network, "--precision", "int8", "--calibration", artefact]
    result = run("evaluate", *options, *more, "--json")
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


def test_a_kept_result_of_another_choice_is_not_used(photos, tiny, own_cache):
    images = 12
    for layers, held in ((None, 0), (TYPED, 0), ("fc6", 0), ("block1.conv1,fc6", images), (None, images)):
        found = evaluated(photos, tiny, *(["--float-layers", layers] if layers else []))
        assert found["cached"] == held, layers
        names = sorted(layers.split(",")) if layers else []
        assert found["float_layers"] == ",".join(names)
        assert found["record"]["networks"][0]["calibration"]["float_layers"] == names


def test_a_plan_of_latency_has_another_name_for_another_choice(tiny):
    network, artefact = tiny
    asked = runs_latency.Request("A", str(network), ("fp32", "int8"), calibration=artefact)
    plans = [runs_latency.plan_of(dataclasses.replace(asked, float_layers=kept)) for kept in ((), ("fc6",))]
    assert len({plan.key for plan in plans}) == 2
    assert [plan.variants[0].digest for plan in plans] == [plans[0].variants[0].digest] * 2
    assert plans[1].variants[1].quantization.float_layers == ("fc6",)


def test_reproduce_keeps_the_layers_of_the_networks_that_were_named(tiny, monkeypatch):
    network, artefact = tiny
    monkeypatch.setattr("vggbench.quantize.check_disjoint", lambda *_: None)
    weights = [dataclasses.replace(resolve(str(network), "A"), train_scale=scale) for scale in ("256", "384")]
    request = Request(
        Setting("onnxruntime", "int8"),
        calibrations={("A", None): artefact},
        float_layers={("A", "256"): ("fc6",), ("A", None): ("fc7",), ("D", None): ("fc8",)},
    )
    for each, kept in zip(weights, ("fc6", "fc7"), strict=True):
        found = runs_precision.quantizations(request, request.setting, [each], None, None)
        assert [how.float_layers for how in found.values()] == [(kept,)]


# Engines


@pytest.mark.parametrize("precision", ["int8", "fp8"])
def test_an_engines_kept_layers_are_no_fallbacks(precision, machine):
    machine("10.16.1")
    keys = set()
    for layers in (("block5.conv1", "fc6"), ("fc6",)):
        variant = kept(make("tensorrt", precision=precision), *layers)
        with contextlib.closing(backends.open_session(variant, "cuda", 1)) as session:
            assert (session.info["float_layers"], session.info["fallbacks"]) == (" ".join(layers), "")
            keys.add(session.info["engine_key"])
    assert len(keys) == 2


def test_an_engine_by_itself_takes_the_layers_that_its_graph_keeps(machine, monkeypatch, tmp_path):
    machine("10.16.1")
    monkeypatch.setattr(cli_engine, "first_device", lambda: DEVICE)
    graph, out = tmp_path / "graph.onnx", tmp_path / "out.json"
    graph.write_bytes(export_onnx(kept(make("tensorrt", precision="int8"), "fc6", "block5.conv1")))
    command = [str(graph), "--precision", "int8", "--crop", "64", "--seconds", "0", "--json", str(out)]
    for more, fallbacks in (([], "block5.conv1 in fp32, fc6 in fp32"), (["--float-layers", "fc6,block5.conv1"], "")):
        assert cli_engine.main([*command, *more]) == 0
        assert json.loads(out.read_text(encoding="utf-8"))["info"]["fallbacks"] == fallbacks


# Graphs


@pytest.fixture
def exported(tmp_path, tiny):
    """Path of a graph, by the layers kept."""
    network, artefact = tiny

    def write(kept, name="A.onnx"):
        path = tmp_path / name
        options = ["--weights", network, "--calibration", artefact, "--layout", "tensorrt"]
        result = run("export", "--network", "A", "--precision", "int8", *options, "--float-layers", kept, "--out", path)
        assert result.exit_code == 0, result.output
        assert "float    block1.conv1 fc6: asked for" in result.stdout
        return path

    return write


def test_an_exported_graph_says_what_it_keeps_and_breaks_no_rule(exported):
    first, second = exported(TYPED), exported("block1.conv1,fc6", "again.onnx")
    assert first.read_bytes() == second.read_bytes()
    info = check_graph(first)
    assert (info.float_layers, info.violations) == (("block1.conv1", "fc6"), ())
    assert set(info.int8_layers) == set(LAYERS) - {"block1.conv1", "fc6"}
    result = run("check", first)
    assert result.exit_code == 0
    assert "9 layers in INT8, 2 in float (block1.conv1, fc6)" in result.stdout


@pytest.mark.parametrize(
    ("said", "layer", "detail"),
    [("fc6", "block1.conv1", "in float, and not said to be"), ("block1.conv1 fc6 fc7", "fc7", "rounded, and said to")],
)
def test_a_graph_that_keeps_other_layers_than_it_says_is_named(exported, said, layer, detail):
    path = exported(TYPED)
    model = onnx.load(path)
    (entry,) = (each for each in model.metadata_props if each.key == "float_layers")
    entry.value = said
    path.write_bytes(model.SerializeToString())
    (found,) = check_graph(path).violations
    assert (found.rule, found.node) == ("float-layers", layer)
    assert found.detail.startswith(detail)
