"""What a precision moves: layers, logits, flips and the layers that INT8 owes its drift to."""

from __future__ import annotations

import dataclasses
import json

import measuring
import numpy as np
import pytest
from scipy import stats

from vgg_reference.architectures import architecture
from vgg_reference.weights import random_weights
from vggbench import backends, cache, cli, runs_inputs, runs_numerics
from vggbench.backends import fake, layers, ort
from vggbench.errors import BackendUnavailable, CalibrationError, DataError, UsageError
from vggbench.images import LabelledImage
from vggbench.measure import compare, numerics
from vggbench.measure.batches import Views
from vggbench.measure.sensitivity import Outcome, recovery, sensitivity
from vggbench.protocols import Choices, Pass
from vggbench.ranges import CalibrationImage, Quantization, Ranges, TensorRange, quantized_inputs
from vggbench.results import Samples, read_records, write_records
from vggbench.runs_inputs import Setting
from vggbench.runs_numerics import Asked, Spec
from vggbench.variants import Variant

LAYERS = ["images", "block1.relu1", "block2.relu1", "block3.relu1", "block3.relu2", "block4.relu1", "block4.relu2"]
LAYERS += ["block5.relu1", "block5.relu2", "fc6.relu", "fc7.relu", "scores"]
WEIGHTS = random_weights("A", 0, width=1 / 32, hidden_width=1 / 64, num_classes=measuring.CLASSES, crop_size=32)


@pytest.fixture
def dataset(tmp_path):
    return measuring.make_dataset(tmp_path / "images", 12)


@pytest.fixture
def with_fake(monkeypatch):
    monkeypatch.setitem(backends.BACKENDS, "fake", "vggbench.backends.fake")


def asked(*variants, **changes) -> Asked:
    return Asked(Setting("onnxruntime", device="cpu", threads=1), **{"variants": variants, "scale": 40, **changes})


def arrays(*shape, seed=0):
    generator = np.random.default_rng(seed)
    reference = generator.normal(size=shape).astype(np.float32)
    return reference, reference + 0.1 * generator.normal(size=shape).astype(np.float32)


def images(form="crop", count=3):
    shape = (count, 3, 32, 32) if form == "crop" else (count, 3, 45, 38)
    return (60 * np.random.default_rng(1).normal(size=shape)).astype(np.float32)


def ranges(weights=WEIGHTS, **wider) -> Ranges:
    """Of random images; wider: tensor -> factor, with "_" for ".", by which its range is made too wide."""
    with layers.layer_outputs(Variant(weights, "crop", "onnxruntime"), "cpu", 1) as outputs:
        found = outputs(images(count=8))
    limits = {
        name: wider.get(name.replace(".", "_"), 1) * float(np.abs(values).max()) for name, values in found.items()
    }
    tensors = [TensorRange(name, -limit, limit) for name, limit in limits.items() if name != "scores"]
    used = (CalibrationImage("other.jpg", "f" * 64),)
    return Ranges(weights.network, weights.digest, "minmax", None, {"name": "small"}, {}, {}, tuple(tensors), used)


# Layers: statistics


def test_streamed_layer_statistics_equal_a_direct_computation():
    reference, variant = arrays(11, 4, 5, 3)
    batches = [({"a": reference[at : at + 4]}, {"a": variant[at : at + 4]}) for at in range(0, 11, 4)]
    (found,) = numerics.layer_drifts(batches)
    x, y = reference.astype(np.float64).ravel(), variant.astype(np.float64).ravel()
    assert found.layer == "a"
    assert found.relative_l2 == pytest.approx(np.linalg.norm(y - x) / np.linalg.norm(x), rel=1e-12)
    assert found.max_absolute == np.abs(y - x).max()
    assert found.sqnr_db == pytest.approx(10 * np.log10((x**2).sum() / ((y - x) ** 2).sum()), rel=1e-12)
    assert found.cosine == pytest.approx(x @ y / np.linalg.norm(x) / np.linalg.norm(y), rel=1e-12)


def test_batch_size_does_not_change_layer_statistics():
    reference, variant = arrays(9, 50)
    one = numerics.layer_drifts([({"a": reference}, {"a": variant})])
    many = numerics.layer_drifts([({"a": reference[i : i + 1]}, {"a": variant[i : i + 1]}) for i in range(9)])
    assert one == many


def test_no_difference_gives_zero_no_ratio_and_cosine_one():
    reference, _ = arrays(3, 7)
    (found,) = numerics.layer_drifts([({"a": reference}, {"a": reference.copy()})])
    assert (found.relative_l2, found.max_absolute, found.sqnr_db, found.cosine) == (0.0, 0.0, None, 1.0)


