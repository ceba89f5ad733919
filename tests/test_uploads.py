"""Pixels that go to a device as bytes give the scores that floats give; with a stand-in for torch.cuda."""

import contextlib
import functools

import numpy as np
import pytest
import torch
from measuring import MIXED, WEIGHTS, make_dataset

from vgg_reference.weights import PREPROCESSING
from vggbench import backends
from vggbench.backends import check_scores, fake, open_session
from vggbench.backends.uploads import BUFFERS, PixelQueue, normalized
from vggbench.errors import UsageError
from vggbench.measure import pipeline
from vggbench.measure.accuracy import run_passes
from vggbench.variants import Variant
from vggbench.views import to_input


class Cuda:
    """What PixelQueue needs of torch.cuda, without a device; it notes what it is asked for."""

    def __init__(self):
        self.log = []

    def is_available(self):
        return False

    def Stream(self, device):
        return Stream("copies", self.log)

    def current_stream(self, device):
        return Stream("work", self.log)

    def Event(self):
        return Event(self.log)

    @contextlib.contextmanager
    def stream(self, stream):
        self.log.append(("enter", stream.name))
        yield


class Stream:
    def __init__(self, name, log):
        self.name, self.log = name, log

    def wait_event(self, event):
        self.log.append((self.name, "waits"))


class Event:
    def __init__(self, log):
        self.log = log

    def record(self, stream):
        self.log.append(("recorded", stream.name))

    def synchronize(self):
        self.log.append(("host", "waits"))


def pixels(n=3, height=32, width=32, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (n, height, width, 3), dtype=np.uint8)


@pytest.mark.parametrize("name", list(PREPROCESSING))
def test_pixels_are_normalized_bit_for_bit_as_on_the_host(name):
    views = pixels(5, 40, 33)
    found = normalized(torch.from_numpy(views), PREPROCESSING[name])
    np.testing.assert_array_equal(found.numpy(), to_input(views, PREPROCESSING[name]))
    assert found.is_contiguous(memory_format=torch.channels_last)


def queue_of(session, variant, cuda):
    check = functools.partial(check_scores, variant=variant)
    return PixelQueue(session._on_device, variant.weights.preprocess, "cpu", check, cuda)


def test_scores_of_several_batches_under_way_are_those_of_the_session():
    variant = Variant(WEIGHTS, "crop", "pytorch")
    session, cuda = open_session(variant, "cpu", 1), Cuda()
    submit = queue_of(session, variant, cuda)
    views = [pixels(n, seed=n) for n in (3, 5, 2, 5, 1, 4)]
    assert len(views) > BUFFERS
    waits = [submit(each) for each in views]  # none is waited for before all are under way
    for each, wait in zip(views, waits, strict=True):
        np.testing.assert_allclose(wait(), session(to_input(each, WEIGHTS.preprocess)), rtol=0, atol=1e-6)
    session.close()


def test_a_copy_is_awaited_by_the_device_and_a_buffer_by_the_host():
    cuda = Cuda()
    submit = PixelQueue(lambda x: x.mean((2, 3)), WEIGHTS.preprocess, "cpu", lambda scores: scores, cuda)
    wait = submit(pixels())
    order = [("host", "waits"), ("enter", "copies"), ("recorded", "copies"), ("work", "waits"), ("recorded", "work")]
    assert cuda.log == order
    wait()
    assert cuda.log == [*order, ("host", "waits")]


def test_other_pixels_are_refused():
    submit = PixelQueue(lambda x: x, WEIGHTS.preprocess, "cpu", lambda scores: scores, Cuda())
    for wrong in (pixels().astype(np.float32), pixels()[0], pixels()[..., :2], pixels()[:, ::2]):
        with pytest.raises(UsageError, match="accepted are"):
            submit(wrong)


class Submitting(fake.FakeSession):
    """Works only when asked for the scores."""

    under_way = most = 0

    def submit(self, views):
        Submitting.under_way += 1
        Submitting.most = max(Submitting.most, Submitting.under_way)

        def wait():
            Submitting.under_way -= 1
            return self(to_input(views, WEIGHTS.preprocess))

        return wait


def test_the_evaluation_uses_submit_where_it_is_and_gives_the_same(tmp_path, monkeypatch):
    monkeypatch.setitem(backends.BACKENDS, "fake", "vggbench.backends.fake")
    dataset = make_dataset(tmp_path / "images", 70)
    options = {"backend": "fake", "device": "cpu"}
    plain = run_passes(dataset, WEIGHTS, MIXED.passes, cache_root=tmp_path / "plain", **options)
    monkeypatch.setattr(fake, "open_session", lambda variant, device, threads: Submitting(variant))
    found = run_passes(dataset, WEIGHTS, MIXED.passes, cache_root=tmp_path / "found", **options)
    for step in MIXED.passes:
        np.testing.assert_array_equal(found.posteriors[step], plain.posteriors[step])
    assert Submitting.under_way == 0
    assert Submitting.most > 1, "the next block began before the last one's scores were asked for"
    assert pipeline.IN_FLIGHT == 2
