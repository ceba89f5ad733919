"""Conversion of the largest file, E as .caffemodel (575 MB): seconds and peak memory of a fresh process.

Needs 2 GB of disk and memory, so it runs only in nox -s bench (--benchmark-only).
"""

import os
import resource
import subprocess
import sys
import threading
import time
from pathlib import Path

import caffe_files as caffe
import psutil
import pytest

from vgg_reference.weights import digest_of, random_weights, state_dict

#: What is promised of a machine with two quiet cores.
MOST_SECONDS, MOST_BYTES = 20.0, 2.5e9
ROOT = Path(__file__).parents[2]


def converted(path, out):
    """Seconds and peak resident bytes of `vggbench weights convert`, imports and the mapped file included."""
    command = [sys.executable, "-m", "vggbench", "weights", "convert", str(path), "--out", str(out)]
    environment = {**os.environ, "PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'reference'}"}
    peak = [0]
    started = time.perf_counter()
    process = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL)

    def watch():
        seen = psutil.Process(process.pid)
        while process.poll() is None:
            try:
                peak[0] = max(peak[0], seen.memory_info().rss)
            except psutil.Error:
                return
            time.sleep(0.005)

    thread = threading.Thread(target=watch)
    thread.start()
    assert process.wait(timeout=600) == 0
    seconds = time.perf_counter() - started
    thread.join()
    # The kernel's own figure of the largest child misses no peak between two looks.
    return seconds, max(peak[0], resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024)


@pytest.mark.parametrize("version", [1, 2])
def test_the_largest_caffemodel_is_converted_in_time_and_memory(request, benchmark, tmp_path, version):
    if not request.config.getoption("--benchmark-only", False):
        benchmark.disabled = True
        pytest.skip("writes 1.2 GB; run by nox -s bench")
    state = state_dict(random_weights("E", 0))
    path = caffe.write_caffemodel(tmp_path / "e.caffemodel", caffe.as_caffe(state, "E"), version)
    wanted = digest_of(state)
    del state
    assert path.stat().st_size > 574e6
    seconds, most = benchmark.pedantic(lambda: converted(path, tmp_path / "e.safetensors"), rounds=1)
    benchmark.extra_info.update(seconds=seconds, peak_bytes=most, file_bytes=path.stat().st_size)
    print(f"\nV{version}: {path.stat().st_size / 1e6:.0f} MB in {seconds:.1f} s, peak {most / 1e9:.2f} GB")
    from vgg_reference.weights import read_header

    assert read_header(tmp_path / "e.safetensors").digest == wanted
    assert most < MOST_BYTES
    assert seconds < MOST_SECONDS
