"""Records go to disk whole and come back as they were; what cannot be read is named by its line."""

from __future__ import annotations

import errno
import gzip
import json
import os
import typing

import pytest
from pydantic import ValidationError

from vggbench import results
from vggbench.errors import RecordError, StorageError
from vggbench.results import NetworkRun, Record, Samples, Workload, read_records, write_records
from vggbench.results_engines import Engine, EngineLayer

NAME = '<img src=x onerror=alert(1)>\u2028 "größe".jpg'


def _record(seed=0, **changes):
    fields = {
        "kind": "accuracy",
        "claim": "table3/D/256",
        "networks": [NetworkRun(network="D", weights={"digest": "d" * 64, "seed": seed}, passes=[{"form": "dense",
                     "scale": 73, "grid": "whole", "flip": True}], backend="onnxruntime", precision="fp32")],
        "workload": Workload(protocol="dense", choices={"score_pool": "mean_logits"}, data={"name": "sample",
                    "bad": [{"id": NAME, "why": "truncated"}]}),
        "samples": Samples(unit="rank", values=[0, 3, 59, 0]),
        "seed": seed,
        "environment": {"cpu": "x", "threads": 2},
        "started": "2026-01-01T00:00:00Z",
        "elapsed_seconds": 0.1 + 0.2,
        "hardest": [{"id": NAME, "rank": 59}],
    }  # fmt: skip
    return Record(**{**fields, **changes})


LATENCY = _record(kind="latency", claim=None, samples=Samples(unit="seconds", values=[0.1, 1e-9, 1 / 3], warmups=[2.0]))


@pytest.mark.parametrize("name", ["records.jsonl", "records.jsonl.gz"])
def test_records_come_back_as_they_were(tmp_path, name):
    records = [_record(0), _record(1, origin="recorded"), LATENCY]
    write_records(tmp_path / name, records)
    assert read_records(tmp_path / name) == records


def test_ranks_stay_whole_numbers(tmp_path):
    write_records(tmp_path / "r.jsonl", [_record()])
    values = read_records(tmp_path / "r.jsonl")[0].samples.values
    assert all(type(value) is int for value in values)


def test_one_record_is_one_line_whatever_the_names_in_it(tmp_path):
    write_records(tmp_path / "r.jsonl", [_record(), _record(1)])
    assert (tmp_path / "r.jsonl").read_bytes().count(b"\n") == 2
    assert len(read_records(tmp_path / "r.jsonl")) == 2


def test_equal_records_make_equal_gz_files(tmp_path):
    write_records(tmp_path / "a.jsonl.gz", [_record()])
    write_records(tmp_path / "b.jsonl.gz", [_record()])
    assert (tmp_path / "a.jsonl.gz").read_bytes() == (tmp_path / "b.jsonl.gz").read_bytes()


def test_no_records_make_an_empty_file_and_blank_lines_are_skipped(tmp_path):
    write_records(tmp_path / "none.jsonl", [])
    assert read_records(tmp_path / "none.jsonl") == []
    line = _record().model_dump_json()
    (tmp_path / "gaps.jsonl").write_text(f"\n{line}\n\n{line}\n")
    assert len(read_records(tmp_path / "gaps.jsonl")) == 2


