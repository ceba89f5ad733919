"""Claims become work: every pass once, missing networks named, costs as counted by hand."""

from __future__ import annotations

import dataclasses

import pytest

from vgg_reference.architectures import architecture, count_macs, dense_macs
from vgg_reference.weights import Source, Weights, random_weights
from vggbench import paper, paper_models
from vggbench.errors import UsageError
from vggbench.plan import COSTLY_IMAGES, Plan, choose_claims, crop_equivalents, plan, single
from vggbench.protocols import Choices, Pass, protocol

ENTRIES = sorted({(entry.network, entry.train_scale) for claim in paper.claims() for entry in claim.entries})


def small(network: str, train_scale: str) -> Weights:
    weights = random_weights(network, 0, width=1 / 8, hidden_width=1 / 16, num_classes=60, crop_size=64)
    return dataclasses.replace(weights, train_scale=train_scale, digest=f"{network}/{train_scale}")


def family(*entries: tuple[str, str]) -> dict[tuple[str, str], Weights]:
    return {entry: small(*entry) for entry in entries or ENTRIES}


def images_of(made: Plan) -> dict[str | None, int]:
    return {row.claim: row.images for row in made.rows}


def test_with_the_whole_family_every_row_of_tables_3_to_6_is_planned_and_nothing_is_missing():
    made = plan(choose_claims(), family(), 2400)
    assert [row.claim for row in made.rows if row.claim] == [claim.id for claim in paper.claims()]
    assert made.missing == ()


def test_a_pass_of_a_network_is_planned_once_however_many_rows_share_it():
    made = plan(choose_claims(), family(), 2400)
    jittered_d = next(n for n in made.networks if n.weights.digest == "D/[256;512]")
    passes = [pass_ for pass_, _ in jittered_d.passes]
    assert len(passes) == len(set(passes))
    # Tables 3 to 6 together need dense and crops at the three scales of the jittered rows, and no more.
    assert {(p.form, p.scale) for p in passes} == {(form, q) for form in ("dense", "crop") for q in (73, 110, 146)}
    assert len(jittered_d.claims) == len([c for c in paper.claims() if ("D", "[256;512]") in entries_of(c)])


def entries_of(claim: paper.Claim) -> list[tuple[str, str]]:
    return [(entry.network, entry.train_scale) for entry in claim.entries]


def test_costly_rows_take_fewer_images_and_full_takes_all():
    few, full = (
        images_of(plan(choose_claims(), family(), 2400)),
        images_of(plan(choose_claims(), family(), 2400, costly_images=None)),
    )
    assert set(full.values()) == {2400}
    costly = {claim.id for claim in paper.claims() if "multi-crop" in claim.technique}
    assert {name for name, images in few.items() if images == COSTLY_IMAGES} == costly


def test_fewer_images_than_the_costly_limit_are_all_taken():
    assert set(images_of(plan(choose_claims(), family(), 100)).values()) == {100}


def test_a_dense_pass_shared_by_a_cheap_and_a_costly_row_covers_the_images_of_the_cheap_one():
    made = plan(choose_claims([5]), family(), 2400)
    counts = {pass_.form: images for network in made.networks for pass_, images in network.passes}
    assert counts == {"dense": 2400, "crop": COSTLY_IMAGES}


def test_rows_whose_networks_are_absent_are_left_out_and_named():
    made = plan(choose_claims([3]), family(("D", "256")), 10)
    assert [row.claim for row in made.rows] == ["table3/D/256"]
    assert "C trained at S = 256" in made.missing
    assert "D trained at S = 256" not in made.missing


def test_the_authors_two_models_cover_both_jittered_rows_and_their_fusions():
    made = plan(choose_claims(), family(("D", "[256;512]"), ("E", "[256;512]")), 10)
    claimed = {row.claim for row in made.rows}
    assert claimed == {claim.id for claim in paper.claims() if claim.has_public_weights}
    assert any(len(row.parts) == 2 for row in made.rows)


def test_b_and_its_shallow_form_are_compared_on_center_crops():
    made = plan(choose_claims([3]), family(("B", "256"), ("shallow-B", "256")), 10)
    center = [row for row in made.rows if row.claim is None]
    assert [row.parts[0].weights.network for row in center] == ["B", "shallow-B"]
    assert all(row.parts[0].protocol.name == "center" for row in center)


@pytest.mark.parametrize("number", [1, 2, 7, 12, 99])
def test_a_table_without_rows_to_measure_is_refused(number: int):
    with pytest.raises(UsageError, match=f"Table {number} holds no rows to measure. Known: 3, 4, 5, 6"):
        choose_claims([number])


def test_one_center_crop_of_an_image_is_one_crop_equivalent():
    made = single(small("D", "256"), protocol("center", (73,)), 7)
    assert crop_equivalents(made.networks[0], Choices()) == 7


