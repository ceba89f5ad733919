"""What every backend must do; a new one is under it as soon as it has a row in BACKENDS."""

import dataclasses
import functools
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch

from vgg_reference.architectures import architecture
from vgg_reference.model import average_score_map
from vgg_reference.weights import load, random_weights
from vggbench import backends, graphs
from vggbench.backends import BACKENDS, PRECISIONS, fake, open_session, ort
from vggbench.errors import BackendUnavailable, CalibrationError, UsageError
from vggbench.ranges import Quantization, Ranges, TensorRange, quantized_inputs
from vggbench.variants import Variant
from vggbench.weights import resolve

#: Largest difference to the reference network in float64, relative to the largest score.
TOLERANCE = {"fp32": 1e-4, "bf16": 5e-2, "fp16": 5e-3, "int8": 1.5e-1}
#: The same between two ways of running one session: kernels may add in another order, a coarse type then rounds anew.
SPREAD = {"fp32": 1e-5, "bf16": 2e-2, "fp16": 2e-3, "int8": 3e-2}
#: Compiling takes seconds for each network and form; its tests stand in test_torch_compile.py.
TESTED = [name for name in BACKENDS if name != "torch-compile"]
NAMES = [*TESTED, "fake"]
#: What works here; of the rest TestEveryBackend checks that there is a reason.
PAIRS = [
    (name, precision)
    for name in TESTED
    for precision in PRECISIONS
    if backends.module(name).available() is None and backends.missing(name, precision, "cpu") is None
]
EVERYWHERE = [*PAIRS, *(("fake", precision) for precision in PRECISIONS)]
NETWORKS = ["A-LRN", "C", "shallow-B"]
CROP = 64


@pytest.fixture(autouse=True)
def _fake_is_a_backend(monkeypatch, tmp_path):
    monkeypatch.setitem(BACKENDS, "fake", "vggbench.backends.fake")
    monkeypatch.setenv("VGGBENCH_CACHE", str(tmp_path))


@functools.cache
def weights_of(network, batch_norm=False):
    return random_weights(
        network, 0, width=1 / 8, hidden_width=1 / 16, num_classes=60, crop_size=CROP, batch_norm=batch_norm
    )


@functools.cache
def ranges_of(weights):
    """Lowest and highest value of each quantized input, over a few images through the FP32 graph."""
    tensors = list(dict.fromkeys(quantized_inputs(architecture(weights.network)).values()))[1:]
    model = graphs.build_graph(Variant(weights, "dense", "onnxruntime"))
    model.graph.output.extend(
        onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, None) for name in tensors
    )
    batch = images(8, 80, 110, seed=2)
    values = ort.inference_session(model.SerializeToString(), dense=True).run(tensors, {"images": batch})
    found = [("images", batch), *zip(tensors, values, strict=True)]
    return Ranges(
        weights.network,
        weights.digest,
        "minmax",
        None,
        {},
        {},
        {},
        tuple(TensorRange(name, min(0.0, float(x.min())), max(0.0, float(x.max()))) for name, x in found),
        (),
    )


def make(backend, network="A", form="crop", precision="fp32", batch_norm=False, layout="", **more):
    weights = weights_of(network, batch_norm)
    if precision == "int8":
        more["quantization"] = Quantization(ranges_of(weights), layout=layout)
    return Variant(weights, form, backend, precision, **more)


@pytest.fixture
def opened():
    """open_session() on the CPU with 2 threads, closed after the test; skips what does not work here."""
    sessions = []

    def call(*args, **kwargs):
        try:
            sessions.append(open_session(make(*args, **kwargs), "cpu", 2))
        except BackendUnavailable as error:
            pytest.skip(str(error))
        return sessions[-1]

    yield call
    for session in sessions:
        session.close()


def images(count, height=CROP, width=CROP, seed=0):
    return (np.random.default_rng(seed).standard_normal((count, 3, height, width)) * 60).astype(np.float32)


def relative(found, expected):
    return np.abs(found - expected).max() / np.abs(expected).max()


def reference(variant, batch):
    """Scores of the reference network in float64."""
    dense = variant.form == "dense"
    model = load(variant.weights, dense=dense, pool_ceil=dense and variant.pool_rounding == "ceil").double()
    with torch.inference_mode():
        scores = model(torch.from_numpy(batch).double())
        return (average_score_map(scores, variant.score_pool) if dense else scores).numpy()


