"""The gate's verdicts: times over processes, answers image by image, and what it refuses to compare."""

from __future__ import annotations

import gate_records as make
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vggbench.errors import RecordError, UsageError
from vggbench.gate import Limits, compare, document
from vggbench.gate_axes import AXES, BACKEND_LIBRARIES, NAMES
from vggbench.gate_statistics import Interval, changed_answers, processes_to_decide, ratio_in_rounds, ratio_of_medians
from vggbench.results import Samples
from vggbench.statistics import mcnemar


def only(comparison):
    (row,) = comparison.rows
    return row


def gate(base, head, *across, **limits):
    return compare(base, head, across=across, limits=Limits(**limits))


# Times


def test_the_same_code_measured_twice_is_the_same():
    found = gate(make.timings(seed=1), make.timings(seed=2))
    assert (found.verdict, found.exit_status) == ("same", 0)
    row = only(found)
    assert row.low < row.change < row.high
    assert row.counts == (7, 7)


def test_a_slowdown_beyond_the_tolerance_regresses_and_a_gain_is_better():
    slower, faster = gate(make.timings(), make.timings(0.12, 3)), gate(make.timings(), make.timings(0.08, 3))
    assert (slower.verdict, slower.exit_status) == ("regressed", 1)
    assert only(slower).change == pytest.approx(0.2, abs=0.03)
    assert "tolerance +5.0 %" in slower.reason
    assert (faster.verdict, faster.exit_status) == ("better", 0)


def test_a_slowdown_within_the_tolerance_passes():
    assert gate(make.timings(), make.timings(0.12, 3), tolerance=0.25).verdict == "same"


def test_an_interval_that_straddles_the_tolerance_is_inconclusive_and_says_what_would_decide():
    levels = (0.9, 0.95, 0.98, 1.0, 1.03, 1.06, 1.1)
    found = gate(*([make.timing(0.1 * factor * level, spread=0.0) for level in levels] for factor in (1.0, 1.03)))
    assert (found.verdict, found.exit_status) == ("inconclusive", 3)
    assert "straddles" in only(found).reason
    assert "processes a side" in only(found).reason


@pytest.mark.parametrize("few", [1, 2, 6])
def test_too_few_processes_are_inconclusive_with_how_many_more(few):
    found = gate(make.timings(), make.timings(0.3, count=few))
    assert found.verdict == "inconclusive"
    assert f"{7 - few} more of HEAD" in only(found).reason


def test_times_too_short_for_the_clock_are_not_comparable():
    head = [record.model_copy(update={"samples": Samples(unit="seconds", values=[0.0, 0.0, 0.1])})
            for record in make.timings()]  # fmt: skip
    row = only(gate(make.timings(), head))
    assert (row.verdict, row.reason) == ("not comparable", "the clock of HEAD saw no time pass in most calls")


def test_several_records_of_one_process_are_one_process():
    same = [record.model_copy(update={"conditions": {"interpreter": "7 1"}}) for record in make.timings()]
    row = only(gate(make.timings(), same))
    assert (row.verdict, row.counts) == ("inconclusive", (7, 1))
    assert row.detail["calls"] == [140, 140]


def test_a_record_that_stands_twice_in_the_files_is_one_process():
    assert "6 more of BASE" in only(gate(make.timings(count=1) * 7, make.timings())).reason


def test_rounds_taken_in_turn_cancel_a_drift_that_both_sides_share():
    drift = [1.0, 1.1, 1.3, 1.2, 1.05, 0.9, 0.95]
    base, head = [0.1 * d for d in drift], [0.11 * d for d in drift]
    apart, together = ratio_of_medians(base, head, 0.95), ratio_in_rounds(base, head, 0.95)
    assert apart.low < 1.05
    assert (together.low, together.high) == pytest.approx((1.1, 1.1))
    sides = [[make.timing(value, spread=0.0, conditions={"ab_round": number}) for number, value in enumerate(side)]
             for side in (base, head)]  # fmt: skip
    assert gate(*sides).verdict == "regressed"
    assert only(gate(sides[0], sides[1][::-1])).change == pytest.approx(0.1)


def test_the_change_is_the_rounds_median_ratio_and_not_that_of_medians_of_different_rounds():
    base, head = [1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0], [1.1, 2.2, 3.3, 6.0, 5.5, 6.6, 7.7]
    sides = [[make.timing(value, spread=0.0, conditions={"ab_round": number}) for number, value in enumerate(side)]
             for side in (base, head)]  # fmt: skip
    assert only(gate(*sides)).change == pytest.approx(0.1)


