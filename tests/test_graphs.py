"""ONNX graphs: valid, readable, reproducible, and cached whole."""

import dataclasses
import shutil

import numpy as np
import onnx
import pytest
from graph_cases import FORMS, SMALL, altered, images, scores, shape, variant
from onnx import numpy_helper

from vgg_reference import ARCHITECTURES
from vgg_reference.weights import random_weights, state_dict
from vggbench import graph_files, graphs
from vggbench.errors import CalibrationError, StorageError, UsageError
from vggbench.graphs import OPSET, build_graph, export_onnx, graph_path, graph_sha256, newest_opset
from vggbench.ranges import Quantization, Ranges, TensorRange, quantized_inputs
from vggbench.variants import Variant


@pytest.mark.parametrize("batch_norm", [False, True])
@pytest.mark.parametrize(("form", "score_pool"), FORMS)
@pytest.mark.parametrize("network", list(ARCHITECTURES))
def test_every_graph_passes_onnx_full_check(network, form, score_pool, batch_norm):
    model = onnx.load_from_string(export_onnx(variant(network, form, batch_norm, score_pool=score_pool)))
    onnx.checker.check_model(model, full_check=True)
    assert [entry.version for entry in model.opset_import] == [17]
    assert model.ir_version == 8
    sides = [64, 64] if form == "crop" else ["height", "width"]
    assert [(value.name, shape(value)) for value in model.graph.input] == [("images", ["batch", 3, *sides])]
    assert [(value.name, shape(value)) for value in model.graph.output] == [("scores", ["batch", 7])]


@pytest.mark.parametrize("network", list(ARCHITECTURES))
def test_nodes_bear_the_papers_names_and_kernels(network):
    model = onnx.load_from_string(export_onnx(variant(network)))
    kernels = {
        node.name: list(next(a.ints for a in node.attribute if a.name == "kernel_shape"))
        for node in model.graph.node
        if node.op_type == "Conv" and "lrn" not in node.name
    }
    assert kernels == {name: [conv.kernel] * 2 for name, conv in ARCHITECTURES[network].convolutions}
    names = [node.name for node in model.graph.node]
    assert len(set(names)) == len(names)
    assert [name for name in names if name.endswith(".pool")] == [f"block{n}.pool" for n in range(1, 6)]
    assert [name for name in names if name in ("fc6", "fc7", "fc8")] == ["fc6", "fc7", "fc8"]