def test_a_truncated_file_is_refused_with_its_line(tmp_path):
    path = tmp_path / "r.jsonl"
    write_records(path, [_record(0), _record(1), _record(2)])
    data = path.read_bytes()
    path.write_bytes(data[: len(data) - 40])
    with pytest.raises(RecordError, match=r"r\.jsonl, line 3: not a record") as caught:
        read_records(path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("cut", [5, 200])
def test_a_truncated_gz_file_is_refused(tmp_path, cut):
    path = tmp_path / "r.jsonl.gz"
    write_records(path, [_record(seed) for seed in range(3)])
    path.write_bytes(path.read_bytes()[:cut])
    with pytest.raises(RecordError, match="cannot read records"):
        read_records(path)


def test_a_damaged_gz_file_is_refused(tmp_path):
    path = tmp_path / "r.jsonl.gz"
    write_records(path, [_record(seed) for seed in range(3)])
    data = bytearray(path.read_bytes())
    data[40:60] = bytes(20)
    path.write_bytes(bytes(data))
    with pytest.raises(RecordError, match="cannot read records"):
        read_records(path)


#: Format -> what its readers know. Where this changes, older readers refuse or misread what is written: raise FORMAT.
KNOWN = {
    3: {
        "Record": "format kind claim networks workload samples seed origin environment started elapsed_seconds hardest "
        "process conditions numerics peak",
        "NetworkRun": "network weights passes backend precision session calibration engines",
        "Engine": "engine profile precision asked layers",
        "EngineLayer": "name precision kind tactic output members fell_back",
        "Workload": "protocol choices data batch size scenario",
        "Samples": "unit values warmups",
        "Numerics": "reference images reference_errors variant_errors flips lost gained p_value layers changed "
        "sensitivity recovery margins drifts layers_note",
        "LayerDrift": "layer relative_l2 max_absolute sqnr_db cosine",
        "ImageDrift": "id label margin drift reference_class variant_class reference_rank variant_rank",
        "Sensitivity": "layer alone_relative_l2 alone_flips without_relative_l2 without_flips",
        "Recovery": "float_layers relative_l2 flips top1_errors",
        "Peak": "precision library threads m n k operations instances",
        "kind": "accuracy latency numerics peak loop",
        "origin": "measured recorded",
        "unit": "rank seconds ratio",
    }
}


def test_a_format_has_the_fields_and_words_that_its_readers_know():
    models = [Record, NetworkRun, Engine, EngineLayer, Workload, Samples, results.Numerics, results.LayerDrift,
              results.ImageDrift, results.Sensitivity, results.Recovery, results.Peak]  # fmt: skip
    found = {model.__name__: " ".join(model.model_fields) for model in models}
    for model, name in ((Record, "kind"), (Record, "origin"), (Samples, "unit")):
        found[name] = " ".join(typing.get_args(model.model_fields[name].annotation))
    assert found == KNOWN[results.FORMAT]


@pytest.mark.parametrize("older", [1, 2])
def test_an_older_record_is_read_and_becomes_of_this_format(tmp_path, older):
    path = tmp_path / "r.jsonl"
    fields = json.loads(_record().model_dump_json()) | {"format": older}
    if older == 1:
        for name in ("numerics", "peak", "process", "conditions"):
            del fields[name]
    path.write_text(json.dumps(fields))
    (record,) = read_records(path)
    assert record == _record()
    assert record.format == results.FORMAT, "what is written of it has all fields of this one"


@pytest.mark.parametrize("wrong", ["NaN", "-0.1", "1e999", "-1e999"])
@pytest.mark.parametrize("where", ["values", "warmups"])
def test_values_that_nothing_can_have_are_refused(tmp_path, wrong, where):
    """No comparison with NaN holds, so a gate would let it pass."""
    path = tmp_path / "r.jsonl"
    fields = json.loads(LATENCY.model_dump_json())
    fields["samples"][where] = ["wrong", 0.5]
    path.write_text(json.dumps(fields).replace('"wrong"', wrong))
    with pytest.raises(RecordError, match=r"line 1: not a record \(samples.*finite numbers from 0 on") as caught:
        read_records(path)
    assert "\n" not in str(caught.value)


def test_a_newer_format_is_refused_with_both_versions(tmp_path):
    path = tmp_path / "r.jsonl"
    fields = json.loads(_record().model_dump_json()) | {"format": results.FORMAT + 1, "something": "new"}
    path.write_text(_record().model_dump_json() + "\n" + json.dumps(fields) + "\n")
    with pytest.raises(RecordError) as caught:
        read_records(path)
    message = str(caught.value)
    assert "line 2" in message
    assert f"format {results.FORMAT + 1}" in message
    assert f"up to {results.FORMAT}" in message
    assert "upgrade" in message


@pytest.mark.parametrize("line", ["{}", "[]", "7", "null", '{"kind": "guess"}', '{"format": "x"}', "\u0000"])
def test_what_is_no_record_is_refused_with_its_line(tmp_path, line):
    path = tmp_path / "r.jsonl"
    path.write_text(_record().model_dump_json() + "\n" + line + "\n")
    with pytest.raises(RecordError, match="line 2") as caught:
        read_records(path)
    assert "\n" not in str(caught.value)


def test_an_unknown_field_is_refused(tmp_path):
    path = tmp_path / "r.jsonl"
    path.write_text(json.dumps(json.loads(_record().model_dump_json()) | {"top1": 3.0}))
    with pytest.raises(RecordError, match="line 1"):
        read_records(path)


def test_an_absent_file_and_bytes_that_are_no_text_are_refused(tmp_path):
    with pytest.raises(RecordError, match="cannot read"):
        read_records(tmp_path / "absent.jsonl")
    (tmp_path / "r.jsonl").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(RecordError, match="cannot read"):
        read_records(tmp_path / "r.jsonl")


def test_a_full_disk_keeps_the_old_file_and_leaves_nothing_behind(tmp_path, monkeypatch):
    path = tmp_path / "r.jsonl"
    write_records(path, [_record()])
    before = path.read_bytes()

    def full(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(StorageError, match="No space left on device"):
        write_records(path, [_record(1), _record(2)])
    assert path.read_bytes() == before
    assert [entry.name for entry in tmp_path.iterdir()] == ["r.jsonl"]


def test_records_are_frozen():
    with pytest.raises(ValidationError):
        _record().seed = 3


def test_gz_is_gzip_of_the_same_lines(tmp_path):
    write_records(tmp_path / "r.jsonl", [_record()])
    write_records(tmp_path / "r.jsonl.gz", [_record()])
    assert gzip.decompress((tmp_path / "r.jsonl.gz").read_bytes()) == (tmp_path / "r.jsonl").read_bytes()
