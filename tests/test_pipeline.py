"""Views are prepared ahead within a budget of bytes; the decoder is part of what names a pass; memory stays flat."""

import sys
import threading
import time
import tracemalloc

import measuring
import numpy as np
import pytest
from measuring import CENTER, MIXED, WEIGHTS, make_dataset, simplejpeg

from vggbench import backends
from vggbench.errors import BackendUnavailable, UsageError
from vggbench.images import decode as decoding
from vggbench.images.decode import decode, decoder_name
from vggbench.measure import pipeline, stages
from vggbench.measure.accuracy import run_passes
from vggbench.measure.ahead import AHEAD_ITEMS, Ahead
from vggbench.measure.pipeline import default_workers
from vggbench.measure.stages import Stages, limiting, total


@pytest.fixture
def run(tmp_path, monkeypatch):
    monkeypatch.setitem(backends.BACKENDS, "fake", "vggbench.backends.fake")

    def run(dataset, passes=MIXED.passes, cache="cache", **options):
        return run_passes(
            dataset, WEIGHTS, passes, backend="fake", device="cpu", cache_root=tmp_path / cache, **options
        )

    return run


def ahead(prepare, count, workers=2, budget=10**9, size=len):
    return Ahead(prepare, range(count), workers, budget, size, Stages())


@pytest.mark.parametrize("workers", [1, 2, 5])
def test_results_come_in_order_whichever_is_ready_first(workers):
    def prepare(item):
        time.sleep(0.002 * (item % 3))
        return [item]

    assert list(ahead(prepare, 40, workers).results()) == [[item] for item in range(40)]


@pytest.mark.parametrize("budget", [0, 1, 250, 1000])
def test_what_lies_ready_stays_within_the_budget_and_a_result_a_thread(budget):
    work = ahead(lambda item: bytes(100), 200, 3, budget)
    results = work.results()
    for result in results:
        assert len(result) == 100
        time.sleep(0.0002)
    assert work.peak <= budget + 4 * 100


def test_one_result_larger_than_the_budget_does_not_stop_the_rest():
    sizes = [10, 10_000, 10, 10, 50_000, 10]
    assert [len(each) for each in ahead(lambda item: bytes(sizes[item]), 6, 2, 100).results()] == sizes


def test_small_results_do_not_pile_up_without_end():
    begun = []
    work = ahead(lambda item: begun.append(item) or b"", 5000, 2)
    results = work.results()
    next(results)
    time.sleep(0.2)
    assert len(begun) <= AHEAD_ITEMS + 4
    results.close()


def test_who_would_wait_prepares_too():
    names, both = set(), threading.Barrier(2)

    def prepare(item):
        name = threading.current_thread().name
        if name not in names:
            names.add(name)
            both.wait(60)  # the one's first item is not ready before the other has one, too
        return b""

    assert list(ahead(prepare, 50, 1).results()) == [b""] * 50
    assert names == {"prepare", threading.current_thread().name}


def test_an_error_comes_in_its_items_place_and_ends_the_threads():
    def prepare(item):
        if item == 3:
            raise KeyError(item)
        return b""

    results = ahead(prepare, 10).results()
    assert [next(results) for _ in range(3)] == [b""] * 3
    with pytest.raises(KeyError):
        next(results)
    assert not [thread for thread in threading.enumerate() if thread.name == "prepare"]


def test_threads_end_when_the_rest_is_not_wanted():
    results = ahead(lambda item: b"", 10**6).results()
    next(results)
    results.close()
    assert not [thread for thread in threading.enumerate() if thread.name == "prepare"]


def test_each_scale_is_rescaled_once_for_crops_and_dense(run, tmp_path, monkeypatch):
    made = []
    genuine = pipeline.rescale_all
    monkeypatch.setattr(
        pipeline, "rescale_all", lambda image, scales, how: made.extend(scales) or genuine(image, scales, how)
    )
    dataset = make_dataset(tmp_path / "images", 10)
    run(dataset, [measuring.dense(48), CENTER, measuring.Pass("crop", 48, "corners", True)])
    assert sorted(made) == [40] * 10 + [48] * 10


def test_the_time_of_a_run_is_accounted_for(run, tmp_path, monkeypatch):
    genuine = pipeline.make_views

    def slow(*arguments):
        time.sleep(0.005)  # so that it outweighs starting threads and the like, on any machine
        return genuine(*arguments)

    monkeypatch.setattr(pipeline, "make_views", slow)
    dataset = make_dataset(tmp_path / "images", 40)
    found = run(dataset).counts.stages
    assert {"read", "decode", "resize", "upload", "compute", "store", "total", "threads"} <= set(found)
    assert list(found) == [name for name in stages.NAMES if name in found]
    session = sum(found.get(name, 0.0) for name in ("upload", "compute", "store", "wait", "helped"))
    assert 0.5 * found["total"] < session <= 1.01 * found["total"]
    assert run(dataset).counts.stages == {}, "nothing was computed"


