"""trtexec: its options for a mode, and what it prints in several versions, written after its sources' format."""

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from vggbench import cache, environment, modes, runs_trtexec
from vggbench.cli import app
from vggbench.errors import BackendUnavailable
from vggbench.measure import trtexec
from vggbench.modes import LIKE, Mode
from vggbench.results import NetworkRun, Record, Samples, Workload

_HELP = "&&&& RUNNING TensorRT.trtexec [TensorRT v{}] # trtexec --help\n--iterations=N --duration=N --warmUp=N {}\n"
HELP_10 = _HELP.format("100700", "--useCudaGraph --useSpinWait --noDataTransfers --exposeDMA")
HELP_11 = _HELP.format(
    "110000", "--useCudaGraph --noCudaGraph --useSpinWait --noSpinWait --noDataTransfers --useDataTransfers"
)


def printed(
    version="100700", graph="Disabled", transfers="Enabled", spin="Disabled", stamp="[01/02/2026-03:04:05] [I] "
):
    lines = [
        "=== Inference Options ===",
        "Batch: Explicit",
        "Iterations: 10",
        "Duration: 3s (+ 200ms warm up)",
        f"Data transfers: {transfers}",
        f"Spin-wait: {spin}",
        f"CUDA Graph: {graph}",
        "=== Performance summary ===",
        "Throughput: 607.405 qps",
        "Latency: min = 1.6 ms, max = 2.9 ms, mean = 1.7 ms, median = 1.68 ms, percentile(90%) = 1.71 ms, "
        "percentile(95%) = 1.72 ms, percentile(99%) = 1.9 ms",
        "Enqueue Time: min = 0.1 ms, max = 0.3 ms, mean = 0.15 ms, median = 0.14 ms, percentile(90%) = 0.2 ms",
        "H2D Latency: min = 0.05 ms, max = 0.09 ms, mean = 0.06 ms, median = 0.06 ms, percentile(90%) = 0.07 ms",
        "GPU Compute Time: min = 1.5 ms, max = 2.7 ms, mean = 1.61 ms, median = 1.6 ms, percentile(90%) = 1.63 ms, "
        "percentile(95%) = 1.64 ms, percentile(99%) = 1.8 ms",
        "Total Host Walltime: 3.00459 s",
        "Total GPU Compute Time: 2.94 s",
    ]
    head = f"&&&& RUNNING TensorRT.trtexec [TensorRT v{version}] # trtexec --loadEngine=x\n"
    return (
        head + "".join(f"{stamp}{line}\n" for line in lines) + f"&&&& PASSED TensorRT.trtexec [TensorRT v{version}]\n"
    )


SEVEN = """&&&& RUNNING TensorRT.trtexec # trtexec [TensorRT v7201]
[02/16/2021-18:15:54] [I] Spin-wait: Disabled
[02/16/2021-18:15:54] [I] Host Latency
[02/16/2021-18:15:54] [I] min: 4.19 ms (end to end 8.16 ms)
[02/16/2021-18:15:54] [I] max: 5.1 ms (end to end 9.9 ms)
[02/16/2021-18:15:54] [I] mean: 4.3 ms (end to end 8.3 ms)
[02/16/2021-18:15:54] [I] median: 4.25 ms (end to end 8.2 ms)
[02/16/2021-18:15:54] [I] percentile: 4.9 ms at 99% (end to end 9.1 ms at 99%)
[02/16/2021-18:15:54] [I] throughput: 236.1 qps
[02/16/2021-18:15:54] [I] walltime: 3.01 s
[02/16/2021-18:15:54] [I] Enqueue Time
[02/16/2021-18:15:54] [I] min: 0.3 ms
[02/16/2021-18:15:54] [I] median: 0.35 ms
[02/16/2021-18:15:54] [I] GPU Compute
[02/16/2021-18:15:54] [I] min: 4.1 ms
[02/16/2021-18:15:54] [I] max: 5 ms
[02/16/2021-18:15:54] [I] mean: 4.2 ms
[02/16/2021-18:15:54] [I] median: 4.15 ms
[02/16/2021-18:15:54] [I] percentile: 4.8 ms at 99%
[02/16/2021-18:15:54] [I] total compute time: 3 s
"""


