"""What every backend must do; a new one is under it as soon as it has a row in BACKENDS."""

import sys

import numpy as np
import pytest
import torch
from backend_inputs import (
    EVERYWHERE,
    NAMES,
    NETWORKS,
    PAIRS,
    SPREAD,
    TESTED,
    TOLERANCE,
    images,
    make,
    reference,
    relative,
)

from vggbench import backends
from vggbench.backends import PRECISIONS, fake, open_session, ort
from vggbench.errors import BackendUnavailable, UsageError

pytestmark = pytest.mark.usefixtures("with_fake", "own_cache")


@pytest.mark.parametrize(("name", "precision"), EVERYWHERE)
class TestEveryPrecision:
    def test_scores_are_owned_contiguous_float32_one_row_an_image(self, name, precision, opened):
        for form, sides in (("crop", (64, 64)), ("dense", (70, 99))):
            session = opened(name, form=form, precision=precision)
            batch = images(3, *sides)
            before = batch.copy()
            scores = session(batch)
            assert type(scores) is np.ndarray
            assert (scores.shape, scores.dtype) == ((3, 60), np.float32)
            assert scores.flags.c_contiguous
            assert scores.flags.owndata
            assert scores.flags.writeable
            assert np.array_equal(batch, before)
            kept = scores.copy()
            session(images(3, *sides, seed=1))
            assert np.array_equal(scores, kept)

    def test_an_images_scores_do_not_depend_on_its_batch(self, name, precision, opened):
        for form, sides in (("crop", (64, 64)), ("dense", (70, 99))):
            session = opened(name, form=form, precision=precision)
            batch = images(5, *sides)
            together = session(batch)
            assert np.ptp(together, axis=0).max() > 0
            apart = np.concatenate([session(batch[i : i + 1]) for i in range(5)])
            assert relative(together, apart) <= SPREAD[precision]

    def test_crop_form_and_dense_form_agree_on_a_crop_sized_image(self, name, precision, opened):
        batch = images(2)
        expected = opened(name, precision=precision)(batch)
        for rounding in ("ceil", "floor"):
            found = opened(name, form="dense", precision=precision, pool_rounding=rounding)(batch)
            assert relative(found, expected) <= SPREAD[precision]

    def test_dense_images_of_many_sizes_run_in_one_session(self, name, precision, opened):
        session = opened(name, form="dense", precision=precision)
        for sides in ((64, 64), (64, 97), (131, 64), (75, 133), (64, 64)):
            scores = session(images(2, *sides))
            assert scores.shape == (2, 60)
            assert np.isfinite(scores).all()

    def test_the_record_says_what_ran(self, name, precision, opened):
        session = opened(name, precision=precision)
        assert session.device == session.info["device"] == "cpu"
        assert session.info["backend"] == name
        assert session.info["precision"] == precision
        assert session.info["threads"] == 2
        assert session.info["arithmetic"]
        assert "mixed" not in session.info["arithmetic"]
        assert all(isinstance(value, str | int | float | bool | None) for value in session.info.values())
        assert ("ranges" in session.info) == (precision in ("int8", "fp8"))

    def test_values_that_are_not_finite_are_refused_in_one_line(self, name, precision, opened):
        session = opened(name, precision=precision)
        for value in (np.inf, -np.inf, np.nan):
            batch = images(2)
            batch[1, 2, 30, 31] = value
            with pytest.raises(UsageError, match="not finite") as error:
                session(batch)
            assert "\n" not in str(error.value)
        assert np.isfinite(session(images(2))).all()


@pytest.mark.parametrize("name", NAMES)
class TestEveryBackend:
    def test_a_second_close_does_nothing_and_a_closed_session_refuses(self, name, opened):
        session = open_session(make(name), "cpu", 2)
        session(images(1))
        session.close()
        session.close()
        with pytest.raises(ValueError, match="closed"):
            session(images(1))

    @pytest.mark.parametrize(
        ("form", "wrong"),
        [
            ("crop", images(1, 64, 65)),
            ("crop", images(1, 32, 32)),
            ("crop", images(0)),
            ("crop", images(1)[0]),
            ("crop", images(1)[:, :1]),
            ("crop", images(1).astype(np.float64)),
            ("crop", images(1).astype(np.uint8)),
            ("crop", images(1).transpose(0, 1, 3, 2)),
            ("crop", images(1).tolist()),
            ("dense", images(1, 63, 200)),
            ("dense", images(1, 200, 63)),
        ],
        ids=lambda value: value if isinstance(value, str) else str(getattr(value, "shape", "list")),
    )
    def test_wrong_images_are_refused_in_one_line(self, name, opened, form, wrong):
        session = opened(name, form=form)
        with pytest.raises(UsageError) as error:
            session(wrong)
        assert "accepted are" in str(error.value)
        assert "\n" not in str(error.value)

    def test_every_precision_is_offered_or_has_a_reason(self, name):
        module = backends.module(name)
        if module.available() is not None:
            pytest.skip(module.available())
        offered = module.precisions("cpu")
        assert set(offered) == set(PRECISIONS)
        assert offered["fp32"] is None
        for precision in PRECISIONS:
            variant = make(name, precision=precision)
            if offered.get(precision, "no") is None:
                open_session(variant, "cpu", 1).close()
            else:
                with pytest.raises(BackendUnavailable, match=r"It runs here: fp32") as error:
                    open_session(variant, "cpu", 1)
                assert "\n" not in str(error.value)

    def test_a_missing_library_is_one_line_that_says_how_to_get_it(self, name, monkeypatch):
        monkeypatch.setattr(
            backends.module(name), "available", lambda: "X is not installed. Install it with: pip install x"
        )
        with pytest.raises(BackendUnavailable, match="pip install x"):
            open_session(make(name), "cpu", 1)