@pytest.mark.parametrize(("name", "precision"), EVERYWHERE)
class TestEveryPrecision:
    def test_scores_are_owned_contiguous_float32_one_row_an_image(self, name, precision, opened):
        for form, sides in (("crop", (64, 64)), ("dense", (70, 99))):
            session = opened(name, form=form, precision=precision)
            batch = images(3, *sides)
            before = batch.copy()
            scores = session(batch)
            assert type(scores) is np.ndarray
            assert (scores.shape, scores.dtype) == ((3, 60), np.float32)
            assert scores.flags.c_contiguous
            assert scores.flags.owndata
            assert scores.flags.writeable
            assert np.array_equal(batch, before)
            kept = scores.copy()
            session(images(3, *sides, seed=1))
            assert np.array_equal(scores, kept)

    def test_an_images_scores_do_not_depend_on_its_batch(self, name, precision, opened):
        for form, sides in (("crop", (64, 64)), ("dense", (70, 99))):
            session = opened(name, form=form, precision=precision)
            batch = images(5, *sides)
            together = session(batch)
            assert np.ptp(together, axis=0).max() > 0
            apart = np.concatenate([session(batch[i : i + 1]) for i in range(5)])
            assert relative(together, apart) <= SPREAD[precision]

    def test_crop_form_and_dense_form_agree_on_a_crop_sized_image(self, name, precision, opened):
        batch = images(2)
        expected = opened(name, precision=precision)(batch)
        for rounding in ("ceil", "floor"):
            found = opened(name, form="dense", precision=precision, pool_rounding=rounding)(batch)
            assert relative(found, expected) <= SPREAD[precision]

    def test_dense_images_of_many_sizes_run_in_one_session(self, name, precision, opened):
        session = opened(name, form="dense", precision=precision)
        for sides in ((64, 64), (64, 97), (131, 64), (75, 133), (64, 64)):
            scores = session(images(2, *sides))
            assert scores.shape == (2, 60)
            assert np.isfinite(scores).all()

    def test_the_record_says_what_ran(self, name, precision, opened):
        session = opened(name, precision=precision)
        assert session.device == session.info["device"] == "cpu"
        assert session.info["backend"] == name
        assert session.info["precision"] == precision
        assert session.info["threads"] == 2
        assert session.info["arithmetic"]
        assert "mixed" not in session.info["arithmetic"]
        assert all(isinstance(value, str | int | float | bool | None) for value in session.info.values())
        assert ("ranges" in session.info) == (precision == "int8")

    def test_values_that_are_not_finite_are_refused_in_one_line(self, name, precision, opened):
        session = opened(name, precision=precision)
        for value in (np.inf, -np.inf, np.nan):
            batch = images(2)
            batch[1, 2, 30, 31] = value
            with pytest.raises(UsageError, match="not finite") as error:
                session(batch)
            assert "\n" not in str(error.value)
        assert np.isfinite(session(images(2))).all()


@pytest.mark.parametrize("name", NAMES)
class TestEveryBackend:
    def test_a_second_close_does_nothing_and_a_closed_session_refuses(self, name, opened):
        session = opened(name)
        session(images(1))
        session.close()
        session.close()
        with pytest.raises(ValueError, match="closed"):
            session(images(1))

    @pytest.mark.parametrize(
        ("form", "wrong"),
        [
            ("crop", images(1, 64, 65)),
            ("crop", images(1, 32, 32)),
            ("crop", images(0)),
            ("crop", images(1)[0]),
            ("crop", images(1)[:, :1]),
            ("crop", images(1).astype(np.float64)),
            ("crop", images(1).astype(np.uint8)),
            ("crop", images(1).transpose(0, 1, 3, 2)),
            ("crop", images(1).tolist()),
            ("dense", images(1, 63, 200)),
            ("dense", images(1, 200, 63)),
        ],
        ids=lambda value: value if isinstance(value, str) else str(getattr(value, "shape", "list")),
    )
    def test_wrong_images_are_refused_in_one_line(self, name, opened, form, wrong):
        session = opened(name, form=form)
        with pytest.raises(UsageError) as error:
            session(wrong)
        assert "accepted are" in str(error.value)
        assert "\n" not in str(error.value)

    def test_every_precision_is_offered_or_has_a_reason(self, name):
        module = backends.module(name)
        if module.available() is not None:
            pytest.skip(module.available())
        offered = module.precisions("cpu")
        assert set(offered) == set(PRECISIONS)
        assert offered["fp32"] is None
        for precision in PRECISIONS:
            variant = make(name, precision=precision)
            if offered.get(precision, "no") is None:
                open_session(variant, "cpu", 1).close()
            else:
                with pytest.raises(BackendUnavailable, match=r"It runs here: fp32") as error:
                    open_session(variant, "cpu", 1)
                assert "\n" not in str(error.value)

    def test_a_missing_library_is_one_line_that_says_how_to_get_it(self, name, monkeypatch):
        monkeypatch.setattr(
            backends.module(name), "available", lambda: "X is not installed. Install it with: pip install x"
        )
        with pytest.raises(BackendUnavailable, match="pip install x"):
            open_session(make(name), "cpu", 1)


