"""A GPU machine's figures: the floor under a call, peers, targets, and what the documentation claims."""

import json
from pathlib import Path

import latency_workers
import pytest
from gpu_records import SMALL, copied, fast_machine, timed
from typer.testing import CliRunner

from vggbench import runs_gpu_support, runs_gpu_targets, runs_latency, runs_peers, shares
from vggbench.cli import app
from vggbench.measure.bandwidth import copy_record, time_copies

ROOT = Path(__file__).parents[1]

pytestmark = pytest.mark.usefixtures("own_cache")


def test_a_copy_counts_the_bytes_it_reads_and_writes():
    samples, library, size = time_copies("cpu", 1, 0.0, SMALL)
    assert len(samples.values) >= 5
    record = copy_record(samples, library, size, 1, "cpu", environment={})
    middle = sorted(samples.values)[len(samples.values) // 2]
    assert shares.operations_per_second(record) == pytest.approx(2 * SMALL / middle, rel=0.5)


@pytest.mark.parametrize(("stored", "bytes_each"), [("fp32", 4), ("fp16", 2), ("int8, per channel", 1), ("bf16", 2)])
def test_the_floor_is_the_weights_bytes_over_the_bandwidth(stored, bytes_each):
    record = timed("fp16", "tensorrt", weights_stored=stored)
    assert shares.weight_bytes(record) == 138_357_544 * bytes_each
    copies = [copied(0.001, 10**9, "cuda:0"), copied(0.002, 10**9, "cuda:0"), copied(0.0001, 10**9, "cpu")]
    assert shares.floor_seconds(record, copies) == pytest.approx(138_357_544 * bytes_each / 2e12)
    assert shares.floor_seconds(record, copies[2:]) is None


def test_peers_have_a_ratio_to_eager_fp16_and_at_batch_1_a_share_of_the_floor():
    records = [timed("fp16", "pytorch"), timed("fp16", "tensorrt", seconds=0.004, cuda_graph="captured"),
               timed("fp16", "tensorrt", 8, 0.02), copied(0.001, 10**9, "cuda:0")]  # fmt: skip
    one, fast, eight = runs_peers.peer_rows(records)
    assert (one["ratio_to_eager_fp16"], fast["ratio_to_eager_fp16"], eight["ratio_to_eager_fp16"]) == (1.0, 2.5, None)
    assert fast["share_of_floor"] == pytest.approx(138_357_544 * 2 / 2e12 / 0.004)
    assert eight["share_of_floor"] is None


def test_the_preset_runs_with_what_is_there_on_a_cpu(monkeypatch, tmp_path):
    monkeypatch.setattr(runs_latency, "in_fresh_process", lambda work, *arguments: work(*arguments))
    monkeypatch.setattr(runs_latency, "time_variant", latency_workers.fake)
    monkeypatch.setattr(runs_latency, "time_peak", lambda *arguments: [])
    monkeypatch.setattr(runs_latency, "time_copy", lambda *arguments: [copied()])
    monkeypatch.setattr(runs_latency, "_quantization", lambda *arguments: None)
    arguments = ["latency", "--network", "A", "--weights", "sample", "--peers", "--batch", "1,2", "--processes", "1",
                 "--min-seconds", "0", "--device", "cpu"]  # fmt: skip
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 0, result.output
    assert max(len(line) for line in result.stdout.split("\n\n")[1].splitlines() if "Timed by" not in line) <= 100
    assert "x eager fp16" in result.stdout
    assert "fp32 onnxruntime" in result.stdout.replace("  ", " ").replace("  ", " ")
    assert "GB/s read and written" in result.stdout
    rows = json.loads(CliRunner().invoke(app, [*arguments, "--json"]).stdout)["rows"]
    assert {row["backend"] for row in rows} >= {"pytorch", "onnxruntime"}
    assert all("perf_counter" in row["mode"] for row in rows)


def test_a_bandwidth_is_no_matrix_peak():
    from vggbench.report.speed import peak_rows

    assert peak_rows([copied()]) == []


# Targets


def test_each_target_is_met_not_met_or_not_run():
    found = {target.name: target.state for target in runs_gpu_targets.targets(fast_machine())}
    assert [name for name, state in found.items() if state != "met"] == ["evaluation loop / engine's own throughput"]
    slow = runs_gpu_targets.targets(fast_machine(1.8))
    states = {target.name: target.state for target in slow}
    assert states.pop("INT8 engine / FP16 engine, best batch") == "met"
    assert states.pop("evaluation loop / engine's own throughput") == "not run"
    assert set(states.values()) == {"not met"}, slow
    assert {target.state for target in runs_gpu_targets.targets([])} == {"not run"}
    assert all(target.why for target in runs_gpu_targets.targets([]))


def test_targets_are_of_the_papers_network_on_a_gpu():
    on_cpu = [timed("fp16", "pytorch", device="cpu"), timed("fp16", "tensorrt", device="cpu")]
    assert {target.state for target in runs_gpu_targets.targets(on_cpu)} == {"not run"}


# What has run


def test_the_documentation_holds_the_support_matrix():
    text = (ROOT / "docs" / "gpu.md").read_text(encoding="utf-8")
    assert runs_gpu_support.markdown_table() in text


def test_hardware_is_only_claimed_with_a_report_or_an_error():
    for entry in runs_gpu_support.SUPPORT:
        assert entry.hardware == runs_gpu_support.NOT_RUN or entry.report or entry.error
        assert not entry.report or (ROOT / entry.report).is_dir()