def test_layer_of_zeros_in_the_reference_gives_numbers_that_json_has():
    zeros, ones = np.zeros((2, 3), np.float32), np.ones((2, 3), np.float32)
    (found,) = numerics.layer_drifts([({"a": zeros}, {"a": ones})])
    assert found.relative_l2 > 1e9
    assert found.cosine == 0.0
    json.dumps(found.model_dump(), allow_nan=False)


def test_layer_that_overflows_is_named():
    reference, variant = arrays(2, 3)
    variant[1, 1] = np.inf
    with pytest.raises(BackendUnavailable, match=r"block2\.relu1 are not finite"):
        numerics.layer_drifts([({"block2.relu1": reference}, {"block2.relu1": variant})])


# Images: margins, drifts, flips


def test_margin_drift_and_ratio_of_an_image():
    reference = np.array([[5.0, 1.0, 3.5]], np.float32)
    variant = np.array([[4.0, 1.0, 4.5]], np.float32)
    found = numerics.moved(reference, variant, np.array([0]))
    assert found.margins.tolist() == [1.5]
    assert found.drifts.tolist() == [1.0]
    assert found.ratios[0] == pytest.approx(np.sqrt(2) / np.sqrt(5**2 + 1 + 3.5**2))
    assert (found.reference_ranks.tolist(), found.variant_ranks.tolist()) == ([0], [1])
    assert found.flipped.tolist() == [True]


def logits_of(*classes):
    return np.eye(4, dtype=np.float32)[list(classes)]


def test_flips_lost_and_gained_are_counted_apart():
    labels = np.array([0, 1, 2, 3, 0, 1])
    reference = logits_of(0, 1, 2, 0, 1, 0)  # right three times
    variant = logits_of(0, 0, 3, 3, 2, 0)  # stays right, lost, lost, gained, another wrong one, the same wrong one
    found = numerics.moved(reference, variant, labels)
    assert int(found.flipped.sum()) == 4
    assert (found.lost, found.gained) == (2, 1)
    assert (found.reference_errors, found.variant_errors) == (3, 4)


def test_image_without_a_label_flips_but_is_neither_right_nor_wrong():
    found = numerics.moved(logits_of(0, 1), logits_of(1, 1), np.array([-1, 1]))
    assert found.reference_ranks.tolist() == [-1, 0]
    assert int(found.flipped.sum()) == 1
    assert (found.lost, found.gained, found.variant_errors) == (0, 0, 0)


def test_equal_logits_give_no_drift_even_where_all_are_zero():
    zeros = np.zeros((2, 3), np.float32)
    found = numerics.moved(zeros, zeros, np.array([0, 1]))
    assert found.ratios.tolist() == [0.0, 0.0]
    assert not found.flipped.any()


def test_named_images_are_the_flipped_ones_then_the_most_moved():
    reference = np.array([[2, 1], [2, 1], [2, 1], [2, 1]], np.float32)
    variant = np.array([[1.9, 1], [1.4, 1.5], [5, 1], [0, 1]], np.float32)
    found = numerics.moved(reference, variant, np.array([0, 0, 0, 1]))
    named = numerics.changed(found, ["a", "b", "c", "d"], np.array([0, 0, 0, 1]), count=3)
    assert [each.id for each in named] == ["d", "b", "c"]
    assert (named[0].reference_class, named[0].variant_class, named[0].drift) == (0, 1, 2.0)


# Layers: what a backend shows


@pytest.mark.parametrize("form", ["crop", "dense"])
def test_layers_of_pytorch_and_onnxruntime_agree(form):
    one, other = (Variant(WEIGHTS, form, name) for name in ("pytorch", "onnxruntime"))
    with layers.layer_outputs(one, "cpu", 1) as first, layers.layer_outputs(other, "cpu", 1) as second:
        drifts = numerics.layer_drifts([(first(images(form)), second(images(form)))])
    assert [each.layer for each in drifts] == LAYERS
    assert max(each.relative_l2 for each in drifts) < 1e-5


