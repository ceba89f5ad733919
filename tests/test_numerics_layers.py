"""What a backend shows of its layers: the same values everywhere, with the same kernels."""

from __future__ import annotations

import numpy as np
import pytest
from numerics_networks import LAYERS, WEIGHTS, images, ranges

from vgg_reference.weights import random_weights
from vggbench import backends
from vggbench.backends import layers
from vggbench.errors import BackendUnavailable
from vggbench.measure import numerics
from vggbench.ranges import Quantization
from vggbench.variants import Variant


@pytest.mark.parametrize("form", ["crop", "dense"])
def test_layers_of_pytorch_and_onnxruntime_agree(form):
    one, other = (Variant(WEIGHTS, form, name) for name in ("pytorch", "onnxruntime"))
    with layers.layer_outputs(one, "cpu", 1) as first, layers.layer_outputs(other, "cpu", 1) as second:
        drifts = numerics.layer_drifts([(first(images(form)), second(images(form)))])
    assert [each.layer for each in drifts] == LAYERS
    assert max(each.relative_l2 for each in drifts) < 1e-5


@pytest.mark.parametrize("precision", ["fp32", "int8"])
def test_layers_of_openvino_are_those_of_onnxruntime(precision):
    pytest.importorskip("openvino", reason="OpenVINO is an extra: pip install openvino")
    how = Quantization(ranges(), layout="tensorrt") if precision == "int8" else None
    one, other = (Variant(WEIGHTS, "crop", name, precision, quantization=how) for name in ("openvino", "onnxruntime"))
    with layers.layer_outputs(one, "cpu", 1) as first, layers.layer_outputs(other, "cpu", 1) as second:
        drifts = numerics.layer_drifts([(first(images()), second(images()))])
    assert [each.layer for each in drifts] == LAYERS
    # A value between two steps may fall to either side.
    assert max(each.relative_l2 for each in drifts) < (1e-5 if precision == "fp32" else 0.02)


def test_normalized_network_shows_its_normalization_in_place_of_the_first_relu():
    weights = random_weights("A-LRN", 0, width=1 / 32, hidden_width=1 / 64, num_classes=7, crop_size=32)
    one, other = (Variant(weights, "crop", name) for name in ("pytorch", "onnxruntime"))
    with layers.layer_outputs(one, "cpu", 1) as first, layers.layer_outputs(other, "cpu", 1) as second:
        drifts = numerics.layer_drifts([(first(images()), second(images()))])
    assert drifts[1].layer == "block1.lrn"
    assert max(each.relative_l2 for each in drifts) < 1e-5


@pytest.mark.parametrize("backend", ["pytorch", "onnxruntime", "openvino"])
def test_squares_of_the_normalization_beyond_fp16_do_not_overflow_where_layers_are_read(backend):
    pytest.importorskip(backend.replace("pytorch", "torch"), reason="OpenVINO is an extra: pip install openvino")
    weights = random_weights("A-LRN", 0, width=1 / 16, hidden_width=1 / 64, num_classes=7, crop_size=32)
    batch = 5 * images(count=2)  # values reach 2,000 before the normalization: their squares are beyond 65504
    one, other = (Variant(weights, "crop", *how) for how in (("onnxruntime", "fp32"), (backend, "fp16")))
    if backends.missing(backend, "fp16", "cpu"):
        pytest.skip(backends.missing(backend, "fp16", "cpu"))
    with layers.layer_outputs(one, "cpu", 1) as first, layers.layer_outputs(other, "cpu", 1) as second:
        drifts = numerics.layer_drifts([(first(batch), second(batch))])
    assert max(each.relative_l2 for each in drifts) < 5e-3


@pytest.mark.parametrize("backend", ["pytorch", "onnxruntime"])
def test_scores_among_the_layers_are_those_of_the_session(backend):
    variant = Variant(WEIGHTS, "crop", backend)
    session = backends.open_session(variant, "cpu", 1)
    with layers.layer_outputs(variant, "cpu", 1) as outputs:
        np.testing.assert_allclose(outputs(images())["scores"], session(images()), rtol=1e-5, atol=1e-6)
    session.close()


@pytest.mark.parametrize("layout", ["cpu", "tensorrt"])
def test_int8_layers_stand_on_the_grid_of_their_range(layout):
    how = ranges()
    variant = Variant(WEIGHTS, "crop", "onnxruntime", "int8", quantization=Quantization(how, layout=layout))
    with layers.layer_outputs(variant, "cpu", 1) as outputs:
        found = outputs(images())
    for each in how.tensors:
        values = np.unique(found[each.tensor])
        assert len(values) <= 256
        step = np.diff(values).min()
        assert each.high / 255 * 0.99 < step < each.high / 127 * 1.01
        np.testing.assert_allclose(values / step, np.rint(values / step), atol=2e-2)


def test_reading_int8_layers_leaves_integer_kernels_in_place(tmp_path):
    import onnx
    import onnxruntime

    from vggbench.backends.taps import tapped
    from vggbench.graphs import build_graph

    variant = Variant(WEIGHTS, "crop", "onnxruntime", "int8", quantization=Quantization(ranges(), layout="cpu"))
    kernels = []
    for names in ([], layers.tensor_names(variant)):
        options = onnxruntime.SessionOptions()
        options.optimized_model_filepath = str(tmp_path / f"{len(names)}.onnx")
        options.log_severity_level = 3
        graph, _ = tapped(build_graph(variant), names)
        onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
        nodes = onnx.load(options.optimized_model_filepath).graph.node
        kernels.append([node.op_type for node in nodes if node.op_type in ("QLinearConv", "Conv", "FusedConv")])
    assert kernels[0] == kernels[1]
    assert kernels[0].count("QLinearConv") == 8


def test_backend_that_shows_nothing_is_named():
    assert "fake" in layers.why_not("fake")
    with (
        pytest.raises(BackendUnavailable, match="scores alone"),
        layers.layer_outputs(Variant(WEIGHTS, "crop", "fake")),
    ):
        pass