def test_multi_crop_at_three_scales_costs_150_crops_an_image():
    made = single(small("D", "256"), protocol("multi-crop", (64, 73, 82)), 2)
    assert crop_equivalents(made.networks[0], Choices()) == 300


def test_a_dense_pass_costs_its_multiply_accumulates_over_those_of_a_crop():
    weights = random_weights("D", 0)
    made = single(weights, protocol("dense", (256,)), 3)
    network = architecture("D")
    expected = 3 * 2 * dense_macs(network, 256, 320, True) / count_macs(network)
    assert crop_equivalents(made.networks[0], Choices(), aspect=1.25) == pytest.approx(expected)


CENTER = Pass("crop", 256, "center", False)


def published(name: str, train_scale: str = "[256;512]") -> dict[tuple[str, str], Weights]:
    """Small weights that came from a published file, by its digest."""
    model = paper_models.by_name(name)
    digests = {"sha1": "", "sha256": "", "md5": "", model.digest_kind: model.digest}
    source = Source(file=model.file, format="", bytes=0, by="", done="", **digests)
    weights = small(model.network, train_scale)
    return {(model.network, train_scale): dataclasses.replace(weights, name=name, status=model.status, source=source)}


AUTHORS = published("VGG_ILSVRC_16_layers") | published("VGG_ILSVRC_19_layers")


def others_of(made: Plan) -> list[tuple[str, tuple[Pass, ...], str | None]]:
    return [
        (row.parts[0].weights.network, row.parts[0].protocol.passes, row.resize_filter)
        for row in made.rows
        if row.claim is None
    ]


def test_the_authors_files_get_one_center_crop_each_however_many_figures_it_stands_beside():
    made = plan(choose_claims(), AUTHORS, 50, None, "center")
    assert others_of(made) == [("D", (CENTER,), None), ("E", (CENTER,), None)]
    # In the same run as the other passes of the network, so that an image is decoded once.
    assert [len(network.batches) for network in made.networks] == [1, 1]
    assert all((CENTER, 50) in network.passes for network in made.networks)


def test_a_center_crop_costs_one_crop_an_image_more():
    without, with_it = (plan(choose_claims(), AUTHORS, 50, None, which) for which in ("none", "center"))
    more = [
        crop_equivalents(b, Choices()) - crop_equivalents(a, Choices())
        for a, b in zip(without.networks, with_it.networks, strict=True)
    ]
    assert more == pytest.approx([50, 50])


def test_ports_are_known_by_their_digest_and_other_files_have_no_figures():
    assert others_of(plan((), published("keras/vgg19"), 9, None, "only")) == [("E", (CENTER,), None)]
    assert others_of(plan(choose_claims(), family(("D", "[256;512]")), 9, None, "all")) == []


def test_files_stated_to_be_the_authors_count_as_theirs():
    stated = dataclasses.replace(small("E", "[256;512]"), status="authors")
    assert others_of(plan((), {("E", "[256;512]"): stated}, 9, None, "only")) == [("E", (CENTER,), None)]


def test_all_figures_bring_ten_crops_and_the_dense_ones_that_no_row_of_the_paper_measures():
    ten = Pass("crop", 256, "corners", True)
    three = {Pass("dense", scale, "whole", True) for scale in (256, 384, 512)}
    found = [set(passes) for network, passes, _ in others_of(plan((), AUTHORS, 9, None, "all")) if network == "D"]
    assert sorted(map(len, found)) == [1, 1, 1, 3]
    assert [{CENTER} in found, {ten} in found, three in found] == [True, True, True]
    # The weights are of another crop size here, so the paper's rows are at other scales: with 224 they are the same.
    full = {key: dataclasses.replace(weights, crop_size=224) for key, weights in AUTHORS.items()}
    found = [
        set(passes) for network, passes, _ in others_of(plan(choose_claims(), full, 9, None, "all")) if network == "D"
    ]
    assert found == [{CENTER}, {ten}] or found == [{ten}, {CENTER}]


def test_a_figure_with_its_own_filter_is_measured_with_it_and_the_networks_rows_are_not():
    made = plan(choose_claims(), published("vgg16"), 9, None, "center")
    assert others_of(made) == [("D", (CENTER,), "bilinear")]
    rows, figure = made.networks
    assert (rows.choices(Choices()), figure.choices(Choices()).resize_filter) == (Choices(), "bilinear")
    assert figure.passes == ((CENTER, 9),)
    made = plan(choose_claims(), published("vgg16"), 9, None, "center", Choices(resize_filter="bilinear"))
    assert others_of(made) == [("D", (CENTER,), None)]
    assert len(made.networks) == 1
