"""Which precisions `reproduce` measures, on which rows, with which ranges."""

from __future__ import annotations

import dataclasses

import pytest

from vggbench import backends, plan, runs_inputs, runs_numerics, runs_precision
from vggbench.errors import BackendUnavailable, UsageError
from vggbench.results import NetworkRun
from vggbench.runs_inputs import Request, Setting
from vggbench.weights import resolve


@pytest.fixture
def without_bf16(monkeypatch):
    """Every backend as on a CPU that has no BF16."""
    for name in backends.BACKENDS:
        module = backends.module(name)
        if module.available() is None:
            offered = {**module.precisions("cpu"), "bf16": "this CPU has none of it"}
            monkeypatch.setattr(module, "precisions", lambda device, offered=offered: offered)


def test_the_sample_set_gets_its_precisions_as_far_as_they_run_and_the_rest_is_named(without_bf16):
    first, others, left_out = runs_precision.settings(None, on_sample=True, device="cpu")
    assert (first.precision, [each.precision for each in others]) == ("fp32", ["int8"])
    (sentence,) = left_out
    assert sentence.startswith("bf16 was not measured: ")
    assert "none of it" in sentence


def test_a_precision_asked_for_by_name_must_run(without_bf16):
    with pytest.raises(BackendUnavailable, match="none of it"):
        runs_precision.settings("fp32,bf16", on_sample=True, device="cpu")


def test_a_folder_gets_fp32_unless_more_is_asked_for():
    first, others, left_out = runs_precision.settings(None, on_sample=False, device="cpu")
    assert (first.precision, others, left_out) == ("fp32", (), ())
    first, others, _ = runs_precision.settings("int8,fp32", on_sample=False, device="cpu")
    assert (first.precision, [each.precision for each in others]) == ("int8", ["fp32"])


@pytest.mark.parametrize("typed", ["fp32,int9", "", "fp32,,int8", "fp32,fp32"])
def test_wrong_precisions_are_refused(typed):
    with pytest.raises(UsageError, match=r"Known|once"):
        runs_precision.settings(typed, on_sample=True, device="cpu")


@pytest.mark.parametrize(
    ("changes", "tables"),
    [({}, (3,)), ({"tables": (3, 5)}, (3,)), ({"tables": (5,)}, None), ({"full": True}, ()), ({"data": "photos"}, ())],
)
def test_other_precisions_run_on_table_3_of_the_sample_set_and_else_on_all_rows(changes, tables):
    request = dataclasses.replace(Request(Setting("pytorch"), others=(Setting("pytorch", "bf16"),)), **changes)
    found = runs_precision.others(request)
    assert [each.tables for each in found] == ([] if tables is None else [tables])
    assert all(each.setting.precision == "bf16" and not each.others for each in found)


def test_on_the_sample_set_each_network_of_table_1_is_measured_once_at_another_precision():
    request = Request(Setting("pytorch"), others=(Setting("pytorch", "bf16"),))
    (other,) = runs_precision.others(request)
    found = runs_inputs._available(other, plan.choose_claims(other.tables), 60)
    assert sorted(found) == [(name, "256") for name in ("A", "A-LRN", "B", "C", "D", "E")]
    assert len(runs_inputs._available(request, plan.choose_claims(other.tables), 60)) == 12


def test_a_folder_without_ranges_is_told_how_to_make_them():
    weights = resolve("random:0", "A", width=1 / 16, crop_size=32, num_classes=3)
    request = Request(Setting("onnxruntime", "int8"), data="photos")
    with pytest.raises(UsageError, match=r"vggbench calibrate --network A .*--calibration A=ranges\.json"):
        runs_precision.quantizations(request, request.setting, [weights], None, None)
    assert runs_precision.quantizations(request, Setting("onnxruntime", "fp32"), [weights], None, None) == {}


def test_only_of_int8_the_sensitivity_is_asked_for(dozen, monkeypatch, own_cache):
    weights, asked = resolve("random:0", "A", width=1 / 16, crop_size=32, num_classes=3), []
    monkeypatch.setattr(runs_numerics, "numerics", lambda dataset, weights, given, progress: asked.append(given) or [])
    for precision in ("bf16", "int8"):
        ran = NetworkRun(network="A", weights={}, passes=[], backend="onnxruntime", precision=precision)
        runs_precision._numerics(Request(Setting("onnxruntime")), dozen, weights, ran, None)
    assert [(each.variants, each.sensitivity) for each in asked] == [
        (("bf16@onnxruntime",), False),
        (("int8@onnxruntime",), True),
    ]


def test_claims_of_table_3_are_all_dense():
    assert {claim.technique for claim in plan.choose_claims(runs_precision.SAMPLE_TABLES)} == {"dense"}