@pytest.mark.parametrize(
    ("version", "expected"),
    [("8601", (8, 6, 1)), ("100700", (10, 7, 0)), ("101600", (10, 16, 0)), ("110000", (11, 0, 0))],
)
def test_the_summary_is_read_in_seconds_whatever_the_version(version, expected):
    found = trtexec.parse(printed(version))
    assert found.version == expected
    assert found.queries_per_second == 607.405
    assert found.compute == pytest.approx({"min": 1.5e-3, "max": 2.7e-3, "mean": 1.61e-3, "median": 1.6e-3,
                                           "p90": 1.63e-3, "p95": 1.64e-3, "p99": 1.8e-3})  # fmt: skip
    assert found.latency["median"] == pytest.approx(1.68e-3)
    assert found.enqueue["median"] == pytest.approx(0.14e-3)
    assert (found.cuda_graph, found.transfers, found.spin) == (False, True, False)
    assert trtexec.parse(printed(version, stamp="[I] ".join(["[01/02/2026-03:04:05] ", ""]))).compute == found.compute


def test_before_8_a_value_stood_on_a_line():
    found = trtexec.parse(SEVEN)
    assert found.version == (7, 2, 1)
    assert found.compute["median"] == pytest.approx(4.15e-3)
    assert found.compute["p99"] == pytest.approx(4.8e-3)
    assert found.latency["median"] == pytest.approx(4.25e-3)
    assert (found.cuda_graph, found.spin) == (None, False)


def test_a_call_with_transfers_stands_beside_latency_and_one_without_beside_compute():
    found = trtexec.parse(printed())
    assert found.median_seconds(LIKE["trtexec-10"]) == pytest.approx(1.68e-3)
    assert found.median_seconds(LIKE["trtexec-11"]) == pytest.approx(1.6e-3)


@pytest.mark.parametrize("text", ["", "no such thing", _HELP.format("100700", ""), printed().replace("qps", "fps")])
def test_an_output_that_is_not_understood_is_one_line(text):
    with pytest.raises(BackendUnavailable) as error:
        trtexec.parse(text)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("help_text", "like", "flags"),
    [
        (HELP_10, "trtexec-10", {"--exposeDMA"}),
        (HELP_10, "trtexec-11", {"--useCudaGraph", "--useSpinWait", "--noDataTransfers"}),
        (HELP_11, "trtexec-11", set()),
        (HELP_11, "trtexec-10", {"--noCudaGraph", "--noSpinWait", "--useDataTransfers"}),
    ],
)
def test_a_mode_is_reached_from_either_set_of_defaults(help_text, like, flags):
    found = trtexec.options(help_text, LIKE[like])
    assert found[:3] == ["--iterations=10", "--duration=3", "--warmUp=200"]
    assert set(found[3:]) == flags


def test_a_mode_that_a_version_has_no_option_for_is_refused_and_its_own_named():
    bare = _HELP.format("110000", "--useCudaGraph --useSpinWait --noDataTransfers")
    with pytest.raises(BackendUnavailable, match=r"no option to turn cuda graph off.*--like trtexec-11"):
        trtexec.options(bare, LIKE["trtexec-10"])
    with pytest.raises(BackendUnavailable, match="both ways or none"):
        trtexec.options(HELP_10, Mode(transfers="in"))


def fake(output, status=0, help_text=HELP_10, seen=None):
    def run(command):
        if seen is not None:
            seen.append(command)
        return (help_text, 0) if "--help" in command else (output, status)

    return run


def test_the_engine_runs_at_our_shape_in_our_mode():
    seen = []
    trtexec.measure("trtexec", ["--loadEngine=e"], (8, 3, 224, 224), LIKE["trtexec-10"], run=fake(printed(), seen=seen))
    assert seen[1][:3] == ["trtexec", "--loadEngine=e", "--shapes=images:8x3x224x224"]


@pytest.mark.parametrize(
    ("output", "status", "why"),
    [
        ("[E] Error[1]: the engine is of another version", 1, "of another version"),
        (printed() + "&&&& FAILED TensorRT.trtexec", 0, "trtexec failed"),
        (printed(graph="Enabled"), 0, "CUDA graph on, ours is the other way round"),
    ],
)
def test_what_fails_or_ran_in_another_mode_is_no_comparison(output, status, why):
    with pytest.raises(BackendUnavailable, match=why):
        trtexec.measure("t", [], (1, 3, 8, 8), LIKE["trtexec-10"], run=fake(output, status))


