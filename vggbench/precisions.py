"""Which precision runs on which backend and device: the one table that the command line, doctor and the errors read.

What computes, how weights are kept, what the hardware must have. Every combination has a row or a reason. Imports
nothing of ours and nothing heavy.
"""

from __future__ import annotations

import functools
import platform
from dataclasses import dataclass
from pathlib import Path

#: Precision -> what it is, for help and documentation.
PRECISIONS = {
    "fp32": "single precision",
    "tf32": "single precision, rounded to 10 bits of mantissa before it is multiplied",
    "bf16": "bfloat16: FP32's range, 8 bits of mantissa",
    "fp16": "half precision: up to 65504, 11 bits of mantissa",
    "int8": "8-bit integers between calibrated ranges",
    "fp8": "8-bit floats (E4M3) scaled to calibrated ranges",
}
#: They need calibration ranges.
QUANTIZED = ("int8", "fp8")
DEVICES = ("cpu", "cuda")


@dataclass(frozen=True)
class Unit:
    """Arithmetic of a CPU beyond FP32. flag: as /proc/cpuinfo names it; rank: a greater one does more in a cycle."""

    precision: str
    flag: str
    name: str
    machine: str
    rank: int


UNITS = (
    Unit("bf16", "avx512_bf16", "AVX512-BF16", "x86_64", 1),
    Unit("bf16", "amx_bf16", "AMX-BF16", "x86_64", 2),
    Unit("bf16", "bf16", "Arm BF16", "aarch64", 1),
    Unit("fp16", "avx512_fp16", "AVX512-FP16", "x86_64", 1),
    Unit("fp16", "amx_fp16", "AMX-FP16", "x86_64", 2),
    Unit("fp16", "asimdhp", "Arm FP16", "aarch64", 1),
    Unit("int8", "avx_vnni", "AVX-VNNI", "x86_64", 1),
    Unit("int8", "avx512_vnni", "AVX512-VNNI", "x86_64", 2),
    Unit("int8", "amx_int8", "AMX-INT8", "x86_64", 3),
    Unit("int8", "asimddp", "Arm dot product", "aarch64", 1),
    Unit("int8", "i8mm", "Arm I8MM", "aarch64", 2),
)


@dataclass(frozen=True)
class Row:
    """A precision that a backend has on a device.

    arithmetic: what computes; weights: how they are kept. otherwise: what computes on a CPU without any of the
    precision's UNITS, empty where it then does not run. capability: of a GPU, ten times major plus minor.
    speed: of two rows of one precision and device, the greater was seen to be the faster one on VGG-16 (of equals, the
    one that needs no extra); rows for CUDA are in the order that is to be expected. simulated: rounds as the precision
    does but computes in another, to foretell its scores; never chosen for its speed.
    """

    precision: str
    backend: str
    device: str
    arithmetic: str
    weights: str
    speed: int
    otherwise: str = ""
    capability: int = 0
    simulated: bool = False


@dataclass(frozen=True)
class Gap:
    """A precision that a backend does not have on a device, and why."""

    precision: str
    backend: str
    device: str
    why: str


_BF16 = "bf16 products, fp32 sums"
_FP16 = "fp16 operands, fp32 sums"
_STORED = "fp32 on weights stored as fp16"
_INT8 = "int8 products, int32 sums"
_TF32 = "tf32 products, fp32 sums"
_FP8 = "fp8 products, fp32 sums"
_SIMULATED = "fp32 on values rounded to fp8 (simulated)"
#: Without VNNI two products are added in 16 bits.
_SATURATING = "int8 products, 16-bit partial sums that can saturate"

