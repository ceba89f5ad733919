"""Which records a finding pairs, by image and seed, and how several comparisons become one."""

from __future__ import annotations

import numpy as np
import pytest
from finding_records import DEPTH, errors, family, only, record

from vggbench.findings import judge
from vggbench.findings_rows import row_key
from vggbench.results import Samples

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
