"""What a precision means on each backend: ranges, layouts, overflow, what really computed."""

import dataclasses
import functools
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import onnx
import pytest
import torch
from backend_inputs import PAIRS, TESTED, images, make, ranges_of, weights_of

from vgg_reference.architectures import architecture
from vggbench.backends import open_session, ort, pytorch
from vggbench.errors import BackendUnavailable, CalibrationError, UsageError
from vggbench.ranges import Quantization, quantized_inputs
from vggbench.variants import Variant
from vggbench.weights import resolve

pytestmark = pytest.mark.usefixtures("with_fake", "own_cache")


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


def test_a_torch_session_turns_the_switches_back_that_another_turned():
    """Numerics has FP32 and TF32 open at once, and the switch is the process': both would compute in the last one."""
    switches = ((torch.backends.cudnn, "allow_tf32"), (torch.backends.cuda.matmul, "allow_tf32"),
                (torch.backends.cudnn, "benchmark"))  # fmt: skip
    before = [getattr(*switch) for switch in switches]
    found = []
    sessions = []
    try:
        for tf32, crop in ((False, True), (True, False)):
            session = open_session(make("pytorch", "shallow-B"), "cpu", 2)
            inner = session._forward
            session._settle = functools.partial(pytorch.settle, tf32, crop)
            session._forward = lambda x, inner=inner: (found.append([getattr(*each) for each in switches]), inner(x))[1]
            sessions.append(session)
        one, other = sessions
        one._clock = SimpleNamespace(time_calls=lambda images, calls, back: one(images))
        for call in (one, other, one, other, lambda batch: one._time_calls(batch, 1, False)):
            call(images(1))
    finally:
        for switch, value in zip(switches, before, strict=True):
            setattr(*switch, value)
    fp32, tf32 = [False, False, True], [True, True, False]
    assert found == [fp32, tf32, fp32, tf32, fp32]


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
        [sys.executable, "-c", code], capture_output=True, text=True, env={"PYTHONPATH": path, "PATH": ""}, timeout=600
    )
    assert done.returncode == 0, done.stderr
