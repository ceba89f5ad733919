"""A pytest plugin: tests measure with vggbench's rules, and what they measured stays as records.

Loaded in every test run of an environment that has vggbench, so only pytest is imported at the top.

    def test_my_session_answers_in_time(vggbench_latency):
        record = vggbench_latency(my_session, batch=1, size=(224, 224))
        assert statistics.median(record.samples.values) < 0.1
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from vggbench.results import NetworkRun, Record

_RECORDS = pytest.StashKey["list[Record]"]()
_OUTCOME = pytest.StashKey[str]()
#: Tells the gate which records are of one process, however often a test measured.
_INTERPRETER = f"{os.getpid()} {time.time_ns()}"


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("vggbench")
    group.addoption(
        "--vggbench-records",
        metavar="FILE",
        type=Path,
        help="Write all records of vggbench_latency here (.jsonl or .jsonl.gz), for vggbench gate and history.",
    )


def pytest_configure(config: pytest.Config) -> None:
    config.stash[_RECORDS] = []
    if config.getoption("vggbench_records") is not None and getattr(config.option, "numprocesses", None):
        raise pytest.UsageError("--vggbench-records: tests in parallel disturb each other's timings; leave out -n.")


@pytest.fixture
def vggbench_latency(request: pytest.FixtureRequest) -> Callable[..., Record]:
    """Measures a callable without arguments, a session, or a Variant that it opens and closes; returns the record.

    Called as vggbench_latency(target, batch=1, size=None, *, min_seconds=1.0, min_iterations=10, max_seconds=None,
    scenario="latency", device="auto", threads=None). size: (h, w) in pixels; a Variant knows its own. Warm-ups, early
    stop and raw values as in vggbench latency; in this process, so it is one process of the statistics, however often
    it is called.
    """

    def measure(target: Any, batch: int = 1, size: tuple[int, int] | None = None, **how: Any) -> Record:
        record = _measured(request.node.nodeid, target, batch, size, **how)
        request.config.stash[_RECORDS].append(record)
        return record

    return measure


def pytest_sessionfinish(session: pytest.Session) -> None:
    path: Path | None = session.config.getoption("vggbench_records")
    records = session.config.stash.get(_RECORDS, [])
    if path is None:
        return
    if not records:
        session.config.stash[_OUTCOME] = "vggbench: nothing was measured, so no records were written."
        return
    from vggbench.errors import StorageError
    from vggbench.results import write_records

    try:
        write_records(path, records)
    except StorageError as error:
        session.exitstatus = pytest.ExitCode.USAGE_ERROR
        session.config.stash[_OUTCOME] = f"vggbench: {error}"
    else:
        session.config.stash[_OUTCOME] = f"vggbench: {len(records)} record{'' if len(records) == 1 else 's'} in {path}"


def pytest_terminal_summary(terminalreporter: Any, config: pytest.Config) -> None:
    outcome = config.stash.get(_OUTCOME, "")
    if outcome:
        terminalreporter.write_line(outcome)


def _measured(
    name: str,
    target: Any,
    batch: int,
    size: tuple[int, int] | None,
    *,
    min_seconds: float = 1.0,
    min_iterations: int = 10,
    max_seconds: float | None = None,
    scenario: str = "latency",
    device: str = "auto",
    threads: int | None = None,
) -> Record:
    from vggbench.environment import environment
    from vggbench.errors import UsageError
    from vggbench.measure.latency import SCENARIOS, measure_latency
    from vggbench.results import Record, Workload
    from vggbench.variants import Variant

    if scenario not in SCENARIOS:
        raise UsageError(f"No scenario {scenario!r}. Known: {', '.join(SCENARIOS)}.")
    started = datetime.now(timezone.utc).isoformat(timespec="seconds")
    session, close, has_images = _opened(target, device, threads)
    if has_images and size is None and not isinstance(target, Variant):
        raise UsageError("A session needs the size of its images: size=(height, width) in pixels.")
    if isinstance(target, Variant) and size is None:
        size = (target.weights.crop_size, target.weights.crop_size)
    try:
        samples = measure_latency(
            session,
            batch if has_images else 1,
            size if has_images and size else (1, 1),
            min_seconds,
            min_iterations,
            max_seconds=max_seconds,
            scenario=scenario,
        )
        run = _network(name, target, session)
    finally:
        close()
    return Record(
        kind="latency",
        networks=[run],
        workload=Workload(batch=batch, size=list(size) if size else None, scenario=scenario),
        samples=samples,
        environment=environment(),
        started=started,
        elapsed_seconds=sum(samples.values) + sum(samples.warmups),
        conditions={"interpreter": _INTERPRETER},
    )


def _opened(target: Any, device: str, threads: int | None) -> tuple[Any, Callable[[], None], bool]:
    """A session, what closes it, and whether it takes images. Raises UsageError."""
    from vggbench.errors import UsageError
    from vggbench.variants import Variant

    if isinstance(target, Variant):
        from vggbench.backends import open_session

        session = open_session(target, device, threads)
        return session, session.close, True
    if not callable(target):
        raise UsageError(
            f"vggbench_latency got {type(target).__name__}: accepted are a Variant, a session, or a callable."
        )
    if hasattr(target, "info") and hasattr(target, "device"):
        return target, lambda: None, True
    return (lambda images: target()), lambda: None, False


def _network(name: str, target: Any, session: Any) -> NetworkRun:
    """A test of another thing than a Variant is named by its node id."""
    from vggbench.measure.records import describe_calibration, describe_weights
    from vggbench.results import NetworkRun
    from vggbench.variants import Variant

    info = dict(getattr(session, "info", {}))
    device = str(getattr(session, "device", "cpu"))
    if not isinstance(target, Variant):
        backend, precision = str(info.get("backend", "callable")), str(info.get("precision", ""))
        return NetworkRun(
            network=name,
            weights={"name": ""},
            passes=[],
            backend=backend,
            precision=precision,
            session={**info, "device": device},
        )
    return NetworkRun(
        network=target.weights.network,
        weights=describe_weights(target.weights),
        passes=[],
        backend=target.backend,
        precision=target.precision,
        session={**info, "device": device, "form": target.form},
        calibration=describe_calibration(target.quantization),
    )
