"""vggbench export: the files it writes, and the mistakes it names."""

import hashlib
import json

import onnx
import pytest
from typer.testing import CliRunner

from vgg_reference.architectures import architecture
from vgg_reference.weights import random_weights
from vggbench import ranges
from vggbench.cli import app
from vggbench.errors import CalibrationError, StorageError
from vggbench.graph_files import describe_graph, read_model, write_model
from vggbench.graphs import build_graph, export_onnx, newest_opset
from vggbench.quantize import input_of
from vggbench.ranges import Quantization, Ranges, TensorRange, quantized_inputs
from vggbench.variants import Variant
from vggbench.weights import resolve

TINY = ["--weights", "random:0", "--width", "0.02", "--crop-size", "32"]


def sample(network):
    return resolve("sample", network, train_scale="256", num_classes=60)


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


# Files


def test_two_exports_are_one_file_wherever_they_are_written(tmp_path):
    for options in (["--precision", "fp32"], ["--precision", "fp16", "--external-weights"]):
        first, second = (
            exported("--network", "A", *options, "--out", tmp_path / folder / name)
            for folder, name in (("one", "a.onnx"), ("two", "b.onnx"))
        )
        data = (tmp_path / "one" / "a.onnx").read_bytes()
        assert first["sha256"] == second["sha256"] == hashlib.sha256(data).hexdigest()
        assert str(tmp_path).encode() not in data


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


@pytest.mark.parametrize("name", ["A", "A.json", "A.textproto"])
def test_the_name_of_a_file_does_not_decide_its_format(name, tmp_path):
    said = exported("--network", "A", "--out", tmp_path / name)
    assert said["sha256"] == exported("--network", "A", "--out", tmp_path / "A.onnx")["sha256"]
    assert CliRunner().invoke(app, ["check", str(tmp_path / name)]).exit_code == 0


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
        (["--precision", "fp4"], 2, "Known: fp32, fp16, int8, fp8"),
        (["--precision", "fp8"], 2, "vggbench calibrate --network A"),
        (["--precision", "fp8", "--layout", "tensorrt"], 2, "--layout belongs to int8"),
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
    views = {"input": input_of(weights)}
    path.write_bytes(ranges.to_json(Ranges("A", weights.digest, "minmax", None, {}, views, {}, tensors, ())))
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


def test_ranges_taken_with_another_input_are_one_line(artefact, tmp_path):
    options = ["--precision", "int8", "--calibration", artefact, "--preprocess", "torchvision"]
    weights = ["--weights", sample("A").path]
    assert_one_line(export("--network", "A", *weights, *options, "--out", tmp_path / "A.onnx"), 9, "another input")
    assert not (tmp_path / "A.onnx").exists()


def test_write_model_says_where_it_could_not_write(tmp_path):
    (tmp_path / "file").write_text("")
    model = build_graph(Variant(random_weights("A", width=0.02, crop_size=32), "crop", "onnx"))
    with pytest.raises(StorageError, match="cannot write the graph"):
        write_model(model, tmp_path / "file" / "A.onnx", external_weights=True)
    assert list(tmp_path.iterdir()) == [tmp_path / "file"]