@pytest.mark.parametrize("precision", ["fp32", "int8"])
def test_layers_of_openvino_are_those_of_onnxruntime(precision):
    pytest.importorskip("openvino", reason="OpenVINO is an extra: pip install openvino")
    how = Quantization(ranges(), layout="tensorrt") if precision == "int8" else None
    one, other = (Variant(WEIGHTS, "crop", name, precision, quantization=how) for name in ("openvino", "onnxruntime"))
    with layers.layer_outputs(one, "cpu", 1) as first, layers.layer_outputs(other, "cpu", 1) as second:
        drifts = numerics.layer_drifts([(first(images()), second(images()))])
    assert [each.layer for each in drifts] == LAYERS
    # A value between two steps may fall to either side.
    assert max(each.relative_l2 for each in drifts) < (1e-5 if precision == "fp32" else 0.02)


def test_normalized_network_shows_its_normalization_in_place_of_the_first_relu():
    weights = random_weights("A-LRN", 0, width=1 / 32, hidden_width=1 / 64, num_classes=7, crop_size=32)
    one, other = (Variant(weights, "crop", name) for name in ("pytorch", "onnxruntime"))
    with layers.layer_outputs(one, "cpu", 1) as first, layers.layer_outputs(other, "cpu", 1) as second:
        drifts = numerics.layer_drifts([(first(images()), second(images()))])
    assert drifts[1].layer == "block1.lrn"
    assert max(each.relative_l2 for each in drifts) < 1e-5


@pytest.mark.parametrize("backend", ["pytorch", "onnxruntime"])
def test_scores_among_the_layers_are_those_of_the_session(backend):
    variant = Variant(WEIGHTS, "crop", backend)
    session = backends.open_session(variant, "cpu", 1)
    with layers.layer_outputs(variant, "cpu", 1) as outputs:
        np.testing.assert_allclose(outputs(images())["scores"], session(images()), rtol=1e-5, atol=1e-6)
    session.close()


@pytest.mark.parametrize("layout", ["cpu", "tensorrt"])
def test_int8_layers_stand_on_the_grid_of_their_range(layout):
    how = ranges()
    variant = Variant(WEIGHTS, "crop", "onnxruntime", "int8", quantization=Quantization(how, layout=layout))
    with layers.layer_outputs(variant, "cpu", 1) as outputs:
        found = outputs(images())
    for each in how.tensors:
        values = np.unique(found[each.tensor])
        assert len(values) <= 256
        step = np.diff(values).min()
        assert each.high / 255 * 0.99 < step < each.high / 127 * 1.01
        np.testing.assert_allclose(values / step, np.rint(values / step), atol=2e-2)


def test_reading_int8_layers_leaves_integer_kernels_in_place(tmp_path):
    import onnx
    import onnxruntime

    from vggbench.backends.taps import tapped
    from vggbench.graphs import build_graph

    variant = Variant(WEIGHTS, "crop", "onnxruntime", "int8", quantization=Quantization(ranges(), layout="cpu"))
    kernels = []
    for names in ([], layers.tensor_names(variant)):
        options = onnxruntime.SessionOptions()
        options.optimized_model_filepath = str(tmp_path / f"{len(names)}.onnx")
        options.log_severity_level = 3
        graph, _ = tapped(build_graph(variant), names)
        onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
        nodes = onnx.load(options.optimized_model_filepath).graph.node
        kernels.append([node.op_type for node in nodes if node.op_type in ("QLinearConv", "Conv", "FusedConv")])
    assert kernels[0] == kernels[1]
    assert kernels[0].count("QLinearConv") == 8


def test_backend_that_shows_nothing_is_named():
    assert "fake" in layers.why_not("fake")
    with (
        pytest.raises(BackendUnavailable, match="scores alone"),
        layers.layer_outputs(Variant(WEIGHTS, "crop", "fake")),
    ):
        pass


# Batches


def test_batches_hold_every_image_once_in_order(dataset):
    views = Views(dataset, WEIGHTS, Pass("crop", 40, "center", False), Choices())
    batches = list(views.batches(5 * 32 * 32))
    assert [len(batch) for batch in batches] == [5, 5, 2]
    single = np.concatenate(list(views.batches(1)))
    np.testing.assert_array_equal(np.concatenate(batches), single)
    assert views.kept() == list(range(12))


def test_whole_images_of_one_size_share_batches(dataset):
    views = Views(dataset, WEIGHTS, Pass("dense", 40, "whole", False), Choices())
    batches = list(views.batches(10**6))
    assert sum(map(len, batches)) == 12
    assert len({batch.shape[2:] for batch in batches}) > 1


def test_pass_of_several_views_is_refused(dataset):
    with pytest.raises(UsageError, match="accepted is one"):
        Views(dataset, WEIGHTS, Pass("crop", 40, "corners", True), Choices())


# A run


