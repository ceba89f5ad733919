"""Files of records among others: what a folder's other files do, and what stays refused."""

from __future__ import annotations

import json

import gate_records as make
import pytest
from typer.testing import CliRunner

from vggbench.cli import app
from vggbench.errors import RecordError
from vggbench.results import FORMAT, write_records
from vggbench.results_files import files_of, read_found, read_set

CURVE = '{"epoch": 1, "training_loss": 1.5}\n{"epoch": 2, "training_loss": 1.25}\n'


@pytest.fixture
def folder(tmp_path):
    """Records, a training curve, text, bytes, and deeply nested JSON."""
    write_records(tmp_path / "times.jsonl", make.timings(count=3))
    (tmp_path / "curve.jsonl").write_text(CURVE)
    (tmp_path / "notes.jsonl").write_text("no JSON at all\n")
    (tmp_path / "bytes.jsonl").write_bytes(b"\xff\xfe\x00\n")
    (tmp_path / "deep.jsonl").write_text("[" * 100_000 + "\n")
    return tmp_path


def test_what_is_no_record_is_passed_over_and_named_in_a_folder(folder):
    records, remarks = read_set([folder])
    assert len(records) == 3
    assert remarks == [
        f"{folder / name}: its first line is no record; passed over."
        for name in ("bytes.jsonl", "curve.jsonl", "deep.jsonl", "notes.jsonl")
    ]


@pytest.mark.parametrize("name", ["curve.jsonl", "notes.jsonl", "bytes.jsonl", "deep.jsonl"])
def test_the_same_file_is_refused_in_one_line_where_it_is_named(folder, name):
    with pytest.raises(RecordError) as caught:
        read_set([folder / name])
    assert "\n" not in str(caught.value)
    assert name in str(caught.value)


@pytest.mark.parametrize("ending", ["jsonl", "jsonl.gz"])
def test_damaged_and_newer_records_are_refused_in_a_folder_too(tmp_path, ending):
    lines = [record.model_dump_json() for record in make.timings(count=2)]
    write_records(tmp_path / f"a.{ending}", make.timings(count=2))
    (tmp_path / "b.jsonl").write_text(f"{lines[0]}\n{CURVE}")
    with pytest.raises(RecordError, match=r"b\.jsonl, line 2: not a record"):
        read_set([tmp_path])
    (tmp_path / "b.jsonl").write_text(json.dumps(json.loads(lines[0]) | {"format": FORMAT + 1}))
    with pytest.raises(RecordError, match=rf"b\.jsonl, line 1: format {FORMAT + 1}"):
        read_set([tmp_path])
    (tmp_path / "b.jsonl").unlink()
    (tmp_path / "c.jsonl.gz").write_bytes(b"no gzip at all")
    with pytest.raises(RecordError, match=r"c\.jsonl\.gz: cannot read records"):
        read_found(tmp_path / "c.jsonl.gz")


def test_a_folders_records_file_stands_for_it_unless_all_below_is_wanted(folder):
    write_records(folder / "run1" / "records.jsonl.gz", make.timings(count=2))
    write_records(folder / "run1" / "more.jsonl", make.timings(count=1))
    assert files_of(folder / "run1") == [folder / "run1" / "records.jsonl.gz"]
    assert len(files_of(folder)) == 5
    assert len(files_of(folder, below=True)) == 7
    (folder / "empty").mkdir()
    with pytest.raises(RecordError, match="empty holds no records"):
        files_of(folder / "empty")


def test_history_tells_of_a_folder_that_holds_other_things_too(folder):
    done = CliRunner().invoke(app, ["history", str(folder), "--json"])
    assert done.exit_code == 0, done.output
    document = json.loads(done.stdout)
    assert len(document["notes"]) == 4
    assert len(document["rows"]) == 1
    done = CliRunner().invoke(app, ["history", str(folder)])
    assert "curve.jsonl: its first line is no record; passed over." in done.stderr
    assert CliRunner().invoke(app, ["history", str(folder / "curve.jsonl")]).exit_code == RecordError.exit_code
