"""Memory that is free goes back, of threads too."""

import subprocess
import sys

import pytest

from vggbench.measure import heaps

#: On a thread, as decoding: buffers of 20 MB come and go until glibc keeps them on the thread's heap.
PROGRAM = """
import ctypes, threading
import numpy as np, psutil
from vggbench.measure import heaps

resident = lambda: psutil.Process().memory_info().rss / 2**20

def work():
    trimmer, before = heaps.Trimmer(), resident()
    for _ in range(3):
        np.ones(20 << 20, np.uint8)
    used = resident() - before
    ctypes.CDLL(None).malloc_trim(0)
    trimmed = resident() - before
    trimmer.look(20 << 20)
    print(used, trimmed, resident() - before)

thread = threading.Thread(target=work)
thread.start()
thread.join()
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="glibc's heaps")
def test_what_a_large_image_left_on_a_threads_heap_is_given_back():
    ran = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=True)
    used, trimmed, looked = map(float, ran.stdout.split())
    assert min(used, trimmed) > 15, "else glibc gives it back by itself, and the trimmer may go"
    assert looked < 5


@pytest.fixture
def clock(monkeypatch):
    class Clock:
        now = 100.0

        def monotonic(self):
            return self.now

    clock = Clock()
    monkeypatch.setattr(heaps, "time", clock)
    return clock


def test_it_is_done_twice_a_second_and_at_once_after_a_large_image(clock):
    rest = heaps._Rest()
    assert not rest.is_over(0)
    clock.now += heaps.USUALLY[0]
    assert rest.is_over(0)
    rest.taken(lambda: None)
    assert not rest.is_over(heaps.LARGE_BYTES - 1)
    assert rest.is_over(heaps.LARGE_BYTES)
    assert rest.is_over(0), "the large one's memory is still there"
    rest.taken(lambda: None)
    assert not rest.is_over(0)


@pytest.mark.parametrize(("used", "most"), [(0, heaps.USUALLY[1]), (heaps.LARGE_BYTES, heaps.AFTER_LARGE[1])])
@pytest.mark.parametrize("took", [0.001, 0.004, 0.008, 0.05])
def test_where_it_takes_long_it_is_done_less_often(clock, used, most, took):
    rest = heaps._Rest()

    def action():
        clock.now += took

    rest.taken(action)
    least = heaps.AFTER_LARGE[0] if used else heaps.USUALLY[0]
    expected = min(max(least, took / heaps.SHARE), most)
    clock.now += expected * 0.99
    assert not rest.is_over(used)
    clock.now += expected * 0.02
    assert rest.is_over(used)
