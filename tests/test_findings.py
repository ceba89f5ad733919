"""Findings judged from records whose right answers are known."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from finding_records import DEPTH, IMAGES, errors, family, only, record

from vggbench import findings
from vggbench.findings import MARGIN_POINTS, SMALLEST_EFFECT_POINTS, judge
from vggbench.questions import QUESTIONS, TITLES


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
