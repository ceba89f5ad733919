"""What `vggbench gpu` does, as a list of steps: peaks, timings, numerics, opening and closing, the evaluation loop."""

from __future__ import annotations

import functools
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

from vgg_reference.weights import Weights
from vggbench import environment, runs_inputs
from vggbench.backends import default_threads, resolve_device
from vggbench.precisions import QUANTIZED
from vggbench.progress import silent
from vggbench.ranges import Quantization
from vggbench.results import Record
from vggbench.runs_fresh import in_fresh_process
from vggbench.runs_gpu import NETWORKS, Request, Step
from vggbench.runs_gpu_loop import IMAGES, ROUNDS, Loop, sleeping_threads, time_loop
from vggbench.runs_peak import has_cuda, time_copy, time_peak
from vggbench.runs_peers import peers
from vggbench.runs_timing import Task, time_session, time_variant
from vggbench.variants import Variant

PEAKS = {"cuda": ("fp32", "tf32", "fp16", "bf16", "int8", "fp8"), "cpu": ("fp32", "bf16", "int8")}
#: A peak's product and a copy are timed so long.
PEAK_SECONDS = 1.0
#: Openings of one engine; memory is looked at after the first few, when libraries have what they keep, and at the end.
OPENINGS, SETTLED = 100, 5
#: Networks of the sample family whose engines are checked against FP32.
CHECKED = ("A", "A-LRN", "B", "C", "D", "E")
#: What the targets need comes before the other peers: building engines takes most of the time. A name's beginning.
FIRST = (
    "copy bandwidth", "peak", "time D fp16 pytorch", "time D fp16 tensorrt", "time D int8 tensorrt",
    "time D fp16 torch-compile", "int8 of tensorrt", "numerics D fp16 tensorrt", "numerics D int8 tensorrt", "open",
    "loop D fp16 tensorrt",
)  # fmt: skip
SECOND = tuple(f"numerics {network} {precision} tensorrt" for network in CHECKED for precision in ("fp16", "int8"))
#: Ranges for what is only timed: they hardly change its speed.
TIMED_IMAGES = 16


def steps_of(request: Request) -> list[Step]:
    """In the order of what a short run should not miss."""
    device = resolve_device(request.device, has_cuda())
    kind, threads = device.split(":")[0], request.threads or default_threads()
    here = environment.environment()
    steps = [Step("copy bandwidth", functools.partial(_copy, request, threads, here))]
    steps += [Step(f"peak {name}", functools.partial(_peak, name, request, threads, here)) for name in PEAKS[kind]]
    timed = [
        (network, precision, backend) for network in NETWORKS[request.networks] for precision, backend in peers(device)
    ]
    steps += [_time(request, *each, threads, here) for each in timed]
    checked = list(
        dict.fromkeys((p, b) for p, b in peers(device) if p != "fp32" or b in ("tensorrt", "torch-tensorrt"))
    )
    steps += [
        Step(f"numerics {network} {p} {b}", functools.partial(_numerics, request, network, p, b), ((p, b),))
        for network in CHECKED
        for p, b in checked
    ]
    for backend in ("tensorrt", "torch-tensorrt") if kind == "cuda" else ():
        name = f"int8 of {backend} beside the CPU's"
        steps.append(Step(name, functools.partial(_beside_the_cpu, request, backend), (("int8", backend),)))
    for network in NETWORKS[request.networks] if kind == "cuda" else ():
        for precision in ("fp16", "int8"):
            steps.append(_time_natively(request, network, precision, threads, here))
    if request.engine_python is not None:
        steps += _elsewhere(request, request.engine_python, threads, here)
    engine = "tensorrt" if kind == "cuda" else "onnxruntime"
    for name, work in (("open again", _again), ("open and close", _open_and_close)):
        precision = "fp16" if kind == "cuda" else "fp32"
        steps.append(
            Step(
                f"{name} {engine}",
                functools.partial(work, request, engine, precision, threads, here),
                ((precision, engine),),
            )
        )
    # Eager PyTorch too: on a machine without TensorRT it shows what the loop itself can do.
    for precision, backend in (("fp16", "tensorrt"), ("fp16", "pytorch")) if kind == "cuda" else (("fp32", engine),):
        work = functools.partial(_loop, request, precision, backend, IMAGES[kind], threads, here)
        steps.append(Step(f"loop D {precision} {backend}", work, ((precision, backend),)))
    return sorted(steps, key=lambda step: _rank(step.name))


