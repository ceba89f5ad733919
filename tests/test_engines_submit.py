"""Calls of an engine that are under way together: each gets its own scores, or its own error."""

from __future__ import annotations

import functools

import numpy as np
import pytest
from backend_inputs import images, make, relative
from fake_cuda import cudaError_t
from fake_tensorrt import MAJORS
from pixel_inputs import PIXELS, SMALL, views

from vgg_reference.weights import Preprocess
from vggbench.backends import tensorrt
from vggbench.engines import slots
from vggbench.engines.opening import Settings
from vggbench.engines.profile import Profile
from vggbench.engines.run import SLOTS
from vggbench.errors import BackendUnavailable, UsageError
from vggbench.modes import LIKE
from vggbench.views import to_input

pytestmark = pytest.mark.usefixtures("own_cache")


@pytest.fixture
def opened(engines):
    return functools.partial(engines, "tensorrt", profile=SMALL)


def events(cuda):
    """Two of each slot."""
    return len(cuda.live["event"])


# Several calls under way


@pytest.mark.parametrize("version", MAJORS)
def test_any_number_of_calls_are_under_way_and_each_gets_its_own_scores(version, machine, opened):
    """Of one piece, of several, of a rest; more pieces than slots; read in order, and in the order turned round."""
    _, cuda, _ = machine(version)
    session, plain = opened(sizes=PIXELS), opened()
    given = [views(count, seed=count) for count in (1, 4, 5, 2, 9, 4, 3)]
    expected = [plain(to_input(each, Preprocess())) for each in given]
    before = events(cuda)
    for order in (1, -1):
        waiting = [session.submit(each) for each in given]
        found = [wait() for wait in waiting[::order]][::order]
        assert [relative(one, other) < 1e-5 for one, other in zip(found, expected, strict=True)] == [True] * 7
    assert events(cuda) - before == 2 * SLOTS


def test_images_may_be_changed_once_they_are_handed_over(machine, opened):
    machine()
    session, given = opened(sizes=PIXELS), views(4)
    expected, wait = session(given), session.submit(given)
    given[:] = 0
    assert np.array_equal(wait(), expected)


def test_results_can_be_asked_for_again_and_later_ones_do_not_change_them(machine, opened):
    machine()
    session = opened(sizes=PIXELS)
    first = session.submit(views(4))
    scores = first().copy()
    session(views(4, seed=1))
    assert np.array_equal(first(), scores)


def test_the_next_images_are_on_the_device_before_the_engine_is_waited_for(machine, opened):
    """What overlaps: with three calls begun, nothing was waited for, and uploads wait for no engine."""
    _, cuda, _ = machine()
    session = opened(sizes=PIXELS)
    engine, uploads = sorted(cuda.live["stream"])
    for wait in [session.submit(views(4)) for _ in range(SLOTS)]:  # from now on each slot has its memory
        wait()
    del cuda.calls[:]
    waiting = [session.submit(views(4, seed=number)) for number in range(SLOTS)]
    assert not {"cudaEventSynchronize", "cudaStreamSynchronize"} & set(cuda.calls)
    before = len(cuda.queues[engine])
    assert len(cuda.queues[uploads]) == 2 * SLOTS >= 6, "a copy and its event each"
    cuda.run(uploads)
    assert len(cuda.queues[engine]) == before, "nothing of the engine's had to be done for them"
    assert [wait().shape for wait in waiting] == [(4, 60)] * SLOTS


def test_pieces_of_one_size_set_the_contexts_shape_once(machine, opened, monkeypatch):
    trt, _, _ = machine()
    session, shapes, real = opened(sizes=PIXELS), [], trt.IExecutionContext.set_input_shape
    monkeypatch.setattr(
        trt.IExecutionContext, "set_input_shape", lambda *given: shapes.append(given[2]) or real(*given)
    )
    assert session(views(4 * SLOTS + 1)).shape == (4 * SLOTS + 1, 60)
    assert shapes == [(4, 64, 64, 3), (1, 64, 64, 3)]


def test_calls_one_by_one_share_one_slot_and_a_graph_stays_valid(machine, opened):
    _, cuda, _ = machine()
    session = opened()
    before = events(cuda)
    for _ in range(5):
        session(images(4))
    assert events(cuda) - before == 2
    runner = session._runner
    changes = runner.changes
    session.time_calls(images(4), 3, True)
    session(images(4))
    assert runner.changes == changes


def test_calls_are_timed_while_others_are_under_way(machine, opened):
    machine()
    session = opened(sizes=PIXELS)
    expected = session(views(3))
    wait = session.submit(views(3))
    assert len(session.time_calls(views(2), 4, True)) == 4
    assert relative(wait(), expected) < 1e-6


def test_sizes_change_between_calls_under_way(machine, opened):
    machine()
    profile = Profile((1, 1, 2), (64, 70, 100), (64, 70, 100))
    session, plain = opened(form="dense", profile=profile, sizes=PIXELS), opened(form="dense", profile=profile)
    given = [views(count, *sides) for count, *sides in ((1, 64, 64), (2, 100, 70), (3, 64, 99), (1, 64, 64))]
    waiting = [session.submit(each) for each in given]
    for wait, each in zip(waiting, given, strict=True):
        assert relative(wait(), plain(to_input(each, Preprocess()))) < 1e-5
    with pytest.raises(UsageError, match=r"101x64 are outside the engine's profile: height 64 to 100"):
        session.submit(views(1, 101, 64))


