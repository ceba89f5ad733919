"""The machine's own peak: what is tried, what is kept, and which records may stand beside it."""

import time
from types import SimpleNamespace

import measuring
import numpy as np
import onnxruntime
import pytest

from vgg_reference.architectures import architecture, count_macs, dense_macs
from vggbench import runs_peak
from vggbench.backends.fake import FakeSession
from vggbench.errors import BackendUnavailable, UsageError
from vggbench.measure import conditions, peak, products
from vggbench.measure.records import latency_record
from vggbench.results import Record, Samples
from vggbench.shares import macs_per_image, share
from vggbench.variants import Variant

HERE = {"cpu": "x", "cores": 2, "logical_cpus": 4}
SHAPE = (48, 64, 32)


@pytest.fixture
def taking(monkeypatch):
    """Makes products that take so many seconds, by the only clock there is."""
    now = [0.0]
    monkeypatch.setattr(peak, "time", SimpleNamespace(perf_counter=lambda: now[0]))

    def taking(seconds):
        def call():
            now[0] += seconds

        return lambda shape, threads: call

    return taking


def refusing(shape, threads):
    raise RuntimeError("no such type\nand more")


def test_the_fastest_product_is_kept_and_all_that_were_tried_are_named(taking):
    makers = {"slow one": taking(0.02), "fast one": taking(0.001), "absent one": refusing}
    found = peak.best_product("fp32", 2, makers=makers, shapes=((8, 8, 8), (64, 64, 64)))
    assert (found.library, found.shape) == ("fast one", (64, 64, 64))
    assert len(found.tried) == 6
    assert found.tried["absent one, 8 x 8 x 8"] == "does not run: RuntimeError: no such type"
    assert found.tried["slow one, 64 x 64 x 64"] == pytest.approx(2 * 64**3 / 0.02)
    assert found.tried["fast one, 64 x 64 x 64"] == pytest.approx(2 * 64**3 / 0.001)


def test_candidates_have_their_turns_in_rounds_and_the_fastest_call_decides(monkeypatch):
    monkeypatch.setattr(peak, "TRIAL_SECONDS", 0.0)
    told, clock = [], [0.0]
    monkeypatch.setattr(peak.time, "perf_counter", lambda: clock[0])

    def maker(name, seconds):
        durations = iter(seconds)

        def call():
            told.append(name)
            clock[0] += next(durations)

        return lambda shape, threads: call

    makers = {"steady": maker("steady", [9.0, 2.0, 2.0, 2.0]), "restless": maker("restless", [9.0, 5.0, 1.0, 5.0])}
    found = peak.best_product("fp32", 1, makers=makers, shapes=((8, 8, 8),))
    assert told == ["steady", "restless"] * 4, "a warm-up each, then three rounds"
    assert found.library == "restless"
    assert found.tried == {"steady, 8 x 8 x 8": 2 * 8**3 / 2.0, "restless, 8 x 8 x 8": 2 * 8**3 / 1.0}


def test_where_nothing_runs_the_reasons_are_given():
    with pytest.raises(BackendUnavailable, match=r"No matrix product in bf16 runs on cpu: absent one, .*no such type"):
        peak.best_product("bf16", 2, makers={"absent one": refusing}, shapes=(SHAPE,))
    with pytest.raises(UsageError, match=r"No matrix product in 'tf32' on cpu\. Known: fp32, bf16, fp16, int8"):
        peak.best_product("tf32", 2)


@pytest.fixture
def small(monkeypatch):
    """A search that is over at once."""
    monkeypatch.setattr(peak, "CPU_SHAPES", (SHAPE,))
    monkeypatch.setattr(peak, "TRIAL_SECONDS", 0.0)
    monkeypatch.setitem(peak.ON_CPU, "fp32", {"onnxruntime MatMul": products.onnxruntime_product("MatMul")})