@pytest.mark.parametrize("network", NETWORKS)
@pytest.mark.parametrize(("name", "precision"), PAIRS)
def test_scores_are_the_reference_networks(name, precision, network, opened):
    for form, sides, more in (
        ("crop", (64, 64), {}),
        ("dense", (75, 133), {"pool_rounding": "ceil"}),
        ("dense", (75, 133), {"pool_rounding": "floor", "score_pool": "mean_probs"}),
    ):
        session = opened(name, network, form, precision, **more)
        batch = images(2, *sides)
        expected = reference(make(name, network, form, precision, **more), batch)
        assert relative(session(batch), expected) <= TOLERANCE[precision]


@pytest.mark.parametrize("name", TESTED)
def test_batch_norm_is_the_reference_networks(name, opened):
    expected = reference(make(name, "B", batch_norm=True), images(2))
    assert relative(opened(name, "B", batch_norm=True)(images(2)), expected) <= TOLERANCE["fp32"]


@pytest.mark.parametrize("name", TESTED)
def test_the_two_poolings_and_the_two_averages_differ_on_ragged_sizes(name, opened):
    batch = images(1, 75, 133)
    scores = [
        opened(name, form="dense", pool_rounding=rounding, score_pool=pool)(batch)
        for rounding, pool in (("ceil", "mean_logits"), ("floor", "mean_logits"), ("ceil", "mean_probs"))
    ]
    assert relative(scores[0], scores[1]) > 1e-3
    assert relative(scores[0], scores[2]) > 1e-3


@pytest.mark.parametrize("name", ["pytorch", "onnxruntime"])
def test_scores_that_overflow_are_refused(name, opened):
    with pytest.raises(BackendUnavailable, match="not finite"):
        opened(name)(images(1) * np.float32(1e36))


@pytest.mark.parametrize("name", [name for name, precision in PAIRS if precision == "fp16"])
@pytest.mark.parametrize("factor", [1e3, 1e5])
def test_overflow_in_fp16_is_refused_and_fp32_arithmetic_on_fp16_weights_has_none(name, factor):
    """On the sample weights, whose scores are some tens: 1e3 overflows between the layers, 1e5 at the input."""
    variant = Variant(resolve("sample", "D", train_scale="256", num_classes=60), "crop", name, "fp16")
    session = open_session(variant, "cpu", 2)
    batch = images(1) * np.float32(factor)
    if session.info["arithmetic"].startswith("fp32"):
        assert np.isfinite(session(batch)).all()
    else:
        with pytest.raises(BackendUnavailable, match="Use fp32 or bf16") as error:
            session(batch)
        assert "\n" not in str(error.value)
    session.close()


@pytest.mark.parametrize("name", TESTED)
def test_one_thread_takes_one_core(name, opened):
    session = open_session(make(name, "D", "dense"), "cpu", 1)
    batch = images(4, 160, 160)
    session(batch)
    wall, cpu = time.perf_counter(), time.process_time()
    while time.perf_counter() - wall < 0.5:
        session(batch)
    assert time.process_time() - cpu <= 1.3 * (time.perf_counter() - wall)
    session.close()


@pytest.mark.parametrize("name", [*(name for name, precision in PAIRS if precision == "int8"), "fake"])
def test_int8_needs_ranges_of_these_weights(name):
    bare = Variant(weights_of("A"), "crop", name, "int8")
    with pytest.raises(UsageError, match=r"vggbench calibrate --network A.*--calibration FILE"):
        open_session(bare, "cpu", 1)
    foreign = dataclasses.replace(bare, quantization=Quantization(ranges_of(weights_of("shallow-B"))))
    with pytest.raises(CalibrationError, match="belong to other weights"):
        open_session(foreign, "cpu", 1)


@pytest.mark.parametrize("name", [name for name, precision in PAIRS if precision == "int8"])
def test_layers_kept_in_floating_point_are_named_and_change_the_scores(name, opened):
    variant = make(name, precision="int8")
    every = opened(name, precision="int8")(images(2))
    how = variant.quantization.keeping("block1.conv1", "fc8")
    session = open_session(dataclasses.replace(variant, quantization=how), "cpu", 2)
    assert session.info["float_layers"] == "block1.conv1 fc8"
    assert "mixed" not in session.info["arithmetic"]
    assert not np.array_equal(session(images(2)), every)
    session.close()


