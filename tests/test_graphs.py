"""ONNX graphs: valid, readable, reproducible, and cached whole."""

import dataclasses
import shutil

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import TensorProto, numpy_helper

from vgg_reference import ARCHITECTURES
from vgg_reference.weights import random_weights, save_weights, state_dict
from vggbench import graph_files, graphs
from vggbench.errors import CalibrationError, StorageError, UsageError, WeightsError
from vggbench.graphs import OPSET, build_graph, export_onnx, graph_path, graph_sha256, newest_opset
from vggbench.ranges import Quantization, Ranges, TensorRange, quantized_inputs
from vggbench.variants import Variant

SMALL = {"width": 1 / 16, "hidden_width": 1 / 64, "num_classes": 7, "crop_size": 64}


def variant(network="D", form="crop", batch_norm=False, **more):
    return Variant(random_weights(network, 0, batch_norm=batch_norm, **SMALL), form, "onnxruntime", **more)


def fp16(network="D", form="crop", batch_norm=False, **more):
    return variant(network, form, batch_norm, precision="fp16", **more)


def altered(folder, change, network="A", batch_norm=False):
    """Weights of a file whose tensors ``change`` has altered in place."""
    weights = random_weights(network, 0, batch_norm=batch_norm, **SMALL)
    state = {name: tensor.clone() for name, tensor in state_dict(weights).items()}
    change(state)
    return save_weights(folder / "altered.safetensors", state, weights)


def scores(graph, images):
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
    return session.run(["scores"], {"images": images})[0]


def images(count=2, height=64, width=64):
    return (np.random.default_rng(0).standard_normal((count, 3, height, width)) * 60).astype(np.float32)


def distance(found, expected):
    """Relative L2."""
    return np.linalg.norm(found - expected) / np.linalg.norm(expected)


def types(model):
    """Tensor -> element type, of everything in the graph."""
    inferred = onnx.shape_inference.infer_shapes(model, check_type=True, strict_mode=True).graph
    values = [*inferred.value_info, *inferred.input, *inferred.output]
    return {each.name: each.type.tensor_type.elem_type for each in values} | {
        tensor.name: tensor.data_type for tensor in inferred.initializer
    }


def shape(value):
    return [dim.dim_param or dim.dim_value for dim in value.type.tensor_type.shape.dim]


FORMS = [("crop", "mean_logits"), ("dense", "mean_logits"), ("dense", "mean_probs")]


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


@pytest.mark.parametrize("storage_only", [False, True])
@pytest.mark.parametrize(("form", "score_pool"), FORMS)
@pytest.mark.parametrize(("network", "batch_norm"), [("A-LRN", False), ("C", True)])
def test_every_fp16_graph_passes_the_full_check_and_is_float32_outside(
    network, batch_norm, form, score_pool, storage_only
):
    made = fp16(network, form, batch_norm, score_pool=score_pool)
    model = build_graph(made, storage_only=storage_only)
    onnx.checker.check_model(model, full_check=True)
    assert [types(model)[name] for name in ("images", "scores")] == [TensorProto.FLOAT] * 2


@pytest.mark.parametrize("form", ["crop", "dense"])
def test_all_layers_of_an_fp16_graph_compute_in_fp16_but_the_islands(form):
    model = build_graph(fp16("A-LRN", form))
    kinds = types(model)
    halves = {
        node.name
        for node in model.graph.node
        if node.op_type != "Cast" and {kinds[name] for name in [*node.input, *node.output]} == {TensorProto.FLOAT16}
    }
    floats = {node.name for node in model.graph.node if node.op_type != "Cast"} - halves
    assert {name for name, _ in ARCHITECTURES["A-LRN"].convolutions} | {"fc6", "fc7", "fc8"} <= halves
    assert all(name.startswith("block1.lrn") for name in floats - {"score_mean", "flatten"})
    assert ("score_mean" in floats) == (form == "dense")
    state = set(state_dict(fp16("A-LRN").weights))
    assert {name for name in state if kinds[name] == TensorProto.FLOAT16} == state


def test_both_kinds_of_fp16_graph_hold_the_same_weights_in_half_the_bytes():
    plain = graph_files.weight_bytes(build_graph(variant("B")))
    found = []
    for storage_only in (False, True):
        model = build_graph(fp16("B"), storage_only=storage_only)
        assert graph_files.weight_bytes(model) == plain / 2
        found.append({tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer})
    for name, tensor in state_dict(fp16("B").weights).items():
        expected = tensor.numpy().astype(np.float16).ravel()
        assert all(np.array_equal(arrays[name].ravel(), expected) for arrays in found)


