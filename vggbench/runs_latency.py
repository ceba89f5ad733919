"""Latency: fresh processes, each opening the network anew, because calls of one process resemble each other."""

from __future__ import annotations

import dataclasses
import itertools
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vgg_reference.weights import Weights
from vggbench import environment, precisions, runs_inputs
from vggbench.backends import default_threads, resolve_device
from vggbench.errors import BackendUnavailable, CalibrationError, OutOfMemory, UsageError
from vggbench.measure.latency import MIN_ITERATIONS, SCENARIOS
from vggbench.modes import Mode
from vggbench.progress import Report, silent
from vggbench.ranges import Quantization, Ranges, read_ranges
from vggbench.results import Record, write_records
from vggbench.runs_fresh import WorkerDied, in_fresh_process
from vggbench.runs_kept import Kept, keep
from vggbench.runs_peak import has_cuda, time_copy, time_peak
from vggbench.runs_timing import Task, time_variant
from vggbench.shares import COPY, arithmetic_of
from vggbench.variants import Variant, digest_of

#: Images that INT8's ranges are taken from where no file is given: they hardly change how fast it runs.
CALIBRATION_IMAGES = 16
#: Images a call, by scenario.
BATCHES = {"latency": (1,), "throughput": (8,)}
PROCESSES = 3
#: A process measures a batch at least so long: with three processes VGG-16 then takes under a minute on two cores.
PROCESS_SECONDS = 2.0
NO_HUGE_PAGES = "Huge pages are not to be had: they need glibc from 2.35 on and transparent huge pages in the kernel."
#: The product of a peak found in the first round is timed so long in each round.
PEAK_SECONDS = 1.0


@dataclass(frozen=True)
class Request:
    """What `latency` was asked for. backends: "auto" takes the fastest one here; size: (h, w) in pixels or the crop.

    batches: empty takes the scenario's. max_seconds: where the median is not settled by then; None: twice the least.
    float_layers: of int8 and fp8 stay in floating point. mode: of a GPU's calls, None leaves it to each session.
    pairs: (precision, backend) in place of precisions x backends; those that cannot run here are left out and named.
    huge_pages: of the fresh processes' memory, where the system has them (environment.huge_pages).
    """

    network: str = "D"
    weights: str = "random:0"
    precisions: tuple[str, ...] = ("fp32",)
    backends: tuple[str, ...] = ("auto",)
    batches: tuple[int, ...] = ()
    size: tuple[int, int] | None = None
    device: str = "auto"
    threads: int | None = None
    scenario: str = "latency"
    processes: int = PROCESSES
    min_seconds: float = PROCESS_SECONDS
    max_seconds: float | None = None
    min_iterations: int = MIN_ITERATIONS
    calibration: Path | None = None
    float_layers: tuple[str, ...] = ()
    peak: bool = True
    mode: Mode | None = None
    pairs: tuple[tuple[str, str], ...] = ()
    huge_pages: bool = False


@dataclass(frozen=True)
class Plan:
    """What is to run: every variant in a process of its own, a round after the other. reasons: why these backends."""

    request: Request
    variants: tuple[Variant, ...]
    batches: tuple[int, ...]
    size: tuple[int, int]
    threads: int
    reasons: tuple[str, ...]

    @property
    def key(self) -> str:
        """Names the run: what decides its records, but not how many processes are asked for."""
        asked = {**dataclasses.asdict(self.request), "calibration": None, "processes": None, "weights": None}
        here = environment.environment([])
        return digest_of(
            {
                "request": {name: str(value) for name, value in asked.items()},
                "variants": [variant.digest for variant in self.variants],
                "threads": self.threads,
                "environment": {name: str(value) for name, value in here.items() if "clock" not in name},
            }
        )


@dataclass(frozen=True)
class Timing:
    """What a run measured. died: processes that gave no record, in words; notes: what else to know."""

    plan: Plan
    records: list[Record]
    died: tuple[str, ...]
    notes: tuple[str, ...]


