"""FP8's scores: what a CPU foretells, what the backends say of themselves, and the command that writes a graph."""

from __future__ import annotations

import dataclasses
import json

import numpy as np
import pytest
from backend_inputs import images, make
from fake_tensorrt import install
from fp8_cases import fp32_scores, model, relative, rounded, scores, session
from qdq_networks import NETWORKS, drawn, fp8, inputs, names_of, ranges, sample
from typer.testing import CliRunner

from vggbench import backends, cli
from vggbench.backends import layers, tensorrt
from vggbench.engines.device import Device
from vggbench.errors import BackendUnavailable
from vggbench.graphs import export_onnx, least_opset
from vggbench.qdq_fp8 import input_scale
from vggbench.ranges import to_json
from vggbench.variants import Variant


@pytest.mark.parametrize("network", NETWORKS)
def test_the_sample_networks_keep_their_best_class(network):
    found, wanted = scores(network, drawn("test", 64)), fp32_scores(network)
    assert 0.01 < relative(found, wanted) < 0.1
    assert (found.argmax(1) == wanted.argmax(1)).mean() >= 0.9
    best = np.sort(wanted, 1)
    sure = best[:, -1] - best[:, -2] > 0.05 * np.linalg.norm(wanted, axis=1)  # beyond what rounding moves
    assert sure.sum() > 20
    assert (found.argmax(1) == wanted.argmax(1))[sure].all()


def test_one_dense_file_takes_images_of_every_size_and_gives_the_crop_forms_scores():
    run = session(model("D", "dense").SerializeToString())
    plain = session(export_onnx(Variant(sample("D"), "dense", "onnxruntime")))
    for sides in ((64, 96), (97, 71), (130, 64)):
        batch = {"images": inputs(sample("D"), 2, sides)}
        assert relative(run.run(None, batch)[0], plain.run(None, batch)[0]) < 0.2
    batch = drawn("test", 4)
    assert relative(run.run(None, {"images": batch})[0], scores("D", batch)) < 0.02


def test_onnx_runtime_says_that_it_simulates_and_what_stays_in_fp16():
    made = backends.open_session(make("onnxruntime", "C", precision="fp8"), "cpu", 1)
    assert made.info["arithmetic"] == "fp32 on values rounded to fp8 (simulated)"
    assert made.info["fp16_layers"] == "block1.conv1 block1.conv2 block2.conv1 fc8"
    assert (made.info["cpu_unit"], made.info["faster_hardware"]) == ("none", "an NVIDIA GPU")
    made.close()
    for name in ("pytorch", "openvino"):
        with pytest.raises(BackendUnavailable, match="no CPU computes in fp8; onnxruntime simulates it"):
            backends.open_session(make(name, precision="fp8"), "cpu", 1)


def test_layers_are_seen_as_the_next_one_takes_them():
    weights, batch = sample("A-LRN"), drawn("test", 4)
    scale = {name: float(input_scale(ranges(weights).of(name))) for name in names_of(weights)}
    with layers.layer_outputs(fp8(weights), "cpu", 1) as seen:
        found = seen(batch)
    assert list(found) == [*names_of(weights), "scores"]
    for name in ("block3.relu1", "block3.relu2", "block5.relu2", "fc6.relu"):  # before a layer, before a pool
        exact = rounded(found[name], scale[name])
        assert relative(found[name], exact) < 2**-11  # a product of FP16
        assert relative(rounded(found[name], 1.3 * scale[name]), found[name]) > 0.01
    assert np.array_equal(found["images"], batch)  # the first layer takes them as they are
    # What is read is FP16; between nodes that nobody reads ONNX Runtime leaves the rounding to FP16 out.
    assert relative(found["scores"], scores("A-LRN", batch)) < 0.03


@pytest.mark.parametrize("version", ["10.16.1", "11.0.0"])
def test_tensorrt_takes_the_graph_and_names_what_fell_back_but_not_what_was_meant_to(version, monkeypatch, own_cache):
    _, _, faults = install(monkeypatch, version)
    monkeypatch.setattr(tensorrt, "first_device", lambda: Device("A GPU", 90, "1"))
    batch = images(3)
    for fall_back in (set(), {"fc7", "fc8"}):
        faults.fall_back = fall_back
        made = tensorrt.open_session(make("tensorrt", "D", precision="fp8"), "cuda", 1)
        expected = backends.open_session(make("onnxruntime", "D", precision="fp8"), "cpu", 1)
        assert relative(made(batch), expected(batch)) < 0.02
        ran = {
            name: kind for names, kind, *_ in json.loads(made.info["layers"])["layers"] for name in names.split(" + ")
        }
        assert ran["block3.conv2"] == "fp8"
        assert ran["block1.conv1"] == "fp16"
        assert made.info["fp16_layers"] == "block1.conv1 block1.conv2 block2.conv1 fc8"
        assert made.info["fallbacks"] == ("fc7 in fp32" if fall_back else "")
        made.close()
        expected.close()


@pytest.mark.parametrize(
    ("version", "sm", "why"),
    [
        ("8.6.0", 90, "TensorRT 8.6.0 has no fp8 convolutions; 10.3 and later have"),
        ("10.0.1", 90, "TensorRT 10.0.1 has no fp8 convolutions; 10.3 and later have"),
        ("10.16.1", 86, "A GPU has compute capability 8.6, fp8 needs 8.9"),
        ("10.16.1", 89, None),
        ("11.0.0", 90, None),
    ],
)
def test_versions_and_gpus_without_fp8_are_one_line(version, sm, why, monkeypatch, own_cache):
    install(monkeypatch, version)
    monkeypatch.setattr(tensorrt, "first_device", lambda: Device("A GPU", sm, "1"))
    assert tensorrt.precisions("cuda")["fp8"] == why
    if why is not None:
        done = CliRunner().invoke(cli.app, ["evaluate", "--backend", "tensorrt", "--precision", "fp8", "--images", "1"])
        assert done.exit_code == 6
        assert len(done.stderr.splitlines()) == 1
        assert why in done.stderr


def test_export_writes_an_fp8_graph_and_says_what_stays_in_fp16(tmp_path):
    weights, out, artefact = sample("D"), tmp_path / "D.onnx", tmp_path / "ranges.json"
    artefact.write_bytes(to_json(ranges(weights)))
    command = ["export", "--network", "D", "--train-scale", "256", "--precision", "fp8", "--out", str(out)]
    done = CliRunner().invoke(cli.app, [*command, "--calibration", str(artefact)])
    assert done.exit_code == 0
    assert "D, fp8, crop form, opset 19" in done.stdout
    assert "fp16     block1.conv1 block1.conv2 block2.conv1 fc8: FP8 kernels do not take them" in done.stdout
    assert out.read_bytes() == export_onnx(dataclasses.replace(fp8(weights), backend="onnx"))
    assert len(out.read_bytes()) < 0.3 * len(export_onnx(Variant(weights, "crop", "onnx")))
    for more, why in ((["--opset", "17"], "No opset 17 for fp8"), (["--layout", "cpu"], "belongs to int8")):
        done = CliRunner().invoke(cli.app, [*command, "--calibration", str(artefact), *more])
        assert done.exit_code == 2
        assert why in done.stderr
    assert least_opset("fp8") == 19
