"""The same network by everything that is here, in one run: what an engine is worth shows beside its peers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from vggbench.results import Record
from vggbench.runs_latency_rows import rows_of
from vggbench.shares import floor_seconds

#: Images a call.
BATCHES = (1, 8, 32, 128)
#: (precision, backend). Eager PyTorch is channels_last, torch-compile is max-autotune on a GPU.
GPU_PEERS = (
    *((precision, "pytorch") for precision in ("fp32", "tf32", "fp16", "bf16")),
    *((precision, "torch-compile") for precision in ("fp16", "bf16")),
    *((precision, "onnxruntime") for precision in ("fp32", "fp16")),
    *((precision, "tensorrt") for precision in ("fp32", "tf32", "fp16", "int8", "fp8")),
    *((precision, "torch-tensorrt") for precision in ("fp16", "int8", "fp8")),
)
CPU_PEERS = (
    *((precision, "pytorch") for precision in ("fp32", "fp16", "bf16")),
    *((precision, "torch-compile") for precision in ("fp32", "bf16")),
    *((precision, "onnxruntime") for precision in ("fp32", "fp16", "int8")),
    *((precision, "openvino") for precision in ("fp32", "bf16", "int8")),
)
EAGER = ("fp16", "pytorch")


def peers(device: str) -> tuple[tuple[str, str], ...]:
    """device: "cpu" or "cuda:0"."""
    return CPU_PEERS if device == "cpu" else GPU_PEERS


def peer_rows(records: Sequence[Record]) -> list[dict[str, Any]]:
    """rows_of, with ratio_to_eager_fp16 and, at batch 1, what share of the weights' bandwidth floor is reached.

    floor_seconds: bytes of the weights as they are kept over the measured copy bandwidth; share_of_floor: that over
    the median call.
    """
    rows = rows_of(records)
    eager = {
        (row["batch"], *row["size"]): row["images_per_second"]
        for row in rows
        if (row["precision"], row["backend"]) == EAGER
    }
    copies = [record for record in records if record.kind == "peak"]
    for row in rows:
        base = eager.get((row["batch"], *row["size"]))
        row["ratio_to_eager_fp16"] = row["images_per_second"] / base if base else None
        floor = None
        if row["batch"] == 1:
            record = next(each for each in records if each.kind == "latency" and _is(each, row))
            floor = floor_seconds(record, copies)
        row["floor_seconds"] = floor
        row["share_of_floor"] = floor / row["median_seconds"] if floor else None
    return rows


def _is(record: Record, row: dict[str, Any]) -> bool:
    run = record.networks[0]
    return (run.precision, run.backend, record.workload.batch) == (row["precision"], row["backend"], row["batch"])
