"""ONNX graphs: valid, readable, reproducible, and cached whole."""

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from vgg_reference import ARCHITECTURES
from vgg_reference.weights import random_weights, state_dict
from vggbench import graphs
from vggbench.errors import StorageError, UsageError
from vggbench.graphs import export_onnx, graph_path, graph_sha256
from vggbench.variants import Variant

SMALL = {"width": 1 / 16, "hidden_width": 1 / 64, "num_classes": 7, "crop_size": 64}


def variant(network="D", form="crop", batch_norm=False, **more):
    return Variant(random_weights(network, 0, batch_norm=batch_norm, **SMALL), form, "onnxruntime", **more)


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
    monkeypatch.setattr(graphs, "export_onnx", lambda _: pytest.fail("written again"))
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


def test_another_precision_is_refused():
    with pytest.raises(UsageError, match="No fp16 graph"):
        export_onnx(variant(precision="fp16"))
