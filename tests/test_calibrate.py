"""`vggbench calibrate` and ranges_for: what is kept, what is written, and every bad input as one line."""

import json

import numpy as np
import pytest
from cli_runs import assert_one_line, run, tiny_weights
from PIL import Image

from vgg_reference.weights import random_weights, read_weights, save_weights, state_dict
from vggbench import quantize, runs_calibrate, runs_inputs
from vggbench.errors import CalibrationError
from vggbench.ranges import FORMAT, read_ranges
from vggbench.runs_calibrate import ranges_for

pytestmark = pytest.mark.usefixtures("one_cache")

SIZE = {"width": 0.02, "crop_size": 32}


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    """train/ and val/ of two classes, three images each."""
    root, pixels = tmp_path_factory.mktemp("photos"), np.random.default_rng(0)
    for part in ("train", "val"):
        for label in range(2):
            folder = root / part / f"class{label}"
            folder.mkdir(parents=True)
            for number in range(3):
                coarse = Image.fromarray(pixels.integers(0, 256, (6, 6, 3), dtype=np.uint8))
                coarse.resize((44, 40 + number)).save(folder / f"{number}.jpg")
    return root


def weights(network="A", seed=0):
    return random_weights(network, seed, **SIZE)


def calibrate(photos, out, *more):
    tiny = ["calibrate", "--network", "A", *tiny_weights(more)]
    return run(*tiny, "--data", photos, "--method", "minmax", "--out", out, *more)


# What works


def test_the_command_writes_the_artefact_and_prints_its_table(photos, tmp_path):
    out = tmp_path / "new" / "ranges.json"
    result = calibrate(photos, out)
    assert result.exit_code == 0, result.output
    found = read_ranges(out)
    lines = result.stdout.splitlines()
    assert lines[0].startswith("A: minmax over 6 images of ")
    assert [line.split()[0] for line in lines[2:-1]] == [each.tensor for each in found.tensors]
    assert lines[-1] == f"Written to {out}."
    assert result.stderr == "vggbench: 6 images were used, not 512: there are no more.\n"
    assert [path.name for path in out.parent.iterdir()] == ["ranges.json"]


def test_json_is_one_document(photos, tmp_path):
    result = calibrate(photos, tmp_path / "r.json", "--json", "--images", 3)
    document = json.loads(result.stdout)
    assert (document["images"], document["format"], document["method"]) == (3, FORMAT, "minmax")
    assert document["digest"] == read_ranges(tmp_path / "r.json").digest


def test_a_folder_of_several_splits_is_calibrated_on_train(photos, tmp_path):
    for split, more in (("train", []), ("val", ["--split", "test"])):
        calibrate(photos, tmp_path / split, *more)
        assert read_ranges(tmp_path / split).data["split"] == split


def test_a_second_call_reads_what_is_kept(photos, monkeypatch, one_cache):
    first = ranges_for(weights(), data=str(photos), method="minmax", images=5)
    monkeypatch.setattr(quantize, "calibrate", lambda *_, **__: pytest.fail("calibrated again"))
    assert ranges_for(weights(), data=str(photos), method="minmax", images=5) == first
    assert list((one_cache / "ranges").glob("*.json"))


@pytest.mark.parametrize(
    "other",
    [
        {"images": 4},
        {"method": "percentile"},
        {"method": "percentile", "percentile": 99.0},
        {"scale": 40},
        {"split": "test"},
        {"weights": weights(seed=1)},
        {"weights": weights("B")},
    ],
)
def test_whatever_decides_the_ranges_is_part_of_the_name(photos, tmp_path, monkeypatch, other):
    monkeypatch.setenv("VGGBENCH_CACHE", str(tmp_path))
    ranges_for(weights(), data=str(photos), method="minmax")
    ranges_for(weights(), data=str(photos), method="percentile", percentile=98.0)
    calls, original = [], quantize.calibrate
    monkeypatch.setattr(quantize, "calibrate", lambda *a, **b: calls.append(1) or original(*a, **b))
    given = {"weights": weights(), "method": "minmax", **other}
    ranges_for(given.pop("weights"), data=str(photos), **given)
    assert calls == [1]


def test_a_damaged_kept_file_is_made_anew(photos, one_cache):
    first = ranges_for(weights(), data=str(photos), method="minmax", images=2)
    for path in (one_cache / "ranges").glob("*.json"):
        path.write_bytes(path.read_bytes()[:100])
    assert ranges_for(weights(), data=str(photos), method="minmax", images=2) == first


def test_ranges_come_from_a_file_without_touching_images(photos, tmp_path, monkeypatch):
    calibrate(photos, tmp_path / "r.json")
    monkeypatch.setattr(runs_inputs, "open_dataset", lambda *_, **__: pytest.fail("opened"))
    assert ranges_for(weights(), file=tmp_path / "r.json") == read_ranges(tmp_path / "r.json")


def test_the_sample_set_is_calibrated_on_its_tuning_split(monkeypatch):
    asked = {}

    def opened(spec, **more):
        asked.update(more, spec=spec)
        raise CalibrationError("far enough")

    monkeypatch.setattr(runs_inputs, "open_dataset", opened)
    with pytest.raises(CalibrationError, match="far enough"):
        ranges_for(weights(), images=300)
    assert (asked["spec"], asked["split"], asked["count"]) == ("sample", "tune", 300)


