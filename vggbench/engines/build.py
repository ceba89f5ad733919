"""A plan from an ONNX file; what differs between TensorRT's versions stands in adapter.py."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vggbench.engines import adapter
from vggbench.engines.logs import LOG, collected, create, first_error, logger
from vggbench.engines.profile import Profile, is_channels_last
from vggbench.errors import BackendUnavailable

#: What is done, how much of it, of how much, and a detail: as vggbench.progress.Report.
Report = Callable[[str, float, float, str], None]
PRECISIONS = ("fp32", "tf32", "fp16", "int8", "fp8")


@dataclass(frozen=True)
class Options:
    """What steers the builder. workspace_bytes: most device memory for a kernel's own use, None for all there is.

    optimization_level: 0 (fast build) to 5 (longest search), None for the version's own, 3.
    """

    workspace_bytes: int | None = None
    optimization_level: int | None = None


@dataclass(frozen=True)
class Built:
    """A plan, what the builder timed meanwhile (for the next build), and how long it took."""

    plan: bytes
    timings: bytes
    seconds: float


def log_steps(phase: str, done: float, total: float, detail: str = "") -> None:
    """A Report to the log."""
    LOG.info("%s %d/%d %s", phase, done, total, detail)


def build_plan(
    trt: Any,
    graph: Path,
    precision: str,
    profile: Profile,
    options: Options = Options(),
    timings: bytes = b"",
    report: Report = log_steps,
) -> Built:
    """Build for the first GPU. timings: of an earlier build, b"" for none; those of other versions are left aside.

    Raises BackendUnavailable where the graph does not parse or no engine can be built of it.
    """
    started = time.monotonic()
    builder = create(trt, trt.Builder, logger(trt))
    with collected() as errors:
        network = builder.create_network(adapter.network_flags(trt))
        parser = trt.OnnxParser(network, logger(trt))
        if not parser.parse_from_file(str(graph)):
            raise BackendUnavailable(_unparsed(trt, graph, precision, parser, errors))
        config = _config(trt, builder, precision, options)
        dimensions = builder.create_optimization_profile()
        given = network.get_input(0)
        dimensions.set_shape(given.name, *profile.shapes(is_channels_last(given.shape)))
        config.add_optimization_profile(dimensions)
        cache = _timing_cache(config, timings)  # must live until it is read: a config keeps no cache of its own
        monitor = adapter.watch(trt, config, lambda phase, done, total: report(f"Building: {phase}", done, total, ""))
        plan = builder.build_serialized_network(network, config)
        if monitor is not None and monitor.stopped is not None:
            raise monitor.stopped
        if plan is None:
            raise BackendUnavailable(_unbuilt(trt, graph, precision, profile, errors))
        learnt = _serialized(config)
        del cache
        return Built(bytes(plan), learnt, time.monotonic() - started)


def _config(trt: Any, builder: Any, precision: str, options: Options) -> Any:
    config = builder.create_builder_config()
    adapter.allow_precision(trt, config, precision)
    adapter.limit_tactics(trt, config)
    if precision == "tf32":
        config.set_flag(trt.BuilderFlag.TF32)
    else:
        config.clear_flag(trt.BuilderFlag.TF32)  # on by default in every version, and not single precision
    config.profiling_verbosity = trt.ProfilingVerbosity.DETAILED  # or the inspector says names alone
    if options.workspace_bytes is not None:
        config.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, options.workspace_bytes)
    if options.optimization_level is not None:
        config.builder_optimization_level = options.optimization_level
    return config


def _timing_cache(config: Any, timings: bytes) -> Any:
    for data in dict.fromkeys((timings, b"")):
        cache = config.create_timing_cache(data)
        if cache is not None and config.set_timing_cache(cache, False):
            return cache
        LOG.warning("TensorRT refused the timings of an earlier build; it times every kernel anew.")
    return None


def _serialized(config: Any) -> bytes:
    cache = config.get_timing_cache()
    return bytes(cache.serialize()) if cache is not None else b""


def _unparsed(trt: Any, graph: Path, precision: str, parser: Any, errors: list[str]) -> str:
    found = [parser.get_error(index).desc() for index in range(parser.num_errors)]
    return (
        f"TensorRT {trt.__version__} does not read the {precision} graph {graph.name}: {first_error(found or errors)}. "
        "See which rule it breaks: vggbench check GRAPH; or use --backend onnxruntime."
    )


def _unbuilt(trt: Any, graph: Path, precision: str, profile: Profile, errors: list[str]) -> str:
    why = first_error(errors)
    advice = (
        f"Build for fewer or smaller images than {profile}: --batch, --sizes (of latency: --size)"
        if "memory" in why.lower()
        else "Its whole log: logger 'tensorrt' of Python's logging. Another precision or --backend onnxruntime may do"
    )
    return f"TensorRT {trt.__version__} built no {precision} engine of {graph.name}: {why}. {advice}."