def test_onnxruntime_computes_in_integers_in_the_cpus_layout_alone(tmp_path, opened):
    for layout, integers in (("cpu", True), ("tensorrt", False)):
        variant = make("onnxruntime", precision="int8", layout=layout)
        optimized = tmp_path / f"{layout}.onnx"
        ort.inference_session(ort.graph_of(variant), threads=1, optimized_model_filepath=str(optimized))
        kinds = {node.op_type for node in onnx.load(optimized).graph.node}
        assert ("QLinearConv" in kinds) == integers
        assert ("Conv" in kinds or "FusedConv" in kinds) != integers
        info = opened("onnxruntime", precision="int8", layout=layout).info
        assert info["arithmetic"].startswith("int8" if integers else "fp32")
        assert info["layout"] == layout


@pytest.mark.skipif(("openvino", "fp32") not in PAIRS, reason="OpenVINO is not installed")
def test_openvino_computes_in_what_was_asked_for(opened):
    """By itself it would take BF16 for an FP32 graph where the CPU has it."""
    layers = len(quantized_inputs(architecture("C")))
    kinds = {"fp32": {"f32"}, "bf16": {"bf16"}, "fp16": {"f16"}, "int8": {"i8", "u8"}}
    for precision in [precision for name, precision in PAIRS if name == "openvino"]:
        info = opened("openvino", "C", precision=precision).info
        found = dict(part.split(" x") for part in info["layers_computed_in"].split(", "))
        wanted = {"f32"} if info["arithmetic"].startswith("fp32") else kinds[precision]
        assert set(found) <= wanted
        assert sum(map(int, found.values())) == layers
        assert (info["streams"], info["performance_hint"]) == (1, "latency")


@pytest.mark.skipif(("openvino", "fp32") not in PAIRS, reason="OpenVINO is not installed")
def test_openvino_reports_nothing_to_anybody():
    code = (
        "import socket, sys, threading\n"
        "def refuse(*_): raise AssertionError('a connection')\n"
        "socket.socket.connect = socket.getaddrinfo = refuse\n"
        "from vggbench.backends.openvino import available\n"
        "assert available() is None\n"
        "assert 'openvino' in sys.modules and not [n for n in sys.modules if n.startswith('openvino_telemetry')]\n"
        "assert threading.active_count() == 1\n"
    )
    path = ":".join(str(Path(__file__).parents[1] / part) for part in (".", "reference"))
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env={"PYTHONPATH": path, "PATH": ""}, timeout=120
    )
    assert done.returncode == 0, done.stderr


def test_unknown_names_are_refused_with_the_known_ones():
    for variant, device, threads, known in (
        (make("trt"), "cpu", None, "Known: pytorch, onnxruntime"),
        (make("pytorch", precision="fp8"), "cpu", None, "Known: fp32"),
        (make("pytorch"), "tpu", None, "Known: auto, cpu, cuda"),
        (make("pytorch"), "cpu", 0, "1 or more"),
    ):
        with pytest.raises(UsageError, match=known):
            open_session(variant, device, threads)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
@pytest.mark.parametrize("name", TESTED)
def test_cuda_without_a_device_is_one_line(name):
    with pytest.raises(BackendUnavailable, match="on cuda") as error:
        open_session(make(name), "cuda")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("name", ["onnxruntime", "openvino"])
def test_a_library_that_does_not_import_is_unavailable(name, monkeypatch):
    monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(BackendUnavailable, match=f"pip install {name}$") as error:
        open_session(make(name))
    assert error.value.exit_code == 6
    assert "\n" not in str(error.value)


def test_a_large_graph_goes_through_the_cache(monkeypatch, tmp_path, opened):
    from vggbench.backends import ort

    expected = opened("onnxruntime")(images(1))
    monkeypatch.setattr(ort, "_CACHED_BYTES", 0)
    for _ in range(2):
        assert np.array_equal(opened("onnxruntime")(images(1)), expected)
    assert len(list((tmp_path / "graphs").iterdir())) == 1


def test_pytorch_gives_back_the_threads_it_took(opened):
    before = torch.get_num_threads()
    open_session(make("pytorch"), "cpu", before + 1).close()
    assert torch.get_num_threads() == before


def test_default_threads_are_at_least_one_and_at_most_what_the_process_may_use():
    import os

    assert 1 <= backends.default_threads() <= os.cpu_count()


def test_the_fake_counts_sleeps_and_fails_when_told():
    session = fake.FakeSession(make("fake"), fail_at=2, error=lambda: OSError("gone"))
    session(images(3))
    session(images(1))
    assert (session.calls, session.images) == (2, 4)
    with pytest.raises(OSError, match="gone"):
        session(images(1))
    assert session.images == 4