@pytest.mark.parametrize("form", ["crop", "dense"])
def test_initializers_are_the_state_dict(form):
    made = variant("B", form, batch_norm=True)
    model = onnx.load_from_string(export_onnx(made))
    state = state_dict(made.weights)
    found = {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
    assert set(found) == {name for name in state if not name.endswith("num_batches_tracked")}
    for name, array in found.items():
        assert np.array_equal(array.ravel(), state[name].numpy().ravel())


@pytest.mark.parametrize(("rounding", "ceil"), [("ceil", 1), ("floor", 0)])
def test_pools_of_the_dense_form_round_as_told(rounding, ceil):
    model = onnx.load_from_string(export_onnx(variant(form="dense", pool_rounding=rounding)))
    pools = [node for node in model.graph.node if node.op_type == "MaxPool"]
    assert [a.i for node in pools for a in node.attribute if a.name == "ceil_mode"] == [ceil] * 5


def test_the_bytes_are_reproducible_and_decided_by_the_weights():
    first, second = export_onnx(variant()), export_onnx(variant())
    assert first == second
    other = Variant(random_weights("D", 1, **SMALL), "crop", "onnxruntime")
    assert graph_sha256(export_onnx(other)) != graph_sha256(first)


def test_a_graph_says_where_it_comes_from():
    made = variant(form="dense")
    model = onnx.load_from_string(export_onnx(made))
    said = {entry.key: entry.value for entry in model.metadata_props}
    assert model.producer_name == "vggbench"
    assert said["weights"] == made.weights.digest
    assert (said["network"], said["form"], said["pool_rounding"]) == ("D", "dense", "ceil")
    assert "backend" not in said


def test_a_cached_graph_is_written_once_and_whole(tmp_path, monkeypatch):
    made = variant()
    path = graph_path(made, tmp_path)
    assert path.parent == tmp_path / "graphs"
    assert path.read_bytes() == export_onnx(made)
    assert graph_sha256(path) == graph_sha256(path.read_bytes())
    monkeypatch.setattr(graphs, "build_graph", lambda *_, **__: pytest.fail("written again"))
    assert graph_path(made, tmp_path) == path
    assert [file.name for file in path.parent.iterdir()] == [path.name]


def test_one_cached_graph_serves_every_backend_and_every_form_has_its_own(tmp_path):
    base = graph_path(variant(), tmp_path)
    assert graph_path(Variant(variant().weights, "crop", "pytorch"), tmp_path) == base
    others = {graph_path(variant(form="dense", score_pool=pool), tmp_path) for pool in ("mean_logits", "mean_probs")}
    assert len(others | {base}) == 3


def test_a_cache_that_cannot_be_written_is_one_line(tmp_path):
    (tmp_path / "graphs").write_text("a file where a folder should be")
    with pytest.raises(StorageError) as error:
        graph_path(variant(), tmp_path)
    assert "\n" not in str(error.value)
    assert (tmp_path / "graphs").read_text() == "a file where a folder should be"


@pytest.mark.parametrize("score_pool", ["mean_logits", "mean_probs"])
def test_every_opset_offered_gives_the_same_scores(score_pool):
    made = variant("A-LRN", "dense", score_pool=score_pool)
    batch = images(2, 70, 99)
    expected = scores(export_onnx(made), batch)
    versions = {}
    for opset in range(OPSET, newest_opset() + 1):
        model = build_graph(made, opset)
        onnx.checker.check_model(model, full_check=True)
        assert [entry.version for entry in model.opset_import] == [opset]
        versions[opset] = model.ir_version
        # Not bit for bit: ONNX Runtime 1.23 has other kernels for the operators of opset 22.
        np.testing.assert_allclose(scores(model.SerializeToString(), batch), expected, rtol=2e-5, atol=1e-4)
    assert len(versions) > 1
    assert versions[17] == versions[18] == 8
    assert versions[19] == 9


def test_opsets_outside_the_range_are_refused_with_the_range():
    for opset in (16, newest_opset() + 1):
        with pytest.raises(UsageError, match=f"No opset {opset}.*17 to {newest_opset()}"):
            export_onnx(variant(), opset)


def test_the_file_name_of_foreign_weights_does_not_reach_the_bytes(tmp_path):
    weights = altered(tmp_path, lambda state: None)
    (tmp_path / "other").mkdir()
    moved = shutil.copy(weights.path, tmp_path / "other" / "renamed.safetensors")
    foreign = [
        dataclasses.replace(weights, path=str(path), name=str(path).rpartition("/")[2])
        for path in (weights.path, moved)
    ]
    first, second = (export_onnx(Variant(each, "crop", "onnx")) for each in foreign)
    assert first == second
    assert str(tmp_path).encode() not in first


@pytest.mark.parametrize(
    ("precision", "more", "said"),
    [
        ("bf16", {}, "No bf16 graph.*Export fp32"),
        ("fp4", {}, "No fp4 graph. Known: fp32, fp16, int8, fp8"),
        ("fp8", {}, "An fp8 graph needs calibration ranges.*--network D"),
        ("int8", {}, "vggbench calibrate --network D"),
        ("fp32", {"storage_only": True}, "a kind of fp16 graph, asked was fp32"),
    ],
)
def test_what_cannot_be_exported_is_one_line(precision, more, said):
    with pytest.raises(UsageError, match=said) as error:
        export_onnx(variant(precision=precision), **more)
    assert "\n" not in str(error.value)


def ranges_of(weights, low=-200.0, high=400.0):
    """Some ranges, for graphs whose scores do not matter."""
    names = dict.fromkeys(quantized_inputs(ARCHITECTURES[weights.network]).values())
    tensors = tuple(TensorRange(name, low if name == "images" else 0.0, high) for name in names)
    return Ranges(weights.network, weights.digest, "minmax", None, {}, {}, {}, tensors, ())


@pytest.mark.parametrize("layout", ["tensorrt", "cpu"])
@pytest.mark.parametrize("form", ["crop", "dense"])
def test_int8_graphs_pass_the_full_check_and_say_what_made_them(form, layout, tmp_path):
    weights = variant("A-LRN").weights
    how = Quantization(ranges_of(weights), layout=layout)
    made = Variant(weights, form, "onnx", "int8", quantization=how)
    model = build_graph(made)
    onnx.checker.check_model(model, full_check=True)
    assert export_onnx(made) == export_onnx(made)
    said = {entry.key: entry.value for entry in model.metadata_props}
    assert (said["layout"], said["ranges"], said["arithmetic"]) == (layout, how.ranges.digest, "int8")
    kept = dataclasses.replace(made, quantization=how.keeping("fc8"))
    assert graph_path(made, tmp_path) != graph_path(kept, tmp_path)


def test_ranges_of_other_weights_are_refused():
    other = random_weights("D", 1, **SMALL)
    how = Quantization(ranges_of(other), layout="cpu")
    with pytest.raises(CalibrationError, match="belong to other weights"):
        export_onnx(variant(precision="int8", quantization=how))


def test_a_graph_beyond_one_file_keeps_its_weights_beside_it_in_the_cache(tmp_path, monkeypatch):
    made = variant("A")
    expected = scores(export_onnx(made), images())
    for module in (graphs, graph_files):
        monkeypatch.setattr(module, "MAX_MODEL_BYTES", 10_000)
    with pytest.raises(UsageError, match="one ONNX file holds 2"):
        export_onnx(made)
    path = graph_path(made, tmp_path)
    assert [file.suffix for file in sorted(path.parent.iterdir())] == [".onnx", ".bin"]
    assert np.array_equal(scores(str(path), images()), expected)
    written = {file: file.read_bytes() for file in path.parent.iterdir()}
    assert graph_path(made, tmp_path) == path
    next(path.parent.glob("*.bin")).unlink()  # a prune that was broken off
    assert graph_path(made, tmp_path) == path
    assert {file: file.read_bytes() for file in path.parent.iterdir()} == written
