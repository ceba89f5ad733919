"""What a precision moves: statistics of layers, flips of images, and the batches they come from."""

from __future__ import annotations

import json

import numpy as np
import pytest
from numerics_networks import WEIGHTS

from vggbench.errors import BackendUnavailable, UsageError
from vggbench.measure import numerics
from vggbench.measure.batches import Views
from vggbench.protocols import Choices, Pass


def arrays(*shape, seed=0):
    generator = np.random.default_rng(seed)
    reference = generator.normal(size=shape).astype(np.float32)
    return reference, reference + 0.1 * generator.normal(size=shape).astype(np.float32)


# Layers: statistics


def test_streamed_layer_statistics_equal_a_direct_computation():
    reference, variant = arrays(11, 4, 5, 3)
    batches = [({"a": reference[at : at + 4]}, {"a": variant[at : at + 4]}) for at in range(0, 11, 4)]
    (found,) = numerics.layer_drifts(batches)
    x, y = reference.astype(np.float64).ravel(), variant.astype(np.float64).ravel()
    assert found.layer == "a"
    assert found.relative_l2 == pytest.approx(np.linalg.norm(y - x) / np.linalg.norm(x), rel=1e-12)
    assert found.max_absolute == np.abs(y - x).max()
    assert found.sqnr_db == pytest.approx(10 * np.log10((x**2).sum() / ((y - x) ** 2).sum()), rel=1e-12)
    assert found.cosine == pytest.approx(x @ y / np.linalg.norm(x) / np.linalg.norm(y), rel=1e-12)


def test_batch_size_does_not_change_layer_statistics():
    reference, variant = arrays(9, 50)
    one = numerics.layer_drifts([({"a": reference}, {"a": variant})])
    many = numerics.layer_drifts([({"a": reference[i : i + 1]}, {"a": variant[i : i + 1]}) for i in range(9)])
    assert one == many


def test_no_difference_gives_zero_no_ratio_and_cosine_one():
    reference, _ = arrays(3, 7)
    (found,) = numerics.layer_drifts([({"a": reference}, {"a": reference.copy()})])
    assert (found.relative_l2, found.max_absolute, found.sqnr_db, found.cosine) == (0.0, 0.0, None, 1.0)


def test_layer_of_zeros_in_the_reference_gives_numbers_that_json_has():
    zeros, ones = np.zeros((2, 3), np.float32), np.ones((2, 3), np.float32)
    (found,) = numerics.layer_drifts([({"a": zeros}, {"a": ones})])
    assert found.relative_l2 > 1e9
    assert found.cosine == 0.0
    json.dumps(found.model_dump(), allow_nan=False)


def test_layer_that_overflows_is_named():
    reference, variant = arrays(2, 3)
    variant[1, 1] = np.inf
    with pytest.raises(BackendUnavailable, match=r"block2\.relu1 are not finite"):
        numerics.layer_drifts([({"block2.relu1": reference}, {"block2.relu1": variant})])


# Images: margins, drifts, flips


def test_margin_drift_and_ratio_of_an_image():
    reference = np.array([[5.0, 1.0, 3.5]], np.float32)
    variant = np.array([[4.0, 1.0, 4.5]], np.float32)
    found = numerics.moved(reference, variant, np.array([0]))
    assert found.margins.tolist() == [1.5]
    assert found.drifts.tolist() == [1.0]
    assert found.ratios[0] == pytest.approx(np.sqrt(2) / np.sqrt(5**2 + 1 + 3.5**2))
    assert (found.reference_ranks.tolist(), found.variant_ranks.tolist()) == ([0], [1])
    assert found.flipped.tolist() == [True]


def logits_of(*classes):
    return np.eye(4, dtype=np.float32)[list(classes)]


def test_flips_lost_and_gained_are_counted_apart():
    labels = np.array([0, 1, 2, 3, 0, 1])
    reference = logits_of(0, 1, 2, 0, 1, 0)  # right three times
    variant = logits_of(0, 0, 3, 3, 2, 0)  # stays right, lost, lost, gained, another wrong one, the same wrong one
    found = numerics.moved(reference, variant, labels)
    assert int(found.flipped.sum()) == 4
    assert (found.lost, found.gained) == (2, 1)
    assert (found.reference_errors, found.variant_errors) == (3, 4)


def test_image_without_a_label_flips_but_is_neither_right_nor_wrong():
    found = numerics.moved(logits_of(0, 1), logits_of(1, 1), np.array([-1, 1]))
    assert found.reference_ranks.tolist() == [-1, 0]
    assert int(found.flipped.sum()) == 1
    assert (found.lost, found.gained, found.variant_errors) == (0, 0, 0)


def test_equal_logits_give_no_drift_even_where_all_are_zero():
    zeros = np.zeros((2, 3), np.float32)
    found = numerics.moved(zeros, zeros, np.array([0, 1]))
    assert found.ratios.tolist() == [0.0, 0.0]
    assert not found.flipped.any()


def test_named_images_are_the_flipped_ones_then_the_most_moved():
    reference = np.array([[2, 1], [2, 1], [2, 1], [2, 1]], np.float32)
    variant = np.array([[1.9, 1], [1.4, 1.5], [5, 1], [0, 1]], np.float32)
    found = numerics.moved(reference, variant, np.array([0, 0, 0, 1]))
    named = numerics.changed(found, ["a", "b", "c", "d"], np.array([0, 0, 0, 1]), count=3)
    assert [each.id for each in named] == ["d", "b", "c"]
    assert (named[0].reference_class, named[0].variant_class, named[0].drift) == (0, 1, 2.0)


# Batches


def test_batches_hold_every_image_once_in_order(dozen):
    views = Views(dozen, WEIGHTS, Pass("crop", 40, "center", False), Choices())
    batches = list(views.batches(5 * 32 * 32))
    assert [len(batch) for batch in batches] == [5, 5, 2]
    single = np.concatenate(list(views.batches(1)))
    np.testing.assert_array_equal(np.concatenate(batches), single)
    assert views.kept() == list(range(12))


def test_whole_images_of_one_size_share_batches(dozen):
    views = Views(dozen, WEIGHTS, Pass("dense", 40, "whole", False), Choices())
    batches = list(views.batches(10**6))
    assert sum(map(len, batches)) == 12
    assert len({batch.shape[2:] for batch in batches}) > 1


def test_pass_of_several_views_is_refused(dozen):
    with pytest.raises(UsageError, match="accepted is one"):
        Views(dozen, WEIGHTS, Pass("crop", 40, "corners", True), Choices())
