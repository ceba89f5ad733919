"""Runs on a time line: what is found, what is not, and what is named with it."""

from __future__ import annotations

import numpy as np
import pytest
from history_records import NOISE, accuracy, network, over, timing

from vggbench.history import differing, history, runs_of
from vggbench.history_changes import FEWEST_RUNS, change_points, drifts


def test_of_200_series_without_a_change_about_one_in_a_hundred_has_one():
    generator = np.random.default_rng(7)
    alarms = sum(bool(change_points(generator.normal(0, NOISE, 20))) for _ in range(200))
    # At a true rate of 1 % more than 6 of 200 come with a probability of 0.4 %; the seed is fixed.
    assert alarms <= 6, alarms


def test_heavy_tails_raise_no_more_alarms():
    generator = np.random.default_rng(8)
    assert sum(bool(change_points(generator.standard_t(2, 20))) for _ in range(100)) <= 4


def test_a_step_of_5_percent_in_1_percent_noise_is_found_at_its_run():
    generator = np.random.default_rng(3)
    found = []
    for _ in range(40):
        values = generator.normal(0, NOISE, 24)
        values[15:] += np.log(1.05)
        found.append([step.index for step in change_points(values)])
    assert sum(indices == [15] for indices in found) >= 37, found


def test_two_steps_back_to_the_first_level_are_both_found():
    generator = np.random.default_rng(4)
    found = []
    for _ in range(20):
        values = generator.normal(0, NOISE, 30)
        values[8:20] -= 0.1
        found.append([step.index for step in change_points(values)])
    assert sum(indices == [8, 20] for indices in found) >= 17, found


def test_equal_values_have_no_change_and_the_same_values_the_same_answer():
    assert change_points([0.25] * 40) == []
    values = np.random.default_rng(0).normal(0, 1, 30) + 3 * (np.arange(30) > 12)
    assert change_points(values) == change_points(values) != []


def test_fewest_runs_are_what_a_clear_step_needs():
    step = [0.0, 0.01, 0.02, 0.03, 0.04, 1.0, 1.01, 1.02, 1.03, 1.04, 1.05]
    assert len(step) == FEWEST_RUNS
    assert [found.index for found in change_points(step)] == [5]
    assert not change_points(step[1:-3])


def test_a_trend_is_told_from_steps():
    generator = np.random.default_rng(5)
    noise = generator.normal(0, NOISE, 30)
    trend, steps = noise + 0.01 * np.arange(30), noise + 0.1 * (np.arange(30) >= 14)
    assert drifts(trend, change_points(trend))
    assert change_points(steps)
    assert not drifts(steps, change_points(steps))
    assert not drifts(noise, change_points(noise))
    (row,) = history(over(0.2 * 1.01 ** np.arange(30))).series
    assert row.drift_percent == pytest.approx(1, abs=0.15)


def test_what_changed_between_the_neighbours_is_named_commit_first():
    runs = over([0.2] * 12 + [0.22] * 8, onnxruntime=lambda index: "1.32.0" if index < 12 else "1.33.0")
    (row,) = history(runs).series
    (change,) = row.changes
    assert change.index == 12
    assert change.facts == (("commit", "c0011", "c0012"), ("onnxruntime", "1.32.0", "1.33.0"))
    assert change.percent == pytest.approx(10, abs=2)


def test_every_differing_fact_is_named_also_one_that_appears():
    before, after = (
        {"command": "a", "kernel": "6.1", "commit": "x"},
        {"command": "b", "commit": "y", "gpu_driver": "580"},
    )
    assert differing(before, after) == (
        ("commit", "x", "y"),
        ("kernel", "6.1", None),
        ("gpu_driver", None, "580"),
        ("command", "a", "b"),
    )


def test_rows_of_other_machines_batches_and_threads_never_mix():
    generator = np.random.default_rng(0)
    first = timing(0, 0.2, generator)
    others = [
        *timing(1, 0.4, generator, batch=8),
        *timing(1, 0.3, generator, cpu="Other CPU"),
        first[0].model_copy(update={"networks": [network(session={"device": "cpu", "threads": 1})]}),
    ]
    found = history(runs_of([("a", first), ("b", others)]))
    assert len(found.series) == 4
    assert all(len(row.points) == 1 for row in found.series)


def test_a_gpus_modes_and_other_skipped_images_are_other_rows():
    generator = np.random.default_rng(0)
    modes = [{"cuda_graph": "off"}, {"cuda_graph": "captured"}, {"cuda_graph": "off", "runner": "native"}]
    sources = [
        (str(number), [record.model_copy(update={"networks": [network(session={"device": "cuda:0", **mode})]})
                       for record in timing(number, 0.2, generator)])
        for number, mode in enumerate(modes)
    ]  # fmt: skip
    names = [row.name for row in history(runs_of(sources)).series]
    assert len(set(names)) == 3
    assert any("runner native, cuda_graph off" in name for name in names)
    ranks = [0, 1, 0]
    whole, other = accuracy(0, ranks), accuracy(1, ranks)
    data = {**other.workload.data, "bad": [{"id": "a.jpg", "why": "cut"}]}
    other = other.model_copy(update={"workload": other.workload.model_copy(update={"data": data})})
    assert len(history(runs_of([("a", [whole]), ("b", [other])])).series) == 2, "their images do not pair"


def test_a_file_of_two_commits_is_two_runs_and_a_record_in_two_files_counts_once():
    generator = np.random.default_rng(0)
    old, new = timing(0, 0.2, generator), timing(1, 0.2, generator)
    runs = runs_of([("both", [*new, *old]), ("again", old)])
    assert [(run.label, len(run.records)) for run in runs] == [("c0000", 3), ("c0001", 3)]


def test_rows_with_few_runs_are_shown_and_not_judged():
    (row,) = history(over([0.2, 0.4, 0.4, 0.4])).series
    assert row.changes == ()
    assert row.why == f"4 of the {FEWEST_RUNS} runs that a verdict needs"


def test_errors_are_paired_by_image_and_only_changed_answers_count():
    generator = np.random.default_rng(0)
    ranks = generator.integers(0, 3, 600)
    worse = ranks.copy()
    worse[np.flatnonzero(ranks == 0)[:12]] = 1
    shuffled = generator.permutation(ranks)
    found = history(runs_of([(f"{i}", [accuracy(i, r)]) for i, r in enumerate([ranks, ranks, worse, worse])]))
    (row,) = found.series
    assert [(change.index, row.unit) for change in row.changes] == [(2, "error")]
    # The same error rate with other answers is no loss, whatever the images.
    found = history(runs_of([(f"{i}", [accuracy(i, r)]) for i, r in enumerate([ranks, shuffled])]))
    assert found.series[0].changes == ()


def test_small_losses_add_up_until_they_count():
    ranks = np.zeros(400, int)
    runs = []
    for index in range(14):
        ranks = ranks.copy()
        ranks[index] = 1
        runs.append((f"{index}", [accuracy(index, ranks)]))
    (row,) = history(runs_of(runs)).series
    assert [change.index for change in row.changes] == [12]


def test_records_without_a_time_line_are_counted():
    peak = timing(0, 0.2, np.random.default_rng(0))[0].model_copy(update={"kind": "peak"})
    assert history(runs_of([("a", [peak])])).ignored == {"peak": 1}
