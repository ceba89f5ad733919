"""An engine of a graph, kept or built, ready to run; and what is to be said of it in a record."""

from __future__ import annotations

import dataclasses
import hashlib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from vggbench import cache
from vggbench.engines import buffers
from vggbench.engines.build import Options, Report, log_steps
from vggbench.engines.device import NO_DRIVER, Device, first_device
from vggbench.engines.plans import Plan, plan_for
from vggbench.engines.profile import Profile
from vggbench.engines.run import PlanRefused, Runner
from vggbench.errors import BackendUnavailable


@dataclass(frozen=True)
class Settings:
    """Open choices of an engine. profile: None for the default of the variant's form; buffers: None for what is there.

    cached: whether the plan is read from and kept in the cache; timings of kernels always are.
    """

    profile: Profile | None = None
    options: Options = field(default_factory=Options)
    buffers: str | None = None
    cached: bool = True
    report: Report = log_steps


def opened(
    trt: Any, graph: Path, precision: str, profile: Profile, settings: Settings
) -> tuple[Runner, dict[str, Any]]:
    """A runner of the graph's engine, kept or built, and what its record says, flat.

    A kept plan that TensorRT refuses is built anew. Raises BackendUnavailable, UsageError.
    """
    device = first_device()
    if device is None:
        raise BackendUnavailable(NO_DRIVER)
    name, provided = buffers.provider(settings.buffers)
    root, sha = cache.root(), _sha256(graph)

    def plan_of(refused: str = "") -> Plan:
        how = settings.options, settings.report, refused, settings.cached
        return plan_for(trt, graph, sha, precision, profile, device, root, *how)

    plan = plan_of()
    try:
        runner = Runner(trt, plan.data, provided)
    except PlanRefused as refused:
        if plan.source != "cache":
            raise
        plan = plan_of(str(refused))
        runner = Runner(trt, plan.data, provided)
    return runner, _said(trt, device, name, sha, plan, runner, settings.options)


def _said(
    trt: Any, device: Device, buffers_of: str, sha: str, plan: Plan, runner: Runner, options: Options
) -> dict[str, Any]:
    return {
        "tensorrt": str(trt.__version__),
        "gpu": device.name,
        "compute_capability": device.sm / 10,
        "gpu_driver": device.driver,
        "buffers": buffers_of,
        "graph_sha256": sha,
        "engine_key": plan.key,
        "engine_source": plan.source,
        "engine_kept": bool(plan.kept),
        "engine_bytes": len(plan.data),
        "build_seconds": round(plan.build_seconds, 3),
        "context_bytes": runner.context_bytes,
        "profile": str(runner.profile),
        **{f"builder_{name}": value for name, value in dataclasses.asdict(options).items()},
    }


def _sha256(path: Path) -> str:
    found = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(1 << 22):
            found.update(chunk)
    return found.hexdigest()
