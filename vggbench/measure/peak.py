"""The fastest matrix product of each precision on this machine, searched over libraries and shapes."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from vggbench.environment import installed
from vggbench.errors import BackendUnavailable, UsageError
from vggbench.measure.products import ON_CPU, ON_CUDA, Call, Maker, Shape
from vggbench.results import Peak, Record, Samples, Workload
from vggbench.samples import median

PRECISIONS = tuple(dict.fromkeys([*ON_CPU, *ON_CUDA]))
#: (m, k, n): cubes, and a convolution of VGG as a product: four images of 56 x 56 positions, 512 x 3 x 3 inputs.
CPU_SHAPES: tuple[Shape, ...] = ((1024, 1024, 1024), (2048, 2048, 2048), (12544, 4608, 512))
CUDA_SHAPES: tuple[Shape, ...] = ((4096, 4096, 4096), (8192, 8192, 8192), (100352, 4608, 512))
#: A candidate is tried this long and so often, the best one then measured for as long as asked and at least so often.
TRIAL_SECONDS, TRIALS, REPETITIONS = 0.25, 3, 5


@dataclass(frozen=True)
class Found:
    """The product that was fastest. tried: "library, shape" -> operations a second, or why it does not run."""

    precision: str
    library: str
    shape: Shape
    tried: Mapping[str, float | str]


def best_product(
    precision: str,
    threads: int,
    device: str = "cpu",
    *,
    makers: Mapping[str, Maker] | None = None,
    shapes: tuple[Shape, ...] | None = None,
) -> Found:
    """Tries every candidate on every shape, by its median. Raises BackendUnavailable if none runs, UsageError."""
    makers = _makers(precision, device) if makers is None else makers
    rates: dict[tuple[str, Shape], float] = {}
    tried: dict[str, float | str] = {}
    for shape in shapes or (CPU_SHAPES if device == "cpu" else CUDA_SHAPES):
        for library, maker in makers.items():
            name = f"{library}, {' x '.join(map(str, shape))}"
            try:
                _, values = _time(maker(shape, threads), TRIAL_SECONDS, TRIALS)
            except Exception as error:  # a library that is absent, old or without the type raises what it likes
                tried[name] = f"does not run: {_first_line(error)}"
                continue
            rates[library, shape] = _operations(shape) / median(values)
            tried[name] = rates[library, shape]
    if not rates:
        why = "; ".join(f"{name} {reason}" for name, reason in tried.items())
        raise BackendUnavailable(f"No matrix product in {precision} runs on {device}: {why}.")
    library, shape = max(rates, key=lambda key: rates[key])
    return Found(precision, library, shape, tried)


def time_product(found: Found, threads: int, seconds: float, device: str = "cpu") -> Samples:
    """Seconds of the product found, one after the other, for so long and at least REPETITIONS times."""
    call = _makers(found.precision, device)[found.library](found.shape, threads)
    warmups, values = _time(call, seconds, REPETITIONS)
    return Samples(unit="seconds", values=values, warmups=warmups)


def peak_record(
    found: Found,
    samples: Samples,
    threads: int,
    device: str,
    *,
    environment: dict[str, Any],
    conditions: dict[str, Any] | None = None,
    started: str = "",
    process: int | None = None,
) -> Record:
    """The product's seconds, and in the conditions every candidate with its operations a second."""
    m, k, n = found.shape
    name, _, product = found.library.partition(" ")
    return Record(
        kind="peak",
        networks=[],
        workload=Workload(),
        samples=samples,
        environment=environment,
        started=started,
        elapsed_seconds=sum(samples.values) + sum(samples.warmups),
        process=process,
        conditions={
            "device": device,
            **(conditions or {}),
            **{f"tried {name}": rate for name, rate in found.tried.items()},
        },
        peak=Peak(
            precision=found.precision,
            library=f"{name} {installed(name) or ''} {product}",
            threads=threads,
            m=m,
            n=n,
            k=k,
            operations=_operations(found.shape),
        ),
    )


def _makers(precision: str, device: str) -> dict[str, Maker]:
    """Raises UsageError for a precision without a product."""
    table = ON_CPU if device == "cpu" else ON_CUDA
    if precision not in table:
        raise UsageError(f"No matrix product in {precision!r} on {device}. Known: {', '.join(table)}.")
    return table[precision]


def _time(call: Call, seconds: float, repetitions: int) -> tuple[list[float], list[float]]:
    """Seconds of one warm-up, and of calls until both the time and the count are reached."""
    clock = time.perf_counter
    before = clock()
    call()
    warmups = [clock() - before]
    values: list[float] = []
    started = clock()
    while len(values) < repetitions or clock() - started < seconds:
        before = clock()
        call()
        values.append(clock() - before)
    return warmups, values


def _operations(shape: Shape) -> int:
    m, k, n = shape
    return 2 * m * k * n


def _first_line(error: Exception) -> str:
    text = str(error).strip().splitlines()
    return f"{type(error).__name__}: {text[0][:200]}" if text else type(error).__name__