def timed(batch, mode, backend="tensorrt", seconds=2e-3):
    session = {
        **mode.said,
        "cuda_graph": "captured" if mode.cuda_graph else "off",
        "engine_key": "k",
        "device": "cuda:0",
    }
    run = NetworkRun(network="D", weights={"name": "w"}, passes=[], backend=backend, precision="fp16", session=session)
    workload, samples = Workload(batch=batch, size=[224, 224]), Samples(unit="seconds", values=[seconds] * 3)
    return Record(kind="latency", networks=[run], workload=workload, samples=samples, environment={})


def test_the_plan_that_was_timed_is_what_trtexec_loads_without_our_first_lines(monkeypatch, tmp_path):
    monkeypatch.setenv("VGGBENCH_CACHE", str(tmp_path))
    cache.write_atomic(tmp_path / "engines" / "k.plan", b"vggbench plan 1\n{}\nplan\nwith lines")
    loaded = []

    def run(command):
        loaded.extend(Path(each.split("=")[1]).read_bytes() for each in command if each.startswith("--loadEngine"))
        return (
            (HELP_10, 0) if "--help" in command else (printed(graph="Enabled", transfers="Disabled", spin="Enabled"), 0)
        )

    records = [timed(1, LIKE["trtexec-11"]), timed(8, LIKE["trtexec-11"]), timed(1, Mode(), "pytorch")]
    one, eight = runs_trtexec.compare(records, "trtexec", run)
    assert loaded == [b"plan\nwith lines"] * 2
    assert (one.batch, eight.batch) == (1, 8)
    assert one.ratio == pytest.approx(2 / 1.6)
    (tmp_path / "engines" / "k.plan").unlink()
    (gone,) = runs_trtexec.compare(records[:1], "trtexec", run)
    assert gone.ratio is None
    assert "not in the cache" in gone.why_not


@pytest.mark.parametrize("mode", [*LIKE.values(), Mode(transfers="in"), Mode(cuda_graph=True, wait="block")])
def test_a_record_says_its_mode_so_that_it_can_be_asked_for_again(mode):
    session = timed(1, mode).networks[0].session
    found = runs_trtexec.mode_of(session)
    assert (bool(mode.cuda_graph), mode.transfers, mode.wait) == (found.cuda_graph, found.transfers, found.wait)


def test_a_mode_that_cannot_be_is_refused():
    for wrong in ({"transfers": "some"}, {"wait": "nap"}, {"in_flight": 0}):
        with pytest.raises(ValueError, match="transfers are"):
            Mode(**wrong)
    assert modes.LIKE["trtexec-10"].in_flight == modes.LIKE["trtexec-11"].in_flight == 2


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["--backend", "tensorrt", "--check-trtexec"], 6, "trtexec is not on the PATH"),
        (["--check-trtexec"], 6, "none is among those asked for. Add it: --backend tensorrt"),
        (["--like", "trtexec-9"], 2, "known are trtexec-10, trtexec-11"),
        (["--like", "trtexec-10", "--transfers", "none"], 2, "--like names CUDA graph and transfers itself"),
        (["--transfers", "some"], 2, "known are both, in, out, none"),
        (["--cuda-graph", "--device", "cpu"], 2, "are a GPU's, and this runs on the CPU"),
        (["--backend", "tensorrt", "--like", "trtexec-11"], 6, "TensorRT"),
    ],
)
def test_what_cannot_be_asked_for_is_one_line(arguments, code, message, monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(environment, "has_cuda", lambda: False)
    result = CliRunner().invoke(app, ["latency", "--network", "A", "--weights", "sample", *arguments])
    assert (result.exit_code, result.stderr.count("\n")) == (code, 1), result.output
    assert message in result.stderr


def test_a_comparison_is_json_too():
    from vggbench import cli_gpu

    found = [runs_trtexec.Compared("fp16", 1, 2e-3, 1e-3, "10.7.0")]
    assert json.loads(json.dumps(cli_gpu.as_documents(found)))[0]["ratio"] == 2
    assert cli_gpu.compared_lines(found) == ["fp16 tensorrt batch 1: 2 ms here, 1 ms by trtexec 10.7.0, ratio 2.000"]