TABLE = (
    Row("fp32", "onnxruntime", "cpu", "fp32", "fp32", 3),
    Row("fp32", "openvino", "cpu", "fp32", "fp32", 2),
    Row("fp32", "pytorch", "cpu", "fp32", "fp32", 1),
    Row("fp32", "torch-compile", "cpu", "fp32", "fp32", 0),
    Row("bf16", "pytorch", "cpu", _BF16, "bf16", 2),
    Row("bf16", "openvino", "cpu", _BF16, "bf16", 1),
    Row("bf16", "torch-compile", "cpu", _BF16, "bf16", 0),
    # oneDNN widens FP16 to FP32 before it multiplies (but for AMX): its convolutions were seen at half of FP32's speed.
    Row("fp16", "onnxruntime", "cpu", _STORED, "fp16 in the graph, fp32 in memory", 3, otherwise=_STORED),
    Row("fp16", "pytorch", "cpu", _FP16, "fp16", 2),
    Row("fp16", "torch-compile", "cpu", _FP16, "fp16", 1),
    Row("fp16", "openvino", "cpu", _FP16, "fp16", 0, otherwise=_STORED),
    Row("int8", "onnxruntime", "cpu", _INT8, "int8, per channel", 2, otherwise=_SATURATING),
    Row("int8", "openvino", "cpu", _INT8, "int8, per channel", 1, otherwise=_SATURATING),
    Row("fp8", "onnxruntime", "cpu", _SIMULATED, "fp8 in the graph", 0, otherwise=_SIMULATED, simulated=True),
    Row("fp32", "torch-compile", "cuda", "fp32, no TF32", "fp32", 2),
    Row("fp32", "pytorch", "cuda", "fp32, no TF32", "fp32", 1),
    Row("fp32", "onnxruntime", "cuda", "fp32, no TF32", "fp32", 0),
    Row("bf16", "torch-compile", "cuda", _BF16, "bf16", 2, capability=80),
    Row("bf16", "pytorch", "cuda", _BF16, "bf16", 1, capability=80),
    Row("fp16", "torch-compile", "cuda", _FP16, "fp16", 2),
    Row("fp16", "pytorch", "cuda", _FP16, "fp16", 1),
    Row("fp16", "onnxruntime", "cuda", _FP16, "fp16", 0),
    Row("tf32", "torch-compile", "cuda", _TF32, "fp32", 2, capability=80),
    Row("tf32", "pytorch", "cuda", _TF32, "fp32", 1, capability=80),
    Row("fp32", "torch-tensorrt", "cuda", "fp32, no TF32", "fp32", 3),
    Row("tf32", "torch-tensorrt", "cuda", _TF32, "fp32", 3, capability=80),
    Row("fp16", "torch-tensorrt", "cuda", _FP16, "fp16", 3),
    Row("int8", "torch-tensorrt", "cuda", _INT8, "int8, per channel", 3, capability=75),
    Row("fp8", "torch-tensorrt", "cuda", _FP8, "fp8", 3, capability=90),
    Row("fp32", "tensorrt", "cuda", "fp32, no TF32", "fp32", 4),
    Row("tf32", "tensorrt", "cuda", _TF32, "fp32", 4, capability=80),
    Row("fp16", "tensorrt", "cuda", _FP16, "fp16", 4),
    Row("int8", "tensorrt", "cuda", _INT8, "int8, per channel", 4, capability=75),
    # Ada (8.9) has FP8 tensor cores, and from TensorRT 10.3 on Hopper's FP8 convolutions (its release notes). Layers
    # that these do not take stay in FP16 and are named (qdq_fp8); what falls back besides is read from the engine.
    Row("fp8", "tensorrt", "cuda", _FP8, "fp8, per tensor", 4, capability=89),
)
GAPS = (
    Gap("bf16", "onnxruntime", "cpu", "it has no bf16 convolutions; pytorch and openvino have"),
    Gap("bf16", "onnxruntime", "cuda", "no bf16 graph is made for it; use pytorch"),
    Gap("int8", "onnxruntime", "cuda", "its CUDA kernels would compute a Q/DQ graph in fp32"),
    *(
        Gap("int8", backend, device, f"it has no int8 convolutions for calibrated ranges; {others}")
        for backend in ("pytorch", "torch-compile")
        for device, others in (("cpu", "onnxruntime and openvino have"), ("cuda", "tensorrt has"))
    ),
    *(Gap(precision, "openvino", "cuda", "OpenVINO has no CUDA device") for precision in PRECISIONS),
    *(
        Gap("tf32", backend, "cpu", "no CPU computes in tf32")
        for backend in ("pytorch", "onnxruntime", "openvino", "torch-compile")
    ),
    *(
        Gap("fp8", backend, "cpu", "no CPU computes in fp8; onnxruntime simulates it")
        for backend in ("pytorch", "openvino", "torch-compile")
    ),
    Gap("tf32", "onnxruntime", "cuda", "it is told to leave TF32 out; pytorch has it"),
    *(
        Gap("fp8", backend, "cuda", "it has no fp8 convolutions; TensorRT has, from 10 on")
        for backend in ("pytorch", "onnxruntime", "torch-compile")
    ),
    *(Gap(precision, "torch-tensorrt", "cpu", "TensorRT runs on NVIDIA GPUs alone") for precision in PRECISIONS),
    Gap("bf16", "torch-tensorrt", "cuda", "not built: fp16 is as fast and rounds less"),
    *(Gap(precision, "tensorrt", "cpu", "TensorRT runs on NVIDIA GPUs alone") for precision in PRECISIONS),
    Gap("bf16", "tensorrt", "cuda", "not built: fp16 is as fast and rounds less"),
)
#: Backends in the order in which they are named.
BACKENDS = ("pytorch", "onnxruntime", "openvino", "torch-compile", "torch-tensorrt", "tensorrt")


