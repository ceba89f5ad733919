"""--float-layers, end to end: what it refuses, what it computes, and that nothing of another choice is taken for it."""

from __future__ import annotations

import dataclasses
import itertools
import json

import numpy as np
import onnx
import pytest
from backend_inputs import PAIRS, images, make
from cli_runs import assert_one_line, run, weights_file

from vgg_reference.architectures import architecture
from vggbench import backends, gate, history, ranges, runs_latency, runs_latency_rows, runs_precision
from vggbench.backends.ort import inference_session
from vggbench.errors import UsageError
from vggbench.graphs import INPUT, OUTPUT, build_graph, export_onnx
from vggbench.qdq_rules import check_graph
from vggbench.quantize import input_of
from vggbench.ranges import CalibrationImage, Ranges, TensorRange, quantized_inputs
from vggbench.report import context_from, render
from vggbench.report.frame import frame
from vggbench.report.precision import precision_rows
from vggbench.report.rows import measured
from vggbench.report.speed import speed_rows
from vggbench.results import float_layers_of, precision_name, read_records, write_records
from vggbench.runs_inputs import Request, Setting
from vggbench.weights import resolve

LAYERS = list(quantized_inputs(architecture("A")))
KEPT = "fc6,block1.conv1"


def relative(found, wanted):
    return np.linalg.norm(found - wanted) / np.linalg.norm(wanted)


# What is refused


