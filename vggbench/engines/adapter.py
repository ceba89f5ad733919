"""What differs between TensorRT 8.6, 10 and 11: all of it. Every other module uses only what the three share."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

#: Of a progress monitor: phase, steps done, steps in all.
Steps = Callable[[str, int, int], None]
#: On Ada; on Hopper they came with 10.2.
_FP8_CONVOLUTIONS = (10, 3)


def strongly_typed(trt: Any) -> bool:
    """Whether a network's own types decide what computes (10 and later); in 8.x flags of the builder allow types."""
    return "STRONGLY_TYPED" in trt.NetworkDefinitionCreationFlag.__members__


def network_flags(trt: Any) -> int:
    """Bits for create_network. 8.6 has explicit batch alone, 10 both, and in 11 strong typing is all there is."""
    flags = trt.NetworkDefinitionCreationFlag.__members__
    return sum(1 << int(flags[name]) for name in ("EXPLICIT_BATCH", "STRONGLY_TYPED") if name in flags)


def allow_precision(trt: Any, config: Any, precision: str) -> None:
    """The builder's flags for a graph of that precision, in 8.x; in 10 they are an error, in 11 they are gone."""
    name = {"fp16": "FP16", "int8": "INT8"}.get(precision)
    if name and not strongly_typed(trt):
        config.set_flag(trt.BuilderFlag.__members__[name])


def why_not(trt: Any, precision: str) -> str | None:
    """None, or why this version has no such engine."""
    version = str(trt.__version__)
    if precision == "fp8" and tuple(int(part) for part in version.split(".")[:2]) < _FP8_CONVOLUTIONS:
        return f"TensorRT {version} has no fp8 convolutions; 10.3 and later have"
    return None


def limit_tactics(trt: Any, config: Any) -> None:
    """8.x would open cuDNN and cuBLAS, which then had to be installed; a VGG needs neither. Later ones left them."""
    if not strongly_typed(trt):
        sources = (trt.TacticSource.EDGE_MASK_CONVOLUTIONS, trt.TacticSource.JIT_CONVOLUTIONS)
        config.set_tactic_sources(sum(1 << int(source) for source in sources))


def watch(trt: Any, config: Any, steps: Steps) -> Any:
    """Report a build's steps where the version can (10 and later); the result must live until the build ends.

    An exception in ``steps``, Ctrl-C too, stops the build; it is the result's ``stopped``, for it cannot pass through
    TensorRT. None where the version has no monitor.
    """
    if not hasattr(trt, "IProgressMonitor"):
        return None
    monitor = _monitor_class(trt)(steps)
    config.progress_monitor = monitor
    return monitor


def _monitor_class(trt: Any) -> Any:
    class Monitor(trt.IProgressMonitor):  # type: ignore[misc]  # a class of the module that was passed
        def __init__(self, steps: Steps) -> None:
            trt.IProgressMonitor.__init__(self)
            self.steps, self.totals = steps, dict[str, int]()
            self.stopped: BaseException | None = None

        def phase_start(self, phase_name: str, parent_phase: str, num_steps: int) -> None:
            self.totals[phase_name] = num_steps

        def step_complete(self, phase_name: str, step: int) -> bool:
            try:
                self.steps(phase_name, step + 1, self.totals.get(phase_name, step + 1))
            except BaseException as error:
                self.stopped = error
            return self.stopped is None

        def phase_finish(self, phase_name: str) -> None:
            self.totals.pop(phase_name, None)

    return Monitor


def context_bytes(engine: Any) -> int:
    """Device memory that an execution context takes for activations."""
    new = getattr(engine, "device_memory_size_v2", None)  # from 10.1 on; 11 has dropped the old name
    return int(engine.device_memory_size if new is None else new)


def tensor_format(entry: dict[str, Any]) -> str:
    """Format and type of a tensor in the inspector's JSON: one field before 11, two from then on."""
    joined = entry.get("Format/Datatype")
    return str(joined) if joined else f"{entry.get('Format', '')} {entry.get('DataType', entry.get('Datatype', ''))}"