def _rank(name: str) -> int:
    """Steps of one rank stay in their order."""
    begun = [place for place, start in enumerate(FIRST) if name.startswith(start)]
    if begun:
        return begun[0]
    return len(FIRST) + (0 if name.startswith(SECOND) else 1)


def _peak(name: str, request: Request, threads: int, here: dict[str, Any]) -> list[Record]:
    return in_fresh_process(time_peak, name, threads, PEAK_SECONDS, request.device, here, 1)


def _copy(request: Request, threads: int, here: dict[str, Any]) -> list[Record]:
    return in_fresh_process(time_copy, threads, PEAK_SECONDS, request.device, here, 1)


def _time(request: Request, network: str, precision: str, backend: str, threads: int, here: dict[str, Any]) -> Step:
    def work() -> list[Record]:
        variant = variant_of(request, network, precision, backend)
        found: list[Record] = []
        for process in range(1, request.processes + 1):
            found += in_fresh_process(time_variant, task_of(request, variant, threads, here, process, request.batches))
        return found

    return Step(f"time {network} {precision} {backend}", work, ((precision, backend),))


def _time_natively(request: Request, network: str, precision: str, threads: int, here: dict[str, Any]) -> Step:
    """torch-tensorrt's engine in the project's own runner, timed by the clock that times the native engine."""

    def work() -> list[Record]:
        variant = variant_of(request, network, precision, "torch-tensorrt")
        task = task_of(request, variant, threads, here, 1, request.batches)
        return in_fresh_process(time_natively, task)

    needs = ((precision, "torch-tensorrt"), (precision, "tensorrt"))
    return Step(f"time {network} {precision} torch-tensorrt in the native runner", work, needs)


def _elsewhere(request: Request, python: Path, threads: int, here: dict[str, Any]) -> list[Step]:
    """TensorRT's engines in a Python of their own: timed, and the sample family's scores against FP32 here."""
    from vggbench.runs_gpu_elsewhere import numerics_elsewhere, time_elsewhere

    def timing(network: str, precision: str) -> list[Record]:
        variant = variant_of(request, network, precision, "tensorrt")
        return time_elsewhere(python, variant, request.batches, request.min_seconds, threads, here)

    def scores(network: str, precision: str) -> list[Record]:
        variant = _prepared(request, network, precision)  # with the reference's own ranges
        reference = "int8@onnxruntime/tensorrt" if precision == "int8" else "fp32@pytorch"
        device = "cpu" if precision == "int8" else request.device
        return numerics_elsewhere(python, variant, request.images, device, threads, reference)

    found = []
    for precision in ("fp16", "int8", "fp32"):
        for network in NETWORKS[request.networks]:
            name = f"time {network} {precision} tensorrt in another Python"
            found.append(Step(name, functools.partial(timing, network, precision)))
        for network in CHECKED:
            name = f"numerics {network} {precision} tensorrt in another Python"
            found.append(Step(name, functools.partial(scores, network, precision)))
    return found


def time_natively(task: Task) -> list[Record]:
    """In a fresh process: a record a batch; session info "runner" tells them from torch-tensorrt's own."""
    from vggbench.backends.native_plan import NativePlan

    found: list[Record] = []
    for batch in task.batches:
        with NativePlan.of(task.variant, task.threads, batch, task.size) as session:
            found += time_session(session, replace(task, batches=(batch,)), session.open_seconds)
    return found


def task_of(
    request: Request, variant: Variant, threads: int, here: dict[str, Any], process: int, batches: Iterable[int]
) -> Task:
    """One call at a time, each waited for: a call's seconds are those of `vggbench latency --peers`."""
    crop = variant.weights.crop_size
    return Task(
        variant=variant,
        batches=tuple(batches),
        size=(crop, crop),
        device=request.device,
        threads=threads,
        min_seconds=request.min_seconds,
        process=process,
        environment=here,
    )


def variant_of(request: Request, network: str, precision: str, backend: str) -> Variant:
    """What is timed. Raises WeightsError, CalibrationError."""
    weights = runs_inputs.weights_of(request.weights, network, None, None)
    return Variant(weights, "crop", backend, precision, quantization=_quantization(weights, precision, request))


def _quantization(weights: Weights, precision: str, request: Request) -> Quantization | None:
    if precision not in QUANTIZED:
        return None
    from vggbench.runs_calibrate import ranges_for

    return Quantization(ranges_for(weights, images=TIMED_IMAGES, threads=request.threads))


