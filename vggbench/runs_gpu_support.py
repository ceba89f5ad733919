"""What has run on hardware, on which versions, and what has not: data in one place, rendered for the documentation.

An entry changes only with a run: its report's folder is named, or the error that it ended with.
"""

from __future__ import annotations

from dataclasses import dataclass

NOT_RUN = "not run on hardware"


@dataclass(frozen=True)
class Entry:
    """A backend with its versions. checked: what its calls were held against without a GPU.

    hardware: NOT_RUN, or the GPU, driver and date; report: the folder of that run; error: what it ended with.
    """

    backend: str
    versions: str
    checked: str
    hardware: str = NOT_RUN
    report: str = ""
    error: str = ""


_SURFACE = "recorded interface, fakes of its real names"
SUPPORT = (
    Entry("tensorrt", "8.6", f"{_SURFACE}; 8.6.0 itself as far as it goes without a driver"),
    Entry("tensorrt", "10.0 to 10.16", _SURFACE),
    Entry("tensorrt", "11.0 to 11.4", _SURFACE),
    Entry("tensorrt", "10.3 on, FP8", "the E4M3 graph on ONNX Runtime's CPU, rules of its own"),
    Entry("torch-tensorrt", "2.11 to 2.14, FP32, TF32, FP16", "recorded interface; the exported network on a CPU"),
    Entry(
        "torch-tensorrt", "2.11 to 2.14, INT8 and FP8 by nvidia-modelopt 0.47", "Q/DQ beside the ONNX graph's on a CPU"
    ),
    Entry("pytorch", "2.11 to 2.14 on CUDA", "the same code on a CPU; timing by a fake of torch.cuda"),
    Entry("torch-compile", "2.11 to 2.14 on CUDA, max-autotune", "the same code on a CPU"),
    Entry("onnxruntime", "1.20 on, CUDA", "the same graphs on a CPU"),
    Entry("trtexec", "7.2, 8.6, 10, 11", "outputs written after its sources' format"),
    Entry("vggbench gpu", "all steps", "on a CPU, by the backends that are there"),
)


def markdown_table() -> str:
    """The matrix: a line an entry."""
    lines = ["| what | versions | checked without a GPU | on hardware |", "| --- | --- | --- | --- |"]
    for entry in SUPPORT:
        ran = (
            entry.hardware
            + (f" ({entry.report})" if entry.report else "")
            + (f": {entry.error}" if entry.error else "")
        )
        lines.append(f"| {entry.backend} | {entry.versions} | {entry.checked} | {ran} |")
    return "\n".join(lines) + "\n"
