"""vggbench export: the files it writes, and that other people's tools take them."""

import dataclasses
import hashlib
import json
import os
import subprocess
import sys

import numpy as np
import onnx
import onnxruntime
import openvino
import pytest
from onnx import helper
from onnx.reference import ReferenceEvaluator
from typer.testing import CliRunner

from vgg_reference.architectures import architecture
from vgg_reference.weights import random_weights
from vggbench import graph_files, ranges
from vggbench.cli import app
from vggbench.errors import CalibrationError, StorageError
from vggbench.graph_files import describe_graph, read_model, write_model
from vggbench.graphs import build_graph, export_onnx, newest_opset
from vggbench.images.sample_drawing import draw
from vggbench.protocols import Choices, Pass
from vggbench.ranges import Quantization, Ranges, TensorRange, quantized_inputs
from vggbench.variants import Variant
from vggbench.views import make_views, to_input
from vggbench.weights import resolve

NETWORKS = ["A", "A-LRN", "B", "C", "D", "E"]
#: Relative L2 of an FP16 graph's scores to the FP32 graph's, over images of the sample set.
FP16_DISTANCE = 2e-3
TINY = ["--weights", "random:0", "--width", "0.02", "--crop-size", "32"]


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


def export(*arguments):
    command = ["export", *map(str, arguments)]
    return CliRunner().invoke(app, command, prog_name="vggbench")


def exported(*arguments):
    """What --json says of a file that was written."""
    done = export(*arguments, "--json")
    assert done.exit_code == 0, done.output
    return json.loads(done.stdout)


def assert_one_line(done, code, *parts):
    assert done.exit_code == code, done.output
    assert done.stdout == ""
    assert len(done.stderr.splitlines()) == 1, done.stderr
    for part in parts:
        assert part in done.stderr


# Scores


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


# Tools


def polygraphy(*arguments):
    environment = {**os.environ, "POLYGRAPHY_AUTOINSTALL_DEPS": "0"}
    code = "import sys; from polygraphy.tools import main; sys.exit(main())"
    return subprocess.run(
        [sys.executable, "-c", code, *map(str, arguments)], capture_output=True, text=True, timeout=300, env=environment
    )


@pytest.mark.parametrize(
    ("form", "options", "shape"),
    [
        ("crop", ["--precision", "fp32", "--external-weights"], "[2,3,64,64]"),
        ("dense", ["--precision", "fp16"], "[1,3,65,90]"),
    ],
)
def test_polygraphy_inspects_and_runs_the_files(form, options, shape, tmp_path):
    path = tmp_path / "D.onnx"
    exported("--network", "D", "--form", form, *options, "--out", path)
    inspected = polygraphy("inspect", "model", path)
    assert inspected.returncode == 0, inspected.stderr
    assert f"D {form} | ONNX Opset: 17" in inspected.stdout
    ran = polygraphy("run", path, "--onnxrt", "--input-shapes", f"images:{shape}")
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert "PASSED" in ran.stdout


# Files


def test_two_exports_are_one_file_wherever_they_are_written(tmp_path):
    for options in (["--precision", "fp32"], ["--precision", "fp16"], ["--precision", "fp16", "--storage-only"]):
        for external in ([], ["--external-weights"]):
            first, second = (
                exported("--network", "A", *options, *external, "--out", tmp_path / folder / name)
                for folder, name in (("one", "a.onnx"), ("two", "b.onnx"))
            )
            assert first["sha256"] == second["sha256"]
            assert first["sha256"] == hashlib.sha256((tmp_path / "one" / "a.onnx").read_bytes()).hexdigest()
            assert str(tmp_path).encode() not in (tmp_path / "one" / "a.onnx").read_bytes()


