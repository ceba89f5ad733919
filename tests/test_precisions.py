"""One table of precisions, whole; what the command line, doctor and the errors say comes from it."""

import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from vggbench import backends, cli, doctor, environment, precisions, runs_inputs, runs_latency, runs_peak
from vggbench.backends.choice import choose
from vggbench.errors import BackendUnavailable, UsageError
from vggbench.precisions import BACKENDS, DEVICES, GAPS, PRECISIONS, TABLE, UNITS, Row, find

ROOT = Path(__file__).parents[1]
NATIVE = frozenset(unit.flag for unit in UNITS)


@pytest.fixture
def cpu(monkeypatch):
    """Makes this a CPU with these flags, an x86-64 one without a GPU."""

    def become(*flags, machine="x86_64"):
        monkeypatch.setattr(precisions, "cpu_flags", lambda: frozenset(flags))
        monkeypatch.setattr(precisions.platform, "machine", lambda: machine)
        monkeypatch.setattr("vggbench.environment.has_cuda", lambda: False)

    return become


@pytest.fixture
def absent(monkeypatch):
    """Makes backends absent."""

    def remove(*names):
        for name in names:
            monkeypatch.setattr(
                backends.module(name), "available", lambda name=name: f"{name} is not here. Get it: pip install {name}"
            )

    return remove


@pytest.fixture
def all_present(monkeypatch):
    for name in BACKENDS:
        monkeypatch.setattr(backends.module(name), "available", lambda: None)


def test_every_combination_has_one_row_or_one_reason():
    entries = [(entry.precision, entry.backend, entry.device) for entry in (*TABLE, *GAPS)]
    assert sorted(entries) == sorted(
        (precision, backend, device) for precision in PRECISIONS for backend in BACKENDS for device in DEVICES
    )


def test_the_table_names_the_backends_that_there_are():
    assert tuple(backends.BACKENDS) == BACKENDS
    assert tuple(PRECISIONS) == backends.PRECISIONS
    assert ("auto", *DEVICES) == backends.DEVICES


def test_no_two_rows_of_a_precision_and_device_claim_one_speed():
    ranked = [(row.precision, row.device, row.speed) for row in TABLE]
    assert len(set(ranked)) == len(ranked)


def test_a_row_without_hardware_of_its_own_needs_none():
    computed = {row.precision for row in TABLE if row.device == "cpu" and not row.simulated}
    assert {unit.precision for unit in UNITS} == computed - {"fp32"}
    assert not [row for row in TABLE if row.otherwise and (row.precision == "fp32" or row.device == "cuda")]


def test_importing_the_table_loads_nothing_of_ours_and_nothing_heavy():
    code = (
        "import sys; import vggbench; before = set(sys.modules); import vggbench.precisions; "
        "print([m for m in set(sys.modules) - before if m.split('.')[0] in ('vggbench', 'numpy', 'torch')])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env={"PYTHONPATH": str(ROOT), "PATH": ""}
    )
    assert done.stdout.strip() == "['vggbench.precisions']", done.stderr


@pytest.mark.parametrize(
    "row", [row for row in TABLE if row.device == "cpu"], ids=lambda row: f"{row.backend} {row.precision}"
)
def test_on_a_bare_cpu_a_row_falls_back_or_says_what_is_missing(row, cpu, all_present):
    cpu()
    why = backends.module(row.backend).precisions("cpu")[row.precision]
    if row.precision == "fp32" or row.otherwise:
        assert why is None
        assert precisions.arithmetic(row) == (row.otherwise or "fp32")
    else:
        assert "none of AVX512" in why
        assert "NVIDIA GPU would do it" in why
    cpu(*NATIVE)
    assert backends.module(row.backend).precisions("cpu")[row.precision] is None
    assert precisions.arithmetic(row) == row.arithmetic


def test_fp16_runs_on_a_bare_cpu_and_says_that_it_computes_in_fp32(cpu, all_present):
    cpu()
    assert precisions.arithmetic(find("fp16", "onnxruntime", "cpu")) == "fp32 on weights stored as fp16"
    chosen = choose("fp16", "cpu")
    assert chosen.backend == "onnxruntime"
    assert "fp32 on weights stored as fp16 on the CPU" in chosen.why


def test_what_would_do_more_is_what_this_kind_of_cpu_may_have_beyond_what_it_has(cpu):
    cpu("avx512_bf16", "avx_vnni")
    assert precisions.would_do_more("bf16") == "AMX-BF16, or an NVIDIA GPU"
    assert precisions.would_do_more("int8") == "AVX512-VNNI, AMX-INT8, or an NVIDIA GPU"
    cpu("avx512_bf16", "amx_bf16")
    assert precisions.would_do_more("bf16") == "an NVIDIA GPU"
    cpu(machine="aarch64")
    assert precisions.would_do_more("fp16") == "Arm FP16, or an NVIDIA GPU"


def test_auto_takes_the_fastest_that_is_there_and_says_which_would_be_faster(cpu, absent, all_present):
    cpu(*NATIVE)
    for precision in PRECISIONS:
        order = [row.backend for row in precisions.fastest(precision, "cpu")]
        for gone, expected in enumerate(order):
            absent(*order[:gone])
            chosen = choose(precision, "cpu")
            assert chosen.backend == expected
            assert all(f"pip install {name}" in chosen.why for name in order[:gone])
            assert chosen.why.count("\n") == 0
        absent(*order)
        with pytest.raises(BackendUnavailable, match=f"No backend runs {precision} on cpu") as error:
            choose(precision, "cpu")
        assert "\n" not in str(error.value)
        for name in BACKENDS:
            backends.module(name).available = lambda: None