@pytest.mark.parametrize(
    ("given", "precision", "parts"),
    [
        ("fc9", "int8", ["A has no layer 'fc9'", "Known: block1.conv1, ", "fc8"]),
        ("fc6,", "fp8", ["A has no layer ''", "Known: block1.conv1, "]),
        ("fc6,fc6", "int8", ["'fc6,fc6'", "accepted once"]),
        (KEPT, "fp32", ["--float-layers belongs to int8 and fp8", "asked was fp32", "Leave it out"]),
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
    variant = make("onnxruntime", precision="fp8")
    kept = [name for name in LAYERS if name not in ("block1.conv1", "fc8")]
    how = variant.quantization.keeping(*kept)
    with pytest.raises(UsageError, match=r"no layer of A is left for fp8"):
        build_graph(dataclasses.replace(variant, quantization=how))
    build_graph(dataclasses.replace(variant, quantization=how.keeping(*kept[:-1])))


# What is computed


@pytest.mark.parametrize("name", [name for name, precision in PAIRS if precision == "int8"])
def test_the_fewer_layers_are_quantized_the_nearer_are_the_logits_to_fp32(name):
    def logits(*kept):
        variant = make(name, precision="int8")
        how = variant.quantization.keeping(*kept)
        session = backends.open_session(dataclasses.replace(variant, quantization=how), "cpu", 1)
        try:
            return session(images(8))
        finally:
            session.close()

    session = backends.open_session(make(name), "cpu", 1)
    fp32 = session(images(8))
    session.close()
    all_but_one = [layer for layer in LAYERS if layer != "fc7"]
    away = [relative(logits(*kept), fp32) for kept in ((), ("block1.conv1",), all_but_one)]
    assert away[1] != away[0]
    assert 0 < away[2] < away[0] / 2
    assert away[2] < 0.02


@pytest.mark.parametrize("kept", [["block2.conv1"], ["block1.conv1", "block4.conv2", "fc6"]])
@pytest.mark.parametrize("form", ["crop", "dense"])
def test_tensorrts_layout_and_the_cpus_agree_with_layers_kept(form, kept):
    found = {}
    for layout in ranges.LAYOUTS:
        variant = make("onnxruntime", form=form, precision="int8", layout=layout)
        variant = dataclasses.replace(variant, quantization=variant.quantization.keeping(*kept))
        session = inference_session(export_onnx(variant), threads=1)
        found[layout] = session.run([OUTPUT], {INPUT: images(6)})[0]
    assert relative(found["cpu"], found["tensorrt"]) < 0.02


# Names: of variants, graphs and engines


def test_one_choice_has_one_digest_in_whatever_order_it_was_typed():
    variant = make("onnxruntime", precision="int8")
    there, back, none, other = (
        dataclasses.replace(variant, quantization=dataclasses.replace(variant.quantization, float_layers=kept))
        for kept in (("fc6", "block1.conv1"), ("block1.conv1", "fc6"), (), ("fc6",))
    )
    assert there == back
    assert export_onnx(there) == export_onnx(back)
    assert len({each.digest for each in (there, back, none, other)}) == 3
    assert len({export_onnx(each) for each in (there, none, other)}) == 3


@pytest.fixture(scope="module")
def network(tmp_path_factory):
    """A file of a tiny network's weights, for the classes of ``photos``."""
    return weights_file(tmp_path_factory.mktemp("weights"))


@pytest.fixture(scope="module")
def artefact(network, tmp_path_factory):
    """Its ranges, of images that are elsewhere."""
    weights = resolve(str(network), "A")
    tensors = list(dict.fromkeys(quantized_inputs(architecture("A")).values()))
    model = onnx.load_from_string(export_onnx(dataclasses.replace(make("onnxruntime"), weights=weights, form="crop")))
    model.graph.output.extend(onnx.ValueInfoProto(name=name) for name in tensors[1:])
    batch = np.random.default_rng(0).normal(0, 60, (8, 3, 32, 32)).astype(np.float32)
    values = [batch, *inference_session(model.SerializeToString(), threads=1).run(tensors[1:], {INPUT: batch})]
    found = tuple(
        TensorRange(n, -float(abs(v).max()), float(abs(v).max())) for n, v in zip(tensors, values, strict=True)
    )
    views, used = {"input": input_of(weights)}, (CalibrationImage("other.jpg", "f" * 64),)
    path = tmp_path_factory.mktemp("ranges") / "ranges.json"
    path.write_bytes(ranges.to_json(Ranges("A", weights.digest, "minmax", None, {"name": "x"}, views, {}, found, used)))
    return path


def evaluated(photos, network, artefact, *more):
    """The document of evaluate --json at INT8."""
    data = ["--data", photos, "--protocol", "center", "--scale", 32, "--threads", 1]
    options = [*data, "--network", "A", "--weights", network, "--precision", "int8", "--calibration", artefact]
    result = run("evaluate", *options, *more, "--json")
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


def test_a_kept_result_of_another_choice_is_not_used(photos, network, artefact, own_cache):
    images = 12
    for kept, held in ((None, 0), (KEPT, 0), ("fc6", 0), ("block1.conv1,fc6", images), (None, images)):
        found = evaluated(photos, network, artefact, *(["--float-layers", kept] if kept else []))
        assert found["cached"] == held, kept
        layers = sorted(kept.split(",")) if kept else []
        assert found["float_layers"] == ",".join(layers)
        assert found["record"]["networks"][0]["calibration"]["float_layers"] == layers


def test_a_plan_of_latency_has_another_name_for_another_choice(network, artefact):
    plans = [
        runs_latency.plan_of(
            runs_latency.Request(
                "A", str(network), precisions=("fp32", "int8"), calibration=artefact, float_layers=kept
            )
        )
        for kept in ((), ("fc6",))
    ]
    assert len({plan.key for plan in plans}) == 2
    assert [plan.variants[0].digest for plan in plans] == [plans[0].variants[0].digest] * 2
    assert plans[1].variants[1].quantization.float_layers == ("fc6",)


def test_reproduce_keeps_the_layers_of_the_networks_that_were_named(network, artefact, monkeypatch):
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


# Graphs


@pytest.fixture
def exported(tmp_path, network, artefact):
    """Path of a graph of ``weights_file``'s network, by the layers kept."""

    def write(kept, layout, name="A.onnx"):
        path = tmp_path / name
        options = ["--weights", network, "--calibration", artefact, "--layout", layout]
        result = run("export", "--network", "A", "--precision", "int8", *options, "--float-layers", kept, "--out", path)
        assert result.exit_code == 0, result.output
        assert "float    block1.conv1 fc6: asked for" in result.stdout
        return path

    return write


def test_an_exported_graph_says_what_it_keeps_and_breaks_no_rule(exported):
    first, second = exported(KEPT, "tensorrt"), exported("block1.conv1,fc6", "tensorrt", "again.onnx")
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
    path = exported(KEPT, "tensorrt")
    model = onnx.load(path)
    (entry,) = (each for each in model.metadata_props if each.key == "float_layers")
    entry.value = said
    path.write_bytes(model.SerializeToString())
    (found,) = check_graph(path).violations
    assert (found.rule, found.node) == ("float-layers", layer)
    assert found.detail.startswith(detail)


# Records, page, gate


@pytest.fixture
def three(photos, network, artefact, own_cache, tmp_path):
    """Records of fp32, of int8, and of int8 with layers kept."""
    found = []
    for number, more in enumerate((["--precision", "fp32"], [], ["--float-layers", KEPT])):
        path = tmp_path / f"{number}.jsonl"
        options = ["--data", photos, "--network", "A", "--weights", network]
        more = more if more[:1] == ["--precision"] else ["--precision", "int8", "--calibration", artefact, *more]
        options += ["--protocol", "center", "--scale", 32, "--threads", 1, "--out", path, *more]
        result = run("evaluate", *options)
        assert result.exit_code == 0, result.output
        assert ("(block1.conv1,fc6 in float)" in result.stdout) == ("--float-layers" in more)
        found += read_records(path)
    return found


def test_a_page_has_a_column_for_each_choice(three):
    names, rows = precision_rows(measured(three), [])
    assert names == ["int8", "int8 (block1.conv1,fc6 in float)"]
    assert [list(row.changes) for row in rows] == [names]
    assert {change.expected for change in rows[0].changes.values()} == {0.5}
    html = render(three, [], context_from(three))
    assert "INT8 (block1.conv1,fc6 in float)" in html
    assert "onnxruntime int8 (block1.conv1,fc6 in float)" in html
    assert "INT8 within 0.5" in html
    assert list(frame(three)["float_layers"]) == ["", "", "block1.conv1,fc6"]


def test_the_gate_takes_other_float_layers_for_another_workload_unless_told(three, tmp_path):
    _, plain, kept = three
    base, head = tmp_path / "base.jsonl", tmp_path / "head.jsonl"
    write_records(base, [plain])
    write_records(head, [kept])
    result = run("compare", base, head)
    assert "float-layers is none against block1.conv1,fc6 (--across float-layers allows it)" in " ".join(
        result.stdout.split()
    )
    found = gate.compare([plain], [kept], across=["float-layers"])
    assert all(row.across == ("float-layers none → block1.conv1,fc6",) for row in found.rows)
    assert all(row.base is not None for row in found.rows)
    assert "in float block1.conv1,fc6" in gate.compare([kept], [kept]).rows[0].name


def test_histories_do_not_mix_choices(three):
    assert len({history.error_key(record) for record in three}) == 3
    assert dict(history.error_key(three[2]))["precision"] == "int8 (block1.conv1,fc6 in float)"


def timed(three):
    """The records as if they were timings, of two processes each."""
    for record, process in itertools.product(three, (1, 2)):
        samples = record.samples.model_copy(update={"unit": "seconds", "values": [0.01, 0.01]})
        yield record.model_copy(update={"kind": "latency", "samples": samples, "process": process})


def test_timings_of_other_choices_are_other_rows(three):
    records = list(timed(three))
    rows = runs_latency_rows.rows_of(records)
    assert [(row["precision"], row["float_layers"], row["processes"]) for row in rows] == [
        ("fp32", "", 2),
        ("int8", "", 2),
        ("int8", "block1.conv1,fc6", 2),
    ]
    assert "block1.conv1,fc6 stayed in floating point" in runs_latency_rows.doubts(rows[2], 2)
    names, (row,) = speed_rows(records, "fp32")
    assert names == ["fp32", "int8", "int8 (block1.conv1,fc6 in float)"]
    assert {speed.processes for speed in row.speeds.values()} == {2}


def test_records_that_know_of_no_choice_are_plain(three):
    run = three[1].networks[0]
    for calibration in ({}, {"digest": "d"}, {"float_layers": []}):
        old = run.model_copy(update={"calibration": calibration})
        assert (float_layers_of(old), precision_name(old)) == ("", "int8")
