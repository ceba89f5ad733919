"""Seconds by events, in a mode: what lies between two events, captures, queries in flight; on a stand-in for CUDA."""

import weakref

from backend_inputs import images
from fake_torch_cuda import Cuda

from vggbench.backends.torch_clock import TorchClock
from vggbench.modes import LIKE, Mode


def clock(mode=None, own_graph="", **fails):
    cuda, info = Cuda(**fails), {}
    found = TorchClock(cuda.run, "cpu", info, own_graph, cuda)
    if mode:
        found.use(mode)
    return found, cuda, info


def test_a_call_lies_between_its_two_events_and_the_mode_is_said():
    found, cuda, info = clock(Mode(wait="block"))
    assert found.time_calls(images(1), 3, False) == [1.0] * 3
    assert info == {"transfers": "excluded", "wait": "blocked until the device interrupts", "in_flight": 1,
                    "clock": "CUDA events around one enqueue", "cuda_graph": "off"}  # fmt: skip
    assert all(event.blocking for event in cuda.events)


def test_two_queries_are_in_flight_like_trtexecs():
    found, cuda, _ = clock(LIKE["trtexec-11"])
    before = images(1)
    found.time_calls(before, 1, False)
    cuda.waits.clear()
    launched = cuda.launched
    assert found.time_calls(before, 4, False) == [0.5] * 4
    assert [count - launched for count in cuda.waits] == [2, 3, 4, 4], "the first is waited for when two are enqueued"


def test_back_to_back_lies_between_two_ends_and_waits_once():
    found, cuda, _ = clock()
    found.time_calls(images(1), 1, True)
    cuda.waits.clear()
    batch = images(1)
    assert found.time_calls(batch, 5, True) == [1.0] * 5
    assert len(cuda.waits) == 1


def test_a_graph_is_captured_once_for_an_input_and_anew_for_another_mode():
    found, _, info = clock(Mode(cuda_graph=True))
    batch = images(2)
    assert found.time_calls(batch, 2, False) == [0.5] * 2
    assert info["cuda_graph"] == "captured"
    found.use(Mode(cuda_graph=False))
    assert found.time_calls(batch, 2, False) == [1.0] * 2
    assert info["cuda_graph"] == "off"


def test_a_capture_that_fails_is_said_and_plain_enqueues_are_timed():
    found, _, info = clock(Mode(cuda_graph=True), capture_fails=True)
    assert found.time_calls(images(1), 2, False) == [1.0] * 2
    assert info["cuda_graph"].startswith("capture failed (operation not permitted")


def test_graphs_of_a_compilers_own_are_said():
    found, _, info = clock(own_graph="inductor's own")
    found.time_calls(images(1), 1, False)
    assert info["cuda_graph"] == "inductor's own"


def test_transfers_lie_within_the_time_where_they_are_asked_for():
    found, _, info = clock(Mode(transfers="both"))
    assert found.time_calls(images(1), 2, False) == [1.0] * 2
    assert info["clock"] == "CUDA events around one enqueue and transfers both"
    assert info["transfers"].startswith("host to device and back")


def test_what_it_keeps_is_freed_when_it_is_told_to_forget():
    found, _, _ = clock(Mode(cuda_graph=True))
    batch = images(2)
    found.time_calls(batch, 1, False)
    kept = [weakref.ref(each) for each in (found._input, found._host, found._launch)]
    found.forget()
    assert [each() for each in kept] == [None] * 3
    assert found.time_calls(batch, 1, False) == [0.5]