def _numerics(request: Request, network: str, precision: str, backend: str) -> list[Record]:
    _prepared(request, network, precision)
    return in_fresh_process(check_numerics, request, network, precision, backend)


def _prepared(request: Request, network: str, precision: str) -> Variant:
    """A sample network for TensorRT, its images and ranges in the cache by now: the sample set is drawn by processes,
    which a fresh process may not start.
    """
    from vggbench.runs_calibrate import ranges_for

    dataset = runs_inputs.open_images(runs_inputs.SAMPLE, None, silent).first(request.images)
    weights = runs_inputs.weights_of("sample", network, None, len(dataset.classes))
    ranges = ranges_for(weights, threads=request.threads) if precision in QUANTIZED else None
    return Variant(weights, "crop", "tensorrt", precision, quantization=Quantization(ranges) if ranges else None)


def check_numerics(request: Request, network: str, precision: str, backend: str) -> list[Record]:
    """The sample family's network at this precision against eager FP32, layer by layer where layers can be seen.

    In a fresh process, as all that touches the GPU: a library that crashes there ends a step, and not the run; and no
    memory or context of this process is on the GPU while others are timed.
    """
    from vggbench import runs_numerics

    setting = runs_inputs.setting(
        backend=backend, precision=precision, device=request.device, threads=request.threads, on_bad="stop"
    )
    asked = runs_numerics.Asked(setting, reference="fp32@pytorch", variants=(f"{precision}@{backend}",))
    dataset, weights = runs_numerics.open_inputs(asked, network=network, images=request.images)
    return runs_numerics.numerics(dataset, weights, asked)


def _beside_the_cpu(request: Request, backend: str) -> list[Record]:
    """The engine's logits against ONNX Runtime's of the very same Q/DQ graph on the CPU, on the sample network D."""
    from vggbench.runs_gpu_beside import NETWORK, int8_beside_the_cpu

    _prepared(request, NETWORK, "int8")
    return in_fresh_process(int8_beside_the_cpu, request, backend)


def _again(request: Request, backend: str, precision: str, threads: int, here: dict[str, Any]) -> list[Record]:
    """The engine that was just timed opened by another process: how long it takes is in the record's conditions."""
    (network,) = NETWORKS["D"]
    task = task_of(request, variant_of(request, network, precision, backend), threads, here, 1, (1,))
    first = in_fresh_process(time_variant, task)
    second = in_fresh_process(time_variant, task)
    return [_marked(record, again=number) for number, group in enumerate((first, second)) for record in group]


def _loop(
    request: Request, precision: str, backend: str, images: int, threads: int, here: dict[str, Any]
) -> list[Record]:
    """Evaluating images in memory beside the session alone."""
    asked = Loop(variant_of(request, "D", precision, backend), request.device, threads, images, ROUNDS, here)
    with sleeping_threads():
        return in_fresh_process(time_loop, asked)


def _open_and_close(request: Request, backend: str, precision: str, threads: int, here: dict[str, Any]) -> list[Record]:
    variant = variant_of(request, "D", precision, backend)
    return in_fresh_process(open_and_close, task_of(request, variant, threads, here, 1, (1,)))


def open_and_close(task: Task) -> list[Record]:
    """In a fresh process: one engine OPENINGS times, and the memory after SETTLED and after all of them.

    The GPU's memory in use where there is one, else this process's own.
    """
    memory: list[int] = []
    found: list[Record] = []
    for number in range(1, OPENINGS + 1):
        found = time_variant(task) if number in (1, OPENINGS) else _opened(task)
        if number in (SETTLED, OPENINGS):
            memory.append(_bytes_used(task.device))
    return [_marked(record, openings=OPENINGS, bytes_settled=memory[0], bytes_after=memory[1]) for record in found]


def _opened(task: Task) -> list[Record]:
    from vggbench.backends import made_for_a_batch, open_for, open_session

    variant = task.variant
    if made_for_a_batch(variant.backend):
        open_for(variant, task.device, task.threads, task.batches[0], task.size).close()
    else:
        open_session(variant, task.device, task.threads).close()
    return []


def _bytes_used(device: str) -> int:
    import gc

    gc.collect()
    if resolve_device(device, has_cuda()) == "cpu":
        from vggbench.measure.conditions import memory

        return memory()["rss_bytes"]
    import torch

    free, total = torch.cuda.mem_get_info()
    return int(total - free)


def _marked(record: Record, **more: Any) -> Record:
    return record.model_copy(update={"conditions": {**record.conditions, **more}})
