"""Engines that take pixels: the scores are those of floats, the engines, graphs and posteriors others."""

from __future__ import annotations

import dataclasses
import functools

import numpy as np
import onnx
import pytest
from backend_inputs import images, make, relative, weights_of
from fake_tensorrt import MAJORS
from pixel_inputs import PIXELS, SMALL, views
from protocol_cases import make_dataset

from vgg_reference.weights import PREPROCESSING, Preprocess
from vggbench import cache, runs_parts
from vggbench.backends import ort, tensorrt
from vggbench.engines.opening import Settings
from vggbench.engines.profile import Profile
from vggbench.errors import UsageError
from vggbench.graph_pixels import PIXELS as NAME
from vggbench.graphs import INPUT, OUTPUT, build_graph
from vggbench.measure.accuracy import run_passes
from vggbench.protocols import crops, dense, protocol
from vggbench.runs_inputs import Setting
from vggbench.sizes import Sizes
from vggbench.views import to_input

ODD = Preprocess("BGR", (103.939, 116.779, 123.68), (0.017, 1.0, 0.0173))
pytestmark = pytest.mark.usefixtures("own_cache")


@pytest.fixture
def opened(engines):
    return functools.partial(engines, "tensorrt", profile=SMALL)


def of(preprocess, form="crop", precision="fp32"):
    """A variant with this preprocessing, of floats and of pixels. INT8's ranges stay those of other values."""
    variant = make("tensorrt", form=form, precision=precision)
    floats = dataclasses.replace(variant, weights=dataclasses.replace(variant.weights, preprocess=preprocess))
    return floats, dataclasses.replace(floats, sizes=PIXELS)


@pytest.mark.parametrize("preprocess", [*PREPROCESSING.values(), ODD], ids=[*PREPROCESSING, "all of it"])
@pytest.mark.parametrize("form", ["crop", "dense"])
def test_a_graph_from_pixels_gives_the_bits_of_the_float_path(preprocess, form):
    floats, pixels = of(preprocess, form)
    graph = build_graph(pixels)
    onnx.checker.check_model(graph, full_check=True)
    graph.graph.output.append(onnx.helper.make_tensor_value_info(INPUT, onnx.TensorProto.FLOAT, None))
    drawn = views(3, 64, 64 if form == "crop" else 90)
    session = ort.inference_session(graph.SerializeToString(), dense=form == "dense")
    scores, given = session.run([OUTPUT, INPUT], {NAME: drawn})
    expected = to_input(drawn, preprocess)
    assert np.array_equal(given, expected)
    plain = ort.inference_session(build_graph(floats).SerializeToString(), dense=form == "dense")
    assert relative(scores, plain.run([OUTPUT], {INPUT: expected})[0]) < 1e-6


@pytest.mark.parametrize("preprocess", [Preprocess(), ODD], ids=["paper", "all of it"])
@pytest.mark.parametrize(("version", "precision"), [("8.6.0", "int8"), ("10.16.1", "fp16"), ("11.0.0", "tf32")])
def test_an_engine_of_pixels_ranks_as_the_float_path(version, precision, preprocess, machine):
    machine(version)
    for form, sides in (("crop", (64, 64)), ("dense", (64, 90))):
        profile = Profile((1, 2, 4), (64, 64, 64), (64, 64, 90))
        floats, session = (
            tensorrt.open_session(variant, "cuda", 1, Settings(profile)) for variant in of(preprocess, form, precision)
        )
        given = views(9, *sides)
        found, expected = session(given), floats(to_input(given, preprocess))
        assert np.array_equal(np.argsort(-found, axis=1), np.argsort(-expected, axis=1))
        assert relative(found, expected) < 1e-5
        assert found.dtype == np.float32
        for each in (session, floats):
            each.close()


def test_another_input_is_another_engine_and_graph_that_are_kept_beside(machine, opened):
    machine()
    floats, pixels = opened(), opened(sizes=PIXELS)
    assert floats.info["engine_input"] == "floats"
    assert pixels.info["engine_input"] == "pixels"
    assert floats.info["engine_key"] != pixels.info["engine_key"]
    assert floats.info["profile"] == pixels.info["profile"]
    assert opened(sizes=PIXELS).info["engine_source"] == opened().info["engine_source"] == "cache"
    assert len(list((cache.root() / "graphs").iterdir())) == 2
    assert not hasattr(floats, "submit"), "the pipeline would give it pixels"


def test_each_engine_refuses_the_others_input_in_one_line(machine, opened):
    machine()
    floats, pixels = opened(), opened(sizes=PIXELS)
    for call in (floats, lambda given: floats.time_calls(given, 1, False)):
        with pytest.raises(UsageError, match=r"accepted are .*float32"):
            call(views(1))
    for given in (images(1), views(1)[:, ::2], views(1)[:0], views(1)[0]):
        for call in (pixels, pixels.submit, lambda given: pixels.time_calls(given, 1, False)):
            with pytest.raises(UsageError, match=r"accepted are \(n, h, w, 3\) uint8, C-contiguous\.$"):
                call(given)


@pytest.mark.parametrize("version", MAJORS)
def test_layers_that_fell_back_are_named_in_an_engine_of_pixels_too(version, machine, opened):
    machine(version, fall_back={"block2.conv1"})
    found = {name: opened(precision="int8", sizes=sizes).info for name, sizes in (("floats", None), ("pixels", PIXELS))}
    for info in found.values():
        assert info["fallbacks"] == "block2.conv1 in fp32"
        assert info["layers_unseen"] == ""
    assert found["floats"]["layers"].partition("layers")[2] == found["pixels"]["layers"].partition("layers")[2]


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    rng = np.random.default_rng(7)
    drawn = [rng.integers(0, 256, (*size, 3), np.uint8) for size in ((90, 120), (110, 80), (90, 120), (100, 100))]
    return make_dataset(tmp_path_factory.mktemp("images"), drawn)


def test_an_evaluation_has_pixels_by_default_and_the_posteriors_of_floats(machine, dataset, tmp_path):
    """Stored apart, whichever ran first; with a profile of few images, so that calls run in pieces."""
    machine()
    found, passes = {}, [*protocol("center", (80,)).passes, crops(72), dense(80)]
    for asked in (None, "floats", "pixels"):
        found[asked] = run_passes(
            dataset, weights_of("A"), passes, backend="tensorrt",
            device="cuda", threads=2, sizes=Sizes((1, 2, 3), input=asked), cache_root=tmp_path,
        )  # fmt: skip
    assert found["floats"].counts.cached == 0
    assert found["pixels"].counts.computed == 0, "the default's"
    assert (found[None].session["engine_input"], found["floats"].session["engine_input"]) == ("pixels", "floats")
    for step, expected in found["floats"].posteriors.items():
        assert np.abs(found[None].posteriors[step] - expected).max() <= 1e-6
        assert np.array_equal(np.argsort(-found[None].posteriors[step]), np.argsort(-expected))


def test_a_trial_of_the_speed_has_the_engine_of_the_evaluation(machine, monkeypatch):
    machine()
    found, opened = [], tensorrt.open_session
    monkeypatch.setattr(tensorrt, "open_session", lambda *given: found.append(opened(*given)) or found[-1])
    monkeypatch.setattr(runs_parts, "TRIAL_SECONDS", 0.0)
    assert runs_parts.macs_per_second(weights_of("A"), Setting("tensorrt", device="cuda")) > 0
    assert [session.info["engine_input"] for session in found] == ["pixels"]
