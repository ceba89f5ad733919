import dataclasses
import errno
import json
import os
from pathlib import Path

import measuring
import numpy as np
import pytest
from measuring import CENTER, CLASSES, MIXED, WEIGHTS, make_dataset

from vggbench import backends, cache
from vggbench.backends import fake
from vggbench.errors import DataError, StorageError, UsageError
from vggbench.images import Dataset
from vggbench.images.decode import decode
from vggbench.measure import pipeline, shards
from vggbench.measure.accuracy import missing_views, run_passes
from vggbench.measure.pipeline import DecodedImages, softmax
from vggbench.measure.posteriors import answer, fuse, hardest, protocol_posteriors, ranks
from vggbench.measure.records import accuracy_record
from vggbench.protocols import Choices, Pass, Protocol, crops, dense
from vggbench.results import Record
from vggbench.variants import Variant
from vggbench.views import make_views, to_input

CORNERS = Pass("crop", 36, "corners", True)


@pytest.fixture
def sessions(monkeypatch):
    """Every fake session that was opened, with the shapes it was given."""
    opened = []

    class Recording(fake.FakeSession):
        def __init__(self, variant, **options):
            super().__init__(variant, **options)
            self.shapes = []
            opened.append(self)

        def __call__(self, images):
            self.shapes.append(images.shape)
            return super().__call__(images)

    monkeypatch.setitem(backends.BACKENDS, "fake", "vggbench.backends.fake")
    monkeypatch.setattr(fake, "open_session", lambda variant, device, threads: Recording(variant))
    return opened


@pytest.fixture
def dataset(tmp_path):
    return make_dataset(tmp_path / "images", 40)


@pytest.fixture
def run(tmp_path, sessions):
    def run(dataset, passes=MIXED.passes, **options):
        options = {"backend": "fake", "device": "cpu", "cache_root": tmp_path / "cache", **options}
        return run_passes(dataset, WEIGHTS, passes, **options)

    return run


def alone(dataset: Dataset, step: Pass, index: int) -> np.ndarray:
    """The posterior of one image in one pass, view by view, without the code under test."""
    session = fake.FakeSession(Variant(WEIGHTS, step.form, "fake"))
    image = decode(dataset.images[index].path.read_bytes(), "ignore")
    views = make_views(image, step, WEIGHTS.crop_size, Choices())
    scores = [session(to_input(view[None], WEIGHTS.preprocess))[0].astype(np.float64) for view in views]
    return np.mean([np.exp(each) / np.exp(each).sum() for each in scores], axis=0)


def same(a, b) -> bool:
    return a.posteriors.keys() == b.posteriors.keys() and all(
        np.array_equal(a.posteriors[step], b.posteriors[step]) for step in a.posteriors
    )


def subset(dataset: Dataset, indices) -> Dataset:
    images, digests = ([values[i] for i in indices] for values in (dataset.images, dataset.digests))
    return dataclasses.replace(dataset, images=tuple(images), digests=tuple(digests))


def test_every_image_goes_once_through_every_pass_and_keeps_its_place(dataset, run, sessions):
    results = run(dataset)
    assert sum(session.images for session in sessions) == 40 * sum(step.views for step in MIXED.passes)
    assert list(results.kept) == list(range(40))
    for step, posteriors in results.posteriors.items():
        assert posteriors.dtype == np.float32
        expected = [alone(dataset, step, index) for index in range(40)]
        np.testing.assert_allclose(posteriors, expected, rtol=0, atol=1e-6)


def test_one_session_a_form_is_opened_and_closed(dataset, run, sessions):
    run(dataset)
    assert len(sessions) == 2
    assert all(session.closed for session in sessions)


def test_images_of_one_size_share_batches_and_none_is_padded(dataset, run, sessions):
    run(dataset, [dense(48)])
    shapes = [shape for session in sessions for shape in session.shapes]
    sides = {shape[2:] for shape in shapes}
    assert sides == {(48, 62), (62, 48), (48, 48), (73, 48)}
    assert len(shapes) < 40
    assert max(height * width * count for count, _, height, width in shapes) <= 16 * WEIGHTS.crop_size**2


def test_a_second_run_opens_no_session_and_no_image(dataset, run, sessions):
    first = run(dataset)
    opened = len(sessions)
    for image in dataset.images:
        image.path.unlink()
    second = run(dataset)
    assert len(sessions) == opened
    assert same(first, second)
    assert (second.counts.cached, second.counts.computed) == (120, 0)
    assert second.session == first.session


def test_a_new_combination_of_old_passes_costs_no_inference(dataset, run, sessions):
    run(dataset, [dense(48), dense(40), CENTER])
    opened = len(sessions)
    results = run(dataset, [dense(40), CENTER])
    assert len(sessions) == opened
    assert protocol_posteriors(results, Protocol("new", (dense(40), CENTER))).shape == (40, CLASSES)


def test_only_the_form_that_is_missing_is_opened(dataset, run, sessions):
    run(dataset, [dense(48)])
    run(dataset)
    assert [session._variant.form for session in sessions] == ["dense", "crop"]


