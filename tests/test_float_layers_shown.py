"""What is shown of layers that stayed in floating point: on the page, in tables, by the gate and in histories."""

from __future__ import annotations

import itertools

import pytest
from cli_runs import run
from tiny_int8 import KEPT, TYPED, written

from vggbench import gate, history, runs_latency_rows
from vggbench.report import context_from, render
from vggbench.report.frame import frame
from vggbench.report.precision import precision_rows
from vggbench.report.rows import measured
from vggbench.report.speed import speed_rows
from vggbench.results import read_records, write_records
from vggbench.results_names import float_layers_in, float_layers_of, precision_name, precision_names


@pytest.fixture(scope="module")
def three(photos, tmp_path_factory):
    """Records of fp32, of int8, and of int8 with layers kept."""
    folder, found = tmp_path_factory.mktemp("three"), []
    network, artefact = written(folder)
    int8 = ["--precision", "int8", "--calibration", artefact]
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("VGGBENCH_CACHE", str(folder / "cache"))
        for more in ([], int8, [*int8, "--float-layers", TYPED]):
            options = ["--data", photos, "--network", "A", "--weights", network, "--out", folder / "records.jsonl"]
            result = run("evaluate", *options, "--protocol", "center", "--scale", 32, "--threads", 1, *more)
            assert result.exit_code == 0, result.output
            assert (f"({KEPT} in float)" in result.stdout) == ("--float-layers" in more)
            found += read_records(folder / "records.jsonl")
    return found


def test_a_page_has_a_column_for_each_choice(three):
    names, rows = precision_rows(measured(three), [])
    assert names == ["int8", f"int8 ({KEPT} in float)"]
    assert [list(row.changes) for row in rows] == [names]
    assert {change.expected for change in rows[0].changes.values()} == {0.5}
    html = render(three, [], context_from(three))
    assert f"INT8 ({KEPT} in float)" in html
    assert f"onnxruntime int8 ({KEPT} in float)" in html
    assert "INT8 within 0.5" in html
    assert list(frame(three)["float_layers"]) == ["", "", KEPT]


def test_the_gate_takes_other_float_layers_for_another_workload_unless_told(three, tmp_path):
    _, plain, kept = three
    base, head = tmp_path / "base.jsonl", tmp_path / "head.jsonl"
    write_records(base, [plain])
    write_records(head, [kept])
    result = run("compare", base, head)
    why = f"float-layers is none against {KEPT} (--across float-layers allows it)"
    assert why in " ".join(result.stdout.split())
    found = gate.compare([plain], [kept], across=["float-layers"])
    assert all(row.across == (f"float-layers none → {KEPT}",) for row in found.rows)
    assert all(row.base is not None for row in found.rows)
    assert f"in float {KEPT}" in gate.compare([kept], [kept]).rows[0].name


def test_histories_do_not_mix_choices(three):
    assert len({history.error_key(record) for record in three}) == 3
    assert dict(history.error_key(three[2]))["precision"] == f"int8 ({KEPT} in float)"


def timed(three):
    """The records as if they were timings, of two processes each."""
    for record, process in itertools.product(three, (1, 2)):
        samples = record.samples.model_copy(update={"unit": "seconds", "values": [0.01, 0.01]})
        yield record.model_copy(update={"kind": "latency", "samples": samples, "process": process})


def test_timings_of_other_choices_are_other_rows(three):
    records = list(timed(three))
    rows = runs_latency_rows.rows_of(records)
    assert [(row["precision"], row["float_layers"], row["processes"]) for row in rows] == [
        ("fp32", "", 2),
        ("int8", "", 2),
        ("int8", KEPT, 2),
    ]
    assert f"{KEPT} stayed in floating point" in runs_latency_rows.doubts(rows[2], 2)
    names, (row,) = speed_rows(records, "fp32")
    assert names == ["fp32", "int8", f"int8 ({KEPT} in float)"]
    assert {speed.processes for speed in row.speeds.values()} == {2}


def test_records_that_know_of_no_choice_are_plain(three):
    run = three[1].networks[0]
    for calibration in ({}, {"digest": "d"}, {"float_layers": []}):
        old = run.model_copy(update={"calibration": calibration})
        assert (float_layers_of(old), precision_name(old)) == ("", "int8")


def test_of_fused_networks_it_is_told_whose_layers_stayed(three):
    _, plain, kept = (record.networks[0] for record in three)
    first, second, both = (
        three[1].model_copy(update={"networks": runs}) for runs in ([plain, kept], [kept, plain], [kept, kept])
    )
    assert precision_names(both) == precision_name(kept)
    assert len({precision_names(record) for record in (first, second, both)}) == 3
    other = second.model_copy(update={"networks": [kept.model_copy(update={"network": "B"}), plain]})
    assert (float_layers_in(first), float_layers_in(other)) == (f"A/? {KEPT}", f"B/? {KEPT}")
    assert float_layers_in(three[1]) == ""
