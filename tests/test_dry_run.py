"""`reproduce --dry-run`: images, passes, work, time, disk and downloads, and none of it left out or made up."""

import dataclasses

import pytest
from imagenet_runs import COUNT, document, reproduce, write_small
from weights_files import as_published

from vgg_reference.architectures import architecture, count_parameters
from vgg_reference.weights import random_weights
from vggbench import progress, runs_estimate, runs_inputs, runs_parts
from vggbench.plan import NetworkPlan
from vggbench.protocols import Pass

pytestmark = pytest.mark.usefixtures("one_cache")
D_BYTES, E_BYTES = (4 * count_parameters(architecture(network)) for network in "DE")
SPEED = ("--dry-run", "--crops-per-second", 1)


def test_a_center_crop_and_a_grid_at_one_scale_are_two_passes(val_images, tmp_path, monkeypatch):
    as_published(monkeypatch, write_small(tmp_path / "d.caffemodel", "D", crop_size=224))
    found = document(reproduce(val_images, tmp_path, "--weights", f"D={tmp_path / 'd.caffemodel'}", *SPEED, "--json"))
    (line,) = found["networks"]
    names = [f"{what} at {scale}" for what in ("dense", "50 crops") for scale in (256, 384, 512)]
    assert line["passes"] == dict.fromkeys([*names, "center crop at 256"], COUNT)
    assert line["views"] == found["views"] == found["views_to_compute"] == COUNT * (3 * 2 + 3 * 50 + 1)
    assert (found["rows"], found["other_rows"]) == (5, 1)  # one of Table 3, one of 4, three of 5


def test_the_text_says_every_number_of_the_document(val_images, small_d, tmp_path):
    how = ("--weights", f"D={small_d}", *SPEED)
    text, found = (
        reproduce(val_images, tmp_path, *how).stdout,
        document(reproduce(val_images, tmp_path, *how, "--json")),
    )
    flat = " ".join(text.split())
    for words in (
        f"ILSVRC-2012 (val): {COUNT} images",
        "5 rows of the paper",
        "D, S = [256;512] (not said), fp32: d.caffemodel",
        f"{COUNT} images: dense at 37, 55, 73, 50 crops at 37, 55, 73",
        f"{found['crop_equivalents']:,.0f} crop-equivalents",
        f"{found['views_to_compute']:,} of {found['views']:,} views",
        "at 1.0 crops/s of D, as given",
        "ms an image to decode",
        "To be downloaded: nothing.",
        f"verdict: {COUNT} of the 50,000 validation images; weights of D not known to be the authors'",
        "not given, and public: weights of E trained at S = [256;512], 575 MB: vggbench weights fetch E",
    ):
        assert words in flat, words
    assert all(kind in text for kind in found["disk"])
    assert (found["seconds"], found["limits"]) == (pytest.approx(found["crop_equivalents"]), "the network")


def test_only_what_somebody_published_is_offered(val_images, small_d, tmp_path):
    result = reproduce(val_images, tmp_path, "--weights", f"D={small_d}", *SPEED)
    (nobody,) = [line for line in result.stderr.splitlines() if "nobody published any" in line]
    assert "D trained at S = 384" in nobody
    assert "D trained at S = [256;512]" not in result.stderr
    assert "fetch D" not in result.stdout
    assert runs_parts.downloads(["D trained at S = 384", "E trained at S = [256;512]"]) == {
        "E trained at S = [256;512]": E_BYTES
    }


def test_a_published_model_that_is_not_here_is_planned_and_counted_as_a_download(val_images, tmp_path):
    how = ("--weights", "D=VGG_ILSVRC_16_layers", "--weights", "E=VGG_ILSVRC_19_layers", *SPEED)
    found = document(reproduce(val_images, tmp_path, *how, "--json"))
    assert found["downloads"] == {"VGG_ILSVRC_16_layers": D_BYTES, "VGG_ILSVRC_19_layers": E_BYTES}
    assert found["disk"]["converted weights"] == D_BYTES + E_BYTES
    assert (found["rows"], found["other_rows"]) == (13, 2)
    assert found["no_verdict"] == [f"{COUNT} of the 50,000 validation images"]
    text = reproduce(val_images, tmp_path, *how).stdout
    assert "To be downloaded first: VGG_ILSVRC_16_layers, 553 MB: vggbench weights fetch VGG_ILSVRC_16_layers" in text
    result = reproduce(val_images, tmp_path, *how[:4])
    assert result.exit_code == 5
    assert "Download it with: vggbench weights fetch VGG_ILSVRC_16_layers" in result.stderr


def test_a_model_that_is_not_here_and_does_not_fit_is_refused_as_if_it_were(val_images, tmp_path):
    assert reproduce(val_images, tmp_path, "--weights", "E=VGG_ILSVRC_16_layers", *SPEED).exit_code == 5


def test_what_is_in_the_cache_takes_no_time(val_images, small_d, tmp_path):
    how = ("--weights", f"D={small_d}", "--table", 3)
    assert reproduce(val_images, tmp_path, *how).exit_code == 0
    found = document(reproduce(val_images, tmp_path, *how, *SPEED, "--json"))
    assert (found["views_to_compute"], found["seconds"]) == (0, 0)
    assert found["views"] == 2 * COUNT
    assert "Time: seconds, for nothing is left to compute." in reproduce(val_images, tmp_path, *how, *SPEED).stdout


def network(form, backend, precision="fp32"):
    passes = tuple((Pass(each, 256, "whole" if each == "dense" else "center", False), 10) for each in form)
    return NetworkPlan(random_weights("D", 0), passes, (), ()), runs_inputs.Setting(backend, precision)


def test_a_graph_of_each_form_is_counted_once_for_all_rows():
    one, crops = network(("dense", "crop"), "onnxruntime"), network(("crop",), "onnxruntime")
    found = runs_parts.kept_bytes([one, crops])
    assert found == {"posteriors": 30 * 1000 * 4, "graphs": 2 * D_BYTES}
    assert runs_parts.kept_bytes([network(("dense",), "pytorch")]) == {"posteriors": 10 * 1000 * 4}
    assert runs_parts.kept_bytes([network(("dense",), "tensorrt")])["engines"] == D_BYTES


def test_a_verdict_is_ruled_out_only_where_no_row_can_get_one(val_images, small_d, monkeypatch):
    request = runs_inputs.Request(
        runs_inputs.setting(backend="pytorch"), str(val_images), weights={("D", None): str(small_d)}, only_planned=True
    )
    dataset = runs_inputs.dataset_of(request, progress.silent)
    monkeypatch.setattr(runs_estimate, "IMAGENET_IMAGES", COUNT)
    assert "not known" in runs_estimate._no_verdict(dataset, runs_inputs.plan_of(request, dataset))[0]
    stated = dataclasses.replace(request, authors=True)
    assert runs_estimate._no_verdict(dataset, runs_inputs.plan_of(stated, dataset)) == ()