@pytest.mark.parametrize(
    ("seconds", "limits"),
    [
        ({"compute": 9.0, "upload": 1.0, "wait": 2.0, "decode": 8.0}, "compute"),
        ({"compute": 1.0, "upload": 3.0, "wait": 2.0}, "upload"),
        ({"compute": 1.0, "wait": 2.0, "decode": 2.0, "resize": 3.0}, "resize"),
        ({"compute": 1.0, "helped": 2.0, "decode": 2.0}, "decode"),
        ({"compute": 1.0, "wait": 2.0, "read": 4.0, "decode": 2.0}, "read"),
        ({}, ""),
    ],
)
def test_what_limits_is_what_the_rest_waits_for(seconds, limits):
    assert limiting(seconds) == limits
    assert not limits or limits in stages.ADVICE


def test_runs_in_turn_had_the_same_threads():
    parts = [{"decode": 1.0, "threads": 1.0}, {"decode": 2.0, "threads": 2.0}, {"decode": 3.0, "threads": 1.0}]
    assert total(parts, in_turn=True) == {"decode": 6.0, "threads": 2.0}


def test_stages_of_processes_add_up():
    assert total([{"compute": 1.0, "wait": 2.0}, {"compute": 3.0}]) == {"compute": 4.0, "wait": 2.0}


def test_half_the_cores_decode_beside_a_cpu_and_all_but_one_beside_a_gpu(monkeypatch):
    monkeypatch.setattr(pipeline, "usable_cores", lambda: 16)
    assert [default_workers("cpu"), default_workers("cuda"), default_workers("cuda", 8)] == [8, 15, 1]
    monkeypatch.setattr(pipeline, "usable_cores", lambda: 1)
    assert [default_workers("cpu"), default_workers("cuda")] == [1, 1]


def memory_after(dataset, run, marks):
    """Bytes that Python and NumPy hold when so many images are done."""
    found = []

    def progress(done, of, what):
        while marks and done >= marks[0]:
            marks.pop(0)
            found.append(tracemalloc.get_traced_memory()[0])

    tracemalloc.start()
    try:
        run(dataset, [CENTER], progress=progress)
    finally:
        tracemalloc.stop()
    return found


def test_memory_is_flat_over_the_second_half_of_a_folder(run, tmp_path, monkeypatch):
    monkeypatch.setattr(pipeline, "AHEAD_BYTES", 1 << 19)
    dataset = make_dataset(tmp_path / "images", 640)
    half, end = memory_after(dataset, run, [320, 640])
    assert end < 1.05 * half + 640 * 4 * measuring.CLASSES + (1 << 19)


def test_the_decoder_is_part_of_what_names_a_pass_and_of_the_record(run, tmp_path, monkeypatch):
    dataset = make_dataset(tmp_path / "images", 8)
    one = run(dataset, [CENTER])
    assert one.decoder == decoder_name()
    monkeypatch.setitem(sys.modules, "simplejpeg", simplejpeg(lambda data, *_, **__: decode(data)))
    other = run(dataset, [CENTER], decoder="simplejpeg")
    assert other.counts.cached == 0, "posteriors of another decoder are not taken"
    assert other.decoder.startswith("simplejpeg 9.9")
    np.testing.assert_array_equal(one.posteriors[CENTER], other.posteriors[CENTER])


def jpeg(tmp_path):
    return make_dataset(tmp_path, 1).images[0].path.read_bytes()


def test_what_simplejpeg_refuses_is_pillows(tmp_path, monkeypatch):
    def refuses(*_, **__):
        raise ValueError("premature end")

    data = jpeg(tmp_path)
    monkeypatch.setitem(sys.modules, "simplejpeg", simplejpeg(refuses))
    np.testing.assert_array_equal(decode(data, decoder="simplejpeg"), decode(data))
    monkeypatch.setitem(sys.modules, "simplejpeg", simplejpeg(None, colours="CMYK"))
    np.testing.assert_array_equal(decode(data, decoder="simplejpeg"), decode(data))
    with pytest.raises(decoding.BadImage):
        decode(data[: len(data) // 3], decoder="simplejpeg")


def test_an_unknown_or_absent_decoder_is_one_line(monkeypatch):
    with pytest.raises(UsageError, match=r"No decoder 'turbo'\. Known: pillow, simplejpeg"):
        decoder_name("turbo")
    monkeypatch.setitem(sys.modules, "simplejpeg", None)
    with pytest.raises(BackendUnavailable, match=r"vggbench\[simplejpeg\]"):
        decoder_name("simplejpeg")


def test_simplejpeg_gives_pillows_pixels(tmp_path):
    pytest.importorskip("simplejpeg", reason="simplejpeg is not installed: pip install 'vggbench[simplejpeg]'")
    random = np.random.default_rng(0)
    data = jpeg(tmp_path)
    for trial in range(60):
        mutated = bytearray(data)
        for _ in range(trial % 4):
            mutated[int(random.integers(2, len(data)))] = int(random.integers(256))
        found = []
        for decoder in decoding.DECODERS:
            try:
                found.append(decode(bytes(mutated), decoder=decoder).tolist())
            except decoding.BadImage as bad:
                found.append(bad.why)
        assert found[0] == found[1]