class Moving(fake.FakeSession):
    """The fake's scores; for bf16 the best logit of every third image is exchanged with the next class's."""

    def __init__(self, variant, **changes):
        super().__init__(variant, **changes)
        self.seen = 0
        self.moves = variant.precision == "bf16"

    def __call__(self, images):
        scores = super().__call__(images)
        for row in scores:
            if self.moves and self.seen % 3 == 0:
                best = int(row.argmax())
                other = (best + 1) % len(row)
                row[best], row[other] = row[other], row[best]
            self.seen += 1
        return scores


@pytest.fixture
def moving(with_fake, monkeypatch):
    monkeypatch.setattr(fake, "open_session", lambda variant, device, threads: Moving(variant))


def test_flips_of_a_constructed_case_are_found_and_tested(dataset, moving):
    base = []
    session = fake.FakeSession(Variant(WEIGHTS, "crop", "fake"))
    for batch in Views(dataset, WEIGHTS, Pass("crop", 40, "center", False), Choices()).batches(10**6):
        base += session(batch).argmax(axis=1).tolist()
    # Labels as the reference answers, but for image 3, which the variant then gets right.
    label = list(base)
    label[3] = (base[3] + 1) % measuring.CLASSES
    relabelled = tuple(
        LabelledImage(each.id, each.path, int(mine)) for each, mine in zip(dataset.images, label, strict=True)
    )
    given = dataclasses.replace(dataset, images=relabelled)
    (record,) = runs_numerics.numerics(given, WEIGHTS, asked("bf16@fake", reference="fp32@fake"))
    found = record.numerics
    assert (found.images, found.flips, found.lost, found.gained) == (12, 4, 3, 1)
    assert (found.reference_errors, found.variant_errors) == (1, 3)
    assert found.p_value == stats.binomtest(3, 4).pvalue
    assert {each.id for each in found.changed[:4]} == {given.images[index].id for index in (0, 3, 6, 9)}
    assert len(found.margins) == len(found.drifts) == len(record.samples.values) == 12
    assert [value > 0.1 for value in record.samples.values] == [index % 3 == 0 for index in range(12)]


def test_backend_without_layers_leaves_the_table_out_and_says_so(dataset, with_fake):
    (record,) = runs_numerics.numerics(dataset, WEIGHTS, asked("bf16@fake", reference="fp32@fake"))
    assert record.numerics.layers == []
    assert "fake" in record.numerics.layers_note
    assert record.numerics.flips == 0


def test_holm_adjusts_over_the_variants_of_a_run(dataset, moving):
    records = runs_numerics.numerics(dataset, WEIGHTS, asked("bf16@fake", "fp32@fake", reference="fp32@fake"))
    rows = runs_numerics.summaries(records)
    p = rows[0]["p"]
    assert [row["p_holm"] for row in rows] == [min(1.0, 2 * p), 1.0]


def test_other_backend_moves_almost_nothing_and_the_record_loads_again(dataset, tmp_path):
    given = asked("fp32@pytorch", reference="fp32@onnxruntime")
    (record,) = runs_numerics.numerics(dataset, WEIGHTS, given)
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


def with_ranges(monkeypatch, found):
    """Ranges without calibrating."""
    monkeypatch.setattr("vggbench.runs_calibrate.ranges_for", lambda weights, **_: found)


def test_layer_with_an_absurd_range_comes_first_and_keeping_it_recovers_the_logits(dataset, monkeypatch):
    with_ranges(monkeypatch, ranges(block3_relu1=60))
    given = asked("int8@onnxruntime", reference="fp32@onnxruntime", sensitivity=True, keep=(1, 2))
    opened = []
    open_session = backends.open_session
    monkeypatch.setattr(backends, "open_session", lambda *a: (opened.append(a[0]), open_session(*a))[1])
    monkeypatch.setattr(runs_inputs, "SAMPLE", dataset.name)
    (record,) = runs_numerics.numerics(dataset, WEIGHTS, given)
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