def test_json_says_what_was_written(tmp_path):
    path = tmp_path / "E.onnx"
    said = exported(
        *("--network", "E", "--weights", "sample", "--train-scale", "384", "--form", "dense", "--precision", "fp16"),
        *("--opset", "18", "--score-pool", "mean_probs", "--out", path),
    )
    assert said["path"] == str(path)
    assert (said["bytes"], said["weights_file"]) == (path.stat().st_size, None)
    assert (said["opset"], said["ir_version"]) == (18, 8)
    assert said["inputs"] == [{"name": "images", "type": "float32", "shape": ["batch", 3, "height", "width"]}]
    assert said["outputs"] == [{"name": "scores", "type": "float32", "shape": ["batch", 60]}]
    weights = resolve("sample", "E", train_scale="384", num_classes=60)
    expected = {
        "network": "E",
        "precision": "fp16",
        "form": "dense",
        "weights": weights.digest,
        "weights_name": weights.name,
        "score_pool": "mean_probs",
    }
    assert {key: said["metadata"][key] for key in expected} == expected


def test_text_says_path_digest_bytes_and_shapes(tmp_path):
    path = tmp_path / "A.onnx"
    done = export("--network", "A", "--external-weights", "--out", path)
    assert done.exit_code == 0
    said = describe_graph(path)
    for part in (
        str(path),
        said["sha256"],
        f"{said['bytes']:,}",
        said["weights_file"],
        "opset 17",
        "(batch, 3, 64, 64)",
    ):
        assert part in done.stdout


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


def test_crop_and_dense_form_share_one_file_of_weights(tmp_path):
    for form in ("crop", "dense"):
        write_model(build_graph(Variant(sample("A"), form, "onnx")), tmp_path / f"{form}.onnx", external_weights=True)
    assert len(list(tmp_path.iterdir())) == 3


def test_an_export_that_fails_leaves_the_old_one_and_nothing_else(tmp_path, monkeypatch):
    path = tmp_path / "A.onnx"
    exported("--network", "A", "--out", path)
    before = path.read_bytes()

    def refuse(*_, **__):
        raise onnx.checker.ValidationError("planted")

    monkeypatch.setattr(onnx.checker, "check_model", refuse)
    with pytest.raises(onnx.checker.ValidationError):
        write_model(build_graph(Variant(sample("D"), "crop", "onnx")), path, external_weights=True)
    assert [file.name for file in tmp_path.iterdir()] == ["A.onnx"]
    assert path.read_bytes() == before


def test_a_graph_that_breaks_the_standard_is_not_written(tmp_path):
    model = build_graph(Variant(sample("A"), "crop", "onnx"))
    model.graph.output[0].type.tensor_type.shape.dim[1].dim_value = 61  # only shape inference sees that
    with pytest.raises(onnx.shape_inference.InferenceError):
        write_model(model, tmp_path / "A.onnx")
    assert list(tmp_path.iterdir()) == []


def test_a_place_that_cannot_be_written_is_one_line(tmp_path):
    (tmp_path / "file").write_text("")
    assert_one_line(export("--network", "A", *TINY, "--out", tmp_path / "file" / "A.onnx"), 7, "cannot write the graph")
    assert_one_line(export("--network", "A", *TINY, "--out", tmp_path), 7, "cannot write the graph")
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


# Mistakes