def find(precision: str, backend: str, device: str) -> Row | Gap | None:
    """The entry for a combination; None where the table has neither (an unknown name, a backend of a test)."""
    entries: tuple[Row | Gap, ...] = (*TABLE, *GAPS)
    for entry in entries:
        if (entry.precision, entry.backend, entry.device) == (precision, backend, device):
            return entry
    return None


def fastest(precision: str, device: str) -> list[Row]:
    """Rows of a precision and device, the fastest first, without those that only simulate it."""
    rows = [row for row in TABLE if (row.precision, row.device) == (precision, device) and not row.simulated]
    return sorted(rows, key=lambda row: -row.speed)


def simulated(precision: str, device: str) -> list[str]:
    """What simulates a precision, and how to ask for it: it is not chosen."""
    rows = [row for row in TABLE if (row.precision, row.device) == (precision, device) and row.simulated]
    return [f"{row.backend} would compute in {row.arithmetic}: --backend {row.backend}" for row in rows]


@functools.cache
def cpu_flags() -> frozenset[str]:
    """What /proc/cpuinfo says that this CPU has; empty where there is none."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="ascii", errors="replace").splitlines()
    except OSError:
        return frozenset()
    return frozenset(word for line in lines if line.lower().startswith(("flags", "features")) for word in line.split())


def best_unit(precision: str) -> Unit | None:
    """The one of greatest rank that this CPU has."""
    present = [unit for unit in UNITS if unit.precision == precision and unit.flag in cpu_flags()]
    return max(present, key=lambda unit: unit.rank, default=None)


def arithmetic(row: Row) -> str:
    """What computes on this machine's CPU (or a GPU); empty where it does not run."""
    native = row.device != "cpu" or row.precision == "fp32" or best_unit(row.precision) is not None
    return row.arithmetic if native else row.otherwise


def lacks(precision: str) -> str:
    """Why this CPU does not compute in a precision, in one line; empty if it does."""
    if precision == "fp32" or best_unit(precision) is not None:
        return ""
    if not any(unit.precision == precision for unit in UNITS):
        return f"no CPU computes in {precision}"
    return f"this CPU has none of {_units(precision)}, and would only emulate it"


def would_do_more(precision: str) -> str:
    """Hardware that computes faster in this precision than this CPU: "AMX-BF16, or an NVIDIA GPU"."""
    best = best_unit(precision)
    names = _units(precision, above=best.rank if best else 0)
    return f"{names}, or an NVIDIA GPU" if names else "an NVIDIA GPU"


def _units(precision: str, above: int = 0) -> str:
    """Names of the units that CPUs of this machine's kind may have; of all kinds, on an unknown one."""
    units = [unit for unit in UNITS if unit.precision == precision and unit.rank > above]
    machine = {"AMD64": "x86_64", "arm64": "aarch64"}.get(platform.machine(), platform.machine())
    here = [unit for unit in units if unit.machine == machine]
    known = any(unit.machine == machine for unit in UNITS)
    return ", ".join(unit.name for unit in (here if known else units))


def markdown_table() -> str:
    """The table for the documentation: one line a backend and device, one column a precision."""
    lines = [
        "| backend | device | " + " | ".join(PRECISIONS) + " |",
        "| --- | --- |" + " --- |" * len(PRECISIONS),
    ]
    for device in DEVICES:
        for backend in BACKENDS:
            cells = [_cell(find(precision, backend, device)) for precision in PRECISIONS]
            if any(cell != "-" for cell in cells):
                lines.append(f"| {backend} | {device} | " + " | ".join(cells) + " |")
    return "\n".join([*lines, "", *_footnotes()]) + "\n"


def _cell(entry: Row | Gap | None) -> str:
    if not isinstance(entry, Row):
        return "-"
    needed = entry.device == "cpu" and any(unit.precision == entry.precision for unit in UNITS)
    if entry.arithmetic == entry.otherwise or not (needed or entry.capability):
        return entry.arithmetic
    if entry.capability:
        return f"{entry.arithmetic} (compute capability {entry.capability / 10:.1f})"
    return f"{entry.arithmetic}; else {entry.otherwise or 'not at all'}"


def _footnotes() -> list[str]:
    notes = []
    for precision in PRECISIONS:
        names = ", ".join(unit.name for unit in UNITS if unit.precision == precision)
        if names:
            notes.append(f'- {precision} on a CPU: {names}; "else" is what a CPU without any of them does.')
    return notes
