"""Numerics by name: how variants are written, what is refused, what the command prints and writes."""

from __future__ import annotations

import dataclasses
import json
import re

import pytest
from numerics_networks import WEIGHTS, asked, ranges, with_ranges

from vgg_reference.weights import random_weights
from vggbench import cli, runs_inputs, runs_numerics
from vggbench.errors import CalibrationError, UsageError
from vggbench.measure import compare
from vggbench.ranges import CalibrationImage, Quantization
from vggbench.results import read_records
from vggbench.runs_numerics import Spec
from vggbench.variants import Variant

# Specifications and refusals


@pytest.mark.parametrize(
    ("text", "spec"),
    [
        ("bf16", Spec("bf16")),
        ("fp32@pytorch", Spec("fp32", "pytorch")),
        ("int8/tensorrt", Spec("int8", None, "tensorrt")),
        ("int8@onnxruntime/tensorrt", Spec("int8", "onnxruntime", "tensorrt")),
    ],
)
def test_variants_are_read_as_precision_backend_and_layout(text, spec):
    assert runs_numerics.parse(text) == spec


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "accepted is PRECISION"),
        ("int8@", "accepted is PRECISION"),
        ("int8@onnxruntime/", "accepted is PRECISION"),
        ("int4", "no precision 'int4'"),
        ("int8@onnx", "No backend 'onnx'"),
        ("int8/nchw", "cpu"),
        ("bf16/cpu", "goes with int8 only"),
        ("int8-tensorrt", "no precision 'int8-tensorrt'"),
    ],
)
def test_other_grammar_is_one_line_that_says_what_is_accepted(text, said):
    with pytest.raises(UsageError, match=said.replace("[", r"\[")) as caught:
        runs_numerics.parse(text)
    assert "\n" not in str(caught.value)


def test_int8_of_a_folder_needs_ranges(dozen):
    with pytest.raises(CalibrationError, match="--calibration FILE"):
        runs_numerics.variants_of(dozen, WEIGHTS, asked("int8@onnxruntime"))


def test_images_that_the_ranges_were_taken_from_are_refused(dozen, monkeypatch, tmp_path):
    twice = CalibrationImage(dozen.images[5].id, dozen.digests[5])
    with_ranges(monkeypatch, dataclasses.replace(ranges(), images=(twice,)))
    with pytest.raises(CalibrationError, match=r"005\.jpg"):
        runs_numerics.variants_of(dozen, WEIGHTS, asked("int8@onnxruntime", calibration=tmp_path / "ranges.json"))


def test_ranges_of_other_weights_are_refused(dozen, tmp_path):
    from vggbench.ranges import to_json

    other = random_weights("A", 1, width=1 / 32, hidden_width=1 / 64, num_classes=7, crop_size=32)
    (tmp_path / "ranges.json").write_bytes(to_json(ranges(other)))
    with pytest.raises(CalibrationError, match="other weights"):
        runs_numerics.variants_of(dozen, WEIGHTS, asked("int8@onnxruntime", calibration=tmp_path / "ranges.json"))


# The command


@pytest.fixture
def command(moving, dozen, monkeypatch, capsys):
    monkeypatch.setattr(runs_inputs, "open_images", lambda data, labels, progress, split="test": dozen)
    monkeypatch.setattr(runs_inputs, "weights_of", lambda *a: WEIGHTS)

    def run(*arguments):
        with pytest.raises(SystemExit) as ended:
            cli.main(["numerics", "--reference", "fp32@fake", "--scale", "40", *arguments])
        told = capsys.readouterr()
        return ended.value.code or 0, told.out, told.err

    return run


def test_command_prints_a_line_a_variant(command):
    code, out, err = command("--variant", "bf16@fake", "--variant", "fp16@fake")
    assert code == 0
    assert "A against fp32@fake, 12 images" in out
    (line,) = [line for line in out.splitlines() if line.startswith("bf16@fake")]
    assert line.split()[5] == "4"
    (head,) = [line for line in out.splitlines() if line.startswith("variant ")]
    ends = [[found.end() for found in re.finditer(words, text)] for words, text in ((r"95 %", head), (r" %", line))]
    assert ends[0][0] == ends[1][1]
    assert head.index("flips") + len("flips") == line.index(" 4 ") + 2
    assert "no table of layers" in err


def test_command_prints_the_option_that_gives_back_what_it_promises(command, monkeypatch):
    with_ranges(monkeypatch, ranges(block3_relu1=60))
    asked = ("--reference", "fp32@onnxruntime", "--variant", "int8@onnxruntime", "--calibration", "ranges.json")
    code, out, _ = command(*asked, "--sensitivity", "--keep", "1")
    assert code == 0
    none, option = out.splitlines()[-2:]
    assert none.startswith("  none kept: ")
    promised = re.fullmatch(r"  (--float-layers block3\.conv2): (\S+) %, (\d+) flips, (\d+) wrong", option)
    code, out, _ = command(*asked, *promised[1].split())
    (line,) = [line for line in out.splitlines() if line.startswith("int8@onnxruntime/cpu, block3.conv2 in float ")]
    assert line.split()[-6] == promised[3]


def test_command_writes_the_page_and_records_and_one_document(command, tmp_path):
    code, out, _ = command("--variant", "bf16@fake", "--out", str(tmp_path / "out"), "--json")
    document = json.loads(out)
    assert code == 0
    assert document["variants"][0]["flips"] == 4
    assert len(document["variants"][0]["changed"]) == 12
    html = (tmp_path / "out" / "index.html").read_text(encoding="utf-8")
    assert "What a precision moves" in html
    assert "data:image/jpeg" in html
    assert read_records(tmp_path / "out" / "records.jsonl")[0].kind == "numerics"


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (("--variant", "int4"), 2),
        (("--keep", "a"), 2),
        (("--variant", "int8@onnxruntime"), 9),
        (("--form", "x"), 2),
        (("--variant", "bf16@fake", "--sensitivity"), 2),
        (("--variant", "bf16@fake", "--scale", "0"), 2),
    ],
)
def test_mistakes_end_in_one_line_and_a_code(command, arguments, code):
    ended, out, err = command(*arguments)
    assert (ended, out) == (code, "")
    assert err.count("\n") == 1


def test_label_names_precision_backend_and_layout():
    variant = Variant(WEIGHTS, "crop", "onnxruntime", "int8", quantization=Quantization(ranges()))
    assert compare.label(variant) == "int8 onnxruntime/cpu"
