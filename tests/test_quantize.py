"""Calibration: the ranges depend on the images alone, and every bad input is one line."""

import dataclasses
import random
import threading
import weakref

import measuring
import numpy as np
import onnxruntime
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnxruntime.quantization.calibrate import HistogramCollector
from PIL import Image

from vgg_reference.weights import random_weights, save_weights, state_dict
from vggbench import quantize, quantize_images, quantize_methods
from vggbench.errors import CalibrationError, DataError, UsageError, WeightsError
from vggbench.images.decode import decode
from vggbench.protocols import Choices, Pass
from vggbench.quantize import calibrate, check_disjoint
from vggbench.quantize_histogram import Histogram
from vggbench.quantize_methods import ENTROPY_BINS, new_histogram, range_of
from vggbench.ranges import METHODS, CalibrationImage, quantized_inputs, read_ranges, to_json
from vggbench.views import make_views, to_input

WEIGHTS = measuring.WEIGHTS  # A, 1/64 of the width, crops of 32
COUNT = 11


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    return measuring.make_dataset(tmp_path_factory.mktemp("images"), COUNT)


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return tmp_path_factory.mktemp("cache")


@pytest.fixture
def few_entropy_bins(monkeypatch):
    """Half a second a tensor is a minute for the networks here."""
    monkeypatch.setattr(quantize_methods, "ENTROPY_BINS", 128)


@pytest.fixture
def ranges(dataset, root):
    return calibrate(WEIGHTS, dataset, method="minmax", cache_root=root)


def reordered(dataset, order):
    images = tuple(dataset.images[index] for index in order)
    return dataclasses.replace(dataset, images=images, digests=tuple(dataset.digests[index] for index in order))


def one_line(error, *parts):
    text = str(error.value)
    assert "\n" not in text
    assert [part for part in parts if part not in text] == []


# The ranges


@pytest.mark.parametrize("method", METHODS)
def test_no_order_batch_or_thread_changes_the_artefact(dataset, root, method, few_entropy_bins):
    first = calibrate(WEIGHTS, dataset, method=method, batch=1, threads=1, cache_root=root)
    order = random.Random(0).sample(range(COUNT), COUNT)
    for batch, threads in ((3, 1), (8, 2), (COUNT, 2)):
        other = calibrate(
            WEIGHTS, reordered(dataset, order), method=method, batch=batch, threads=threads, cache_root=root
        )
        assert to_json(other) == to_json(first)


@pytest.mark.parametrize("network", ["A", "A-LRN", "C"])
def test_minmax_is_the_extremes_of_the_reference_network(network, dataset, root):
    weights = random_weights(network, 0, width=1 / 64, hidden_width=1 / 256, num_classes=7, crop_size=32)
    found = calibrate(weights, dataset, method="minmax", scale=40, cache_root=root)
    step = Pass("crop", 40, "center", False)
    views = [make_views(decode(image.path.read_bytes()), step, 32, Choices()) for image in dataset.images]
    tensors = reference_tensors(weights, to_input(np.concatenate(views), weights.preprocess))
    assert [each.tensor for each in found.tensors] == list(tensors)
    for each in found.tensors:
        values = tensors[each.tensor]
        assert each.low == pytest.approx(min(values.min(), 0), rel=1e-4, abs=1e-4)
        assert each.high == pytest.approx(values.max(), rel=1e-4)


def reference_tensors(weights, images):
    """Tensor's name -> values, by vgg_reference: what each layer reads, before max-pools."""
    import torch

    from vgg_reference.architectures import architecture
    from vgg_reference.weights import load

    model, seen = load(weights), [torch.from_numpy(images)]
    kinds = (torch.nn.ReLU,)
    with torch.no_grad():
        x = seen[0]
        for layer in model.features:
            x = layer(x)
            if isinstance(layer, kinds):
                seen.append(x)
            elif not isinstance(layer, (torch.nn.Conv2d, torch.nn.MaxPool2d)):
                seen[-1] = x  # the normalization's output stands for the ReLU before it
        x = x.flatten(1)
        for layer in model.classifier:
            x = layer(x)
            if isinstance(layer, kinds):
                seen.append(x)
    names = dict.fromkeys(quantized_inputs(architecture(weights.network, False)).values())
    return dict(zip(names, (each.numpy() for each in seen), strict=True))


