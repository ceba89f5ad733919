"""Calibration on bad input: images, options and weights that cannot give ranges are one line each."""

import dataclasses

import measuring
import pytest
from PIL import Image
from quantize_cases import COUNT, WEIGHTS, one_line, reordered

from vgg_reference.weights import save_weights, state_dict
from vggbench.errors import CalibrationError, DataError, UsageError, WeightsError
from vggbench.quantize import calibrate


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    return measuring.make_dataset(tmp_path_factory.mktemp("images"), COUNT)


def test_an_empty_set_is_refused(dataset, module_cache):
    empty = dataclasses.replace(dataset, images=(), digests=())
    for data, images in ((empty, 512), (dataset, 0)):
        with pytest.raises(CalibrationError) as error:
            calibrate(WEIGHTS, data, images=images, cache_root=module_cache)
        one_line(error, "Nothing to calibrate on")


@pytest.mark.parametrize(
    ("given", "parts"),
    [
        ({"method": "kl"}, ["'kl'", "minmax, entropy, percentile"]),
        ({"method": "percentile", "percentile": 0.9999}, ["0.9999", "above 50"]),
        ({"percentile": 101}, ["101", "up to 100"]),
        ({"on_bad": "ignore"}, ["'ignore'", "stop, skip"]),
        ({"scale": 16}, ["16", "32"]),
    ],
)
def test_an_option_that_cannot_be_is_one_line(dataset, module_cache, given, parts):
    with pytest.raises(UsageError) as error:
        calibrate(WEIGHTS, dataset, cache_root=module_cache, **given)
    one_line(error, *parts)


@pytest.mark.parametrize("colour", [(0, 0, 0), (124, 117, 104), (255, 0, 9)])
def test_images_of_one_colour_are_refused(tmp_path, module_cache, colour):
    for number in range(3):
        Image.new("RGB", (50, 40), colour).save(tmp_path / f"{number}.jpg")
    with pytest.raises(CalibrationError) as error:
        calibrate(WEIGHTS, measuring.open_dataset(tmp_path), method="minmax", cache_root=module_cache)
    one_line(error, "one colour all over", "(3)")


def altered(tmp_path, name, value):
    state = {key: tensor.clone() for key, tensor in state_dict(WEIGHTS).items()}
    state[name].flatten()[0] = value
    return save_weights(tmp_path / "weights.safetensors", state, WEIGHTS)


def test_nan_in_the_weights_names_the_weights_tensor(dataset, module_cache, tmp_path):
    with pytest.raises(WeightsError) as error:
        calibrate(altered(tmp_path, "features.3.weight", float("nan")), dataset, cache_root=module_cache)
    one_line(error, "features.3.weight", "not finite")


def test_an_overflow_names_the_first_tensor_that_has_it(dataset, module_cache, tmp_path):
    with pytest.raises(CalibrationError) as error:
        calibrate(altered(tmp_path, "features.3.weight", 3e38), dataset, cache_root=module_cache)
    one_line(error, "block2.relu1", "infinite")


def test_a_dead_layer_is_named(dataset, module_cache, tmp_path):
    state = {key: tensor.clone() for key, tensor in state_dict(WEIGHTS).items()}
    state["features.6.weight"].zero_()
    state["features.6.bias"].fill_(-1.0)
    weights = save_weights(tmp_path / "weights.safetensors", state, WEIGHTS)
    with pytest.raises(CalibrationError) as error:
        calibrate(weights, dataset, cache_root=module_cache)
    one_line(error, "block3.relu1 is 0")


def test_a_corrupt_image_ends_it_or_is_left_out_and_named(tmp_path, module_cache):
    folder = tmp_path / "images"
    measuring.make_dataset(folder, 4)
    (folder / "001.jpg").write_bytes(b"no image")
    damaged = measuring.open_dataset(folder)
    with pytest.raises(DataError) as error:
        calibrate(WEIGHTS, damaged, cache_root=module_cache)
    one_line(error, "001.jpg", "--on-bad skip")
    found = calibrate(WEIGHTS, damaged, on_bad="skip", cache_root=module_cache)
    assert [image.id for image in found.images] == ["000.jpg", "002.jpg", "003.jpg"]
    assert found.data["skipped"].startswith("001.jpg: ")
    with pytest.raises(CalibrationError) as error:
        calibrate(WEIGHTS, reordered(damaged, [1]), on_bad="skip", cache_root=module_cache)
    one_line(error, "None of the 1 calibration images", "001.jpg")


def test_a_file_changed_since_its_digest_is_refused(tmp_path, module_cache):
    changed = measuring.make_dataset(tmp_path, 2)
    changed.images[1].path.write_bytes(changed.images[0].path.read_bytes())
    with pytest.raises(DataError) as error:
        calibrate(WEIGHTS, changed, cache_root=module_cache)
    one_line(error, "001.jpg", "changed")
