"""The harness against slow_protocols.py, a second implementation from the paper's words, and exact relations."""

from __future__ import annotations

import functools

import numpy as np
import pytest
import slow_protocols as slow
from protocol_cases import (
    BACKENDS,
    CHOICES,
    CROP,
    SCALES,
    SIZES,
    make_dataset,
    noise,
    posteriors_of,
    scales_of,
    slow_network,
    weights_on_disk,
)

from vggbench.errors import UsageError
from vggbench.measure.accuracy import run_passes
from vggbench.measure.posteriors import answer, ranks
from vggbench.measure.records import accuracy_record
from vggbench.protocols import PROTOCOLS, Choices, Pass, Protocol, protocol


@pytest.fixture(scope="module")
def workplace(tmp_path_factory):
    return tmp_path_factory.mktemp("protocols")


@pytest.fixture(scope="module")
def images():
    return [noise(size, number) for number, size in enumerate(SIZES)]


@pytest.fixture(scope="module")
def dataset(workplace, images):
    return make_dataset(workplace / "ragged", images)


@pytest.fixture(scope="module")
def make_weights(workplace):
    @functools.cache
    def make(name, crop=CROP, seed=0):
        return weights_on_disk(workplace, name, crop, seed)

    return make


@pytest.fixture(scope="module", autouse=True)
def _remembered_score_maps():
    """The same crop under another protocol is not computed again; both poolings of a crop are one: it halves evenly."""
    compute, known = slow.score_map, {}

    def remembered(network, pixels):
        rounding = network.ceil if pixels.shape[:2] != (network.crop, network.crop) else None
        key = (network.name, network.crop, rounding, pixels.shape, pixels.tobytes())
        if key not in known:
            known[key] = compute(network, pixels)
        return known[key]

    slow.score_map = remembered
    yield
    slow.score_map = compute


@pytest.fixture(scope="module")
def expected(images, make_weights):
    """(images, classes) of the slow implementation."""

    @functools.cache
    def compute(network, name, choices, scales, crop=CROP):
        slowly = slow_network(make_weights(network, crop), choices)
        each = {
            "center": lambda image: slow.center(slowly, image, *scales),
            "ten-crop": lambda image: slow.ten_crop(slowly, image, *scales),
            "dense": lambda image: slow.dense(slowly, image, *scales, choices.score_pool),
            "multi-scale": lambda image: slow.multi_scale(slowly, image, scales, choices.score_pool),
            "multi-crop": lambda image: slow.multi_crop(slowly, image, scales, choices.grid_extent),
            "multi-crop-and-dense": lambda image: slow.multi_crop_and_dense(
                slowly, image, scales, choices.score_pool, choices.grid_extent
            ),
        }[name]
        return np.array([each(image) for image in images])

    return compute


@pytest.fixture(scope="module")
def measure(workplace, make_weights):
    """PassResults of the harness."""

    def run(dataset, network, passes, backend, choices=CHOICES[0], crop=CROP):
        return run_passes(
            dataset,
            make_weights(network, crop),
            passes,
            backend=backend,
            choices=choices,
            device="cpu",
            threads=1,
            cache_root=workplace / "cache",
            workers=1,
        )

    return run


