"""`vggbench data describe` on sets drawn from ImageNet, and its one line where a layout is wrong."""

from __future__ import annotations

import json

import imagenet_layouts
from image_folders import files
from test_real_labels import real_file
from typer.testing import CliRunner

from vggbench.cli import app


def describe(*arguments, code=0):
    done = CliRunner().invoke(app, ["data", "describe", *map(str, arguments)])
    assert done.exit_code == code, done.output
    return done


def test_an_archive_beside_the_devkit_is_described_readably(tmp_path, own_cache):
    root = imagenet_layouts.tar_with_devkit(tmp_path / "imagenet", imagenet_layouts.make(60))
    lines = describe(root, "-q").stdout.splitlines()
    assert lines[0] == "ILSVRC-2012 (val)"
    assert lines[1] == (
        "  taken for    ImageNet's flat validation images with the devkit's ground truth, its ids put into WordNet "
        "order by meta.mat; 60 of the 50,000 validation images"
    )
    assert lines[2] == "  images       60, 0 to 1 of each class; 940 classes without one"
    assert lines[3] == "  classes      1,000: n01440764, n01443537, n01484850, ..."
    assert lines[5].startswith("  checked      labels of images 1 to 20, which are known, are right in the 20")
    document = json.loads(describe(root, "--json", "--images", 10).stdout)
    assert (document["images"], document["total"], document["labels"]) == (10, 60, "one an image")
    assert document["labels_per_image"] == {"least": 1, "most": 1}


def test_real_labels_are_described_as_such(tmp_path, own_cache):
    root = files(tmp_path / "val", imagenet_layouts.val_name(30))
    real = real_file(tmp_path / "real.json", {30: [65, 970]})
    out = describe(root, "--labels", real, "-q").stdout
    assert "  labels       ReaL, 2 an image" in out
    assert "is 65 (n01751748) or 970 (n09193705)" in out
    assert "an image is right if the answer, or one of the first five, is among its labels" in out


def test_a_wrong_layout_is_one_line_with_exit_code_4(tmp_path):
    done = describe(files(tmp_path / "val", imagenet_layouts.val_name(1)), code=4)
    assert done.stdout == ""
    assert done.stderr.startswith("vggbench: ")
    assert done.stderr.count("\n") == 1
