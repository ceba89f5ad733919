"""Exported graphs in other people's hands: onnxruntime, OpenVINO, onnx's own evaluator, Polygraphy."""

import dataclasses
import os
import subprocess
import sys

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import helper
from onnx.reference import ReferenceEvaluator
from qdq_networks import ranges

from vggbench.backends.openvino import load as load_openvino
from vggbench.graph_files import write_model
from vggbench.graphs import build_graph, export_onnx
from vggbench.images.sample_drawing import draw
from vggbench.protocols import Choices, Pass
from vggbench.ranges import Quantization
from vggbench.variants import Variant
from vggbench.views import make_views, to_input
from vggbench.weights import resolve

openvino = load_openvino()

NETWORKS = ["A", "A-LRN", "B", "C", "D", "E"]
#: Relative L2 of an FP16 graph's scores to the FP32 graph's, over images of the sample set.
FP16_DISTANCE = 2e-3


def sample(network):
    return resolve("sample", network, train_scale="256", num_classes=60)


@pytest.fixture(scope="module")
def drawn():
    """(pixels, label) of images of the sample set."""
    pictures = [draw("test", index) for index in range(12)]
    return [(pixels, annotation.label) for pixels, annotation in pictures]


def inputs(drawn, weights, form):
    """Each image as a batch of one: its center crop, or whole."""
    step = Pass(form, 73, "center" if form == "crop" else "whole", False)
    return [to_input(make_views(pixels, step, 64, Choices()), weights.preprocess) for pixels, _ in drawn]


def ort(graph):
    """Scores of a graph (bytes or path) in ONNX Runtime, as a function of images."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
    return lambda batch: session.run(["scores"], {"images": batch})[0]


def over(score, batches):
    return np.concatenate([score(batch) for batch in batches])


def distance(found, expected):
    return np.linalg.norm(found - expected) / np.linalg.norm(expected)


def ranks(scores, drawn):
    """Rank of each true label; equal scores count against it."""
    own = scores[np.arange(len(drawn)), [label for _, label in drawn]]
    return (scores >= own[:, None]).sum(axis=1)


@pytest.mark.parametrize("form", ["crop", "dense"])
@pytest.mark.parametrize("network", NETWORKS)
def test_sample_networks_rank_alike_in_onnxruntime_and_openvino(network, form, drawn):
    weights = sample(network)
    graph = export_onnx(Variant(weights, form, "onnx"))
    batches = inputs(drawn, weights, form)
    core = openvino.Core()
    compiled = core.compile_model(
        core.read_model(graph), "CPU", {"INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": 1}
    )
    here, there = over(ort(graph), batches), over(lambda batch: compiled(batch)[0], batches)
    assert distance(there, here) < 1e-5
    assert np.array_equal(ranks(there, drawn), ranks(here, drawn))


@pytest.mark.parametrize("form", ["crop", "dense"])
@pytest.mark.parametrize("network", NETWORKS)
def test_fp16_scores_of_sample_networks_are_near_fp32_and_both_kinds_agree(network, form, drawn):
    weights = sample(network)
    batches = inputs(drawn, weights, form)
    half = Variant(weights, form, "onnx", "fp16")
    expected = over(ort(export_onnx(dataclasses.replace(half, precision="fp32"))), batches)
    typed, stored = (over(ort(export_onnx(half, storage_only=stored)), batches) for stored in (False, True))
    assert 0 < distance(typed, expected) < FP16_DISTANCE
    assert 0 < distance(stored, expected) < FP16_DISTANCE


@pytest.mark.parametrize(
    ("network", "form"), [("A", "crop"), ("A-LRN", "crop"), ("A-LRN", "dense"), ("C", "dense"), ("E", "crop")]
)
def test_fp16_arithmetic_after_every_node_is_near_fp32(network, form, drawn):
    # onnx's own evaluator rounds after every node, where ONNX Runtime on a CPU may compute through in FP32.
    weights = sample(network)
    batch = inputs(drawn[:1], weights, form)[0]
    half = Variant(weights, form, "onnx", "fp16")
    found = ReferenceEvaluator(build_graph(half)).run(["scores"], {"images": batch})[0]
    expected = ort(export_onnx(dataclasses.replace(half, precision="fp32")))(batch)
    assert found.dtype == np.float32
    assert distance(found, expected) < FP16_DISTANCE


@pytest.mark.parametrize("network", NETWORKS)
def test_fp16_tensors_stay_finite_on_raw_bytes_and_on_the_largest_inputs(network):
    # Wider than any preprocessing gives: raw 0-255 without the mean taken out.
    model = build_graph(Variant(sample(network), "crop", "onnx", "fp16"))
    names = [name for node in model.graph.node for name in node.output if name != "scores"]
    model.graph.output.extend(helper.make_empty_tensor_value_info(name) for name in names)
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    noise = np.random.default_rng(0).integers(0, 256, (1, 3, 64, 64)).astype(np.float32)
    for batch in (noise, np.full((1, 3, 64, 64), 255, np.float32)):
        values = session.run(None, {"images": batch})
        assert sum(value.dtype == np.float16 for value in values) > len(names) / 2
        assert all(np.isfinite(value).all() for value in values)


def test_external_weights_lie_beside_the_model_and_give_the_same_scores(tmp_path, drawn):
    weights = sample("D")
    batches = inputs(drawn[:2], weights, "crop")
    for precision in ("fp32", "fp16"):
        made = Variant(weights, "crop", "onnx", precision)
        path = tmp_path / precision / "D.onnx"
        write_model(build_graph(made), path, external_weights=True)
        assert path.stat().st_size < 20_000
        onnx.checker.check_model(str(path), full_check=True)
        assert np.array_equal(over(ort(str(path)), batches), over(ort(export_onnx(made)), batches))
        loaded = onnx.load(str(path))
        inside = {tensor.name: tensor.raw_data for tensor in build_graph(made).graph.initializer}
        assert {tensor.name: tensor.raw_data for tensor in loaded.graph.initializer} == inside


def polygraphy(*arguments):
    environment = {**os.environ, "POLYGRAPHY_AUTOINSTALL_DEPS": "0"}
    code = "import sys; from polygraphy.tools import main; sys.exit(main())"
    return subprocess.run(
        [sys.executable, "-c", code, *map(str, arguments)], capture_output=True, text=True, timeout=600, env=environment
    )


@pytest.mark.parametrize(
    ("form", "precision", "external_weights", "shape"),
    [
        ("crop", "fp32", True, "[2,3,64,64]"),
        ("dense", "fp16", False, "[1,3,65,90]"),
        ("dense", "int8", False, "[1,3,65,90]"),
    ],
)
def test_polygraphy_inspects_and_runs_the_files(form, precision, external_weights, shape, tmp_path):
    path = tmp_path / "D.onnx"
    how = Quantization(ranges(sample("D")), layout="tensorrt")
    write_model(build_graph(Variant(sample("D"), form, "onnx", precision, quantization=how)), path, external_weights)
    inspected = polygraphy("inspect", "model", path)
    assert inspected.returncode == 0, inspected.stderr
    assert f"D {form}{' int8' if precision == 'int8' else ''} | ONNX Opset: 17" in inspected.stdout
    ran = polygraphy("run", path, "--onnxrt", "--input-shapes", f"images:{shape}")
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert "PASSED" in ran.stdout