def test_layers_on_stored_fp16_weights_compute_in_fp32():
    model = build_graph(fp16(), storage_only=True)
    kinds = types(model)
    layers = [node for node in model.graph.node if node.op_type in ("Conv", "Gemm")]
    assert {kinds[name] for node in layers for name in [*node.input, *node.output]} == {TensorProto.FLOAT}
    assert dict(graphs.provenance(fp16(), storage_only=True))["arithmetic"] == "fp32 arithmetic on fp16 weights"


@pytest.mark.parametrize("storage_only", [False, True])
def test_batch_norm_beyond_fp16_is_folded_into_fp16_weights(tmp_path, storage_only):
    def change(state):
        generator = torch.Generator().manual_seed(1)
        for name, tensor in state.items():
            if name.endswith("running_var"):
                tensor.uniform_(1e5, 4e6, generator=generator)
            elif name.endswith("running_mean"):
                tensor.normal_(0, 500, generator=generator)
        for index in (1, 5, 9, 12, 16, 19, 23, 26):  # the norms' gains, so that the signal does not fade
            state[f"features.{index}.weight"].uniform_(500, 2000, generator=generator)

    weights = altered(tmp_path, change, batch_norm=True)
    expected = scores(export_onnx(Variant(weights, "crop", "onnx")), images())
    found = scores(export_onnx(Variant(weights, "crop", "onnx", "fp16"), storage_only=storage_only), images())
    assert distance(found, expected) < 3e-3


def test_one_dense_fp16_file_takes_images_of_every_size():
    made = fp16("A", "dense")
    halves, floats = export_onnx(made), export_onnx(dataclasses.replace(made, precision="fp32"))
    for count, height, width in ((1, 384, 512), (1, 512, 771), (2, 64, 64)):
        batch = images(count, height, width)
        assert distance(scores(halves, batch), scores(floats, batch)) < 3e-3


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
        assert np.array_equal(scores(model.SerializeToString(), batch), expected)
    assert len(versions) > 1
    assert versions[17] == versions[18] == 8
    assert versions[19] == 9


def test_opsets_outside_the_range_are_refused_with_the_range():
    for opset in (16, newest_opset() + 1):
        with pytest.raises(UsageError, match=f"No opset {opset}.*17 to {newest_opset()}"):
            export_onnx(variant(), opset)


def test_fp16_bytes_are_reproducible_and_each_kind_and_opset_is_cached_under_its_own_name(tmp_path):
    made = fp16("A-LRN", "dense")
    assert export_onnx(made) == export_onnx(made)
    kinds = [{}, {"storage_only": True}, {"opset": 18}]
    paths = [graph_path(made, tmp_path, **kind) for kind in kinds] + [graph_path(variant("A-LRN", "dense"), tmp_path)]
    assert len(set(paths)) == 4
    assert paths[1].read_bytes() == export_onnx(made, storage_only=True)


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


def test_a_weight_beyond_fp16_is_one_line_naming_the_tensor(tmp_path):
    def change(state):
        state["classifier.3.bias"][0] = -70000.0

    made = Variant(altered(tmp_path, change), "crop", "onnx", "fp16")
    for storage_only in (False, True):
        with pytest.raises(WeightsError, match=r"classifier\.3\.bias has a value of 70000, beyond FP16's 65504"):
            export_onnx(made, storage_only=storage_only)
    export_onnx(dataclasses.replace(made, precision="fp32"))


@pytest.mark.parametrize("bad", [float("nan"), float("-inf")])
@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_weights_that_are_not_finite_are_one_line_naming_the_tensor(tmp_path, precision, bad):
    def change(state):
        state["features.3.weight"][0, 0, 0, 0] = bad

    with pytest.raises(WeightsError, match=r"features\.3\.weight has values that are not finite"):
        export_onnx(Variant(altered(tmp_path, change), "crop", "onnx", precision))


@pytest.mark.parametrize(
    ("precision", "more", "said"),
    [
        ("bf16", {}, "No bf16 graph.*Export fp32"),
        ("fp8", {}, "No fp8 graph. Known: fp32, fp16, int8"),
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