def test_sensitivity_leaves_no_graph_in_the_cache(dataset, tmp_path, monkeypatch):
    monkeypatch.setenv("VGGBENCH_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(ort, "_CACHED_BYTES", 0)
    with_ranges(monkeypatch, ranges())
    monkeypatch.setattr(runs_inputs, "SAMPLE", dataset.name)
    given = asked("int8@onnxruntime", reference="fp32@onnxruntime", sensitivity=True, keep=(1,))
    runs_numerics.numerics(dataset.first(2), WEIGHTS, given)
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


# Specifications and refusals


@pytest.mark.parametrize(
    ("text", "spec"),
    [
        ("bf16", Spec("bf16")),
        ("fp32@pytorch", Spec("fp32", "pytorch")),
        ("int8/tensorrt", Spec("int8", None, "tensorrt")),
        ("int8@onnxruntime/tensorrt", Spec("int8", "onnxruntime", "tensorrt")),
    ],
)
def test_variants_are_read_as_precision_backend_and_layout(text, spec):
    assert runs_numerics.parse(text) == spec


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "accepted is PRECISION"),
        ("int8@", "accepted is PRECISION"),
        ("int8@onnxruntime/", "accepted is PRECISION"),
        ("int4", "no precision 'int4'"),
        ("int8@onnx", "No backend 'onnx'"),
        ("int8/nchw", "cpu"),
        ("bf16/cpu", "goes with int8 only"),
        ("int8-tensorrt", "no precision 'int8-tensorrt'"),
    ],
)
def test_other_grammar_is_one_line_that_says_what_is_accepted(text, said):
    with pytest.raises(UsageError, match=said.replace("[", r"\[")) as caught:
        runs_numerics.parse(text)
    assert "\n" not in str(caught.value)


def test_int8_of_a_folder_needs_ranges(dataset):
    with pytest.raises(CalibrationError, match="--calibration FILE"):
        runs_numerics.variants_of(dataset, WEIGHTS, asked("int8@onnxruntime"))


def test_images_that_the_ranges_were_taken_from_are_refused(dataset, monkeypatch, tmp_path):
    twice = CalibrationImage(dataset.images[5].id, dataset.digests[5])
    with_ranges(monkeypatch, dataclasses.replace(ranges(), images=(twice,)))
    with pytest.raises(CalibrationError, match=r"005\.jpg"):
        runs_numerics.variants_of(dataset, WEIGHTS, asked("int8@onnxruntime", calibration=tmp_path / "ranges.json"))


def test_ranges_of_other_weights_are_refused(dataset, tmp_path):
    from vggbench.ranges import to_json

    other = random_weights("A", 1, width=1 / 32, hidden_width=1 / 64, num_classes=7, crop_size=32)
    (tmp_path / "ranges.json").write_bytes(to_json(ranges(other)))
    with pytest.raises(CalibrationError, match="other weights"):
        runs_numerics.variants_of(dataset, WEIGHTS, asked("int8@onnxruntime", calibration=tmp_path / "ranges.json"))


# The command


@pytest.fixture
def command(moving, dataset, monkeypatch, capsys):
    monkeypatch.setattr(runs_inputs, "open_images", lambda data, labels, progress, split="test": dataset)
    monkeypatch.setattr(runs_inputs, "weights_of", lambda *a: WEIGHTS)

    def run(*arguments):
        with pytest.raises(SystemExit) as ended:
            cli.main(["numerics", "--reference", "fp32@fake", "--scale", "40", *arguments])
        told = capsys.readouterr()
        return ended.value.code, told.out, told.err

    return run


def test_command_prints_a_line_a_variant(command):
    code, out, err = command("--variant", "bf16@fake", "--variant", "fp16@fake")
    assert code == 0
    assert "A against fp32@fake, 12 images" in out
    (line,) = [line for line in out.splitlines() if line.startswith("bf16@fake")]
    assert line.split()[5] == "4"
    assert "no table of layers" in err


def test_command_writes_the_page_and_records_and_one_document(command, tmp_path):
    code, out, _ = command("--variant", "bf16@fake", "--out", str(tmp_path / "out"), "--json")
    document = json.loads(out)
    assert code == 0
    assert document["variants"][0]["flips"] == 4
    assert len(document["variants"][0]["changed"]) == 12
    html = (tmp_path / "out" / "index.html").read_text(encoding="utf-8")
    assert "What a precision moves" in html
    assert "data:image/jpeg" in html
    assert read_records(tmp_path / "out" / "records.jsonl")[0].kind == "numerics"


@pytest.mark.parametrize(
    ("arguments", "code"),
    [(("--variant", "int4"), 2), (("--keep", "a"), 2), (("--variant", "int8@onnxruntime"), 9), (("--form", "x"), 2)],
)
def test_mistakes_end_in_one_line_and_a_code(command, arguments, code):
    ended, out, err = command(*arguments)
    assert (ended, out) == (code, "")
    assert err.count("\n") == 1


def test_label_names_precision_backend_and_layout():
    variant = Variant(WEIGHTS, "crop", "onnxruntime", "int8", quantization=Quantization(ranges()))
    assert compare.label(variant) == "int8 onnxruntime/cpu"