def test_a_peak_record_has_raw_seconds_and_names_its_library(small):
    (record,) = runs_peak.time_peak("fp32", 1, 0.05, "cpu", HERE, 3)
    assert (record.kind, record.process, record.networks) == ("peak", 3, [])
    assert record.samples.unit == "seconds"
    assert len(record.samples.values) >= 5
    assert sum(record.samples.values) <= record.elapsed_seconds
    assert record.peak.library == f"onnxruntime {onnxruntime.__version__} MatMul"
    assert (record.peak.m, record.peak.k, record.peak.n, record.peak.threads) == (*SHAPE, 1)
    assert record.peak.operations == 2 * 48 * 64 * 32
    assert record.conditions["device"] == "cpu"
    assert record.conditions["tried onnxruntime MatMul, 48 x 64 x 32"] > 0
    assert "own_cores" in record.conditions
    assert Record.model_validate_json(record.model_dump_json()) == record


def test_a_later_round_times_the_product_that_was_found_without_a_search(small):
    (first,) = runs_peak.time_peak("fp32", 1, 0.0, "cpu", HERE, 1)
    (second,) = runs_peak.time_peak("fp32", 1, 0.0, "cpu", HERE, 2, [first])
    assert second.peak == first.peak
    assert not any(name.startswith("tried") for name in second.conditions)


def test_at_least_five_products_and_as_long_as_asked(taking):
    product = taking(0.25)(SHAPE, 1)
    assert peak._time(product, 0.0, 5) == ([0.25], [0.25] * 5)
    assert peak._time(product, 2.0, 5) == ([0.25], [0.25] * 8)


def test_a_gpus_products_follow_each_other_and_are_timed_by_its_own_clock(monkeypatch):
    """Launching and waiting is the host's: each product alone would count it."""
    now = [0.0]

    class Event:
        def __init__(self, enable_timing):
            assert enable_timing

        def record(self):
            self.at = now[0]

        def synchronize(self):
            pass

        def elapsed_time(self, other):
            return 1000 * (other.at - self.at)

    def product():
        now[0] += 0.25

    monkeypatch.setattr("torch.cuda.Event", Event)
    call = products._waiting(product, "cuda:0")
    assert call() == 0.25
    assert now[0] == 0.25 * products.IN_A_ROW
    assert peak._time(call, 0.0, 3) == ([0.25], [0.25] * 3)
    monkeypatch.setattr(runs_peak, "has_cuda", lambda: True)
    now_look = conditions.look("cpu")
    monkeypatch.setattr(conditions, "look", lambda device: now_look)
    monkeypatch.setattr(peak, "CUDA_SHAPES", (SHAPE,))
    monkeypatch.setattr(peak, "TRIAL_SECONDS", 0.0)
    monkeypatch.setitem(peak.ON_CUDA, "fp16", {"torch mm": lambda shape, threads: call})
    (record,) = runs_peak.time_peak("fp16", 1, 0.0, "auto", HERE, 1)
    assert record.samples.values == [0.25] * 5
    assert record.conditions["clock"].startswith("CUDA events around 10 products in a row")


@pytest.mark.parametrize("operator", ["MatMul", "MatMulInteger", "QLinearMatMul", "QDQ"])
def test_the_graphs_multiply(operator):
    graph, left, out = products._graph(operator, SHAPE)
    (y,) = onnxruntime.InferenceSession(graph, providers=["CPUExecutionProvider"]).run(None, {"a": left})
    random = np.random.default_rng(0)
    if operator == "MatMul":
        exact = random.normal(size=SHAPE[:2]).astype(np.float32) @ random.normal(size=SHAPE[1:]).astype(np.float32)
    else:
        exact = random.integers(0, 256, SHAPE[:2], np.uint8).astype(int) @ random.integers(
            -127, 128, SHAPE[1:], np.int8
        )
    wanted = np.clip(exact * 1e-4 / 10, 0, 255) if operator in ("QLinearMatMul", "QDQ") else exact
    assert (y.shape, y.dtype) == (out.shape, out.dtype)
    np.testing.assert_allclose(y, wanted, atol=0.51 if y.dtype == np.uint8 else 1e-3)