def test_several_rows_are_judged_at_once_and_the_gravest_decides():
    base = [*make.timings(), *make.timings(network="E")]
    found = gate(base, [*make.timings(0.15, 2), *make.timings(seed=2, network="E")])
    assert found.verdict == "regressed"
    assert [row.verdict for row in found.rows] == ["regressed", "same"]
    assert {row.confidence for row in found.rows} == {0.975}
    assert found.counts == {"regressed": 1, "same": 1}


def test_how_many_processes_would_decide_grows_with_the_square_of_the_noise():
    assert processes_to_decide(Interval(1.0, 0.9, 1 / 0.9), 1.05, 7) == pytest.approx(33, abs=1)
    assert processes_to_decide(Interval(1.05, 0.9, 1.2), 1.05, 7) > 200


# Answers


def test_one_percent_of_changed_answers_is_found_by_pairs_where_unpaired_intervals_overlap():
    before = make.ranks()
    right = [place for place, rank in enumerate(before) if rank == 0]
    after = list(before)
    for place in right[::80][:24]:
        after[place] = 3
    row = gate([make.judged(before)], [make.judged(after)]).rows[0]
    assert row.verdict == "regressed"
    assert row.p < 1e-6
    one, other = row.detail["base_interval_percent"], row.detail["head_interval_percent"]
    assert one[1] > other[0]
    assert (row.detail["lost"], row.detail["gained"]) == (24, 0)
    assert row.change == pytest.approx(1.0)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(0, 999), min_size=1, max_size=300))
def test_equal_answers_are_never_flagged(values):
    found = gate([make.judged(values)], [make.judged(values)])
    assert found.verdict == "same"
    assert all((row.low, row.high, row.p) == (0.0, 0.0, 1.0) for row in found.rows)


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 40), st.integers(0, 40))
def test_the_interval_of_changed_answers_leaves_zero_exactly_where_mcnemar_rejects(lost, gained):
    found, p = changed_answers(lost, gained, 100, 0.95)
    assert p == mcnemar(lost, gained)
    assert (found.low > 0 or found.high < 0) == (p < 0.05)
    assert found.low - 1e-12 <= found.value <= found.high + 1e-12


def test_gained_answers_are_better_and_a_few_flips_both_ways_are_not_decided():
    before = make.ranks()
    better = [0 if place % 20 == 0 else rank for place, rank in enumerate(before)]
    assert gate([make.judged(before)], [make.judged(better)]).rows[0].verdict == "better"
    flipped = list(before)
    for place in range(12):
        flipped[place] = 0 if before[place] else 2
    assert gate([make.judged(before)], [make.judged(flipped)]).rows[0].verdict in ("inconclusive", "same")


def test_fewer_images_of_the_same_set_pair_with_its_first_ones():
    values = make.ranks()
    part = make.judged(values[:300], data="a" * 64, full="f" * 64)
    found = gate([make.judged(values)], [part])
    assert found.verdict == "same"
    assert found.rows[0].detail["images"] == 300
    assert found.rows[0].counts == (2400, 300)


def test_other_images_are_refused_whatever_is_allowed():
    found = gate([make.judged(make.ranks())], [make.judged(make.ranks(), data="e" * 64)])
    assert found.verdict == "not comparable"
    assert "data is" in found.reason
    assert "--across" not in found.reason
    with pytest.raises(UsageError, match="No axis 'data'"):
        gate([make.judged([0])], [make.judged([0])], "data")


def test_skipped_images_and_two_results_of_one_row_do_not_pair():
    values = make.ranks(50)
    skipped = gate([make.judged(values)], [make.judged(values[1:], bad=["a.jpg"])])
    assert "images do not pair" in skipped.reason
    double = gate([make.judged(values), make.judged(make.ranks(50, seed=1))], [make.judged(values)])
    assert "2 different results" in double.reason


def test_grown_drift_of_logits_regresses():
    base, head = [0.01 + 0.0001 * number for number in range(50)], [0.04 + 0.0001 * number for number in range(50)]
    assert gate([make.drifted(base)], [make.drifted(base)]).verdict == "same"
    found = gate([make.drifted(base)], [make.drifted(head)])
    assert (only(found).metric, found.verdict) == ("logit drift", "regressed")
    assert only(found).change == pytest.approx(0.03)


# What is refused, and what may differ


