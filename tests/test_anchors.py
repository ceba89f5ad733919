"""Verdicts on other people's figures: only for the same weights, images and views; what is off says by how much."""

import dataclasses
import json

import page_fixtures as fixtures
import pytest

from vggbench import paper, paper_anchors, paper_models
from vggbench.report import context_from, render
from vggbench.report.anchors import anchor_rows, verdicts_of
from vggbench.report.frame import frame
from vggbench.report.rows import measured, verdict
from vggbench.results import NetworkRun

CLAIM = next(claim for claim in paper.claims() if claim.id == "table3/D/[256;512]")
CENTER = [{"form": "crop", "scale": 256, "grid": "center", "flip": False}]


def record(top1, top5, model="VGG_ILSVRC_16_layers", passes=CENTER, **choices):
    """A center crop of a known file on all validation images; its digest is what identifies it."""
    known = paper_models.by_name(model)
    base = fixtures.imagenet_record(CLAIM, top1, top5, **choices)
    run = base.networks[0].model_dump()
    source = {"sha1": "0" * 40, "sha256": "0" * 64, "md5": "0" * 32}
    source[known.digest_kind] = (known.digest + "0" * 64)[: len(source[known.digest_kind])]
    run["weights"] |= {"status": known.status, "source": source, "name": "any name"}
    run |= {"passes": passes, "network": known.network}
    return base.model_copy(update={"claim": None, "networks": [NetworkRun(**run)]})


def rows_of(found):
    return {(row.anchor.who, row.anchor.protocol): row for row in anchor_rows(measured([found]))}


def kinds(found):
    return {who.split(",")[0]: row.verdict.kind for (who, _), row in rows_of(found).items() if row.row}


def test_a_center_crop_of_the_authors_file_gets_a_verdict_from_every_figure_of_that_crop():
    found = kinds(record(28.5, 9.9))
    assert found == {
        "MatConvNet pretrained page": "reproduced",
        "keras-team/keras-applications README": "reproduced",
        "keras.io table 0.713/0.901": "reproduced",
        "tensorflow/models research/slim README": "reproduced",
    }


def test_what_is_off_says_by_how_much_and_why_it_likely_is():
    rows = rows_of(record(30.9, 11.2))
    (judged,) = [row.verdict for (who, _), row in rows.items() if who.startswith("MatConvNet pretrained")]
    assert judged.kind == "not reproduced"
    assert judged.reason == "differs in top-1 by +2.40 points and top-5 by +1.30 points"
    assert "image loaders alone moved the center-crop error of one file by 2.4 points" in judged.likely


@pytest.mark.parametrize(
    ("top1", "top5", "changes", "likely"),
    [
        (99.8, 99.0, {}, "class order"),
        (60.0, 40.0, {}, "channel order"),
        (20.0, 5.0, {}, "fingerprint"),
        (29.5, 10.2, {"precision": "int8"}, "it ran at int8"),
        (99.8, 99.0, {"precision": "int8"}, "class order"),
    ],
)
def test_the_likely_reason_follows_from_how_far_it_is_off(top1, top5, changes, likely):
    found = record(top1, top5)
    run = NetworkRun(**{**found.networks[0].model_dump(), **changes})
    (row,) = [r for r in anchor_rows(measured([found.model_copy(update={"networks": [run]})])) if r.row][:1]
    assert row.verdict.kind == "not reproduced"
    assert likely in row.verdict.likely


def test_images_left_out_are_the_first_suspect():
    found = fixtures.imagenet_record(CLAIM, 26.5, 8.1)
    data = {**found.workload.data, "bad": [{"id": "x", "why": "cut"}]}
    bad = found.model_copy(update={"workload": found.workload.model_copy(update={"data": data})})
    assert verdict(CLAIM, bad).likely == "images that could not be read were left out"


def test_figures_that_no_run_can_meet_say_why():
    reasons = {
        row.verdict.reason for row in rows_of(record(28.5, 9.9)).values() if row.verdict.kind == "not comparable"
    }
    assert "its images were warped to a square, vggbench keeps their shape" in reasons
    assert "measured with an image loader that its maker has replaced" in reasons
    assert "its protocol is not stated" in reasons


def test_figures_of_other_views_say_what_would_measure_them():
    rows = rows_of(record(28.5, 9.9))
    (judged,) = [row.verdict for (who, _), row in rows.items() if who.startswith("He et al.")]
    assert judged.kind == "not measured"
    assert "--network D --weights FILE --protocol ten-crop --scale 256 measures it" in judged.reason


