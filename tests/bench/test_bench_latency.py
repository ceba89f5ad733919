"""What timing itself costs, and VGG-16's precisions beside the machine's peak:

python -m pytest tests/bench/test_bench_latency.py --benchmark-only -s

The bounds hold on a machine with nothing else to do. The last test takes some minutes; it is what this prints:
vggbench latency --network D --backend onnxruntime,auto --precision fp32,bf16,int8 --batch 8,32 --peak
"""

import math
import time

import pytest

from vgg_reference.weights import random_weights
from vggbench import backends, cli_latency, runs_latency, samples
from vggbench.backends.fake import FakeSession
from vggbench.measure.latency import measure_latency, random_input
from vggbench.runs_latency_rows import rows_of
from vggbench.variants import Variant

SMALL = random_weights("A", 0, width=1 / 64, hidden_width=1 / 256, num_classes=7, crop_size=32)
CALLS, REPEATS = 2000, 15
HARNESS_SECONDS, DIFFERENCE = 50e-6, 0.03


@pytest.fixture(autouse=True)
def _on_demand(request):
    if not request.config.getoption("--benchmark-only", False):
        pytest.skip("a benchmark; run it with: nox -s bench")


def plain_loop(session, images, calls):
    """What anybody would write: seconds of each call."""
    taken = []
    for _ in range(calls):
        before = time.perf_counter()
        session(images)
        taken.append(time.perf_counter() - before)
    return taken


def bare_seconds(session, images, calls):
    started = time.perf_counter()
    for _ in range(calls):
        session(images)
    return time.perf_counter() - started


def harness_seconds(session, calls):
    """Of measure_latency from its first call to its last judgement; making the input is no part of a call."""
    started = time.perf_counter()
    measured = measure_latency(session, 1, (32, 32), 0.0, calls, 0.0)
    return time.perf_counter() - started - INPUT_SECONDS, len(measured.values) + len(measured.warmups)


def seconds_of(work):
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


INPUT_SECONDS = min(seconds_of(lambda: random_input(1, (32, 32))) for _ in range(5))


def test_the_harness_adds_less_than_50_microseconds_a_call(benchmark):
    session = FakeSession(Variant(SMALL, "crop", "fake"))
    images = random_input(1, (32, 32))
    bare_seconds(session, images, CALLS)
    bare, ours = [], []
    for _ in range(REPEATS):  # in turn, so that other work on the machine meets both
        bare.append(bare_seconds(session, images, CALLS) / CALLS)
        seconds, calls = harness_seconds(session, CALLS)
        ours.append(seconds / calls)
    added = min(ours) - min(bare)
    typical = samples.median([mine - plain for mine, plain in zip(ours, bare, strict=True)])
    print(f"\nThe harness adds {1e6 * added:.2f} us a call (median of pairs {1e6 * typical:.2f} us)")
    benchmark.extra_info["added_microseconds"] = 1e6 * added
    benchmark.pedantic(bare_seconds, (session, images, CALLS), rounds=1)
    assert added < HARNESS_SECONDS


@pytest.mark.parametrize("backend", [name for name in backends.BACKENDS if name != "torch-compile"])
@pytest.mark.parametrize("batch", [1, 8])
def test_medians_are_those_of_a_plain_loop_on_the_same_session(benchmark, backend, batch):
    missing = backends.module(backend).available()
    if missing is not None:
        pytest.skip(missing)
    weights = random_weights("A", 0, width=1 / 4, hidden_width=1 / 4, num_classes=100, crop_size=128)
    session = backends.open_session(Variant(weights, "crop", backend), "cpu", None)
    images = random_input(batch, (128, 128))
    try:
        plain_loop(session, images, 20)
        ours: list[float] = []
        plain: list[float] = []
        for _ in range(20):  # short and in turn: the machine's own drift is in both
            measured = measure_latency(session, batch, (128, 128), 0.2, max_seconds=0.2, warmup_seconds=0.0)
            ours += [float(value) for value in measured.values]
            plain += plain_loop(session, images, len(measured.values))
        benchmark.pedantic(session, (images,), rounds=1)
    finally:
        session.close()
    ratio = samples.median(ours) / samples.median(plain)
    print(f"\n{backend} batch {batch}: median over that of a plain loop {ratio:.4f}, {len(ours)} calls each")
    benchmark.extra_info["ratio"] = ratio
    assert abs(math.log(ratio)) < DIFFERENCE


def test_vgg16_in_one_run_precisions_beside_the_peak(benchmark):
    """INT8 at least 3.5 x FP32, both on ONNX Runtime; at least 90, 93 and 90 % of the INT8, FP32 and BF16 peak."""
    request = runs_latency.Request(
        precisions=("fp32", "bf16", "int8"), backends=("onnxruntime", "auto"), batches=(8, 32)
    )
    timing = benchmark.pedantic(runs_latency.latency, (request,), rounds=1)
    rows = rows_of(timing.records)
    print()
    for line in [*cli_latency._table(rows), *timing.died, *timing.notes]:
        print(line)
    rates = {(row["precision"], row["backend"], row["batch"]): row["images_per_second"] for row in rows}
    best = {
        precision: max(row["share_of_peak"] or 0.0 for row in rows if row["precision"] == precision)
        for precision in {row["precision"] for row in rows}
    }
    for batch in request.batches:
        ratio = rates["int8", "onnxruntime", batch] / rates["fp32", "onnxruntime", batch]
        print(f"batch {batch}: INT8 is {ratio:.2f} x FP32 on ONNX Runtime (promised: 3.5)")
    for precision, promised in (("int8", 0.90), ("fp32", 0.93), ("bf16", 0.90)):
        if precision in best:
            print(f"{precision}: {100 * best[precision]:.0f} % of its peak at best (promised: {100 * promised:.0f} %)")
    benchmark.extra_info["rows"] = rows