def test_more_images_take_over_what_fewer_have_computed(dataset, run, tmp_path):
    steps = [crops(36)]
    run(subset(dataset, range(20)), steps)
    more = run(dataset, steps)
    assert more.counts.cached == 16  # two whole blocks of 8; the cut one is computed anew
    assert same(more, run(dataset, steps, cache_root=tmp_path / "fresh"))


def test_a_block_depends_on_its_images_alone(dataset, run, tmp_path):
    steps = [dense(100)]
    whole = run(dataset, steps)
    back = [*range(32, 40), *range(24, 32), *range(8), *range(8, 24)]
    moved = run(subset(dataset, back), steps)
    assert moved.counts.computed == 0
    np.testing.assert_array_equal(moved.posteriors[steps[0]], whole.posteriors[steps[0]][back])


def test_the_order_of_images_does_not_matter_to_a_network(dataset, tmp_path):
    order = np.random.default_rng(0).permutation(40)
    options = {"backend": "pytorch", "device": "cpu", "threads": 1}
    one = run_passes(dataset, WEIGHTS, MIXED.passes, cache_root=tmp_path / "one", **options)
    other = run_passes(subset(dataset, order), WEIGHTS, MIXED.passes, cache_root=tmp_path / "other", **options)
    for step in MIXED.passes:
        np.testing.assert_allclose(other.posteriors[step], one.posteriors[step][order], rtol=0, atol=1e-6)


def test_an_image_is_decoded_once_for_all_its_passes(dataset, run, monkeypatch):
    decoded = []
    monkeypatch.setattr(pipeline, "decode", lambda data, *how: decoded.append(data) or decode(data, *how))
    run(dataset)
    assert len(decoded) == 40


def test_decoded_images_are_kept_for_the_next_network_within_their_limit(dataset, run, tmp_path, monkeypatch):
    kept = DecodedImages()
    run(dataset, [CENTER], decoded=kept)
    assert 0 < kept.bytes <= kept.limit
    monkeypatch.setattr(pipeline, "decode", None)
    run(dataset, [dense(48)], decoded=kept)

    small = DecodedImages(limit=1000)
    for index in range(10):
        small.put(str(index), "ignore", np.zeros((10, 10, 3), np.uint8))
    assert small.bytes <= 1000
    assert small.get("9", "ignore") is not None
    assert small.get("0", "ignore") is None


@pytest.mark.parametrize("damage", ["cut", "bit", "garbage", "empty", "other"])
def test_a_damaged_shard_is_computed_again(dataset, run, tmp_path, damage):
    first = run(dataset)
    for path in (tmp_path / "cache").rglob("*.safetensors"):
        data = bytearray(path.read_bytes())
        if damage == "bit":
            data[-5] ^= 16
        other = b"\x02\0\0\0\0\0\0\0{}"
        path.write_bytes({"cut": data[:-9], "bit": data, "garbage": b"x" * 99, "empty": b"", "other": other}[damage])
    again = run(dataset)
    assert again.counts.cached == 0
    assert same(first, again)
    assert run(dataset).counts.cached == 120


def test_a_shard_of_another_class_count_is_not_used(dataset, run, tmp_path):
    run(dataset, [CENTER])
    path = next((tmp_path / "cache").rglob("*.safetensors"))
    stored = shards.read(path.parent, {block.name for block in shards.blocks(CENTER, 32, dataset.digests)}, CLASSES)
    path.unlink()
    narrow = {
        name: dataclasses.replace(each, posteriors=np.ascontiguousarray(each.posteriors[:, 1:]))
        for name, each in stored.items()
    }
    shards.write(path.parent, narrow)
    assert run(dataset, [CENTER]).counts.cached == 0


def test_a_bad_image_ends_the_run_in_one_line_that_names_it(dataset, run):
    dataset = spoil(dataset, 17)
    with pytest.raises(DataError) as raised:
        run(dataset)
    message = str(raised.value)
    assert message.startswith("017.jpg: ")
    assert "image 18 of 40" in message
    assert "--on-bad skip" in message
    assert "\n" not in message


def test_a_skipped_bad_image_is_named_and_in_no_pass(dataset, run):
    good = run(dataset)
    dataset = spoil(dataset, 17)
    results = run(dataset, on_bad="skip")
    assert [bad.id for bad in results.bad] == ["017.jpg"]
    assert list(results.kept) == [index for index in range(40) if index != 17]
    for step, posteriors in results.posteriors.items():
        np.testing.assert_allclose(posteriors, np.delete(good.posteriors[step], 17, axis=0), rtol=0, atol=1e-6)
    record = accuracy_record(dataset, [(results, MIXED)], choices=Choices(), environment={})
    assert record.workload.data["bad"] == [{"id": "017.jpg", "why": results.bad[0].why}]
    assert record.workload.data["images"] == len(record.samples.values) == 39
    assert run(dataset, on_bad="skip").bad == results.bad
    with pytest.raises(DataError, match=r"017\.jpg"):  # also when it comes from the cache
        run(dataset)


