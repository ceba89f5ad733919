"""The weights commands and the catalogue of published models."""

import json

import caffe_files as caffe
import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner
from weights_files import FULL, as_published, write

from vgg_reference.weights import random_weights, state_dict
from vggbench import weights
from vggbench.cli import app
from vggbench.errors import UsageError, WeightsError

pytestmark = pytest.mark.usefixtures("own_cache")


def test_a_published_model_that_is_not_here_is_named_with_the_command_that_fetches_it():
    with pytest.raises(WeightsError, match="vggbench weights fetch VGG_ILSVRC_19_layers"):
        weights.resolve("VGG_ILSVRC_19_layers", "E")


def test_weights_that_nobody_published_are_offered_as_a_training():
    for name in ("A", "D:256", "E:384", "C"):
        with pytest.raises(WeightsError, match=f"vggbench train --network {name[0]} "):
            weights.published_model(name)
    assert weights.published_model("D:256-512").name == weights.published_model("D").name == "VGG_ILSVRC_16_layers"
    listed = {row["name"] for row in weights.list_weights() if row["status"] == "none"}
    assert {"A:256", "A-LRN:256", "C:[256;512]", "D:384"} <= listed
    with pytest.raises(UsageError, match=r"No published model 'vgg17'\. Known: VGG_ILSVRC_16_layers"):
        weights.published_model("vgg17")


def test_the_catalogue_has_terms_digests_and_figures_for_every_model():
    rows = [row for row in weights.list_weights() if row["status"] in ("authors", "other")]
    assert len(rows) == 2 + 8 + 2 + 2 + 5
    for row in rows:
        assert row["licence"]
        assert "1409.1556" in row["citation"]
        assert row["scores"]
        assert any(key in row for key in ("sha1", "sha256", "md5"))
    beta = next(row for row in rows if row["name"] == "matconvnet/beta16/19")
    assert beta["network"] == "E"


def command(*arguments):
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def test_the_commands_convert_verify_and_tell(tmp_path, states, monkeypatch):
    path = write(tmp_path / "d.caffemodel", "caffemodel1", states("D"), "D")
    model = as_published(monkeypatch, path)
    out = tmp_path / "d.safetensors"
    result = command("weights", "convert", path, "--out", out, "-q")
    assert result.exit_code == 0
    assert "VGG_ILSVRC_16_layers, network D" in result.stdout
    assert "status authors" in result.stdout
    document = json.loads(command("weights", "verify", out, "--is", "D", "--json").stdout)
    assert (document["published"], document["converted_from"]) == (model.name, "d.caffemodel")
    for file in (out, path):
        told = json.loads(command("weights", "info", file, "--json").stdout)
        assert told["source"]["sha1"] == model.digest
        assert told["status"] == "authors"
    result = command("weights", "verify", path, "--is", "E")
    assert result.exit_code == 5
    assert len(result.stderr.splitlines()) == 1
    rows = json.loads(command("weights", "list", "--json").stdout)
    assert {row["status"] for row in rows} == {"sample", "random", "authors", "other", "none"}
    listed = command("weights", "list").stdout
    assert "vggbench train" in listed
    assert "http://www.robots.ox.ac.uk/~vgg/research/very_deep/" in listed  # whose licence the authors' models have


@pytest.mark.skipif(FULL, reason="of small files only")
def test_a_caffemodel_is_evaluated_without_a_word_about_converting_it(tmp_path):
    state = state_dict(random_weights("A", 0, width=1 / 32, num_classes=2, crop_size=32))
    path = caffe.write_caffemodel(tmp_path / "a.caffemodel", caffe.as_caffe(state, "A"), 2)
    for label in "ab":
        (tmp_path / "photos" / label).mkdir(parents=True)
        pixels = np.random.default_rng(ord(label)).integers(0, 256, (40, 44, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(tmp_path / "photos" / label / "1.jpg")
    how = ["--data", tmp_path / "photos", "--network", "A", "--weights", path, "--protocol", "center", "--json"]
    document = json.loads(command("evaluate", *how, "--backend", "pytorch").stdout)
    assert document["images"] == 2
    assert document["record"]["networks"][0]["weights"]["source"]["format"] == "caffemodel"
    assert document["anchors"] == []
    result = command("evaluate", *how[:3], "B", *how[4:])
    assert result.exit_code == 5
    assert "holds network A, asked was B" in result.stderr