def test_every_range_lies_within_the_extremes_and_holds_zero(dataset, root, ranges, few_entropy_bins):
    for method in ("entropy", "percentile"):
        found = calibrate(WEIGHTS, dataset, method=method, percentile=99.0, cache_root=root)
        assert found.percentile == (99.0 if method == "percentile" else None)
        narrower = 0
        for each, whole in zip(found.tensors, ranges.tensors, strict=True):
            assert whole.low <= each.low <= 0 <= each.high <= whole.high
            narrower += (each.low, each.high) != (whole.low, whole.high)
        assert narrower > len(ranges.tensors) / 2


def test_only_the_first_images_are_used_and_named(dataset, root):
    found = calibrate(WEIGHTS, dataset, method="minmax", images=4, cache_root=root)
    assert found.images == tuple(
        CalibrationImage(image.id, digest)
        for image, digest in zip(dataset.images[:4], dataset.digests[:4], strict=True)
    )
    assert found.data["fingerprint"] == dataset.first(4).fingerprint


def test_the_artefact_says_what_the_ranges_come_from_and_comes_back_from_disk(dataset, ranges, tmp_path):
    assert (ranges.network, ranges.weights) == ("A", WEIGHTS.digest)
    assert ranges.views["scale"] == str(round(256 * 32 / 224))
    assert ranges.views["resize_filter"] == "bicubic"
    assert ranges.views["input"] == quantize.input_of(WEIGHTS)
    assert ranges.versions["onnxruntime"] == onnxruntime.__version__
    assert {"numpy", "vggbench", "decoder"} < set(ranges.versions)
    path = tmp_path / "ranges.json"
    path.write_bytes(to_json(ranges))
    assert read_ranges(path) == ranges


# The histogram


FLOATS = st.floats(width=32, allow_nan=False, allow_infinity=False)


@settings(deadline=None, max_examples=100)
@given(st.lists(FLOATS, min_size=1, max_size=40), st.integers(1, 39), st.randoms(use_true_random=False))
def test_a_histogram_is_a_function_of_the_values_as_a_set(values, cut, shuffle):
    whole, parts = Histogram(bins=16), Histogram(bins=16)
    whole.add(np.array(values, np.float32))
    shuffle.shuffle(values)
    for part in (values[:cut], values[cut:]):
        if part:
            parts.add(np.array(part, np.float32))
    assert np.array_equal(whole.counts, parts.counts)
    assert (whole.low, whole.high, whole.step) == (parts.low, parts.high, parts.step)
    assert whole.counts.sum() == len(values)


@pytest.mark.parametrize("low", [0, -np.inf], ids=["relu", "signed"])
def test_a_histogram_is_numpys_on_the_same_bins(low):
    generator = np.random.default_rng(0)
    values = np.maximum(generator.standard_normal((7, 30_011)).astype(np.float32), np.float32(low))
    values *= np.float32([[1], [2], [0.5], [40], [3], [1e-3], [8]])
    seen = Histogram()
    for row in values:
        seen.add(row)
    for bins in (8192, 1024, 100):
        counts, edges = seen.trimmed(bins)
        assert len(counts) == len(edges) - 1 <= 2 * bins
        assert np.array_equal(counts, np.histogram(values.astype(np.float64), edges)[0])
        assert edges[-2] <= np.abs(values).max() < edges[-1]
    assert (seen.low, seen.high) == (values.min(), values.max())


