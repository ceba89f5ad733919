import dataclasses

import numpy as np
import pytest
from measuring import CENTER, CLASSES, MIXED, WEIGHTS

from vggbench.backends import fake
from vggbench.errors import UsageError
from vggbench.images import Dataset
from vggbench.images.decode import decode
from vggbench.measure import pipeline
from vggbench.measure.accuracy import missing_views, run_passes
from vggbench.measure.pipeline import DecodedImages
from vggbench.measure.posteriors import protocol_posteriors
from vggbench.protocols import Choices, Pass, Protocol, crops, dense
from vggbench.variants import Variant
from vggbench.views import make_views, to_input

CORNERS = Pass("crop", 36, "corners", True)


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
    genuine = pipeline.decode_picture
    monkeypatch.setattr(pipeline, "decode_picture", lambda data, *how: decoded.append(data) or genuine(data, *how))
    run(dataset)
    assert len(decoded) == 40


def test_decoded_images_are_kept_for_the_next_network_within_their_limit(dataset, run, tmp_path, monkeypatch):
    kept = DecodedImages()
    run(dataset, [CENTER], decoded=kept)
    assert 0 < kept.bytes <= kept.limit
    monkeypatch.setattr(pipeline, "decode_picture", None)
    run(dataset, [dense(48)], decoded=kept)

    small = DecodedImages(limit=1000)
    for index in range(10):
        small.put(str(index), "ignore", np.zeros((10, 10, 3), np.uint8))
    assert small.bytes <= 1000
    assert small.get("9", "ignore") is not None
    assert small.get("0", "ignore") is None


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