# ---- every protocol --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("choices", CHOICES, ids=lambda c: f"{c.score_pool}-{c.pool_rounding}-{c.grid_extent}")
@pytest.mark.parametrize("name", PROTOCOLS)
def test_a_protocol_equals_the_slow_one(name, choices, backend, dataset, expected, measure):
    chosen = protocol(name, scales_of(name))
    found = posteriors_of(measure(dataset, "D", chosen.passes, backend, choices), chosen)
    assert np.abs(found - expected("D", name, choices, scales_of(name))).max() <= 1e-5


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("network", ["A", "A-LRN", "B", "C", "D", "E", "shallow-B"])
def test_each_network_of_table_1_equals_the_slow_one(network, backend, dataset, expected, measure):
    for name in ("center", "dense"):
        chosen = protocol(name, (47,))
        found = posteriors_of(measure(dataset, network, chosen.passes, backend), chosen)
        assert np.abs(found - expected(network, name, CHOICES[0], (47,))).max() <= 1e-5


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("choices", CHOICES[::3], ids=["ceil", "floor"])
def test_the_sample_familys_crop_size_equals_the_slow_one(choices, backend, dataset, expected, measure):
    for name in ("center", "dense"):
        chosen = protocol(name, (73,))
        found = posteriors_of(measure(dataset, "A", chosen.passes, backend, choices, crop=64), chosen)
        assert np.abs(found - expected("A", name, choices, (73,), 64)).max() <= 1e-5


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("name", ["ten-crop", "multi-scale"])
def test_fusion_is_the_mean_of_posteriors(name, backend, dataset, expected, measure):
    chosen = protocol(name, scales_of(name))
    parts = [(measure(dataset, network, chosen.passes, backend), chosen) for network in ("D", "B")]
    wanted = slow.fusion([expected(network, name, CHOICES[0], scales_of(name)) for network in ("D", "B")])
    assert np.abs(answer(parts)[0] - wanted).max() <= 1e-5


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_record_holds_the_slow_ones_ranks(backend, dataset, expected, measure):
    chosen = protocol("multi-scale", SCALES)
    parts = [(measure(dataset, network, chosen.passes, backend), chosen) for network in ("D", "B")]
    record = accuracy_record(dataset, parts, choices=CHOICES[0], environment={})
    wanted = slow.fusion([expected(network, "multi-scale", CHOICES[0], SCALES) for network in ("D", "B")])
    labels = [image.label for image in dataset.images]
    assert record.samples.values == [slow.rank(row, label) for row, label in zip(wanted, labels, strict=True)]
    assert len(set(record.samples.values)) > 1


def test_every_choice_and_protocol_changes_the_answer_so_the_comparisons_could_fail(expected):
    default = CHOICES[0]

    def far(one, other):
        return np.abs(one - other).max() > 1e-3

    dense_of = [expected("D", "multi-scale", choices, SCALES) for choices in CHOICES]
    assert far(dense_of[0], dense_of[1])  # pool rounding
    assert far(dense_of[0], dense_of[2])  # score pool
    assert far(dense_of[2], dense_of[3])  # pool rounding, the other score pool
    assert far(expected("D", "multi-crop", default, SCALES), expected("D", "multi-crop", CHOICES[1], SCALES))
    names = list(PROTOCOLS)
    every = [expected("D", name, default, scales_of(name)) for name in names]
    assert all(far(every[i], every[j]) for i in range(len(names)) for j in range(i))
    assert 0.02 < every[2].std() < 0.35  # neither flat nor certain


# ---- exact relations -------------------------------------------------------------------------------------------------

RELATION_CHOICES = pytest.mark.parametrize("choices", CHOICES, ids=lambda c: f"{c.score_pool}-{c.pool_rounding}")


@RELATION_CHOICES
@pytest.mark.parametrize("backend", BACKENDS)
def test_mirroring_the_image_leaves_a_flip_averaged_posterior_as_it_was(backend, choices, workplace, measure):
    """At its own scale, where nothing is resampled; even offsets, where the grid is symmetric in whole pixels."""
    image = noise((40, 56), 5)
    both = make_dataset(workplace / "mirrored", [image, np.ascontiguousarray(image[:, ::-1])])
    passes = [Pass("dense", 40, "whole", True), Pass("crop", 40, "5x5", True), Pass("crop", 40, "corners", True)]
    results = measure(both, "D", passes, backend, choices)
    for step in passes:
        one, other = results.posteriors[step]
        assert np.abs(one - other).max() <= 1e-6
    alone = measure(both, "D", [Pass("crop", 40, "center", False)], backend, choices)
    one, other = alone.posteriors[Pass("crop", 40, "center", False)]
    assert np.abs(one - other).max() > 1e-3


