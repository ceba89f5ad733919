"""The page's speeds and peaks, from latency and peak records alone."""

from __future__ import annotations

import pytest
from page_fixtures import MACHINE, sample_records

from vggbench.report import context_from, render
from vggbench.report.speed import peak_rows, speed_rows
from vggbench.results import Peak, Record, Samples, Workload
from vggbench.shares import macs_per_image


def latency(precision: str, seconds: list[float], backend: str = "onnxruntime", process: int = 1) -> Record:
    run = sample_records(seeds=(0,))[0].networks[0]
    session = {"threads": 2, "device": "cpu", "form": "crop"}
    return Record(
        kind="latency",
        networks=[run.model_copy(update={"precision": precision, "backend": backend, "session": session})],
        workload=Workload(batch=8, size=[64, 64], scenario="latency"),
        samples=Samples(unit="seconds", values=seconds),
        environment=MACHINE,
        process=process,
    )


def peak(precision: str, operations: int, seconds: float, threads: int = 2) -> Record:
    return Record(
        kind="peak",
        networks=[],
        workload=Workload(),
        samples=Samples(unit="seconds", values=[seconds] * 3),
        environment=MACHINE,
        process=1,
        conditions={"device": "cpu"},
        peak=Peak(precision=precision, library="some 1.0", threads=threads, m=1, n=1, k=1, operations=operations),
    )


def test_ratio_and_share_are_what_their_names_say():
    records = [latency("fp32", [0.2, 0.2, 0.3]), latency("int8", [0.05]), peak("int8", 10**9, 0.01)]
    names, (row,) = speed_rows(records, "fp32")
    assert names == ["fp32", "int8"]
    assert row.speeds["fp32"].images_per_second == pytest.approx(8 / 0.2)
    assert row.speeds["int8"].ratio == pytest.approx(4)
    expected = 160 * 2 * macs_per_image(records[1]) / 10**11
    assert row.speeds["int8"].share == pytest.approx(expected)
    assert row.speeds["fp32"].share is None


def test_processes_are_reduced_by_their_median_and_the_fastest_backend_is_shown():
    records = [latency("fp32", [s], process=n) for n, s in enumerate((0.2, 0.1, 0.4), 1)]
    records += [latency("fp32", [0.3], backend="pytorch")]
    _, (row,) = speed_rows(records, "fp32")
    assert row.speeds["fp32"].images_per_second == pytest.approx(8 / 0.2)
    assert (row.speeds["fp32"].processes, row.speeds["fp32"].backend) == (3, "onnxruntime")


def test_a_speed_whose_calls_vary_says_so():
    still, restless = latency("fp32", [0.2, 0.2, 0.2]), latency("int8", [0.05, 0.05, 0.5])
    _, (row,) = speed_rows([still, restless], "fp32")
    assert [row.speeds[name].unstable for name in ("fp32", "int8")] == [False, True]
    html = render([still, restless], [], context_from([still, restless]))
    assert html.count("calls vary by") == 1
    assert f"calls vary by {100 * row.speeds['int8'].variation:.0f} %" in html


def test_the_best_peak_of_each_precision_and_thread_count_is_shown():
    rows = peak_rows([peak("fp32", 10**9, 0.02), peak("fp32", 10**9, 0.01), peak("fp32", 10**9, 0.04, threads=1)])
    assert [(row.threads, row.giga_operations_per_second) for row in rows] == [(2, 100), (1, 25)]


def test_a_page_of_timings_alone_renders():
    records = [latency("fp32", [0.2]), latency("int8", [0.05]), peak("fp32", 10**9, 0.01)]
    html = render(records, [], context_from(records))
    assert "4.00 x" in html
    assert "no peak" in html