def test_a_data_set_of_bad_images_gives_no_ranks(dataset, run):
    for index in range(40):
        dataset = spoil(dataset, index)
    results = run(dataset, on_bad="skip")
    assert len(results.bad) == 40
    assert answer([(results, MIXED)])[0].shape == (0, CLASSES)


def spoil(dataset: Dataset, index: int) -> Dataset:
    path = dataset.images[index].path
    path.write_bytes(b"\xff\xd8\xff no image %d" % index)
    return measuring.open_dataset(path.parent)


@pytest.mark.parametrize("on_bad", ["stop", "skip"])
def test_a_file_that_changed_or_vanished_ends_the_run_and_is_no_bad_image(dataset, run, on_bad):
    path = dataset.images[3].path
    content = path.read_bytes()
    path.write_bytes(dataset.images[4].path.read_bytes())
    with pytest.raises(DataError, match=r"003\.jpg: was changed"):
        run(dataset, on_bad=on_bad)
    path.unlink()
    with pytest.raises(DataError, match=r"003\.jpg: cannot be read: No such file"):
        run(dataset, on_bad=on_bad)
    path.write_bytes(content)
    assert run(dataset).bad == ()


def test_an_interrupted_run_goes_on_where_it_stopped(dataset, run, monkeypatch, tmp_path, sessions):
    def interrupted(variant, device, threads):
        return fake.FakeSession(variant, fail_at=12, error=KeyboardInterrupt)

    with monkeypatch.context() as patched:
        patched.setattr(fake, "open_session", interrupted)
        with pytest.raises(KeyboardInterrupt):
            run(dataset)
    results = run(dataset)
    assert 0 < results.counts.cached < 120
    assert same(results, run(dataset, cache_root=tmp_path / "fresh"))


@pytest.mark.parametrize("step", ["fsync", "replace", "open"])
def test_a_full_disk_is_one_line_and_the_next_run_is_right(dataset, run, monkeypatch, tmp_path, step):
    calls = []

    def full(*arguments, **options):
        calls.append(arguments)
        if len(calls) > 4:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return genuine(*arguments, **options)

    with monkeypatch.context() as patched:
        if step == "open":
            genuine = open
            patched.setattr(cache, "open", full, raising=False)
        else:
            genuine = getattr(os, step)
            patched.setattr(cache.os, step, full)
        with pytest.raises(StorageError, match=r"no space left on device.*VGGBENCH_CACHE=") as raised:
            run(dataset)
    assert "\n" not in str(raised.value)
    assert not list((tmp_path / "cache").rglob("*.tmp"))
    assert same(run(dataset), run(dataset, cache_root=tmp_path / "fresh"))


def test_a_cache_that_takes_no_files_is_told_before_any_work(dataset, run, monkeypatch, sessions):
    def read_only(*_):
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    monkeypatch.setattr(cache.os, "replace", read_only)
    with pytest.raises(StorageError, match="read-only file system"):
        run(dataset)
    assert sessions == []


def test_a_complete_cache_that_takes_no_files_is_enough(dataset, run, monkeypatch):
    first = run(dataset)

    def read_only(*_, **__):
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    for step in ("replace", "utime", "fsync"):
        monkeypatch.setattr(cache.os, step, read_only)
    assert same(first, run(dataset))


def test_pruning_beside_a_run_costs_time_only(dataset, run, tmp_path):
    undisturbed = run(dataset, cache_root=tmp_path / "fresh")

    def prune(done, total, note):
        cache.prune(tmp_path / "cache", everything=True)

    assert same(undisturbed, run(dataset, progress=prune))
    assert same(undisturbed, run(dataset))


def test_progress_counts_the_views_to_be_computed(dataset, run):
    seen = []
    run(dataset, [CENTER])
    run(dataset, progress=lambda done, total, note: seen.append((done, total, note)))
    total = 40 * (CORNERS.views + 2)
    assert [done for done, _, _ in seen] == sorted({done for done, _, _ in seen})
    assert seen[-1][:2] == (total, total)
    assert {all_ for _, all_, _ in seen} == {total}


def test_missing_views_are_told_without_work(dataset, run, tmp_path, sessions):
    run(subset(dataset, range(32)), [CENTER])
    opened = len(sessions)
    options = {"backend": "fake", "device": "cpu", "cache_root": tmp_path / "cache"}
    assert missing_views(dataset, WEIGHTS, [CENTER, dense(48)], **options) == {CENTER: 8, dense(48): 80}
    assert len(sessions) == opened


def test_scales_below_the_crop_and_unknown_words_are_refused(dataset, run):
    with pytest.raises(UsageError, match=r"Scale 31 is below the crop size.*from 32 on"):
        run(dataset, [dense(31)])
    with pytest.raises(UsageError, match=r"No on-bad 'ignore'\. Known: stop, skip"):
        run(dataset, on_bad="ignore")
    with pytest.raises(UsageError, match=r"No exif"):
        run(dataset, choices=Choices(exif="yes"))


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
