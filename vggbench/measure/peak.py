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

PRECISIONS = tuple(dict.fromkeys([*ON_CPU, *ON_CUDA]))
#: (m, k, n): cubes, and a convolution of VGG as a product: the 56 x 56 positions of an image (on a GPU of 32 images),
#: 512 x 3 x 3 inputs, 512 outputs.
CPU_SHAPES: tuple[Shape, ...] = ((1024, 1024, 1024), (2048, 2048, 2048), (3136, 4608, 512))
CUDA_SHAPES: tuple[Shape, ...] = ((4096, 4096, 4096), (8192, 8192, 8192), (100352, 4608, 512))
#: In so many rounds each candidate has a turn this long; the best one is then measured for as long as asked, and at
#: least so often.
TRIALS, TRIAL_SECONDS, REPETITIONS = 3, 0.08, 5


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
    """Tries every candidate on every shape, by its fastest call. Raises BackendUnavailable if none runs, UsageError.

    In turn, a round after the other: on a restless machine, tried one after another, the candidate would win whose
    moment was best. So all are in memory at once, about 1 GB on a CPU, 4 on a GPU.
    """
    makers = _makers(precision, device) if makers is None else makers
    calls: dict[tuple[str, Shape], Call] = {}
    tried: dict[str, float | str] = {}
    for shape in shapes or (CPU_SHAPES if device == "cpu" else CUDA_SHAPES):
        for library, maker in makers.items():
            tried[_name(library, shape)] = 0.0
            try:
                call = maker(shape, threads)
                call()
            except Exception as error:  # a library that is absent, old or without the type raises what it likes
                tried[_name(library, shape)] = f"does not run: {_first_line(error)}"
                continue
            calls[library, shape] = call
    if not calls:
        why = "; ".join(f"{name} {reason}" for name, reason in tried.items())
        raise BackendUnavailable(f"No matrix product in {precision} runs on {device}: {why}.")
    fastest = dict.fromkeys(calls, float("inf"))
    for _ in range(TRIALS):
        for key, call in calls.items():
            fastest[key] = min(fastest[key], *_timed(call, TRIAL_SECONDS, 1))
    rates = {key: _operations(key[1]) / seconds for key, seconds in fastest.items()}
    library, shape = max(rates, key=lambda key: rates[key])
    return Found(precision, library, shape, {**tried, **{_name(*key): rate for key, rate in rates.items()}})


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
    return _timed(call, 0.0, 1), _timed(call, seconds, repetitions)


def _timed(call: Call, seconds: float, repetitions: int) -> list[float]:
    clock = time.perf_counter
    values: list[float] = []
    started = clock()
    while len(values) < repetitions or clock() - started < seconds:
        before = clock()
        own = call()  # seconds, where the device has told them
        values.append(own if isinstance(own, float) else clock() - before)
    return values


def _name(library: str, shape: Shape) -> str:
    return f"{library}, {' x '.join(map(str, shape))}"


def _operations(shape: Shape) -> int:
    m, k, n = shape
    return 2 * m * k * n


def _first_line(error: Exception) -> str:
    text = str(error).strip().splitlines()
    return f"{type(error).__name__}: {text[0][:200]}" if text else type(error).__name__