# What is refused


@pytest.mark.parametrize(
    ("wrong", "code", "parts"),
    [
        (["--method", "kl"], 2, ["'kl'", "minmax, entropy, percentile"]),
        (["--percentile", "5"], 2, ["Percentile 5", "99.999"]),
        (["--on-bad", "ignore"], 2, ["'ignore'"]),
        (["--network", "VGG16"], 2, ["'VGG16'"]),
        (["--resize-filter", "cubic"], 2, ["'cubic'", "bicubic"]),
        (["--scale", "16"], 2, ["16", "32"]),
        (["--images", "0"], 9, ["Nothing to calibrate on", "0 images"]),
        (["--data", "no/such/folder"], 4, ["no such folder"]),
        (["--weights", "nowhere.safetensors"], 5, ["nowhere.safetensors"]),
    ],
)
def test_a_wrong_option_is_one_line_and_writes_nothing(photos, tmp_path, wrong, code, parts):
    assert_one_line(calibrate(photos, tmp_path / "r.json", *wrong), code, *parts)
    assert list(tmp_path.iterdir()) == []


def test_an_empty_folder_is_refused(tmp_path):
    (tmp_path / "none").mkdir()
    assert_one_line(calibrate(tmp_path / "none", tmp_path / "r.json"), 4, "holds no images")


def test_images_of_one_colour_are_refused(tmp_path):
    for label in range(2):
        (tmp_path / "flat" / f"class{label}").mkdir(parents=True)
        Image.new("RGB", (50, 40), (9, 9, 9)).save(tmp_path / "flat" / f"class{label}" / "0.png")
    assert_one_line(calibrate(tmp_path / "flat", tmp_path / "r.json"), 9, "one colour all over")


def test_nan_in_the_weights_is_refused(photos, tmp_path):
    state = state_dict(weights())
    state["classifier.3.bias"][2] = float("nan")
    save_weights(tmp_path / "nan.safetensors", state, weights())
    result = calibrate(photos, tmp_path / "r.json", "--weights", tmp_path / "nan.safetensors")
    assert_one_line(result, 5, "classifier.3.bias", "not finite")


@pytest.mark.parametrize("out", ["folder", "file/ranges.json"])
def test_an_output_that_cannot_be_written_is_found_before_the_work(photos, tmp_path, monkeypatch, out):
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").write_text("")
    monkeypatch.setattr(runs_calibrate, "ranges_for", lambda *_, **__: pytest.fail("worked first"))
    assert_one_line(calibrate(photos, tmp_path / out), 7, str(tmp_path), "--out")


def test_ctrl_c_leaves_no_file(photos, tmp_path, one_cache, monkeypatch):
    def interrupted(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(quantize, "_collect", interrupted)
    before = sorted((one_cache / "ranges").glob("*"))
    result = calibrate(photos, tmp_path / "r.json", "--images", 1)
    assert result.exit_code == 130
    assert list(tmp_path.iterdir()) == []
    assert sorted((one_cache / "ranges").glob("*")) == before


def test_an_artefact_of_other_weights_is_refused(photos, tmp_path):
    calibrate(photos, tmp_path / "r.json")
    with pytest.raises(CalibrationError, match="belong to other weights") as error:
        ranges_for(weights(seed=1), file=tmp_path / "r.json")
    assert error.value.exit_code == 9


def test_an_artefact_taken_with_another_input_is_refused(photos, tmp_path):
    calibrate(photos, tmp_path / "r.json")
    path = tmp_path / "same.safetensors"
    save_weights(path, state_dict(weights()), weights())
    text = (tmp_path / "r.json").read_text().replace(weights().digest, read_weights(path).digest)
    (tmp_path / "r.json").write_text(text)
    assert ranges_for(read_weights(path), file=tmp_path / "r.json").network == "A"
    from vgg_reference.weights import PREPROCESSING

    other = read_weights(path, preprocess=PREPROCESSING["torchvision"])
    with pytest.raises(CalibrationError, match="taken with another input") as error:
        ranges_for(other, file=tmp_path / "r.json")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("damage", "parts"),
    [
        (lambda text: text[: len(text) // 2], ["cut short"]),
        (lambda text: "", ["cut short"]),
        (lambda text: "[" * 100_000, ["not a calibration"]),
        (lambda text: text.replace(f'"format": {FORMAT}', '"format": 99'), ["format 99", "upgrade"]),
        (lambda text: text.replace('"calibration"', '"records"'), ["not a calibration of vggbench"]),
        (lambda text: text.replace('"high"', '"hi"', 1), ["not a whole calibration"]),
        (lambda text: None, ["cannot read"]),
    ],
    ids=["truncated", "empty", "deep", "newer", "other", "renamed", "missing"],
)
def test_an_artefact_that_cannot_be_read_is_one_line(photos, tmp_path, damage, parts):
    path = tmp_path / "r.json"
    calibrate(photos, path)
    text = damage(path.read_text())
    path.unlink() if text is None else path.write_text(text)
    with pytest.raises(CalibrationError) as error:
        ranges_for(weights(), file=path)
    assert error.value.exit_code == 9
    assert "\n" not in str(error.value)
    assert [part for part in [str(path), *parts] if part not in str(error.value)] == []