def test_torchvisions_own_figure_needs_its_filter():
    found = record(28.4, 9.6, "vgg16", resize_filter="bilinear")
    assert kinds(found) == {"torchvision": "reproduced"}
    (row,) = anchor_rows(measured([record(28.4, 9.6, "vgg16")]))
    assert row.verdict.kind == "not comparable"
    assert "--resize-filter bilinear" in row.verdict.reason


def test_a_port_counts_for_the_figures_but_not_for_the_papers_rows():
    found = record(28.5, 9.9, "keras/vgg16").model_copy(update={"claim": CLAIM.id})
    assert set(kinds(found).values()) == {"reproduced"}
    assert verdict(CLAIM, found).kind == "not comparable"


def test_unknown_weights_have_no_figures():
    found = record(28.5, 9.9)
    run = found.networks[0]
    weights = {**run.weights, "status": "other", "source": {"sha1": "1" * 40, "sha256": "", "md5": ""}}
    unknown = found.model_copy(update={"networks": [run.model_copy(update={"weights": weights})]})
    assert anchor_rows(measured([unknown])) == []
    named = found.model_copy(update={"networks": [run.model_copy(update={"weights": {**weights, "source": None}})]})
    assert anchor_rows(measured([named])) == []


def test_a_part_of_the_images_is_not_comparable():
    whole = record(28.5, 9.9)
    part = whole.model_copy(
        update={"samples": whole.samples.model_copy(update={"values": whole.samples.values[:5000]})}
    )
    assert {row.verdict.reason for row in anchor_rows(measured([part])) if row.row} == {
        "5,000 of the 50,000 validation images"
    }


def test_dense_choices_change_nothing_for_a_crop_and_crop_choices_do():
    assert set(kinds(record(28.5, 9.9, pool_rounding="floor", score_pool="mean_probs")).values()) == {"reproduced"}
    assert set(kinds(record(28.5, 9.9, exif="apply")).values()) == {"not comparable"}


def test_the_authors_own_figures_stand_beside_the_dense_rows():
    dense = [{"form": "dense", "scale": scale, "grid": "whole", "flip": True} for scale in (512, 256, 384)]
    assert kinds(record(24.8, 7.5, passes=dense)) == {"the authors": "reproduced"}
    assert kinds(record(24.8, 7.5, passes=dense[1:2])) == {}


def test_every_figure_of_the_table_is_an_anchor_once():
    found = paper_anchors.anchors()
    assert len(found) == len({(a.who, a.network, a.protocol, a.lineage) for a in found})
    assert all((anchor.views is None) == bool(anchor.why_not) for anchor in found)
    slim = next(a for a in found if a.who.startswith("tensorflow/models") and a.network == "E")
    assert (slim.top1_error_percent, slim.top5_error_percent, slim.rounding_points) == (28.9, 10.2, 0.05)
    assert paper_anchors.loader_spread_points() == pytest.approx(2.4)


def test_json_has_the_verdicts():
    document = json.loads(json.dumps(verdicts_of(record(28.5, 9.9))))
    assert document["verdict"] is None
    assert {row["kind"] for row in document["anchors"]} == {"reproduced"}
    judged = verdicts_of(fixtures.imagenet_record(CLAIM, 26.5, 8.1))["verdict"]
    assert judged["kind"] == "not reproduced"
    assert judged["likely"]


def test_the_page_shows_the_figures_and_only_for_known_weights():
    found = record(30.9, 11.2)
    html = render([found], [], context_from([found]))
    assert "Other people" in html
    assert "differs in top-1 by +2.40 points" in html
    assert "image loaders alone" in html
    assert 'id="anchors"' not in render([fixtures.sample_records((0,), 20)[0]], [], context_from([found]))
    table = frame([fixtures.imagenet_record(CLAIM, 26.9, 8.1)])
    assert table["likely"][0].startswith("decoding and rescaling")


def test_a_digest_decides_and_a_name_does_not():
    known = paper_models.by_name("VGG_ILSVRC_19_layers")
    assert paper_models.identify({"sha1": known.digest}) == known
    assert paper_models.identify({"sha1": known.digest[:-1] + "0"}) is None
    assert paper_models.identify({}) is None
    assert paper_models.identify({"sha256": known.digest}) is None
    assert dataclasses.replace(known, digest="ab").holds({"sha1": "abc"})
