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
    return {
        **_machine(trt, device),
        "precision": precision,
        "graph_sha256": graph_sha256,
        "profile": str(profile),
        **dataclasses.asdict(options),
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
) -> Plan:
    """The kept plan, or one built now and kept. root: the cache's folder, None for no cache.

    refused: why the kept plan does not do, if TensorRT already said so: then it is built anew.
    What the cache cannot do is said in one line and done without. Raises BackendUnavailable, as build_plan.
    """
    fields = key_fields(trt, graph_sha256, precision, profile, options, device)
    key = _digest(fields)
    path = root / "engines" / f"{key}.plan" if root else None
    data, wrong = (None, refused) if refused else _kept(path, fields)
    if data is not None:
        return Plan(data, key, "cache", 0.0, str(path))
    if wrong:
        LOG.warning("The kept engine cannot be used (%s); it is built anew.", wrong)
    timing = root / "timing-caches" / f"{_digest(_machine(trt, device))}.timings" if root else None
    built = build_plan(trt, graph, precision, profile, options, _kept(timing, _machine(trt, device))[0] or b"", report)
    kept = _keep(path, fields, built.plan)
    if kept:
        _keep(timing, _machine(trt, device), built.timings)
    source = f"rebuilt: {wrong}" if wrong else "built"
    return Plan(built.plan, key, source, built.seconds, str(path) if kept else "")


def _machine(trt: Any, device: Device) -> dict[str, Any]:
    return {"tensorrt": str(trt.__version__), "gpu": device.name, "sm": device.sm, "driver": device.driver}


def _digest(fields: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(fields, sort_keys=True).encode()).hexdigest()


def _kept(path: Path | None, fields: dict[str, Any]) -> tuple[bytes | None, str]:
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
    if said.get("fields") != fields:
        return None, f"{path.name} is of another graph, GPU or version"
    return body, ""


def _keep(path: Path | None, fields: dict[str, Any], data: bytes) -> bool:
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
