"""Plans and timings of builds on disk, under names that everything decides which decides them.

A plan belongs to one version of TensorRT, one GPU model and driver, one graph, profile and set of options. Timings of
kernels belong to version, GPU and driver: other graphs share them, for TensorRT itself tells layers apart in them.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vggbench import cache
from vggbench.engines import adapter
from vggbench.engines.build import Options, Report, build_plan, log_steps
from vggbench.engines.device import Device
from vggbench.engines.logs import LOG
from vggbench.engines.profile import Profile
from vggbench.errors import StorageError

#: First line of a kept file; the digest and the key follow on the second.
_MAGIC = b"vggbench plan 1\n"


@dataclass(frozen=True)
class Plan:
    """A plan and where it came from. key: names it; kept: the file, "" where the cache did not take it.

    source: "built", "cache", or "rebuilt: " and what was wrong with the kept one. build_seconds: 0 from the cache.
    """

    data: bytes
    key: str
    source: str
    build_seconds: float
    kept: str


def key_fields(
    trt: Any, graph_sha256: str, precision: str, profile: Profile, options: Options, device: Device
) -> dict[str, Any]:
    """Everything that decides a plan."""
    return {**decisive(trt, precision, profile, options, device), "graph_sha256": graph_sha256}


def decisive(trt: Any, precision: str, profile: Profile, options: Options, device: Device) -> dict[str, Any]:
    """Of that all but the graph: where it is built, for which sizes, and what steers the builder (see build)."""
    return {
        **machine(trt, device),
        "precision": precision,
        "profile": str(profile),
        "strongly_typed": adapter.strongly_typed(trt),
        "tf32": precision == "tf32",
        **{f"builder_{name}": value for name, value in dataclasses.asdict(options).items()},
    }


def plan_for(
    trt: Any,
    graph: Path,
    graph_sha256: str,
    precision: str,
    profile: Profile,
    device: Device,
    root: Path | None,
    options: Options,
    report: Report = log_steps,
    refused: str = "",
    cached: bool = True,
) -> Plan:
    """The kept plan, or one built now and kept. root: the cache's folder, None for no cache. cached: of the plan;
    timings are read and kept in any case.

    refused: why the kept plan does not do, if TensorRT already said so: then it is built anew.
    What the cache cannot do is said in one line and done without. Raises BackendUnavailable, as build_plan.
    """
    fields = key_fields(trt, graph_sha256, precision, profile, options, device)
    key = digest(fields)
    path = plan_path(root, key) if cached else None
    data, wrong = (None, refused) if refused else kept(path, fields)
    if data is not None:
        return Plan(data, key, "cache", 0.0, str(path))
    source = built_because(wrong)
    here = machine(trt, device)
    timing = timings_path(root, here)
    built = build_plan(trt, graph, precision, profile, options, kept(timing, here)[0] or b"", report)
    in_cache = keep(path, fields, built.plan)
    if in_cache or not cached:
        keep(timing, here, built.timings)
    return Plan(built.plan, key, source, built.seconds, str(path) if in_cache else "")


def plan_path(root: Path | None, key: str) -> Path | None:
    """Where the plan of that name is kept. root: the cache's folder, None for no cache."""
    return root / "engines" / f"{key}.plan" if root else None


def timings_path(root: Path | None, fields: dict[str, Any]) -> Path | None:
    """Where the timings of builds are kept that these fields decide."""
    return root / "timing-caches" / f"{digest(fields)}.timings" if root else None


def built_because(wrong: str) -> str:
    """An engine's source where it is not the cache, after saying what is wrong with the kept one, if there was one."""
    if not wrong:
        return "built"
    LOG.warning("The kept engine cannot be used (%s); it is built anew.", wrong)
    return f"rebuilt: {wrong}"


def machine(trt: Any, device: Device) -> dict[str, Any]:
    """What decides timings of kernels, and with more the engines."""
    return {"tensorrt": str(trt.__version__), "gpu": device.name, "sm": device.sm, "driver": device.driver}


def digest(fields: dict[str, Any]) -> str:
    """The name of what these fields decide."""
    return hashlib.sha256(json.dumps(fields, sort_keys=True).encode()).hexdigest()


def kept(path: Path | None, fields: dict[str, Any]) -> tuple[bytes | None, str]:
    """A file's data, or None and what is wrong with it; "" where there is none."""
    if path is None:
        return None, ""
    try:
        data = cache.read(path)
    except StorageError as error:
        LOG.warning("%s The engine is built without it.", error)
        return None, ""
    if data is None:
        return None, ""
    if not data.startswith(_MAGIC):
        return None, f"{path.name} is no file of vggbench's"
    head, found, body = data[len(_MAGIC) :].partition(b"\n")
    try:
        said = json.loads(head) if found else {}
    except ValueError:
        said = {}
    if not isinstance(said, dict) or said.get("sha256") != hashlib.sha256(body).hexdigest():
        return None, f"{path.name} was cut short or changed"
    if said.get("fields") != json.loads(json.dumps(fields)):
        return None, f"{path.name} is of another graph, GPU or version"
    return body, ""


def keep(path: Path | None, fields: dict[str, Any], data: bytes) -> bool:
    """Whether the cache took it; if not, it is said."""
    if path is None or not data:
        return False
    head = json.dumps({"sha256": hashlib.sha256(data).hexdigest(), "fields": fields}, sort_keys=True).encode()
    try:
        cache.write_atomic(path, _MAGIC + head + b"\n" + data)
    except StorageError as error:
        LOG.warning("%s The engine works, and is built again next time.", error)
        return False
    return True