@pytest.mark.parametrize("network", NETWORKS)
@pytest.mark.parametrize(("name", "precision"), PAIRS)
def test_scores_are_the_reference_networks(name, precision, network, opened):
    for form, sides, more in (
        ("crop", (64, 64), {}),
        ("dense", (75, 133), {"pool_rounding": "ceil"}),
        ("dense", (75, 133), {"pool_rounding": "floor", "score_pool": "mean_probs"}),
    ):
        session = opened(name, network, form, precision, **more)
        batch = images(2, *sides)
        expected = reference(make(name, network, form, precision, **more), batch)
        assert relative(session(batch), expected) <= TOLERANCE[precision]


@pytest.mark.parametrize("name", TESTED)
def test_batch_norm_is_the_reference_networks(name, opened):
    expected = reference(make(name, "B", batch_norm=True), images(2))
    assert relative(opened(name, "B", batch_norm=True)(images(2)), expected) <= TOLERANCE["fp32"]


@pytest.mark.parametrize("name", TESTED)
def test_the_two_poolings_and_the_two_averages_differ_on_ragged_sizes(name, opened):
    batch = images(1, 75, 133)
    scores = [
        opened(name, form="dense", pool_rounding=rounding, score_pool=pool)(batch)
        for rounding, pool in (("ceil", "mean_logits"), ("floor", "mean_logits"), ("ceil", "mean_probs"))
    ]
    assert relative(scores[0], scores[1]) > 1e-3
    assert relative(scores[0], scores[2]) > 1e-3


@pytest.mark.parametrize("name", ["pytorch", "onnxruntime"])
def test_scores_that_overflow_are_refused(name, opened):
    with pytest.raises(BackendUnavailable, match="not finite"):
        opened(name)(images(1) * np.float32(1e36))


def test_unknown_names_are_refused_with_the_known_ones():
    for variant, device, threads, known in (
        (make("trt"), "cpu", None, "Known: pytorch, onnxruntime"),
        (make("pytorch", precision="fp4"), "cpu", None, "Known: fp32"),
        (make("pytorch"), "tpu", None, "Known: auto, cpu, cuda"),
        (make("pytorch"), "cpu", 0, "1 or more"),
    ):
        with pytest.raises(UsageError, match=known):
            open_session(variant, device, threads)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
@pytest.mark.parametrize("name", TESTED)
def test_cuda_without_a_device_is_one_line(name):
    with pytest.raises(BackendUnavailable, match="on cuda") as error:
        open_session(make(name), "cuda")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("name", ["onnxruntime", "openvino"])
def test_a_library_that_does_not_import_is_unavailable(name, monkeypatch):
    monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(BackendUnavailable, match=f"pip install {name}$") as error:
        open_session(make(name))
    assert error.value.exit_code == 6
    assert "\n" not in str(error.value)


def test_a_large_graph_goes_through_the_cache(monkeypatch, own_cache, opened):
    expected = opened("onnxruntime")(images(1))
    monkeypatch.setattr(ort, "_CACHED_BYTES", 0)
    for _ in range(2):
        assert np.array_equal(open_session(make("onnxruntime"), "cpu", 2)(images(1)), expected)
    assert len(list((own_cache / "graphs").iterdir())) == 1


def test_pytorch_gives_back_the_threads_it_took(opened):
    before = torch.get_num_threads()
    open_session(make("pytorch"), "cpu", before + 1).close()
    assert torch.get_num_threads() == before


def test_default_threads_are_at_least_one_and_at_most_what_the_process_may_use():
    import os

    assert 1 <= backends.default_threads() <= os.cpu_count()


def test_the_fake_counts_sleeps_and_fails_when_told():
    session = fake.FakeSession(make("fake"), fail_at=2, error=lambda: OSError("gone"))
    session(images(3))
    session(images(1))
    assert (session.calls, session.images) == (2, 4)
    with pytest.raises(OSError, match="gone"):
        session(images(1))
    assert session.images == 4
