"""FP16 graphs: what computes in FP16 and what does not, in half the bytes, and weights that FP16 does not hold."""

import dataclasses

import numpy as np
import onnx
import pytest
import torch
from graph_cases import FORMS, altered, distance, fp16, images, scores, types, variant
from onnx import TensorProto, numpy_helper

from vgg_reference import ARCHITECTURES
from vgg_reference.weights import state_dict
from vggbench import graph_files, graphs
from vggbench.errors import WeightsError
from vggbench.graphs import build_graph, export_onnx, graph_path
from vggbench.variants import Variant


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


def test_fp16_bytes_are_reproducible_and_each_kind_and_opset_is_cached_under_its_own_name(tmp_path):
    made = fp16("A-LRN", "dense")
    assert export_onnx(made) == export_onnx(made)
    kinds = [{}, {"storage_only": True}, {"opset": 18}]
    paths = [graph_path(made, tmp_path, **kind) for kind in kinds] + [graph_path(variant("A-LRN", "dense"), tmp_path)]
    assert len(set(paths)) == 4
    assert paths[1].read_bytes() == export_onnx(made, storage_only=True)


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