def test_what_only_simulates_is_named_and_not_chosen_and_computes_in_fp32(cpu, all_present):
    cpu(*NATIVE)
    rows = [row for row in TABLE if row.simulated]
    assert [(row.precision, row.backend, row.device) for row in rows] == [("fp8", "onnxruntime", "cpu")]
    assert all(precisions.arithmetic(row).startswith("fp32") and "simulated" in row.arithmetic for row in rows)
    with pytest.raises(BackendUnavailable, match=r"No backend runs fp8 on cpu here: onnxruntime would.*simulated"):
        choose("fp8", "cpu")
    assert runs_inputs.setting(backend="onnxruntime", precision="fp8", device="cpu").backend == "onnxruntime"


@pytest.mark.parametrize("device", ["auto", "cpu"])
def test_a_precision_that_no_cpu_has_is_told_with_those_that_run(cpu, all_present, monkeypatch, device):
    cpu(*NATIVE)
    monkeypatch.setattr(environment, "has_cuda", lambda: False)
    with pytest.raises(BackendUnavailable) as error:
        choose("tf32", device)
    assert str(error.value) == (
        "No backend runs tf32 on cpu here: no CPU computes in tf32. Accepted: --precision fp32, bf16, fp16, int8. Or "
        "take a machine with an NVIDIA GPU."
    )


@pytest.mark.parametrize("precision", PRECISIONS)
def test_without_a_gpu_cuda_is_refused_in_one_short_line(precision, monkeypatch):
    monkeypatch.setattr(environment, "has_cuda", lambda: False)
    line = f"Asked was {precision} on cuda, and no NVIDIA GPU with its driver is here. Take --device cpu, or a machine "
    for ask in (
        lambda: choose(precision, "cuda"),
        lambda: backends.check_runs("pytorch", precision, "cuda"),
        lambda: runs_peak.peak([precision], device="cuda"),
    ):
        with pytest.raises(BackendUnavailable) as error:
            ask()
        assert str(error.value) == f"{line}with a GPU."
    with pytest.raises(BackendUnavailable) as error:
        runs_latency.plan_of(
            runs_latency.Request(network="A", weights="sample", device="cuda", pairs=(("fp32", "pytorch"),) * 16)
        )
    assert str(error.value).startswith("None of the 16 variants runs here, first fp32 on pytorch: Asked was fp32 on")
    assert len(str(error.value)) < 200


@pytest.mark.parametrize("asked", [None, "auto"])
def test_a_setting_knows_why_its_backend_was_chosen(asked):
    chosen = runs_inputs.setting(backend=asked, device="cpu")
    assert chosen.why.startswith(f"{chosen.backend} was chosen: ")
    assert runs_inputs.setting(backend="pytorch", device="cpu").why == ""


def test_unknown_names_are_refused_with_the_known_ones():
    for wrong, known in (
        ({"precision": "fp4"}, "fp32, tf32, bf16, fp16, int8, fp8"),
        ({"device": "tpu"}, "auto, cpu, cuda"),
        ({"backend": "trt"}, ", ".join(BACKENDS)),
    ):
        with pytest.raises(UsageError, match=known):
            runs_inputs.setting(**wrong)


@pytest.mark.parametrize("name", ["onnxruntime", "openvino", "torch-compile"])
def test_an_absent_backend_is_one_line_and_exit_code_6(name, absent, tmp_path):
    absent(name)
    result = CliRunner().invoke(cli.app, ["evaluate", "--backend", name, "--images", "1"])
    assert result.exit_code == 6
    assert result.stderr.splitlines() == [f"vggbench: {name} is not here. Get it: pip install {name}"]


def test_int8_on_a_backend_without_it_names_those_that_have_it():
    with pytest.raises(BackendUnavailable, match="onnxruntime and openvino have"):
        runs_inputs.setting(backend="pytorch", precision="int8", device="cpu")


def test_doctor_says_what_computes_what_is_missing_and_what_auto_takes(cpu, all_present):
    cpu("avx512_vnni")
    said = {check.name: check for check in doctor.examine()}
    assert (said["bf16 on the CPU"].state, said["int8 on the CPU"].state) == ("absent", "ok")
    assert "no backend runs it here" in said["bf16 on the CPU"].detail
    assert (
        "by AVX512-VNNI (AMX-INT8, or an NVIDIA GPU would do more); auto takes onnxruntime"
        in said["int8 on the CPU"].detail
    )
    assert "fp16 = fp32 on weights stored as fp16" in said["backend onnxruntime on cpu"].detail
    assert "no bf16: this CPU has none of AVX512-BF16" in said["backend pytorch on cpu"].detail


def test_the_documentation_holds_the_table():
    assert precisions.markdown_table() in (ROOT / "docs" / "backends.md").read_text(encoding="utf-8")


def test_a_row_reads_as_it_is_in_the_documentation():
    lines = precisions.markdown_table().splitlines()
    assert lines[0] == "| backend | device | fp32 | tf32 | bf16 | fp16 | int8 | fp8 |"
    assert f"| pytorch | cpu | fp32 | - | {precisions._BF16}; else not at all |" in "\n".join(lines)
    assert all(isinstance(find("fp32", row.backend, row.device), Row) for row in TABLE)