@pytest.mark.parametrize(
    ("precision", "library"), [(p, library) for p, makers in products.ON_CPU.items() for library in makers]
)
def test_a_candidate_runs_wherever_its_library_is_but_for_types_that_a_cpu_lacks(precision, library):
    makers = {library: products.ON_CPU[precision][library], "other": lambda shape, threads: lambda: time.sleep(0.001)}
    tried = peak.best_product(precision, 1, makers=makers, shapes=(SHAPE,)).tried[f"{library}, 48 x 64 x 32"]
    if isinstance(tried, str):
        absent = "ImportError" in tried or "ModuleNotFoundError" in tried
        assert absent if library.startswith("openvino") else "onnxruntime" not in library and library != "torch mm"
    else:
        assert tried > 0


def test_the_products_that_every_installation_has_run():
    for precision, library in (
        ("fp32", "torch mm"),
        ("fp32", "onnxruntime MatMul"),
        ("bf16", "torch mm"),
        ("int8", "onnxruntime MatMulInteger"),
        ("int8", "onnxruntime QLinearMatMul"),
    ):
        products.ON_CPU[precision][library](SHAPE, 1)()


@pytest.fixture(autouse=True)
def _threads_as_before():
    import torch

    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


# Shares


def peak_of(precision="fp32", threads=2, seconds=0.001, environment=HERE, process=1, device="cpu"):
    found = peak.Found(precision, "torch mm", (100, 100, 100), {})
    samples = Samples(unit="seconds", values=[seconds, seconds, 9.0])
    return peak.peak_record(found, samples, threads, device, environment=environment, process=process)


def timed(seconds=0.01, batch=4, size=(32, 32), form="crop", process=1, scenario="latency", **info):
    variant = Variant(measuring.WEIGHTS, form, "fake")
    session = FakeSession(variant, threads=2)
    session.info |= info
    return latency_record(
        session,
        variant,
        Samples(unit="seconds", values=[seconds] * 3 + [7 * seconds]),
        batch,
        size,
        environment=HERE,
        process=process,
        scenario=scenario,
    )


def test_the_share_is_operations_a_second_over_the_peaks():
    weights = measuring.WEIGHTS
    macs = count_macs(architecture(weights.network), **weights.size)
    assert macs_per_image(timed()) == macs
    assert share(timed(), [peak_of()]) == pytest.approx((4 / 0.01) * 2 * macs / (2e6 / 0.001))
    assert share(timed(scenario="throughput"), [peak_of()]) == pytest.approx(16 / 0.1 * 2 * macs / 2e9)


def test_a_dense_networks_operations_are_those_of_its_size():
    weights = measuring.WEIGHTS
    dense = timed(size=(40, 52), form="dense")
    assert macs_per_image(dense) == dense_macs(architecture(weights.network), 40, 52, True, **weights.size)


def test_a_share_is_of_the_same_precision_threads_device_and_machine_only():
    assert share(timed(), [peak_of()]) is not None
    assert share(timed(), []) is None
    assert share(timed(), [peak_of("int8")]) is None
    assert share(timed(), [peak_of(threads=1)]) is None
    assert share(timed(), [peak_of(device="cuda:0")]) is None
    assert share(timed(), [peak_of(environment={**HERE, "cpu": "y"})]) is None
    assert share(timed(), [peak_of(environment={**HERE, "cores": 1})]) is None


def test_the_arithmetic_that_ran_decides_which_peak_it_is():
    stored = timed(arithmetic="fp32 on weights stored as fp16")
    assert share(stored, [peak_of("fp16")]) is None
    assert share(stored, [peak_of("fp32")]) is not None
    assert share(timed(arithmetic="int8 products, int32 sums"), [peak_of("int8")]) is not None


def test_the_peak_of_the_same_round_counts():
    peaks = [peak_of(process=1, seconds=0.001), peak_of(process=2, seconds=0.002)]
    assert share(timed(process=2), peaks) == pytest.approx(2 * share(timed(process=1), peaks))
    assert share(timed(process=3), peaks) == pytest.approx(share(timed(process=1), peaks)), "else the best"
