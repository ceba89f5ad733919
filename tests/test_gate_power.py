"""False alarms and power by simulation, small and seeded; the whole table: python tests/bench/gate_power.py."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

BENCH = Path(__file__).parent / "bench"


@pytest.fixture(scope="module")
def power():
    sys.path.insert(0, str(BENCH))
    try:
        import gate_power
    finally:
        sys.path.remove(str(BENCH))
    return gate_power


def test_of_two_hundred_gates_on_equal_code_at_most_two_percent_regress(power):
    found = power.gates(power.Noise(process_cv=0.03), 200, 7)
    assert sum(found.values()) == 200
    assert found.get("regressed", 0) <= 4


def test_ten_percent_slower_is_found_in_95_of_100_gates_of_seven_processes(power):
    assert power.gates(power.Noise(), 100, 7, slowdown=0.10)["regressed"] >= 95


def test_the_interval_misses_the_truth_on_either_side_in_few_cases(power):
    bounds = power.lower_bounds(power.Noise(process_cv=0.05), 300, 7, interleaved=False)
    assert 0.0 < np.mean(bounds > 0) < 0.05


def test_fifteen_processes_find_less_than_seven_and_noise_hides_more(power):
    quiet, loud = power.Noise(process_cv=0.01), power.Noise(process_cv=0.03)
    few, many = (power.smallest_found(power.lower_bounds(loud, 150, processes)) for processes in (7, 15))
    assert 0.05 < power.smallest_found(power.lower_bounds(quiet, 150, 7)) < many < few


def test_rounds_drawn_together_find_what_a_drift_hides(power):
    drift = power.Noise(process_cv=0.01, round_cv=0.05)
    apart, together = (power.power(power.lower_bounds(drift, 100, 7, paired), 0.1) for paired in (False, True))
    assert apart < 0.6
    assert together > 0.95


def in_turn(power, noise, count, seed=0):
    """Records of BASE and HEAD that `ab` took in so many rounds."""
    base, head = noise.seconds(np.random.default_rng(seed), count)
    return [
        power.record(row, number).model_copy(update={"conditions": {"ab_side": side, "ab_round": number}})
        for side, rows in (("base", base), ("head", head))
        for number, row in enumerate(rows)
    ]


def test_noise_of_rounds_is_told_apart_from_what_they_share(power):
    found = power.estimate(in_turn(power, power.Noise(process_cv=0.01, within_cv=0.02, round_cv=0.1), 80))
    assert found.process_cv == pytest.approx(0.01, rel=0.35)
    assert found.round_cv == pytest.approx(0.1, rel=0.25)


def test_gates_on_recorded_rounds_raise_no_false_alarm_and_find_a_slowdown_beneath_a_drift(power):
    rounds = power.rounds_of(in_turn(power, power.Noise(process_cv=0.01, round_cv=0.15), 30))
    assert len(rounds) == 30
    assert power.recorded_rounds(rounds, 60, 7).get("regressed", 0) <= 1
    assert power.recorded_rounds(rounds, 60, 7, slowdown=0.1)["regressed"] >= 57


def test_every_interval_for_rounds_is_near_the_one_taken_where_noise_is_normal(power):
    found = power.methods(power.Noise(process_cv=0.01), 60, 7, interleaved=True)
    assert len(found) == 4
    assert all(share > 0.9 for _, share in found.values())


def test_bounds_by_ranks_stand_where_the_tables_put_them(power):
    # Of seven and seven Mann and Whitney's U may be 8 at most, of seven Wilcoxon's sum of ranks 2: 5 %, two-sided.
    steps = np.arange(7.0)
    apart = power.other_intervals(np.exp(-steps), np.exp(7 * steps))  # all differences from 0 to 48
    assert apart["Hodges and Lehmann"] == pytest.approx(8.0)
    moved = 3.0**steps
    means = sorted((one + other) / 2 for number, one in enumerate(moved) for other in moved[number:])
    in_rounds = power.other_intervals_in_rounds(np.ones(7), np.exp(moved / 1000))
    assert in_rounds["Wilcoxon's signed ranks"] == pytest.approx(means[2] / 1000)


def test_noise_is_estimated_from_records(power):
    noise = power.Noise(process_cv=0.02, within_cv=0.05, autocorrelation=0.7, calls=400)
    base, _ = noise.seconds(np.random.default_rng(0), 60)
    found = power.estimate([power.record(row) for row in base])
    assert found.process_cv == pytest.approx(0.02, rel=0.35)
    assert found.within_cv == pytest.approx(0.05, rel=0.1)
    assert found.autocorrelation == pytest.approx(0.7, abs=0.05)


def test_gates_on_recorded_calls_raise_no_false_alarm_and_find_a_slowdown(power):
    base, _ = power.Noise().seconds(np.random.default_rng(1), 20)
    records = [power.record(row) for row in base]
    assert power.recorded_gates(records, 60, 7).get("regressed", 0) <= 1
    assert power.recorded_gates(records, 60, 7, slowdown=0.15)["regressed"] >= 57
