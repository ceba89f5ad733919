"""`vggbench latency --check-trtexec`: the engines just timed once more by trtexec, in the same mode."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from vggbench import cache, samples
from vggbench.errors import BackendUnavailable
from vggbench.measure import trtexec
from vggbench.modes import TRANSFERS, WAITS, Mode
from vggbench.results import NetworkRun, Record


@dataclass(frozen=True)
class Compared:
    """Median seconds of one query by us and by trtexec, or why there is none."""

    precision: str
    batch: int
    seconds: float
    trtexec_seconds: float | None
    version: str
    why_not: str = ""

    @property
    def ratio(self) -> float | None:
        return None if self.trtexec_seconds is None else self.seconds / self.trtexec_seconds


def program_for(backends: Sequence[str]) -> str:
    """trtexec's path, before anything is timed. Raises BackendUnavailable: it is absent, or there is nothing for it."""
    if "tensorrt" not in backends:
        raise BackendUnavailable(
            "--check-trtexec times engines of the tensorrt backend again, and none is among those asked for. Add it: "
            "--backend tensorrt."
        )
    return trtexec.find()


def compare(records: Sequence[Record], program: str, run: trtexec.Runs | None = None) -> list[Compared]:
    """A row a precision and batch of the tensorrt backend; a failure of trtexec's is named and the others go on."""
    groups: dict[tuple[str, int], list[Record]] = {}
    for record in records:
        if record.kind == "latency" and record.networks[0].backend == "tensorrt":
            groups.setdefault((record.networks[0].precision, record.workload.batch or 1), []).append(record)
    return [_compare(precision, batch, group, program, run) for (precision, batch), group in groups.items()]


def _compare(precision: str, batch: int, records: list[Record], program: str, run: trtexec.Runs | None) -> Compared:
    ours = samples.median([samples.median([float(value) for value in each.samples.values]) for each in records])
    session, size = records[0].networks[0].session, records[0].workload.size or [0, 0]
    try:
        with tempfile.TemporaryDirectory(prefix="vggbench-") as folder:
            engine = _engine(records[0].networks[0], Path(folder) / "engine.plan")
            source = [f"--loadEngine={engine}"]
            found = trtexec.measure(program, source, (batch, 3, size[0], size[1]), mode_of(session), run=run)
    except BackendUnavailable as error:
        return Compared(precision, batch, ours, None, "", str(error))
    theirs = found.median_seconds(mode_of(session))
    return Compared(precision, batch, ours, theirs, ".".join(map(str, found.version)))


def mode_of(session: dict[str, object]) -> Mode:
    """How a session of a record was timed, from what it says of itself."""
    transfers = {text: key for key, text in TRANSFERS.items()}
    waits = {text: key for key, text in WAITS.items()}
    return Mode(
        cuda_graph=str(session.get("cuda_graph")) in ("captured", "yes"),
        transfers=transfers.get(str(session.get("transfers")), "none"),
        wait=waits.get(str(session.get("wait")), "spin"),
    )


def _engine(run: NetworkRun, path: Path) -> Path:
    """The plan that was timed, out of the cache, without the cache's own first lines. Raises BackendUnavailable."""
    kept = cache.read(cache.root() / "engines" / f"{run.session.get('engine_key')}.plan")
    parts = kept.split(b"\n", 2) if kept else []
    if len(parts) < 3:
        raise BackendUnavailable("The engine that was timed is not in the cache, so that trtexec cannot load it.")
    path.write_bytes(parts[2])
    return path