def test_a_file_that_is_no_graph_of_ours_is_one_line(tmp_path):
    path = tmp_path / "A.onnx"
    exported("--network", "A", "--external-weights", "--out", path)
    whole = path.read_bytes()
    foreign = onnx.load(str(path), load_external_data=False)
    foreign.producer_name = "pytorch"
    cases = {
        "cut.onnx": (whole[: len(whole) // 2], "not an ONNX graph, or one that was cut short"),
        "text.onnx": (b"not a graph\n", "not an ONNX graph"),
        "empty.onnx": (b"", "of an unknown maker"),
        "foreign.onnx": (foreign.SerializeToString(), "made by 'pytorch'"),
    }
    for name, (data, said) in cases.items():
        (tmp_path / name).write_bytes(data)
        with pytest.raises(CalibrationError, match=said) as error:
            read_model(tmp_path / name)
        assert "\n" not in str(error.value)
    with pytest.raises(CalibrationError, match="cannot read the graph"):
        read_model(tmp_path / "absent.onnx")
    next(tmp_path.glob("weights-*.bin")).unlink()
    with pytest.raises(CalibrationError, match=r"its weights, weights-.*, are not beside it"):
        describe_graph(path)


@pytest.mark.parametrize(
    ("options", "code", "said"),
    [
        (["--opset", "16"], 2, "Accepted here: 17 to"),
        (["--opset", str(newest_opset() + 1)], 2, "Accepted here: 17 to"),
        (["--precision", "bf16"], 2, "No bf16 graph"),
        (["--precision", "fp8"], 2, "Known: fp32, fp16, int8"),
        (["--precision", "int8"], 2, "vggbench calibrate --network A"),
        (["--layout", "cpu"], 2, "--layout belongs to int8"),
        (["--calibration", "ranges.json", "--precision", "fp16"], 2, "--calibration belongs to int8"),
        (["--storage-only"], 2, "a kind of fp16 graph"),
        (["--form", "round"], 2, "Known: crop, dense"),
        (["--score-pool", "max"], 2, "Known: mean_logits, mean_probs"),
        (["--precision", "int8", "--calibration", "absent.json"], 9, "cannot read the calibration"),
        (["--precision", "int8", "--calibration", "absent.json", "--layout", "gpu"], 2, "Known: tensorrt, cpu"),
    ],
)
def test_mistakes_are_one_line_and_write_nothing(options, code, said, tmp_path):
    assert_one_line(export("--network", "A", *TINY, *options, "--out", tmp_path / "A.onnx"), code, said)
    assert list(tmp_path.iterdir()) == []


@pytest.fixture
def artefact(tmp_path):
    """Some ranges of sample/A, as a file."""
    weights = sample("A")
    names = dict.fromkeys(quantized_inputs(architecture("A")).values())
    tensors = tuple(TensorRange(name, -124.0 if name == "images" else 0.0, 400.0) for name in names)
    path = tmp_path / "ranges.json"
    path.write_bytes(ranges.to_json(Ranges("A", weights.digest, "minmax", None, {}, {}, {}, tensors, ())))
    return path


def test_int8_is_exported_in_the_layout_asked_for(artefact, tmp_path):
    digests = set()
    for layout in ("tensorrt", "cpu"):
        options = ["--precision", "int8", "--calibration", artefact, "--layout", layout, "--form", "dense"]
        said = exported("--network", "A", "--train-scale", "256", *options, "--out", tmp_path / f"{layout}.onnx")
        assert said["metadata"]["layout"] == layout
        assert said["metadata"]["ranges"] == ranges.read_ranges(artefact).digest
        made = Variant(
            sample("A"), "dense", "onnx", "int8", quantization=Quantization(ranges.read_ranges(artefact), layout=layout)
        )
        assert (tmp_path / f"{layout}.onnx").read_bytes() == export_onnx(made)
        digests.add(said["sha256"])
    assert len(digests) == 2


def test_an_artefact_of_other_weights_or_cut_short_is_one_line(artefact, tmp_path):
    options = ["--precision", "int8", "--calibration", artefact, "--out", tmp_path / "A.onnx"]
    assert_one_line(export("--network", "A", *TINY, *options), 9, "belong to other weights")
    artefact.write_bytes(artefact.read_bytes()[:200])
    assert_one_line(export("--network", "A", "--train-scale", "256", *options), 9, "cut short")
    assert not (tmp_path / "A.onnx").exists()


def test_write_model_says_where_it_could_not_write(tmp_path):
    (tmp_path / "file").write_text("")
    model = build_graph(Variant(random_weights("A", width=0.02, crop_size=32), "crop", "onnx"))
    with pytest.raises(StorageError, match="cannot write the graph"):
        write_model(model, tmp_path / "file" / "A.onnx", external_weights=True)
    assert graph_files.weight_bytes(model) > 0
