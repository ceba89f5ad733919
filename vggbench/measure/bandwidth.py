"""How fast memory is copied on the device that runs: the floor under a call that must read every weight once."""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import datetime, timezone
from typing import Any

import numpy as np

from vggbench.environment import installed
from vggbench.results import Peak, Record, Samples, Workload
from vggbench.shares import COPY

#: Far beyond any cache: what is copied must come from memory. Seconds and copies at least.
CPU_BYTES, CUDA_BYTES = 256 << 20, 1 << 30
REPETITIONS = 5

#: Copies once and gives the seconds that it took.
Copy = Callable[[], float]


def time_copies(device: str, threads: int, seconds: float, size: int | None = None) -> tuple[Samples, str, int]:
    """Seconds of copies of ``size`` bytes one after the other, what copied, and the bytes.

    On a GPU within its memory, by its own clock; on a CPU by as many threads as asked for.
    """
    size = size or (CPU_BYTES if device == "cpu" else CUDA_BYTES)
    copy, library = _on_cpu(size, threads) if device == "cpu" else _on_cuda(size, device)
    warmups = [copy(), copy()]
    values: list[float] = []
    started = time.perf_counter()
    while len(values) < REPETITIONS or time.perf_counter() - started < seconds:
        values.append(copy())
    return Samples(unit="seconds", values=values, warmups=warmups), library, size


def copy_record(
    samples: Samples, library: str, size: int, threads: int, device: str, *, environment: dict[str, Any],
    process: int | None = None,
) -> Record:  # fmt: skip
    """A record of kind "peak" and precision "copy": m bytes, every one read and written, so 2 m operations a call."""
    return Record(
        kind="peak",
        networks=[],
        workload=Workload(),
        samples=samples,
        environment=environment,
        started=datetime.now(timezone.utc).isoformat(timespec="seconds"),
        elapsed_seconds=sum(samples.values) + sum(samples.warmups),
        process=process,
        conditions={"device": device, "product": library},
        peak=Peak(precision=COPY, library=library, threads=threads, m=size, n=1, k=1, operations=2 * size),
    )


def _on_cpu(size: int, threads: int) -> tuple[Copy, str]:
    """torch's copy, which takes as many threads as it was given; numpy's, with one, would be slower than the memory."""
    import torch

    torch.set_num_threads(threads)
    source = torch.from_numpy(np.ones(size // 4, np.float32))
    target = torch.zeros_like(source)

    def copy() -> float:
        before = time.perf_counter()
        target.copy_(source)
        return time.perf_counter() - before

    return copy, f"torch {installed('torch')} copy_"


def _on_cuda(size: int, device: str) -> tuple[Copy, str]:
    import torch

    source = torch.ones(size // 4, device=device)
    target = torch.empty_like(source)
    start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))  # type: ignore[no-untyped-call]

    def copy() -> float:
        start.record()
        target.copy_(source)
        end.record()
        end.synchronize()
        return float(start.elapsed_time(end)) / 1000

    return copy, f"torch {installed('torch')} copy_ on the device"
