"""What names a pass; blocks; means, ranks and records of stored posteriors."""

import dataclasses
import json
from pathlib import Path

import measuring
import numpy as np
import pytest
from measuring import CENTER, CLASSES, MIXED, WEIGHTS

from vggbench import backends
from vggbench.errors import DataError
from vggbench.images import Dataset
from vggbench.measure import shards
from vggbench.measure.pipeline import softmax
from vggbench.measure.posteriors import answer, fuse, hardest, ranks
from vggbench.measure.records import accuracy_record
from vggbench.protocols import Choices, Pass, Protocol, crops, dense
from vggbench.results import Record
from vggbench.variants import Variant

CORNERS = Pass("crop", 36, "corners", True)


def subset(dataset: Dataset, indices) -> Dataset:
    images, digests = ([values[i] for i in indices] for values in (dataset.images, dataset.digests))
    return dataclasses.replace(dataset, images=tuple(images), digests=tuple(digests))


def spoil(dataset: Dataset, index: int) -> Dataset:
    path = dataset.images[index].path
    path.write_bytes(b"\xff\xd8\xff no image %d" % index)
    return measuring.open_dataset(path.parent)


@pytest.mark.parametrize(
    ("step", "decisive"),
    [
        (CENTER, {"resize_filter", "side_rounding", "exif", "grid_rounding"}),
        (CORNERS, {"resize_filter", "side_rounding", "exif", "grid_rounding"}),
        (crops(36), {"resize_filter", "side_rounding", "exif", "grid_rounding", "grid_extent"}),
        (dense(48), {"resize_filter", "side_rounding", "exif", "score_pool", "pool_rounding"}),
    ],
)
def test_choices_name_a_pass_only_where_they_change_it(step, decisive):
    def folder(choices):
        variant = Variant(WEIGHTS, step.form, "pytorch", "fp32", choices.pool_rounding, choices.score_pool)
        return shards.folder(Path("cache"), shards.identity(variant, step, choices, "decoder", "cpu"))

    others = {
        "score_pool": "mean_probs", "pool_rounding": "floor", "grid_extent": "square", "grid_rounding": "floor",
        "resize_filter": "box", "side_rounding": "floor", "exif": "apply",
    }  # fmt: skip
    changed = {key for key, value in others.items() if folder(Choices(**{key: value})) != folder(Choices())}
    assert changed == decisive


def test_every_backend_names_the_library_whose_version_decides_its_scores():
    assert set(backends.BACKENDS) <= {*shards.LIBRARIES, "fake"}
    identity = shards.identity(Variant(WEIGHTS, "crop", "pytorch"), CENTER, Choices(), "decoder", "cpu")
    assert identity["library"].startswith("torch 2.")


def test_blocks_cover_every_image_once_and_shrink_with_the_work():
    digests = [str(index) for index in range(101)]
    lengths = []
    for step in (Pass("crop", 256, "center", False), dense(256), dense(384), dense(512), crops(256)):
        found = shards.blocks(step, 224, digests)
        assert [index for block in found for index in range(block.start, block.stop)] == list(range(101))
        lengths.append(found[0].stop)
    assert lengths == [32, 32, 16, 8, 8]


def test_softmax_survives_large_scores():
    found = softmax(np.array([[1e4, 0.0, -1e4], [3.0, 3.0, 3.0]], np.float32))
    np.testing.assert_allclose(found, [[1, 0, 0], [1 / 3] * 3])


def test_equal_posteriors_count_against_the_network():
    posteriors = np.array([[0.4, 0.4, 0.2], [0.5, 0.3, 0.2], [0.0, 1.0, 0.0], [0.2, 0.3, 0.5]])
    assert ranks(posteriors, np.array([0, 0, 2, 2])).tolist() == [1, 0, 2, 0]


def test_ranks_need_numbers_and_known_labels():
    with pytest.raises(DataError, match="not finite"):
        ranks(np.array([[np.nan, 1.0]]), np.array([1]))
    with pytest.raises(DataError, match=r"Labels from 0 to 2; these weights have classes 0 to 1"):
        ranks(np.ones((2, 2)), np.array([0, 2]))


def test_fusion_is_the_mean_and_needs_the_same_images():
    a, b = np.array([[0.2, 0.8]], np.float32), np.array([[0.6, 0.4]], np.float32)
    np.testing.assert_allclose(fuse([a, b]), [[0.4, 0.6]], atol=1e-7)
    with pytest.raises(DataError, match="cannot be fused"):
        fuse([a, np.ones((2, 2), np.float32)])


def test_an_answer_of_several_networks_covers_the_images_that_all_have(dataset, run):
    full = run(dataset)
    fewer = run(spoil(dataset, 2), on_bad="skip")
    protocol = Protocol("center", (CENTER,))
    posteriors, kept = answer([(full, protocol), (fewer, protocol)], images=10)
    assert list(kept) == [0, 1, 3, 4, 5, 6, 7, 8, 9]
    expected = (full.posteriors[CENTER][kept].astype(float) + fewer.posteriors[CENTER][:9]) / 2
    np.testing.assert_allclose(posteriors, expected)
    with pytest.raises(DataError, match="ran on 40 images; 41 are needed"):
        answer([(full, protocol)], images=41)


def test_the_hardest_images_are_wrong_ones_by_the_posterior_of_their_label():
    posteriors = np.array([[0.9, 0.1, 0.0], [0.2, 0.5, 0.3], [0.1, 0.1, 0.8], [0.4, 0.4, 0.2]])
    cases = hardest(posteriors, np.array([0, 0, 0, 1]), ["a", "b", "c", "d"], count=3, top=2)
    assert [case["id"] for case in cases] == ["c", "b", "d"]
    assert cases[0] == {
        "id": "c", "label": 0, "answer": 2, "posterior": 0.8, "true_posterior": 0.1, "top": [[2, 0.8], [1, 0.1]],
    }  # fmt: skip
    assert cases[2]["answer"] == 0


def test_a_record_holds_ranks_in_order_and_survives_its_file(dataset, run):
    results = run(dataset)
    record = accuracy_record(
        dataset, [(results, MIXED)], choices=Choices(), environment={"cpu": "x"}, claim="table3/A", fingerprint_full="f"
    )
    posteriors = np.mean([results.posteriors[step].astype(float) for step in MIXED.passes], axis=0)
    labels = [image.label for image in dataset.images]
    for rank, label, row in zip(record.samples.values, labels, posteriors, strict=True):
        assert rank == sum(row[other] >= row[label] for other in range(CLASSES) if other != label)
    assert record.networks[0].passes == [dataclasses.asdict(step) for step in MIXED.passes]
    assert record.workload.data["fingerprint_full"] == "f"
    assert "path" not in record.networks[0].weights
    assert record.seed is None
    assert Record.model_validate_json(record.model_dump_json()) == record
    assert json.loads(record.model_dump_json())["hardest"]


def test_a_record_over_fewer_images_is_a_prefix_of_the_one_over_all(dataset, run):
    results = run(dataset)
    full, part = (
        accuracy_record(each, [(results, MIXED)], choices=Choices(), environment={})
        for each in (dataset, subset(dataset, range(11)))
    )
    assert part.samples.values == full.samples.values[:11]
    assert part.workload.data["images"] == 11
