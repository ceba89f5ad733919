"""The command line: one line and a documented exit code for every mistake."""

from __future__ import annotations

import json
import signal

import pytest
from cli_runs import CLASSES, EACH, TINY, assert_one_line, evaluate, run, weights_file

from vggbench import __main__, cli, cli_common

pytestmark = pytest.mark.usefixtures("one_cache")


@pytest.mark.parametrize(
    ("wrong", "code", "parts"),
    [
        (["--network", "F"], 2, ["'F'", "A, A-LRN, B, C, D, E, shallow-B"]),
        (["--protocol", "centre"], 2, ["'centre'", "center, ten-crop, dense"]),
        (["--scale", "16"], 2, ["16", "32"]),
        (["--scale", "32", "--scales", "32,64"], 2, ["--scale", "--scales"]),
        (["--backend", "caffe"], 2, ["'caffe'", "pytorch, onnxruntime"]),
        (["--precision", "fp64"], 2, ["'fp64'", "fp32, tf32, bf16, fp16, int8, fp8"]),
        (["--device", "tpu"], 2, ["'tpu'", "auto, cpu, cuda"]),
        (["--on-bad", "ignore"], 2, ["'ignore'", "stop, skip"]),
        (["--score-pool", "max"], 2, ["'max'", "mean_logits, mean_probs"]),
        (["--weights", "random:x"], 2, ["random:N"]),
        (["--width", "nan"], 2, ["nan", "above 0"]),
        (["--width", "1e9"], 2, ["1e+09", "up to 16"]),
        (["--train-scale", "256-512"], 2, ["'256-512'", "256, 384 or [256;512]"]),
        (["--weights", "sample", "--width", "0.5"], 2, ["--width", "random weights", "'sample'"]),
        (["--precision", "int8"], 6, ["int8", "fp32"]),
        (["--calibration", "ranges.json"], 2, ["--calibration belongs to int8 and fp8", "fp32"]),
        (["--weights", "absent.safetensors"], 5, ["absent.safetensors", "no such"]),
        (["--data", "absent-folder"], 4, ["absent-folder"]),
    ],
)
def test_a_wrong_option_is_one_line_with_its_exit_code(photos, wrong, code, parts):
    assert_one_line(evaluate(photos, *wrong), code, *parts)


def test_a_protocol_of_one_scale_refuses_three(photos):
    result = run("evaluate", "--data", photos, "--network", "A", "--weights", "random:0", *TINY, "--protocol", "dense",
                 "--scales", "32,48,64")  # fmt: skip
    assert_one_line(result, 2, "'dense' takes one scale")


@pytest.mark.parametrize(
    "wrong",
    [["evaluate", "--scale", "9" * 20], ["latency", "--size", "9" * 20], ["latency", "--batch", "9" * 20]],
    ids=lambda wrong: wrong[1],
)
def test_what_fits_no_librarys_integers_is_refused(wrong):
    assert_one_line(run(*wrong), 2, "9" * 20, "accepted are", "up to")


def test_scales_that_are_no_numbers_are_refused(photos):
    result = run("evaluate", "--data", photos, "--weights", "random:0", *TINY, "--scales", "32;64")
    assert_one_line(result, 2, "'32;64'", "256,384,512")


def test_weights_of_another_network_are_refused(photos, tmp_path):
    assert_one_line(evaluate(photos, "--weights", weights_file(tmp_path, "B")), 5, "holds network B, asked was A")


def test_weights_with_another_class_count_are_refused(photos, tmp_path):
    assert_one_line(evaluate(photos, "--weights", weights_file(tmp_path, "A", 7)), 5, "7 classes", "the data has 3")


def test_a_file_that_is_not_safetensors_is_refused(photos, tmp_path):
    path = tmp_path / "weights.safetensors"
    path.write_bytes(b"PK\x03\x04 not safetensors")
    assert_one_line(evaluate(photos, "--weights", path), 5, "not a safetensors file")


def test_an_empty_folder_is_refused(tmp_path):
    assert_one_line(evaluate(tmp_path), 4, str(tmp_path))


def test_labels_beyond_the_classes_are_refused(photos, tmp_path):
    listed = tmp_path / "labels.txt"
    names = sorted(f"{path.parent.name}/{path.name}" for path in photos.rglob("*.jpg"))
    flat = tmp_path / "flat"
    flat.mkdir()
    for number, name in enumerate(names):
        (flat / f"{number}.jpg").write_bytes((photos / name).read_bytes())
    listed.write_text("".join(f"{number}.jpg {number}\n" for number in range(len(names))))
    weights = weights_file(tmp_path)
    result = evaluate(flat, "--labels", listed, "--weights", weights)
    assert result.exit_code in (4, 5)
    assert_one_line(result, result.exit_code, "3")


def test_a_corrupt_image_is_named_and_can_be_skipped(photos, tmp_path):
    copy = tmp_path / "copy"
    for path in photos.rglob("*.jpg"):
        target = copy / path.relative_to(photos)
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(path.read_bytes())
    (copy / "class1" / "2.jpg").write_bytes(b"\xff\xd8\xff not an image")
    assert_one_line(evaluate(copy), 4, "class1/2.jpg", "--on-bad skip")
    result = evaluate(copy, "--on-bad", "skip", "--json")
    assert result.exit_code == 0, result.output
    document = json.loads(result.stdout)
    assert document["images"] == CLASSES * EACH - 1
    assert [bad["id"] for bad in document["bad"]] == ["class1/2.jpg"]