def test_zeros_before_the_first_value_count_as_zeros():
    seen = Histogram(bins=8)
    seen.add(np.zeros(5, np.float32))
    seen.add(np.float32([0.25, 0, 3]))
    counts, edges = seen.trimmed()
    assert counts[len(counts) // 2] == 7
    assert counts.sum() == 8
    assert counts[-1] == 1
    assert edges[-2] <= 3 < edges[-1]


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_a_value_that_is_not_finite_is_refused(bad):
    with pytest.raises(ValueError, match=r"NaN|infinite"):
        Histogram().add(np.float32([1, bad, 2]))


# The decision


def filled(method, values):
    seen = new_histogram(method)
    seen.add(values)
    return seen


def test_entropy_and_percentile_are_onnx_runtimes_decision_on_the_same_histogram(capsys):
    values = np.maximum(np.random.default_rng(1).standard_normal(50_000).astype(np.float32), 0) ** 3
    for method, bins in (("entropy", ENTROPY_BINS), ("percentile", 8192)):
        seen = filled(method, values)
        found = range_of("t", seen, method, 99.0)
        assert capsys.readouterr().out == ""
        counts, edges = seen.trimmed(bins)
        if method == "entropy":  # exact zeros cost nothing in any range
            counts[len(counts) // 2] = counts[len(counts) // 2 + 1]
        theirs = HistogramCollector(method, False, len(counts), 128, 99.0, "same")
        theirs.histogram_dict = {"t": (counts, edges, seen.low, seen.high)}
        low, high = theirs.compute_collection_result()["t"][:2]
        capsys.readouterr()
        assert (found.low, found.high) == (float(low), float(high))
        assert found.high < values.max()


def test_a_percentile_cuts_half_of_the_rest_at_each_end():
    values = np.arange(-50_000, 50_000, dtype=np.float32)
    found = range_of("t", filled("percentile", values), "percentile", 98.0)
    assert (found.low, found.high) == (pytest.approx(-49_000, abs=16), pytest.approx(49_000, abs=16))


def test_entropy_is_not_drawn_to_a_relus_zeros():
    values = np.maximum(np.random.default_rng(3).standard_normal(100_000).astype(np.float32), 0)
    few = range_of("t", filled("entropy", values), "entropy", 0)
    many = range_of("t", filled("entropy", np.append(values, np.zeros(900_000, np.float32))), "entropy", 0)
    assert few == many
    assert few.high > 0.5 * values.max()


def test_entropy_cuts_a_single_far_value():
    values = np.random.default_rng(2).standard_normal(100_000).astype(np.float32)
    values[7] = 60
    assert range_of("t", filled("entropy", values), "entropy", 0).high < 30
    assert range_of("t", filled("minmax", values), "minmax", 0).high == 60


@pytest.mark.parametrize("method", METHODS)
def test_a_tensor_of_zeros_is_named(method):
    with pytest.raises(CalibrationError) as error:
        range_of("block3.relu2", filled(method, np.zeros(9, np.float32)), method, 99.99)
    one_line(error, "block3.relu2", "0 on all calibration images")


def test_a_tensor_that_a_percentile_empties_is_named():
    values = np.zeros(100_000, np.float32)
    values[0] = 5
    with pytest.raises(CalibrationError) as error:
        range_of("fc6.relu", filled("percentile", values), "percentile", 99.0)
    one_line(error, "fc6.relu", "nearly all are 0", "minmax")


# Memory


def test_the_tensors_of_two_batches_at_most_are_alive(dataset, root, monkeypatch):
    alive, most, lock = weakref.WeakSet(), [], threading.Lock()
    original = quantize._session

    class Watched:
        def __init__(self, *arguments):
            self._session = original(*arguments)

        def run(self, names, feed):
            tensors = [np.array(each).view(Tracked) for each in self._session.run(names, feed)]
            with lock:
                for each in tensors:
                    each.owner = Owner()
                    alive.add(each.owner)
                most.append(len(alive) / len(names))
            return tensors

    class Owner:
        pass

    class Tracked(np.ndarray):
        pass

    monkeypatch.setattr(quantize, "_session", Watched)
    calibrate(WEIGHTS, dataset, method="percentile", batch=1, cache_root=root)
    assert len(most) == COUNT
    assert max(most) <= 2
    assert len(alive) == 0


def test_images_are_decoded_only_a_few_ahead(dataset, monkeypatch):
    many = reordered(dataset, [index % COUNT for index in range(200)])
    read, original = [], quantize_images.read_image
    monkeypatch.setattr(quantize_images, "read_image", lambda *arguments: read.append(1) or original(*arguments))
    used = quantize_images.Used()
    step = Pass("crop", 40, "center", False)
    batches = quantize_images.input_batches(many, WEIGHTS, step, Choices(), 2, "stop", used, lambda *_: None)
    assert next(batches).shape == (2, 3, 32, 32)
    batches.close()
    assert len(read) <= 2 + quantize_images._AHEAD + 1


# Images that are in both


def test_a_file_that_is_in_both_sets_is_named(dataset, ranges):
    with pytest.raises(CalibrationError) as error:
        check_disjoint(ranges, dataset)
    one_line(error, "'000.jpg'", "and 10 more are both")


def test_a_copy_under_another_name_is_found_by_its_content(dataset, root):
    calibrated = calibrate(WEIGHTS, dataset, method="minmax", images=3, cache_root=root)
    rest = reordered(dataset, range(3, COUNT))
    check_disjoint(calibrated, rest)
    renamed = dataclasses.replace(dataset.images[1], id="other/name.jpg")
    both = dataclasses.replace(rest, images=(*rest.images, renamed), digests=(*rest.digests, dataset.digests[1]))
    with pytest.raises(CalibrationError) as error:
        check_disjoint(calibrated, both)
    one_line(error, "'other/name.jpg' (calibrated on as '001.jpg') is both")
    check_disjoint(calibrated, both.first(len(rest.images)))


# Bad input


def test_an_empty_set_is_refused(dataset, root):
    empty = dataclasses.replace(dataset, images=(), digests=())
    for data, images in ((empty, 512), (dataset, 0)):
        with pytest.raises(CalibrationError) as error:
            calibrate(WEIGHTS, data, images=images, cache_root=root)
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
def test_an_option_that_cannot_be_is_one_line(dataset, root, given, parts):
    with pytest.raises(UsageError) as error:
        calibrate(WEIGHTS, dataset, cache_root=root, **given)
    one_line(error, *parts)


@pytest.mark.parametrize("colour", [(0, 0, 0), (124, 117, 104), (255, 0, 9)])
def test_images_of_one_colour_are_refused(tmp_path, root, colour):
    for number in range(3):
        Image.new("RGB", (50, 40), colour).save(tmp_path / f"{number}.jpg")
    with pytest.raises(CalibrationError) as error:
        calibrate(WEIGHTS, measuring.open_dataset(tmp_path), method="minmax", cache_root=root)
    one_line(error, "one colour all over", "(3)")


def altered(tmp_path, name, value):
    state = {key: tensor.clone() for key, tensor in state_dict(WEIGHTS).items()}
    state[name].flatten()[0] = value
    return save_weights(tmp_path / "weights.safetensors", state, WEIGHTS)


def test_nan_in_the_weights_names_the_weights_tensor(dataset, root, tmp_path):
    with pytest.raises(WeightsError) as error:
        calibrate(altered(tmp_path, "features.3.weight", float("nan")), dataset, cache_root=root)
    one_line(error, "features.3.weight", "not finite")


def test_an_overflow_names_the_first_tensor_that_has_it(dataset, root, tmp_path):
    with pytest.raises(CalibrationError) as error:
        calibrate(altered(tmp_path, "features.3.weight", 3e38), dataset, cache_root=root)
    one_line(error, "block2.relu1", "infinite")


def test_a_dead_layer_is_named(dataset, root, tmp_path):
    state = {key: tensor.clone() for key, tensor in state_dict(WEIGHTS).items()}
    state["features.6.weight"].zero_()
    state["features.6.bias"].fill_(-1.0)
    weights = save_weights(tmp_path / "weights.safetensors", state, WEIGHTS)
    with pytest.raises(CalibrationError) as error:
        calibrate(weights, dataset, cache_root=root)
    one_line(error, "block3.relu1 is 0")


def test_a_corrupt_image_ends_it_or_is_left_out_and_named(tmp_path, root):
    folder = tmp_path / "images"
    measuring.make_dataset(folder, 4)
    (folder / "001.jpg").write_bytes(b"no image")
    damaged = measuring.open_dataset(folder)
    with pytest.raises(DataError) as error:
        calibrate(WEIGHTS, damaged, cache_root=root)
    one_line(error, "001.jpg", "--on-bad skip")
    found = calibrate(WEIGHTS, damaged, on_bad="skip", cache_root=root)
    assert [image.id for image in found.images] == ["000.jpg", "002.jpg", "003.jpg"]
    assert found.data["skipped"].startswith("001.jpg: ")
    with pytest.raises(CalibrationError) as error:
        calibrate(WEIGHTS, reordered(damaged, [1]), on_bad="skip", cache_root=root)
    one_line(error, "None of the 1 calibration images", "001.jpg")


def test_a_file_changed_since_its_digest_is_refused(tmp_path, root):
    changed = measuring.make_dataset(tmp_path, 2)
    changed.images[1].path.write_bytes(changed.images[0].path.read_bytes())
    with pytest.raises(DataError) as error:
        calibrate(WEIGHTS, changed, cache_root=root)
    one_line(error, "001.jpg", "changed")