def latency(
    request: Request,
    out: Path | None = None,
    progress: Report = silent,
    work: Callable[[Task], list[Record]] | None = None,
) -> Timing:
    """A record a variant, batch and process, and the peaks beside them. Raises any VggbenchError.

    Every finished process is kept beside ``out`` (or in the cache) until the whole run is there, and not run again.
    work: what a fresh process does, time_variant if None.
    """
    pages = environment.huge_pages(os.environ) if request.huge_pages else {}
    with environment.variables(pages):
        timing = _timed(plan_of(request, progress), out, progress, work or time_variant)
    if request.huge_pages and not pages and "GLIBC_TUNABLES" not in os.environ:
        return dataclasses.replace(timing, notes=(*timing.notes, NO_HUGE_PAGES))
    return timing


def _timed(plan: Plan, out: Path | None, progress: Report, work: Callable[[Task], list[Record]]) -> Timing:
    kept = keep(plan.key, out)
    here = environment.environment()
    steps = _steps(plan)
    died, notes = list[str](), list[str]()
    full: dict[str, OutOfMemory] = {}
    for number, (process, what) in enumerate(steps):
        name = _name(what)
        progress("Timing in fresh processes", number, len(steps), f"{name}, process {process}")
        if not kept.has(process, name) and name not in full:
            try:
                kept = kept.with_records(name, _run(plan, process, what, kept, here, work))
            except WorkerDied as death:
                died.append(f"process {process} of {name} died: {death}")
            except OutOfMemory as error:
                full[name] = error  # the next round's process would not have more
                died.append(f"process {process} of {name}: {error}")
            except BackendUnavailable as error:
                if isinstance(what, Variant):
                    raise
                notes.append(str(error))  # a network is timed without its share of a peak, too
    progress("Timing in fresh processes", len(steps), len(steps), "")
    if not any(record.kind == "latency" for record in kept.records):
        if len(died) == len(full) == 1:
            raise next(iter(full.values()))
        raise BackendUnavailable(f"Nothing was timed: {'; '.join(died)}. Try a smaller --batch or fewer --threads.")
    records = [_with(record, died="; ".join(died)) if died else record for record in kept.records]
    if out is not None:
        write_records(out, records)
    kept.done()
    return Timing(plan, records, tuple(died), (*kept.notes, *notes))


def plan_of(request: Request, progress: Report = silent) -> Plan:
    """Every mistake in the asking is found here. Raises UsageError, BackendUnavailable, WeightsError."""
    if request.scenario not in SCENARIOS:
        raise UsageError(f"No scenario {request.scenario!r}. Known: {', '.join(SCENARIOS)}.")
    weights = runs_inputs.weights_of(request.weights, request.network, None, None)
    size = request.size or (weights.crop_size, weights.crop_size)
    if min(size) < weights.crop_size:
        raise UsageError(f"Size {size[0]}x{size[1]}: accepted are sides from {weights.crop_size} pixels on.")
    settings, reasons = _settings(request)
    if request.mode is not None and not _on_gpu(request.device):
        raise UsageError("CUDA graphs, transfers and trtexec's definitions are a GPU's, and this runs on the CPU.")
    quantization = None
    if any(setting.precision in precisions.QUANTIZED for setting in settings):
        quantization = _quantization(weights, request, progress)
    form = "crop" if size == (weights.crop_size, weights.crop_size) else "dense"
    variants = [
        Variant(weights, form, setting.backend, setting.precision, quantization=quantization) for setting in settings
    ]
    threads = request.threads or default_threads()
    return Plan(request, tuple(variants), request.batches or BATCHES[request.scenario], size, threads, reasons)


def _settings(request: Request) -> tuple[list[runs_inputs.Setting], tuple[str, ...]]:
    """A setting for each precision and backend; of several backends those that cannot are left out and named."""
    found: list[runs_inputs.Setting] = []
    reasons, refused = [], []
    pairs = request.pairs or tuple(itertools.product(request.precisions, request.backends))
    for precision, backend in pairs:
        try:
            setting = runs_inputs.setting(
                backend=None if backend == "auto" else backend,
                precision=precision,
                device=request.device,
                threads=request.threads,
            )
        except BackendUnavailable as error:
            if len(request.backends) == 1 and not request.pairs:
                raise
            refused.append(str(error))
            continue
        if setting not in found:
            found.append(setting)
        if setting.why:
            reasons.append(setting.why)
    if not found:
        which = f"None of the {len(pairs)} variants runs here, first {' on '.join(pairs[0])}: " * (len(pairs) > 1)
        raise BackendUnavailable(which + refused[0])
    return found, (*dict.fromkeys(reasons), *dict.fromkeys(refused))