@pytest.mark.parametrize(
    ("given", "parts"),
    [
        (["--weights", "D"], ["'D'", "NETWORK=FILE"]),
        (["--weights", "D=a.safetensors", "--weights", "D=b.safetensors"], ["twice"]),
        (["--table", "7"], ["Table 7", "3, 4, 5, 6"]),
        ([], ["--weights D="]),
    ],
)
def test_reproduce_says_what_is_wrong_with_what_it_was_given(photos, tmp_path, given, parts):
    assert_one_line(run("reproduce", "--data", photos, "--out", tmp_path / "out", *given), 2, *parts)


def test_an_output_folder_that_cannot_be_made_is_found_before_the_work(photos, tmp_path):
    (tmp_path / "file").write_text("")
    result = run("reproduce", "--out", tmp_path / "file" / "out", "--data", photos)
    assert_one_line(result, 7, "out")


@pytest.mark.parametrize(
    ("out", "named"), [("file/records.jsonl", "file: cannot be made"), ("folder", "folder: is a folder")]
)
def test_a_file_that_cannot_be_written_is_found_before_the_work(photos, tmp_path, monkeypatch, out, named):
    from vggbench import runs

    monkeypatch.setattr(runs, "evaluate", lambda **_: pytest.fail("evaluated"))
    (tmp_path / "file").write_text("")
    (tmp_path / "folder").mkdir()
    assert_one_line(evaluate(photos, "--out", tmp_path / out), 7, named)


@pytest.mark.parametrize(
    "command",
    [
        ["reproduce"],
        ["train", "--network", "A"],
        ["latency"],
        ["peak"],
        ["numerics", "--images", "2"],
        ["ab", "--base", "true", "--head", "true"],
        ["gpu"],
    ],
    ids=lambda command: command[0],
)
def test_a_place_below_a_file_is_said_to_be_one(command, tmp_path):
    file = tmp_path / "file"
    file.write_text("")
    assert_one_line(run(*command, "--out", file / "a" / "b"), 7, f"{file} is a file, not a folder", "another --out")


def test_ranges_that_no_precision_takes_are_refused(photos, tmp_path):
    result = run("reproduce", "--data", photos, "--out", tmp_path / "out", "--calibration", "D=ranges.json")
    assert_one_line(result, 2, "--calibration belongs to int8 and fp8")


def test_damaged_records_are_named_by_their_line(tmp_path):
    path = tmp_path / "records.jsonl"
    path.write_text('{"format": 1}\n')
    assert_one_line(run("report", path, "--out", tmp_path), 8, "records.jsonl, line 1")


def test_a_file_without_records_makes_no_page(tmp_path):
    (tmp_path / "records.jsonl").write_text("")
    assert_one_line(run("report", tmp_path / "records.jsonl", "--out", tmp_path / "out"), 8, "holds no records")
    assert list((tmp_path / "out").iterdir()) == []


def test_pruning_an_unknown_kind_is_refused():
    assert_one_line(run("cache", "prune", "--kind", "motors"), 2, "'motors'", "posteriors")


@pytest.mark.parametrize(
    ("typed", "parts"),
    [
        (["evaluate", "--images", "many"], ["'--images'", "'many'", "vggbench evaluate --help"]),
        (["evaluate", "--images", "-3"], ["'--images'", "1", "vggbench evaluate --help"]),
        (["latency", "--min-seconds", "inf"], ["'--min-seconds'", "86400", "vggbench latency --help"]),
        (["evaluate", "--nework", "A"], ["--nework", "vggbench evaluate --help"]),
        (["evaluate", "--network"], ["--network", "requires an argument", "vggbench"]),
        (["report"], ["RECORDS", "vggbench report --help"]),
        (["reproduce"], ["--out", "vggbench reproduce --help"]),
        (["cache", "prun"], ["'prun'", "vggbench cache --help"]),
        (["measure"], ["'measure'", "vggbench --help"]),
    ],
)
def test_what_is_mistyped_is_one_line_that_names_the_help(capsys, typed, parts):
    with pytest.raises(SystemExit) as ended:
        cli.main(typed)
    found = capsys.readouterr()
    assert (ended.value.code, found.out) == (2, "")
    (line,) = found.err.splitlines()
    assert line.startswith("vggbench: ")
    assert [part for part in parts if part not in line] == []


@pytest.mark.parametrize(("typed", "code"), [(["--version"], 0), (["cache", "prune", "--kind", "motors"], 2)])
def test_the_exit_code_of_a_command_is_the_processs(capsys, typed, code):
    with pytest.raises(SystemExit) as ended:
        cli.main(typed)
    assert (ended.value.code or 0) == code


def test_ctrl_c_before_a_command_begins_is_no_traceback(monkeypatch, capsys):
    def interrupted() -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(cli, "main", interrupted)
    with pytest.raises(SystemExit) as ended:
        __main__.main()
    assert (ended.value.code, capsys.readouterr().err) == (cli_common.EXIT_INTERRUPTED, "vggbench: Interrupted.\n")


def test_a_mistake_of_the_program_is_shown_and_ends_with_70(monkeypatch, photos):
    from vggbench import runs

    monkeypatch.setattr(runs, "evaluate", lambda **_: 1 / 0)
    result = evaluate(photos)
    assert result.exit_code == cli_common.EXIT_BUG
    assert "ZeroDivisionError" in result.stderr
    assert "vggbench doctor --json" in result.stderr.splitlines()[-1]


def test_ctrl_c_says_that_the_same_command_goes_on(monkeypatch, photos):
    from vggbench import runs

    def interrupted(**_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(runs, "evaluate", interrupted)
    before = signal.getsignal(signal.SIGINT)
    try:
        assert_one_line(evaluate(photos), cli_common.EXIT_INTERRUPTED, "the same command goes on")
    finally:
        signal.signal(signal.SIGINT, before)
