"""Findings judged from records whose right answers are known."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from vggbench import findings
from vggbench.findings import MARGIN_POINTS, SMALLEST_EFFECT_POINTS, judge, row_key
from vggbench.paper import claims
from vggbench.questions import QUESTIONS, TITLES
from vggbench.results import NetworkRun, Record, Samples, Workload

IMAGES = 2000
BY_ID = {claim.id: claim for claim in claims()}


def record(key, wrong, seed=0, *, origin="measured", bad=(), choices=None, status="sample", **data):
    """A record of a row (a claim's id, or "center/B/256") whose images are wrong where ``wrong`` is."""
    claim = BY_ID.get(key)
    entries = [tuple(key.split("/")[1:])]
    if claim:
        entries = [(entry.network, entry.train_scale) for entry in claim.entries]
    networks = [
        NetworkRun(
            network=network,
            weights={"train_scale": scale, "status": status},
            passes=[],
            backend="onnxruntime",
            precision="fp32",
        )
        for network, scale in entries
    ]
    fields = {"name": "sample", "split": "test", "fingerprint_full": "f" * 64, "fingerprint": f"{len(wrong)}"} | data
    fields["bad"] = [{"id": name, "why": "truncated"} for name in bad]
    return Record(
        kind="accuracy",
        claim=key if claim else None,
        networks=networks,
        workload=Workload(protocol=key.split("/")[0], choices=choices or {"score_pool": "mean_logits"}, data=fields),
        samples=Samples(unit="rank", values=[int(7 * value) for value in wrong]),
        seed=seed,
        origin=origin,
    )


def errors(percent, seed=0, images=IMAGES, luck_points=0.0, who=""):
    """Which images are wrong: the hardest ones by a fixed difficulty, jittered a little by each network and seed."""
    difficulty = np.random.default_rng(7).permutation(images) / images
    rng = np.random.default_rng((seed, round(1000 * percent), *who.encode()))
    noisy = difficulty + rng.normal(0, 0.01, images)
    share = (percent + luck_points * rng.normal()) / 100
    return noisy < np.quantile(noisy, share)


def family(percents, seeds=3, luck_points=0.1, images=IMAGES, **changes):
    return [
        record(key, errors(percent, seed, images, luck_points, key), seed, **changes)
        for key, percent in percents.items()
        for seed in range(seeds)
    ]


def only(identifier, records):
    return next(finding for finding in judge(records) if finding.id == identifier)


DEPTH = {"table3/A/256": 24.0, "table3/B/256": 18.0}


def test_a_clear_difference_in_the_papers_direction_is_shown():
    found = only("depth-11-13", family(DEPTH))
    assert found.verdict == "shown"
    assert found.effect_points == pytest.approx(6, abs=0.5)
    assert 0 < found.low < found.effect_points < found.high
    assert found.p <= found.p_holm < 0.05
    assert found.judged_over == "3 training seeds and 2,000 images"
    (comparison,) = found.comparisons
    assert comparison.error_a_percent - comparison.error_b_percent == pytest.approx(comparison.effect_points)
    assert (comparison.seeds, comparison.images) == (3, IMAGES)
    assert "A/256" in comparison.label_a
    assert "Table 3" in comparison.label_a


def test_the_opposite_of_the_papers_direction_is_not_shown():
    found = only("depth-11-13", family({"table3/A/256": 18.0, "table3/B/256": 24.0}))
    assert found.verdict == "not shown"
    assert found.effect_points < 0


def test_an_effect_too_small_to_matter_is_not_shown():
    found = only("depth-11-13", family({"table3/A/256": 20.0, "table3/B/256": 20.0}, 3, 0.0, images=8000))
    assert abs(found.effect_points) < SMALLEST_EFFECT_POINTS
    assert found.high < SMALLEST_EFFECT_POINTS
    assert found.verdict == "not shown"


def test_seeds_that_disagree_leave_it_undecided_though_one_seed_alone_looks_clear():
    shares = {0: 24.0, 1: 16.0, 2: 21.0}
    records = [record("table3/A/256", errors(share, seed), seed) for seed, share in shares.items()]
    records += [record("table3/B/256", errors(18.0, seed), seed) for seed in shares]
    found = only("depth-11-13", records)
    assert found.comparisons[0].effect_points == pytest.approx(7 / 3, abs=0.2)
    assert found.verdict == "not decided"


def test_a_finding_about_training_is_not_decided_by_one_seed():
    found = only("depth-11-13", family(DEPTH, seeds=1))
    assert found.p < 1e-6
    assert found.verdict == "not decided"
    assert "these weights only" in found.judged_over
    assert "One training seed" in found.note


def test_a_finding_about_testing_can_be_shown_for_one_set_of_weights():
    records = family({"table5/D/[256;512]/dense": 15.0, "table5/D/[256;512]/multi-crop": 12.0}, seeds=1)
    found = only("multi-crop", records)
    assert found.verdict == "shown"
    assert "these weights only" in found.judged_over
    assert "Not measured: E/[256;512] dense (Table 5), E/[256;512] multi-crop (Table 5)." in found.note


def test_weights_without_a_seed_are_one_set():
    records = [
        record(f"table5/D/[256;512]/{name}", errors(percent), None, status="authors")
        for name, percent in (("dense", 26.0), ("multi-crop", 22.0))
    ]
    assert only("multi-crop", records).verdict == "shown"


def test_few_images_decide_nothing():
    found = only("depth-11-13", family({"table3/A/256": 90.0, "table3/B/256": 10.0}, images=60))
    assert found.p < 0.01
    assert found.verdict == "not decided"
    assert "60 images are too few" in found.note


def test_nothing_measured_is_not_decided_and_says_what_is_missing():
    for found in judge([]):
        assert found.verdict == "not decided"
        assert found.effect_points is found.low is found.high is found.p is found.p_holm is None
        assert found.comparisons == ()
        assert found.judged_over == "not measured"
        assert "Not measured: " in found.note
    assert [found.id for found in judge([])] == [question.id for question in QUESTIONS]


# ---- equalities ------------------------------------------------------------------------------------------------------

EQUAL = {f"table3/{network}/{scale}": 20.0 for network in "DE" for scale in ("256", "384", "[256;512]")}


def test_an_equality_within_the_margin_is_shown():
    found = only("depth-saturates", family(EQUAL, luck_points=0.02))
    assert found.verdict == "shown"
    assert -MARGIN_POINTS < found.low < found.high < MARGIN_POINTS
    assert len(found.comparisons) == 3


@pytest.mark.parametrize("percent", [14.0, 26.0])
def test_an_equality_is_not_shown_outside_the_margin_on_either_side(percent):
    found = only("depth-saturates", family(EQUAL | {key: percent for key in EQUAL if "/E/" in key}))
    assert found.p == 1
    assert found.verdict == "not shown"


def test_an_equality_that_chance_could_hide_is_not_decided():
    assert only("depth-saturates", family(EQUAL, luck_points=1.5)).verdict == "not decided"


@pytest.mark.parametrize(("with_lrn", "verdict"), [(26.0, "shown"), (20.0, "shown"), (14.0, "not shown")])
def test_lrn_does_not_help_where_it_makes_no_difference_or_harm(with_lrn, verdict):
    records = family({"table3/A/256": 20.0, "table3/A-LRN/256": with_lrn}, luck_points=0.02)
    assert only("lrn", records).verdict == verdict


# ---- several comparisons ---------------------------------------------------------------------------------------------


def test_comparisons_are_averaged_per_image_and_listed_one_by_one():
    rows = {f"table3/{network}/384": 20.0 for network in "CDE"}
    rows |= {"table3/C/[256;512]": 18.0, "table3/D/[256;512]": 17.0, "table3/E/[256;512]": 16.0}
    found = only("train-jitter", family(rows))
    assert [round(each.effect_points) for each in found.comparisons] == [2, 3, 4]
    assert found.effect_points == pytest.approx(np.mean([each.effect_points for each in found.comparisons]))
    assert found.verdict == "shown"


def test_where_several_things_are_said_the_weakest_decides():
    rows = {f"table5/{network}/[256;512]/dense": 20.0 for network in "DE"}
    rows |= {f"table5/{network}/[256;512]/multi-crop": 15.0 for network in "DE"}
    both = {f"table5/{network}/[256;512]/multi-crop-and-dense": 15.0 for network in "DE"}
    found = only("crops-and-dense", family(rows | both))
    assert found.verdict != "shown"
    assert abs(found.effect_points) < 1
    assert len(found.comparisons) == 4
    better = dict.fromkeys(both, 10.0)
    assert only("crops-and-dense", family(rows | better)).verdict == "shown"
    worse = dict.fromkeys(both, 17.5)
    assert only("crops-and-dense", family(rows | worse)).verdict == "not shown"


def test_one_half_of_a_finding_alone_does_not_decide_it():
    fused = "table6/D/[256;512]+E/[256;512]/dense"
    found = only("fusion", family({"table5/D/[256;512]/dense": 20.0, fused: 10.0}))
    assert found.verdict == "not decided"
    assert found.effect_points is None
    assert len(found.comparisons) == 1


def test_a_comparison_with_fewer_seeds_is_listed_but_does_not_cost_the_others_theirs():
    rows = {f"table3/{network}/384": 20.0 for network in "CDE"} | {
        f"table3/{network}/[256;512]": 16.0 for network in "CDE"
    }
    records = [each for each in family(rows) if each.networks[0].network != "E" or each.seed == 0]
    found = only("train-jitter", records)
    assert [each.seeds for each in found.comparisons] == [3, 3, 1]
    assert found.judged_over.startswith("3 training seeds")
    assert "Pooled over 2 of 3" in found.note


def test_center_crops_without_a_claim_are_found_by_protocol_and_network():
    records = family({"center/shallow-B/256": 30.0, "center/B/256": 22.0})
    assert row_key(records[0]) == "center/shallow-B/256"
    assert only("small-filters", records).verdict == "shown"


# ---- pairing ---------------------------------------------------------------------------------------------------------


def test_records_pair_over_the_common_first_images():
    records = [record("table3/A/256", errors(24.0, seed), seed) for seed in range(3)]
    records += [record("table3/B/256", errors(18.0, seed)[:1200], seed) for seed in range(3)]
    (comparison,) = only("depth-11-13", records).comparisons
    assert comparison.images == 1200
    first = np.mean([errors(24.0, seed)[:1200] for seed in range(3)])
    assert comparison.error_a_percent == pytest.approx(100 * first)


def test_records_pair_by_seed_whatever_their_order():
    records = family(DEPTH)
    assert judge(records) == judge(records[::-1])


def test_records_of_other_data_are_not_paired():
    for change in ({"fingerprint_full": "other"}, {"split": "tune"}, {"choices": {"score_pool": "mean_probs"}}):
        records = family({"table3/A/256": 24.0}) + family({"table3/B/256": 18.0}, **change)
        found = only("depth-11-13", records)
        assert found.verdict == "not decided"
        assert "3 records of other data, choices or weights were left out." in found.note


def test_random_weights_are_not_paired_with_trained_ones():
    records = family({"table3/A/256": 98.0}, status="random") + family({"table3/B/256": 18.0})
    assert only("depth-11-13", records).effect_points is None


def test_what_this_run_measured_is_judged_rather_than_more_recorded_records_of_other_data():
    records = family(DEPTH, origin="recorded", seeds=6, fingerprint_full="old")
    records += family({"table3/A/256": 18.0, "table3/B/256": 24.0}, seeds=2)
    assert only("depth-11-13", records).effect_points < 0


def test_different_bad_images_are_not_paired():
    records = family({"table3/A/256": 24.0}, bad=["x.jpg"]) + family({"table3/B/256": 18.0}, bad=["y.jpg"])
    found = only("depth-11-13", records)
    assert found.effect_points is None
    assert "skipped different bad images" in found.note
    same = family(DEPTH, bad=["x.jpg"])
    assert only("depth-11-13", same).verdict == "shown"


def test_a_longer_row_may_have_met_more_bad_images_behind_the_common_ones():
    short = family({"table3/A/256": 24.0}, images=1200, bad=["x.jpg"], decoder="one")
    assert only("depth-11-13", short + family({"table3/B/256": 18.0}, bad=["x.jpg", "y.jpg"], decoder="one")).p < 0.05
    for changes in ({"bad": ["y.jpg"], "decoder": "one"}, {"bad": ["x.jpg", "y.jpg"], "decoder": "other"}):
        assert only("depth-11-13", short + family({"table3/B/256": 18.0}, **changes)).p is None


def test_comparisons_with_different_bad_images_are_not_averaged():
    rows = {f"table3/{network}/384": 20.0 for network in "CD"} | {
        f"table3/{network}/[256;512]": 16.0 for network in "CD"
    }
    records = [
        each
        for network, bad in (("C", ["x.jpg"]), ("D", ["y.jpg"]))
        for each in family({key: percent for key, percent in rows.items() if f"/{network}/" in key}, bad=bad)
    ]
    found = only("train-jitter", records)
    assert len(found.comparisons) == 2
    assert found.p is None
    assert "cannot be averaged" in found.note


def test_no_common_seed_is_said():
    records = [*family({"table3/A/256": 24.0}), record("table3/B/256", errors(18.0, 9), 9)]
    assert "no training seed in common" in only("depth-11-13", records).note


def test_recorded_seeds_add_to_the_measured_one_and_are_named():
    recorded = family(DEPTH, origin="recorded")
    measured = [record(key, errors(percent, 0)[:500], 0) for key, percent in DEPTH.items()]
    found = only("depth-11-13", recorded + measured)
    assert found.judged_over == "3 training seeds and 2,000 images; recorded runs among them"


def test_latency_records_are_not_findings():
    timed = record("table3/A/256", errors(24.0)).model_copy(
        update={"kind": "latency", "samples": Samples(unit="seconds", values=[0.1, 0.2])}
    )
    assert only("depth-11-13", [timed]).comparisons == ()


# ---- the rule --------------------------------------------------------------------------------------------------------


def test_p_values_are_adjusted_over_all_measured_findings():
    alone = only("depth-11-13", family(DEPTH))
    assert alone.p_holm == alone.p
    more = DEPTH | {"table3/D/256": 17.9, "table3/C/256": 17.8, "table3/A-LRN/256": 24.0}
    among = {found.id: found for found in judge(family(more))}
    assert among["depth-11-13"].p == pytest.approx(alone.p)
    assert among["depth-11-13"].p_holm > alone.p_holm
    measured = [found for found in among.values() if found.p is not None]
    assert len(measured) == 5
    assert [found.p_holm for found in measured] == findings.holm([found.p for found in measured])


def test_equal_recipes_are_rarely_shown_to_differ():
    """The whole judgement, not one test: of 120 families without any effect, about 5 % may show one."""
    rng = np.random.default_rng(11)
    keys = [f"table3/{network}/256" for network in ("A", "B", "C", "D")]
    wrongly = 0
    for _ in range(120):
        difficulty = rng.normal(-2, 2, 300)
        records = []
        for key in keys:
            for seed in range(3):
                chance = 1 / (1 + np.exp(-(difficulty + rng.normal(0, 0.3))))
                records.append(record(key, rng.random(300) < chance, seed))
        wrongly += any(found.verdict == "shown" for found in judge(records))
    assert wrongly <= 8


def test_a_finding_is_plain_frozen_data():
    found = only("depth-11-13", family(DEPTH))
    with pytest.raises(dataclasses.FrozenInstanceError):
        found.verdict = "shown"
    assert [field.name for field in dataclasses.fields(found)] == [
        "id", "statement", "verdict", "effect_points", "low", "high", "p", "p_holm", "comparisons", "judged_over",
        "note",
    ]  # fmt: skip
    assert all(type(value) is float for value in (found.effect_points, found.low, found.high, found.p, found.p_holm))


def test_every_statement_names_its_section():
    assert all("section 4." in question.statement for question in QUESTIONS)


def test_every_question_has_a_title_and_no_title_is_left_over():
    assert set(TITLES) == {question.id for question in QUESTIONS}