@pytest.mark.parametrize(
    ("axis", "head"),
    [
        ("machine", {"environment": {"cpu": "Other CPU"}}),
        ("network", {"network": "E"}),
        ("batch", {"batch": 8}),
        ("precision", {"precision": "bf16"}),
        ("onnxruntime", {"library": "1.33.0"}),
        ("threads", {"session": {"threads": 1}}),
        ("vggbench", {"environment": {"vggbench": "0.2.0"}}),
        ("python", {"environment": {"python": "3.12.1"}}),
        ("variables", {"environment": {"OMP_NUM_THREADS": "1"}}),
        ("variables", {"environment": {"ONEDNN_MAX_CPU_ISA": "AVX2"}}),
        ("cuda-graph", {"session": {"cuda_graph": "captured"}}),
        ("wait", {"session": {"wait": "spinning", "in_flight": 2}}),
        ("runner", {"session": {"runner": "native"}}),
    ],
)
def test_another_axis_is_not_comparable_unless_it_is_named_and_then_it_is_labelled(axis, head):
    base, other = make.timings(), make.timings(seed=2, **head)
    refused = gate(base, other)
    assert (refused.verdict, refused.exit_status) == ("not comparable", 3)
    assert f"{axis} is " in refused.reason
    assert f"--across {axis}" in refused.reason
    assert "\n" not in refused.reason
    allowed = gate(base, other, axis)
    assert only(allowed).change is not None
    assert allowed.labels[0].startswith(f"{axis} ")
    assert document(allowed)["differs"] == list(allowed.labels)


def test_a_change_of_backend_does_not_ask_for_its_libraries():
    assert gate(make.timings(), make.timings(seed=2, backend="pytorch", library="2.13"), "backend").verdict == "same"


def test_per_image_times_are_compared_across_batches():
    row = only(gate(make.timings(0.1), make.timings(0.8, 2, batch=8), "batch"))
    assert (row.metric, row.verdict) == ("time per image", "same")


@pytest.mark.parametrize("unrelated", [{"torch": "2.14"}, {"numpy": "3"}, {"python": "3.11.9"}, {"gpu": "Some GPU"}])
def test_packages_that_the_backend_does_not_use_do_not_matter(unrelated):
    base = make.timings(environment={"torch": "2.13", "numpy": "2.4"})
    assert (
        gate(base, make.timings(seed=2, environment={"torch": "2.13", "numpy": "2.4", **unrelated})).verdict == "same"
    )


def test_a_gpu_and_its_driver_matter_where_it_computes():
    device = {"session": {"device": "cuda:0"}}
    base = make.timings(environment={"gpu": "H100", "gpu_driver": "580"}, **device)
    found = gate(base, make.timings(seed=1, environment={"gpu": "H200", "gpu_driver": "590"}, **device))
    assert "machine is" in found.reason
    assert "--across machine --across driver" in found.reason


def test_one_side_of_two_machines_is_not_comparable():
    mixed = [*make.timings(count=4), *make.timings(seed=1, count=4, environment={"cpu": "Other CPU"})]
    assert "BASE mixes" in gate(mixed, make.timings(seed=2)).reason


def test_several_rows_that_fit_across_an_axis_are_not_guessed():
    head = [*make.timings(seed=1, precision="bf16"), *make.timings(seed=1, precision="fp16")]
    assert "keep one a side" in gate(make.timings(), head, "precision").reason


def test_a_row_that_head_lost_is_told_and_one_that_it_adds_fails_nothing():
    both = [
        *make.timings(),
        *make.timings(network="A", backend="pytorch", batch=8, precision="bf16", session={"threads": 1}),
    ]
    lost = gate(both, make.timings(seed=1))
    assert (lost.verdict, lost.exit_status) == ("inconclusive", 3)
    assert "only in BASE" in lost.reason
    added = gate(make.timings(seed=1), both)
    assert added.verdict == "same"
    assert {row.reason for row in added.rows if row.new} == {"only in HEAD"}


def test_an_empty_set_and_one_that_was_only_read_are_refused():
    recorded = [record.model_copy(update={"origin": "recorded"}) for record in make.timings()]
    loops = [record.model_copy(update={"kind": "loop"}) for record in make.timings()]
    for head in ([], recorded, loops):
        with pytest.raises(RecordError, match=r"HEAD .* holds no measured"):
            gate(make.timings(), head)


def test_an_unknown_axis_is_refused_with_those_known():
    with pytest.raises(UsageError, match=r"No axis 'colour'.*tensorrt"):
        gate(make.timings(), make.timings(), "colour")
    assert {"machine", "driver", "torch", "onnxruntime", "openvino", "tensorrt", "python", "backend"} <= set(NAMES)


def test_every_backend_is_held_to_libraries_that_are_axes():
    from vggbench.backends import BACKENDS

    assert set(BACKENDS) <= set(BACKEND_LIBRARIES)
    assert {name for names in BACKEND_LIBRARIES.values() for name in names} <= {axis.name for axis in AXES}