def _quantization(weights: Weights, request: Request, progress: Report) -> Quantization:
    """From the file given, else from a few images. Raises CalibrationError."""
    if request.calibration is not None:
        ranges = read_ranges(request.calibration)
        ranges.check(weights.network, weights.digest)
        return Quantization(ranges, request.float_layers)
    progress("Taking INT8 ranges", 0, 1, f"from {CALIBRATION_IMAGES} images")
    try:
        # In a process of its own, for what it leaves in memory would stand beside every timing.
        ranges = in_fresh_process(_ranges, weights, request.threads)
    except WorkerDied as death:
        raise CalibrationError(f"The process that took INT8 ranges died: {death}. Give some: --calibration.") from None
    progress("Taking INT8 ranges", 1, 1, "")
    return Quantization(ranges, request.float_layers)


def _ranges(weights: Weights, threads: int | None) -> Ranges:
    from vggbench.runs_calibrate import ranges_for

    return ranges_for(weights, images=CALIBRATION_IMAGES, threads=threads)


def _steps(plan: Plan) -> list[tuple[int, Variant | str]]:
    """(process, variant or precision of a peak), interleaved: every variant's first process, then every second one.

    A peak comes right before the first variant that is measured by it, for the machine's speed wanders.
    """
    turn: list[Variant | str] = []
    if plan.request.pairs and plan.request.peak and 1 in plan.batches:
        turn.append(COPY)  # the floor under a call of one image
    for variant in plan.variants:
        arithmetic = _arithmetic(variant, plan.request.device)
        if plan.request.peak and arithmetic not in turn:
            turn.append(arithmetic)
        turn.append(variant)
    return [(process, what) for process in range(1, plan.request.processes + 1) for what in turn]


def _arithmetic(variant: Variant, device: str) -> str:
    """The type that will multiply, which is not the precision where the CPU lacks it."""
    place = "cuda" if _on_gpu(device) else "cpu"
    row = precisions.find(variant.precision, variant.backend, place)
    said = precisions.arithmetic(row) if isinstance(row, precisions.Row) else ""
    return arithmetic_of(said) or variant.precision


def _on_gpu(device: str) -> bool:
    return resolve_device(device, has_cuda()).startswith("cuda")


def _name(what: Variant | str) -> str:
    return f"the {what} peak" if isinstance(what, str) else f"{what.precision} on {what.backend}"


def _run(
    plan: Plan,
    process: int,
    what: Variant | str,
    kept: Kept,
    here: dict[str, Any],
    work: Callable[[Task], list[Record]],
) -> list[Record]:
    """Raises WorkerDied."""
    if isinstance(what, Variant):
        return in_fresh_process(work, _task(plan, what, process, here))
    if what == COPY:
        return in_fresh_process(time_copy, plan.threads, PEAK_SECONDS, plan.request.device, here, process)
    before = [record for record in kept.records if record.peak is not None and record.peak.precision == what]
    return in_fresh_process(time_peak, what, plan.threads, PEAK_SECONDS, plan.request.device, here, process, before[:1])


def _task(plan: Plan, variant: Variant, process: int, here: dict[str, Any]) -> Task:
    request = plan.request
    return Task(
        variant=variant,
        batches=plan.batches,
        size=plan.size,
        device=request.device,
        threads=plan.threads,
        scenario=request.scenario,
        min_seconds=request.min_seconds,
        max_seconds=request.max_seconds,
        min_iterations=request.min_iterations,
        process=process,
        environment=here,
        mode=request.mode,
    )


def _with(record: Record, **more: Any) -> Record:
    return record.model_copy(update={"conditions": {**record.conditions, **more}})