@pytest.mark.parametrize("extent", ["whole", "square"])
@pytest.mark.parametrize("backend", BACKENDS)
def test_50_crops_of_a_crop_sized_image_equal_one_with_its_mirror_image(backend, extent, workplace, measure):
    one = make_dataset(workplace / "crop-sized", [noise((CROP, CROP), 6)])
    passes = [Pass("crop", CROP, grid, True) for grid in ("5x5", "corners", "center")]
    found = measure(one, "D", passes, backend, Choices(grid_extent=extent)).posteriors
    assert np.abs(found[passes[0]] - found[passes[2]]).max() <= 1e-6
    assert np.abs(found[passes[1]] - found[passes[2]]).max() <= 1e-6


@RELATION_CHOICES
@pytest.mark.parametrize("backend", BACKENDS)
def test_dense_of_a_crop_sized_image_is_its_crop_with_flip(backend, choices, workplace, measure):
    one = make_dataset(workplace / "crop-sized", [noise((CROP, CROP), 6)])
    passes = [Pass("dense", CROP, "whole", True), Pass("crop", CROP, "center", True)]
    found = measure(one, "D", passes, backend, choices).posteriors
    assert np.abs(found[passes[0]] - found[passes[1]]).max() <= 1e-6


def test_both_backends_give_the_same_ranks(dataset, measure):
    chosen = protocol("multi-crop-and-dense", SCALES)
    labels = np.array([image.label for image in dataset.images])
    one, other = (posteriors_of(measure(dataset, "D", chosen.passes, backend), chosen) for backend in BACKENDS)
    assert ranks(one, labels).tolist() == ranks(other, labels).tolist()


def test_an_image_gets_the_same_posterior_whatever_its_neighbours(workplace, images, dataset, measure):
    chosen = protocol("multi-scale", SCALES)
    together = posteriors_of(measure(dataset, "D", chosen.passes, "pytorch"), chosen)
    for number, image in enumerate(images):
        alone = make_dataset(workplace / f"alone-{number}", [image])
        found = posteriors_of(measure(alone, "D", chosen.passes, "pytorch"), chosen)
        assert np.abs(found[0] - together[number]).max() <= 1e-6


def test_ranks_count_ties_against_the_network():
    posteriors = np.array([[0.25, 0.25, 0.25, 0.25], [0.4, 0.3, 0.2, 0.1], [0.1, 0.4, 0.4, 0.1], [0.4, 0.4, 0.1, 0.1]])
    labels = np.array([2, 0, 1, 3])
    assert ranks(posteriors, labels).tolist() == [3, 0, 1, 3]
    assert [slow.rank(row, label) for row, label in zip(posteriors, labels, strict=True)] == [3, 0, 1, 3]


def test_ranks_count_every_class_before_the_true_one():
    posteriors = np.random.default_rng(2).dirichlet(np.ones(60), 200)
    labels = np.random.default_rng(3).integers(0, 60, 200)
    wanted = [slow.rank(row, label) for row, label in zip(posteriors, labels, strict=True)]
    assert ranks(posteriors, labels).tolist() == wanted


# ---- names and scales ------------------------------------------------------------------------------------------------


def test_an_unknown_protocol_and_a_wrong_number_of_scales_are_refused():
    with pytest.raises(UsageError, match="No protocol 'tencrop'"):
        protocol("tencrop", (47,))
    with pytest.raises(UsageError, match="takes one scale"):
        protocol("dense", SCALES)
    with pytest.raises(UsageError, match="takes one scale, got none"):
        protocol("center", ())


def test_the_views_of_the_protocols_are_the_papers():
    views = {name: sum(step.views for step in protocol(name, scales_of(name)).passes) for name in PROTOCOLS}
    assert views == {
        "center": 1,
        "ten-crop": 10,
        "dense": 2,
        "multi-scale": 6,
        "multi-crop": 150,
        "multi-crop-and-dense": 156,
    }
    assert isinstance(protocol("center", (47,)), Protocol)
