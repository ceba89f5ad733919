"""Calibration: the ranges depend on the images alone, in little memory, and no image is in both sets."""

import dataclasses
import random
import threading
import weakref

import measuring
import numpy as np
import onnxruntime
import pytest
from quantize_cases import COUNT, WEIGHTS, one_line, reordered

from vgg_reference.weights import random_weights
from vggbench import quantize, quantize_images, quantize_methods
from vggbench.errors import CalibrationError
from vggbench.images.decode import decode
from vggbench.protocols import Choices, Pass
from vggbench.quantize import calibrate, check_disjoint
from vggbench.ranges import METHODS, CalibrationImage, quantized_inputs, read_ranges, to_json
from vggbench.views import make_views, to_input


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    return measuring.make_dataset(tmp_path_factory.mktemp("images"), COUNT)


@pytest.fixture
def few_entropy_bins(monkeypatch):
    """Half a second a tensor is a minute for the networks here."""
    monkeypatch.setattr(quantize_methods, "ENTROPY_BINS", 128)


@pytest.fixture
def ranges(dataset, module_cache):
    return calibrate(WEIGHTS, dataset, method="minmax", cache_root=module_cache)


@pytest.mark.parametrize("method", METHODS)
def test_no_order_batch_or_thread_changes_the_artefact(dataset, module_cache, method, few_entropy_bins):
    first = calibrate(WEIGHTS, dataset, method=method, batch=1, threads=1, cache_root=module_cache)
    order = random.Random(0).sample(range(COUNT), COUNT)
    for batch, threads in ((3, 1), (8, 2), (COUNT, 2)):
        other = calibrate(
            WEIGHTS, reordered(dataset, order), method=method, batch=batch, threads=threads, cache_root=module_cache
        )
        assert to_json(other) == to_json(first)


@pytest.mark.parametrize("network", ["A", "A-LRN", "C"])
def test_minmax_is_the_extremes_of_the_reference_network(network, dataset, module_cache):
    weights = random_weights(network, 0, width=1 / 64, hidden_width=1 / 256, num_classes=7, crop_size=32)
    found = calibrate(weights, dataset, method="minmax", scale=40, cache_root=module_cache)
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


def test_every_range_lies_within_the_extremes_and_holds_zero(dataset, module_cache, ranges, few_entropy_bins):
    for method in ("entropy", "percentile"):
        found = calibrate(WEIGHTS, dataset, method=method, percentile=99.0, cache_root=module_cache)
        assert found.percentile == (99.0 if method == "percentile" else None)
        narrower = 0
        for each, whole in zip(found.tensors, ranges.tensors, strict=True):
            assert whole.low <= each.low <= 0 <= each.high <= whole.high
            narrower += (each.low, each.high) != (whole.low, whole.high)
        assert narrower > len(ranges.tensors) / 2


def test_only_the_first_images_are_used_and_named(dataset, module_cache):
    found = calibrate(WEIGHTS, dataset, method="minmax", images=4, cache_root=module_cache)
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


def test_the_tensors_of_two_batches_at_most_are_alive(dataset, module_cache, monkeypatch):
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
    calibrate(WEIGHTS, dataset, method="percentile", batch=1, cache_root=module_cache)
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


def test_a_file_that_is_in_both_sets_is_named(dataset, ranges):
    with pytest.raises(CalibrationError) as error:
        check_disjoint(ranges, dataset)
    one_line(error, "'000.jpg'", "and 10 more are both")


def test_a_copy_under_another_name_is_found_by_its_content(dataset, module_cache):
    calibrated = calibrate(WEIGHTS, dataset, method="minmax", images=3, cache_root=module_cache)
    rest = reordered(dataset, range(3, COUNT))
    check_disjoint(calibrated, rest)
    renamed = dataclasses.replace(dataset.images[1], id="other/name.jpg")
    both = dataclasses.replace(rest, images=(*rest.images, renamed), digests=(*rest.digests, dataset.digests[1]))
    with pytest.raises(CalibrationError) as error:
        check_disjoint(calibrated, both)
    one_line(error, "'other/name.jpg' (calibrated on as '001.jpg') is both")
    check_disjoint(calibrated, both.first(len(rest.images)))
