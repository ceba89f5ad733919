"""A run of numerics: flips, layers, refused images; the layers that INT8 owes its drift to."""

from __future__ import annotations

import dataclasses

import measuring
import pytest
from numerics_networks import LAYERS, WEIGHTS, asked, ranges, with_ranges
from scipy import stats

from vgg_reference.architectures import architecture
from vggbench import backends, cache, runs_inputs, runs_numerics
from vggbench.backends import fake, ort
from vggbench.errors import DataError
from vggbench.images import LabelledImage
from vggbench.measure.batches import Views
from vggbench.measure.sensitivity import Outcome, recovery, sensitivity
from vggbench.protocols import Choices, Pass
from vggbench.ranges import quantized_inputs
from vggbench.results import Samples, read_records, write_records
from vggbench.runs_inputs import Setting
from vggbench.runs_numerics import Asked
from vggbench.variants import Variant


def test_flips_of_a_constructed_case_are_found_and_tested(dozen, moving):
    base = []
    session = fake.FakeSession(Variant(WEIGHTS, "crop", "fake"))
    for batch in Views(dozen, WEIGHTS, Pass("crop", 40, "center", False), Choices()).batches(10**6):
        base += session(batch).argmax(axis=1).tolist()
    # Labels as the reference answers, but for image 3, which the variant then gets right.
    label = list(base)
    label[3] = (base[3] + 1) % measuring.CLASSES
    relabelled = tuple(
        LabelledImage(each.id, each.path, int(mine)) for each, mine in zip(dozen.images, label, strict=True)
    )
    given = dataclasses.replace(dozen, images=relabelled)
    (record,) = runs_numerics.numerics(given, WEIGHTS, asked("bf16@fake", reference="fp32@fake"))
    found = record.numerics
    assert (found.images, found.flips, found.lost, found.gained) == (12, 4, 3, 1)
    assert (found.reference_errors, found.variant_errors) == (1, 3)
    assert found.p_value == stats.binomtest(3, 4).pvalue
    assert {each.id for each in found.changed[:4]} == {given.images[index].id for index in (0, 3, 6, 9)}
    assert len(found.margins) == len(found.drifts) == len(record.samples.values) == 12
    assert [value > 0.1 for value in record.samples.values] == [index % 3 == 0 for index in range(12)]


def test_backend_without_layers_leaves_the_table_out_and_says_so(dozen, with_fake):
    (record,) = runs_numerics.numerics(dozen, WEIGHTS, asked("bf16@fake", reference="fp32@fake"))
    assert record.numerics.layers == []
    assert "fake" in record.numerics.layers_note
    assert record.numerics.flips == 0


def test_holm_adjusts_over_the_variants_of_a_run(dozen, moving):
    records = runs_numerics.numerics(dozen, WEIGHTS, asked("bf16@fake", "fp32@fake", reference="fp32@fake"))
    rows = runs_numerics.summaries(records)
    p = rows[0]["p"]
    assert [row["p_holm"] for row in rows] == [min(1.0, 2 * p), 1.0]


def test_other_backend_moves_almost_nothing_and_the_record_loads_again(dozen, tmp_path):
    given = asked("fp32@pytorch", reference="fp32@onnxruntime")
    (record,) = runs_numerics.numerics(dozen, WEIGHTS, given)
    assert [each.layer for each in record.numerics.layers] == LAYERS
    assert record.numerics.layers[-1].relative_l2 < 1e-5
    assert (record.numerics.flips, record.numerics.p_value) == (0, 1.0)
    assert record.samples == Samples(unit="ratio", values=record.samples.values)
    assert max(record.samples.values) < 1e-4
    assert record.numerics.reference.backend == "onnxruntime"
    assert record.networks[0].passes == [{"form": "crop", "scale": 40, "grid": "center", "flip": False}]
    write_records(tmp_path / "records.jsonl", [record])
    assert read_records(tmp_path / "records.jsonl") == [record]


def test_image_that_cannot_be_decoded_stops_the_run_or_is_left_out(tmp_path, with_fake):
    folder = tmp_path / "images"
    measuring.make_dataset(folder, 4)
    (folder / "002.jpg").write_bytes(b"not a picture")
    broken = measuring.open_dataset(folder)
    with pytest.raises(DataError, match=r"002\.jpg"):
        runs_numerics.numerics(broken, WEIGHTS, asked("bf16@fake", reference="fp32@fake"))
    skipping = Setting("onnxruntime", device="cpu", threads=1, on_bad="skip")
    given = Asked(skipping, "fp32@fake", ("bf16@fake",), scale=40)
    (record,) = runs_numerics.numerics(broken, WEIGHTS, given)
    assert record.numerics.images == 3
    assert [bad["id"] for bad in record.workload.data["bad"]] == ["002.jpg"]
    assert record.workload.data["images"] == 3