# Errors


def test_an_engine_that_fails_in_the_middle_leaves_the_calls_before_it_alone(machine, opened):
    _, _, faults = machine()
    session = opened(sizes=PIXELS)
    expected = [session(views(2, seed=number)) for number in range(4)]
    first = session.submit(views(2))
    faults.enqueue = True
    for count in (1, 9):  # the next use of the slot takes more memory, and frees what the first was copied to
        with pytest.raises(BackendUnavailable, match="could not run the engine: enqueueV3 failed"):
            session.submit(views(count, seed=1))
    faults.enqueue = False
    rest = [session.submit(views(2, seed=number)) for number in (2, 3)]
    for wait, number in zip([first, *rest], (0, 2, 3), strict=True):
        assert relative(wait(), expected[number]) < 1e-6


def test_a_result_that_cannot_be_read_is_the_error_of_its_own_call(machine, opened, monkeypatch):
    machine()
    session = opened(sizes=PIXELS)
    expected = session(views(2))
    real, wrong = slots.read, [BackendUnavailable("CUDA's cudaEventSynchronize failed")]
    waiting = [session.submit(views(2)) for _ in range(SLOTS)]
    monkeypatch.setattr(slots, "read", lambda *given: (_ for _ in ()).throw(wrong.pop()) if wrong else real(*given))
    waiting.append(session.submit(views(2)))  # reads the first, for which there is no room any more
    found = [wait() for wait in waiting[1:]]
    assert [relative(one, expected) < 1e-6 for one in found] == [True] * SLOTS
    for _ in range(2):
        with pytest.raises(BackendUnavailable, match="cudaEventSynchronize"):
            waiting[0]()


def test_an_interrupt_is_not_kept_for_another_call(machine, opened, monkeypatch):
    machine()
    session = opened(sizes=PIXELS)

    def interrupted(*given):
        raise KeyboardInterrupt

    wait = session.submit(views(2))
    with monkeypatch.context() as patch:
        patch.setattr(slots, "read", interrupted)
        with pytest.raises(KeyboardInterrupt):
            wait()
    assert session(views(3)).shape == (3, 60)


@pytest.mark.parametrize("name", ["cudaStreamWaitEvent", "cudaMemcpyAsync", "cudaEventRecord", "cudaMallocHost"])
def test_an_error_of_cudas_while_calls_are_under_way_is_one_line(name, machine, opened):
    _, cuda, _ = machine()
    session = opened(sizes=PIXELS)
    expected, wait = session(views(2)), session.submit(views(2))
    cuda.fail[name] = cudaError_t.cudaErrorInvalidValue
    with pytest.raises(BackendUnavailable, match=rf"^CUDA's {name} failed \(cudaErrorInvalidValue\)"):
        session.submit(views(4))
    cuda.fail.clear()
    assert relative(wait(), expected) < 1e-6
    assert relative(session(views(2)), expected) < 1e-6


def test_closed_with_calls_under_way_everything_is_freed_and_they_say_so(machine):
    _, cuda, _ = machine()
    session = tensorrt.open_session(make("tensorrt", sizes=PIXELS), "cuda", 1, Settings(profile=SMALL))
    read, *waiting = [session.submit(views(3)) for _ in range(SLOTS + 2)]
    scores = read()
    for _ in range(2):
        session.close()
    assert not any(cuda.live.values())
    with pytest.raises(ValueError, match="closed while the call was under way"):
        waiting[-1]()
    assert np.array_equal(read(), scores)
    with pytest.raises(ValueError, match="This session is closed"):
        session.submit(views(1))


def test_a_stream_that_cannot_be_made_frees_the_other(machine):
    _, cuda, _ = machine()
    made = cuda.cudaStreamCreateWithFlags

    def once(flags):
        if cuda.live["stream"]:
            return cudaError_t.cudaErrorInvalidValue, None
        return made(flags)

    cuda.cudaStreamCreateWithFlags = once
    with pytest.raises(BackendUnavailable, match="cudaStreamCreateWithFlags"):
        tensorrt.open_session(make("tensorrt"), "cuda", 1, Settings(profile=SMALL))


# The same images again and again


def test_an_input_is_put_on_the_gpu_once_for_all_looks_at_its_times(machine, opened):
    """A GPU that rests while the host copies the same images again cools, and is then faster than its peers were."""
    _, cuda, _ = machine()
    session, batch = opened(), images(2)

    def copies(*timed):
        before = cuda.calls.count("cudaMemcpyAsync")
        session.time_calls(*timed)
        return cuda.calls.count("cudaMemcpyAsync") - before

    assert [copies(batch, calls, back) for calls, back in ((1, False), (5, False), (5, True))] == [2, 0, 0]
    session(batch)
    assert copies(batch, 1, False) == 2, "what ran in between may have left other images there"
    assert copies(images(2, seed=1), 1, False) == 2
    session.use(LIKE["trtexec-11"])
    assert copies(batch, 1, False) == 2
    session._runner.reshape((3, 3, 64, 64))
    assert copies(batch, 1, False) == 2
    assert session.info["cuda_graph"] == "captured"
