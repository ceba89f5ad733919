"""Want of memory: one line with what was being done and status 6, whichever library's class it comes in."""

from __future__ import annotations

import cli_runs
import numpy as np
import pytest
from cli_runs import assert_one_line
from latency_workers import fail_for_memory

from vgg_reference.weights import random_weights
from vggbench import runs, runs_fresh
from vggbench.backends.fake import FakeSession
from vggbench.errors import DataError, OutOfMemory, is_out_of_memory
from vggbench.runs_timing import Task, time_session
from vggbench.variants import Variant

#: As they were seen, but for CUDA's.
SAID = [
    RuntimeError(
        "[enforce fail at alloc_cpu.cpp:127] err == 0. DefaultCPUAllocator: can't allocate memory: you tried to "
        "allocate 19267584000 bytes. Error code 12 (Cannot allocate memory)"
    ),
    Exception(
        "[ONNXRuntimeError] : 1 : FAIL : Non-zero status code returned while running Conv node. Failed to allocate "
        "memory for requested buffer of size 19267584000"
    ),
    RuntimeError("Exception from src/inference/src/cpp/infer_request.cpp:223:\nFailed to allocate 19267584000 bytes"),
    RuntimeError("CUDA out of memory. Tried to allocate 20.00 MiB"),
    RuntimeError("std::bad_alloc"),
    OSError(12, "Cannot allocate memory"),
    MemoryError(),
]


@pytest.mark.parametrize("error", SAID, ids=lambda error: str(error)[:30] or "MemoryError")
def test_a_command_that_finds_no_memory_is_one_line_and_status_6(error, monkeypatch):
    def full(**_: object) -> None:
        raise error

    monkeypatch.setattr(runs, "evaluate", full)
    assert_one_line(cli_runs.run("evaluate"), 6, "Out of memory: ", "--batch")


def test_other_errors_are_not_taken_for_want_of_memory():
    assert not is_out_of_memory(RuntimeError("mat1 and mat2 shapes cannot be multiplied"))
    assert not is_out_of_memory(DataError("out of memory.jpg: no such file"))


@pytest.mark.parametrize("error", SAID[:3])
def test_a_timing_that_finds_no_memory_names_precision_backend_batch_and_size(error):
    weights = random_weights("A", 0, width=0.02, num_classes=3, crop_size=32)
    variant = Variant(weights, "crop", "fake")
    session = FakeSession(variant, fail_at=1, error=lambda *_: error)
    with pytest.raises(OutOfMemory, match=r"fp32 on fake, batch 7 of 32 x 32 pixels \(.*19267584000") as raised:
        time_session(session, Task(variant, (7,), (32, 32), "cpu"), 0.1)
    assert "\n" not in str(raised.value)


def test_a_fresh_process_says_it_of_a_librarys_error_too():
    with pytest.raises(runs_fresh.WorkerDied, match=r"^out of memory$"):
        runs_fresh.in_fresh_process(fail_for_memory)


def test_an_evaluation_that_finds_no_memory_names_network_and_scale(tmp_path, photos, monkeypatch):
    monkeypatch.setenv("VGGBENCH_CACHE", str(tmp_path))
    from vggbench.backends import pytorch

    def full(self: object, images: np.ndarray) -> np.ndarray:
        raise SAID[0]

    opened = pytorch.open_session

    def open_session(*given: object):
        session = opened(*given)
        monkeypatch.setattr(type(session), "__call__", full)
        return session

    monkeypatch.setattr(pytorch, "open_session", open_session)
    assert_one_line(cli_runs.evaluate(photos), 6, "Out of memory: A in fp32 on pytorch, images at scale 32 (can't")