# Sensitivity


def test_layer_with_an_absurd_range_comes_first_and_keeping_it_recovers_the_logits(dozen, monkeypatch):
    with_ranges(monkeypatch, ranges(block3_relu1=60))
    given = asked("int8@onnxruntime", reference="fp32@onnxruntime", sensitivity=True, keep=(1, 2))
    opened = []
    open_session = backends.open_session
    monkeypatch.setattr(backends, "open_session", lambda *a: (opened.append(a[0]), open_session(*a))[1])
    monkeypatch.setattr(runs_inputs, "SAMPLE", dozen.name)
    (record,) = runs_numerics.numerics(dozen, WEIGHTS, given)
    found = record.numerics
    assert len(found.sensitivity) == len(quantized_inputs(architecture("A"))) == 11
    worst = found.sensitivity[0]
    assert worst.layer == "block3.conv2"
    assert worst.alone_relative_l2 > 3 * found.sensitivity[1].alone_relative_l2
    assert worst.without_relative_l2 < found.recovery[0].relative_l2 / 3
    assert [each.float_layers[:1] for each in found.recovery] == [[], ["block3.conv2"], ["block3.conv2"]]
    assert found.recovery[1].relative_l2 == worst.without_relative_l2
    costs = [each.alone_relative_l2 for each in found.sensitivity]
    assert costs == sorted(costs, reverse=True)
    # Reference, variant, two a layer, and one for two layers kept: what ran once is not run again.
    assert len(opened) == 2 + 2 * 11 + 1


def test_layers_kept_before_stay_kept_while_the_others_are_judged(dozen, monkeypatch):
    with_ranges(monkeypatch, ranges(block3_relu1=60))
    monkeypatch.setattr(runs_inputs, "SAMPLE", dozen.name)
    given = asked("int8@onnxruntime", reference="fp32@onnxruntime", sensitivity=True, keep=(1,))
    (plain,) = runs_numerics.numerics(dozen, WEIGHTS, given)
    kept = dataclasses.replace(given, float_layers=("block3.conv2",))
    (record,) = runs_numerics.numerics(dozen, WEIGHTS, kept)
    assert record.networks[0].calibration["float_layers"] == ["block3.conv2"]
    assert [row["float_layers"] for row in runs_numerics.summaries([plain, record])] == ["", "block3.conv2"]
    judged = [each.layer for each in record.numerics.sensitivity]
    assert sorted(judged) == sorted(set(quantized_inputs(architecture("A"))) - {"block3.conv2"})
    first, more = record.numerics.recovery
    assert (first.float_layers, more.float_layers) == (["block3.conv2"], ["block3.conv2", judged[0]])
    # What the sensitivity promised of keeping the layer is what the option gives.
    promised = plain.numerics.recovery[1]
    assert promised.float_layers == ["block3.conv2"]
    assert (first.relative_l2, first.flips) == (promised.relative_l2, promised.flips)


def test_sensitivity_leaves_no_graph_in_the_cache(dozen, tmp_path, monkeypatch):
    monkeypatch.setenv("VGGBENCH_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(ort, "_CACHED_BYTES", 0)
    with_ranges(monkeypatch, ranges())
    monkeypatch.setattr(runs_inputs, "SAMPLE", dozen.name)
    given = asked("int8@onnxruntime", reference="fp32@onnxruntime", sensitivity=True, keep=(1,))
    runs_numerics.numerics(dozen.first(2), WEIGHTS, given)
    # The reference's and the variant's own stay, for they serve other runs too.
    assert len([each for each in cache.entries(tmp_path / "cache") if each.kind == "graphs"]) == 2


def test_recovery_starts_from_no_layer_kept_and_takes_the_worst_first():
    costs = {"a": 1.0, "b": 4.0, "c": 2.0}

    def measure(float_layers):
        left = sum(cost for layer, cost in costs.items() if layer not in float_layers)
        return Outcome(left, int(left), 0)

    worst = sensitivity(list(costs), measure)
    assert [each.layer for each in worst] == ["b", "c", "a"]
    assert [(each.alone_relative_l2, each.without_relative_l2) for each in worst] == [(4, 3), (2, 5), (1, 6)]
    found = recovery(worst, (2, 1), measure)
    assert [(each.float_layers, each.relative_l2) for each in found] == [([], 7), (["b"], 3), (["b", "c"], 1)]
