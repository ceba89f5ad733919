"""The backend tensorrt: one line wherever it cannot run, layers and pixels through engines where it can."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from backend_inputs import images, make, relative, weights_of
from fake_cuda import cudaError_t
from fake_tensorrt import DEVICE, MAJORS, install
from protocol_cases import make_dataset
from typer.testing import CliRunner

from vggbench import backends, cache, cli, doctor, environment
from vggbench.backends import layers, tensorrt
from vggbench.backends.choice import choose
from vggbench.backends.native_plan import NativePlan
from vggbench.engines import buffers, cli_engine
from vggbench.engines.timing import Timer
from vggbench.errors import BackendUnavailable
from vggbench.graphs import OUTPUT, export_onnx
from vggbench.measure.accuracy import run_passes
from vggbench.protocols import PROTOCOLS, protocol

ROOT = Path(__file__).parents[1]
COMMAND = ["evaluate", "--backend", "tensorrt", "--images", "1"]


@pytest.fixture(autouse=True)
def _own_cache(monkeypatch, tmp_path):
    monkeypatch.setenv("VGGBENCH_CACHE", str(tmp_path))


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    rng = np.random.default_rng(7)
    drawn = [rng.integers(0, 256, (*size, 3), np.uint8) for size in ((90, 120), (110, 80))]
    return make_dataset(tmp_path_factory.mktemp("images"), drawn)


@pytest.fixture
def machine(monkeypatch):
    return lambda version="11.0.0", **more: install(monkeypatch, version, **more)


def refused(*more):
    """The one line and the exit code of the command."""
    result = CliRunner().invoke(cli.app, [*COMMAND, *more])
    lines = result.stderr.splitlines()
    assert len(lines) == 1, lines
    return lines[0], result.exit_code


def test_without_tensorrt_it_is_one_line_with_the_command_and_exit_code_6(monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorrt", None)
    assert refused() == ("vggbench: TensorRT is not installed. Install it with: pip install 'vggbench[tensorrt]'", 6)


def test_a_tensorrt_without_a_library_that_it_needs_is_not_called_absent(monkeypatch):
    def load():
        raise ImportError("libcudnn.so.8: no such file", name="tensorrt")  # as 8.6 without cuDNN names itself

    monkeypatch.setattr("vggbench.backends.tensorrt.load", load)
    assert refused()[0].startswith("vggbench: TensorRT does not load (libcudnn.so.8: no such file). ")


@pytest.mark.parametrize("version", MAJORS)
def test_without_a_driver_it_is_one_line_and_tensorrt_is_asked_for_nothing(version, machine, monkeypatch):
    trt, _, _ = machine(version)

    def crash(*arguments):
        raise AssertionError("8.6 would end the process here")

    for name in ("Runtime", "Builder", "OnnxParser", "ILogger"):
        monkeypatch.setattr(getattr(trt, name), "__init__", crash)
    monkeypatch.setattr(environment, "has_cuda", lambda: False)
    line, code = refused()
    assert code == 6
    assert "needs an NVIDIA GPU and its driver" in line
    assert refused("--device", "cuda")[1] == 6
    said = {check.name: check for check in doctor.examine()}["backend tensorrt"]
    assert said.state == "absent"
    assert "driver" in said.detail


def test_a_broken_installation_and_missing_buffers_are_one_line_each(machine, monkeypatch):
    machine()
    monkeypatch.setattr("vggbench.engines.buffers.missing", lambda: "torch: it sees no CUDA device")
    assert refused()[1] == 6
    assert "pip install cuda-python" in refused()[0]

    def broken():
        raise OSError("libnvinfer.so.11: cannot open\nshared object file")

    monkeypatch.setattr(tensorrt, "load", broken)
    line, code = refused()
    assert "cannot open shared object file" in line
    assert code == 6


def test_a_cpu_and_precisions_that_it_lacks_are_one_line_with_the_reason(machine):
    machine("8.6.0")
    for more, why in (
        (("--device", "cpu"), "runs on NVIDIA GPUs alone"),
        (("--precision", "bf16"), "fp16 is as fast"),
        (("--precision", "fp8"), "fp8"),
    ):
        line, code = refused(*more)
        assert why in line
        assert code == 6


def test_an_old_gpu_lacks_what_its_hardware_lacks(machine, monkeypatch):
    from vggbench.engines.device import Device

    machine()
    monkeypatch.setattr(tensorrt, "first_device", lambda: Device("Old", 70, "1"))
    found = tensorrt.precisions("cuda")
    assert found["fp16"] is None
    assert found["int8"] == "Old has compute capability 7.0, int8 needs 7.5"
    assert "8.0" in found["tf32"]


def test_doctor_says_what_it_runs(machine):
    machine()
    said = {check.name: check for check in doctor.examine()}["backend tensorrt on cuda"]
    assert said.state == "ok"
    assert "int8 = int8 products, int32 sums" in said.detail
    assert "fp8 = fp8 products, fp32 sums" in said.detail


def test_backends_import_without_any_of_their_libraries():
    code = (
        "import sys\nfor name in ('tensorrt', 'torch_tensorrt', 'pycuda', 'cuda'): sys.modules[name] = None\n"
        "import vggbench.backends.tensorrt as one, vggbench.backends.torch_tensorrt as other\n"
        "print(bool(one.available()), bool(other.available()))"
    )
    path = f"{ROOT}:{ROOT / 'reference'}"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env={"PYTHONPATH": path, "PATH": ""}
    )
    assert done.stdout.split() == ["True", "True"], done.stderr


def test_a_record_of_a_session_is_flat_and_says_where_the_engine_came_from(machine):
    machine()
    for source in ("built", "cache"):
        session = tensorrt.open_session(make("tensorrt", precision="fp16"), "cuda", 1)
        assert session.info["engine_source"] == source
        assert all(isinstance(value, str | int | float | bool | None) for value in session.info.values())
        assert session.info["tensorrt"] == "11.0.0.114"
        assert session.info["profile"] == "batch 1:32:64 height 64:64:64 width 64:64:64"
        assert len(session.info["layers"]) < 5000
        session.close()


def test_a_cache_that_takes_nothing_does_not_stop_an_engine(machine, monkeypatch, caplog):
    machine()

    def full(path, *more):
        with cache.storage_errors(path):
            raise OSError(28, "No space left on device")

    monkeypatch.setattr(cache, "write_atomic", full)
    monkeypatch.setattr(tensorrt, "graph_path", lambda variant, root: full(root / "graph.onnx"))
    session = tensorrt.open_session(make("tensorrt"), "cuda", 1)
    assert session(images(1)).shape == (1, 60)
    assert not session.info["engine_kept"]
    session.close()
    assert [record.name for record in caplog.records if record.levelname == "WARNING"] == ["vggbench.engines"] * 2
    assert not any("\n" in record.getMessage() for record in caplog.records)


@pytest.mark.parametrize("precision", ["fp32", "fp16", "int8", "tf32"])
def test_layers_through_an_engine_are_those_of_onnxruntime(precision, machine):
    _, cuda, _ = machine("10.16.1")
    other = "fp32" if precision == "tf32" else precision
    for form, sides in (("crop", (64, 64)), ("dense", (70, 99))):
        batch = images(3, *sides)
        with layers.layer_outputs(make("tensorrt", "A-LRN", form, precision), "cuda", 2) as seen:
            found = seen(batch)
        with layers.layer_outputs(make("onnxruntime", "A-LRN", form, other, layout="tensorrt"), "cpu", 2) as seen:
            expected = seen(batch)
        assert list(found) == list(expected)
        assert len(found) > 10
        for name in found:
            assert relative(found[name], expected[name]) <= (1e-2 if precision == "fp16" else 1e-5), name
    assert not any(cuda.live.values())
    assert not (cache.root() / "engines").exists()


@pytest.mark.parametrize("precision", ["fp32", "int8"])
@pytest.mark.parametrize("technique", sorted(PROTOCOLS))
def test_every_protocol_of_the_paper_runs_through_an_engine(technique, precision, machine, dataset):
    """The posteriors are those of onnxruntime on the same graph; images in crop form beyond the batch run in pieces."""
    machine()
    weights = weights_of("A")
    passes = protocol(technique, (72, 80, 90) if technique.startswith("multi") else (80,)).passes
    found = {}
    for backend, device in (("tensorrt", "cuda"), ("onnxruntime", "cpu")):
        quantization = make(backend, precision="int8", layout="tensorrt").quantization if precision == "int8" else None
        options = {"precision": precision, "quantization": quantization, "device": device, "threads": 2}
        found[backend] = run_passes(dataset, weights, passes, backend=backend, **options).posteriors
    for one in passes:
        assert np.abs(found["tensorrt"][one] - found["onnxruntime"][one]).max() <= 1e-5


def test_auto_takes_tensorrt_where_it_is(machine, monkeypatch):
    machine()
    assert choose("int8", "cuda").backend == "tensorrt"
    monkeypatch.setattr(tensorrt, "available", lambda: "gone.")
    with pytest.raises(BackendUnavailable, match="gone"):
        backends.check_runs("tensorrt", "fp32", "cuda")
    assert weights_of("A").crop_size == 64


def test_an_engine_runs_by_itself_from_its_own_command(machine, monkeypatch, tmp_path, capsys):
    _, cuda, _ = machine("8.6.0")
    monkeypatch.setattr(cli_engine, "first_device", lambda: DEVICE)
    monkeypatch.chdir(tmp_path)
    graph, batch = Path("graph.onnx"), images(5)
    graph.write_bytes(export_onnx(make("tensorrt", precision="fp16")))
    np.save("in.npy", batch)
    common = ["graph.onnx", "--precision", "fp16", "--crop", "64", "--batch", "1:2:4"]
    assert cli_engine.main([*common, "--images", "in.npy", "--seconds", "0.01", "--json", "out.json"]) == 0
    found = json.loads(Path("out.json").read_text(encoding="utf-8"))
    assert found["shape"] == [2, 3, 64, 64]
    assert len(found["seconds"]) >= 10
    assert found["info"]["tensorrt"] == "8.6.0"
    assert len(found["layers"]) == 11
    with np.load("in.scores.npz") as scores:
        session = tensorrt.open_session(make("tensorrt", precision="fp16"), "cuda", 1)
        assert relative(scores[OUTPUT], session(batch)) < 1e-3
        session.close()
    assert not any(cuda.live.values())
    capsys.readouterr()
    for more, code, why in (
        (["none.onnx"], 4, "no such graph"),
        (["graph.onnx", "--precision", "fp8"], 6, "has no fp8"),
        (["graph.onnx", "--batch", "many"], 2, "MIN:OPT:MAX"),
        ([*common, "--images", "graph.onnx"], 4, "not an array"),
        ([*common, "--seconds", "0", "--json", "no/folder.json"], 7, "cannot write"),
    ):
        assert cli_engine.main(more) == code
        (line,) = capsys.readouterr().err.splitlines()
        assert why in line
    monkeypatch.setattr(cli_engine, "first_device", lambda: None)
    assert cli_engine.main(common) == 6


def test_an_engine_made_for_a_batch_takes_that_alone(machine):
    machine()
    session = backends.open_for(make("tensorrt"), "cuda", 1, 8, (64, 64))
    assert session.info["profile"] == "batch 8:8:8 height 64:64:64 width 64:64:64"
    assert len(session.time_calls(images(8), 2, False)) == 2
    assert session(images(19)).shape == (19, 60)
    session.close()


def test_what_cannot_be_timed_leaves_nothing_on_the_gpu(machine, monkeypatch, tmp_path):
    _, cuda, _ = machine()
    monkeypatch.setattr(cli_engine, "first_device", lambda: DEVICE)
    session = tensorrt.open_session(make("tensorrt"), "cuda", 1)
    engine = session._runner.engine
    plan = json.dumps(engine._plan).encode() + b"\n" + engine._model.SerializeToString()
    session.close()
    graph = tmp_path / "graph.onnx"
    graph.write_bytes(export_onnx(make("tensorrt")))

    def refuse(self, mode):
        raise BackendUnavailable("no event")

    monkeypatch.setattr(Timer, "use", refuse)
    for opens in (
        lambda: tensorrt.open_session(make("tensorrt"), "cuda", 1),
        lambda: NativePlan(make("torch-tensorrt"), plan, {}, 1.0),
        lambda: cli_engine.run(cli_engine._parser().parse_args([str(graph), "--crop", "64"])),
    ):
        with pytest.raises(BackendUnavailable, match="no event"):
            opens()
        assert not any(cuda.live.values())


def test_a_driver_that_answers_and_a_runtime_that_does_not_start_are_one_line(machine, monkeypatch):
    """As where the driver is older than the runtime; 8.6's Runtime would end the process there."""
    trt, cuda, _ = machine("8.6.0")
    cuda.fail["cudaGetDeviceCount"] = cudaError_t.cudaErrorInsufficientDriver
    monkeypatch.setattr(trt.Runtime, "__init__", lambda *arguments: pytest.fail("8.6 would end the process here"))
    line, code = refused()
    assert (line.partition("(")[2], code) == (
        "cuda-python: CUDA does not start (cudaErrorInsufficientDriver)). Look at GPU and driver: nvidia-smi", 6
    )  # fmt: skip
    said = {check.name: check for check in doctor.examine()}["backend tensorrt"]
    assert said.state == "absent"
    with pytest.raises(BackendUnavailable, match="cuda-python: CUDA does not start"):
        buffers.provider()
