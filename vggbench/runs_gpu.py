"""One command for a machine with a GPU: build, check and time everything that is here, step by step, into a report.

A step's records lie in the report's folder as soon as it ends, under a name that its inputs and versions decide, so
that the same command goes on where it was broken off. A step that fails is named with its error, and the others go on.
"""

from __future__ import annotations

import dataclasses
import re
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path

from vggbench import environment, runs_inputs
from vggbench.backends import missing, resolve_device
from vggbench.errors import BackendUnavailable, RecordError, UsageError, VggbenchError
from vggbench.progress import Report, silent
from vggbench.results import Record, read_records, write_records
from vggbench.runs_fresh import TimeIsOver, WorkerDied, ending_at, refuse_networks
from vggbench.runs_peak import has_cuda
from vggbench.variants import digest_of

#: "D": VGG-16 and the sample family's checks; "all": the six networks that the paper's tables compare.
NETWORKS = {"D": ("D",), "all": ("A", "A-LRN", "B", "C", "D", "E")}
BUDGET_SECONDS = {"D": 600.0, "all": 1500.0}
#: Of it for the steps; the rest is for the page.
STEPS_SHARE = 0.95
_GOES_ON = "the same command goes on with it"


@dataclass(frozen=True)
class Request:
    """What `gpu` was asked for. networks: a key of NETWORKS; weights: of those that are timed; only: names of steps.

    images: sample images for ranks and numerics. budget_seconds: it ends within them, a step under way is left for the
    next run; None: as the networks have it. no_network: an attempt to reach one is an error.
    engine_python: a Python without torch that has TensorRT.
    """

    networks: str = "D"
    weights: str = "random:0"
    batches: tuple[int, ...] = (1, 8, 32, 128)
    processes: int = 1
    min_seconds: float = 0.5
    images: int = 512
    device: str = "auto"
    threads: int | None = None
    only: tuple[str, ...] = ()
    budget_seconds: float | None = None
    no_network: bool = False
    engine_python: Path | None = None


@dataclass(frozen=True)
class Step:
    """One thing to do. work: gives its records; needs: (precision, backend) that must run here."""

    name: str
    work: Callable[[], list[Record]]
    needs: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True)
class Ended:
    """How a step ended. state: "done", "kept" (of an earlier run), "not run" or "failed"; why: of the last two."""

    name: str
    state: str
    seconds: float
    why: str = ""


@dataclass(frozen=True)
class Done:
    """The whole run."""

    out: Path
    steps: tuple[Ended, ...]
    records: list[Record]


def gpu(request: Request, out: Path | None = None, progress: Report = silent) -> Done:
    """Every step in turn, then the report. Raises UsageError, StorageError, and BackendUnavailable if nothing ran."""
    from vggbench.runs_gpu_steps import steps_of

    started = time.monotonic()
    if request.networks not in NETWORKS:
        raise UsageError(f"--networks {request.networks!r}: known are {', '.join(NETWORKS)}.")
    _check_device(request)
    out = out or default_folder()
    runs_inputs.check_out(out)
    if request.no_network:
        refuse_networks()
    steps = steps_of(request)
    unknown = [name for name in request.only if not any(step.name.startswith(name) for step in steps)]
    if unknown:
        raise UsageError(f"No step {unknown[0]!r}. Known: {', '.join(step.name for step in steps)}.")
    chosen = [step for step in steps if not request.only or step.name.startswith(request.only)]
    end = started + STEPS_SHARE * (request.budget_seconds or BUDGET_SECONDS[request.networks])
    ended: list[Ended] = []
    records: list[Record] = []
    for number, step in enumerate(chosen):
        progress("Steps", number, len(chosen), step.name)
        how, found = _take(step, request, out, end)
        ended.append(how)
        records += found
    progress("Steps", len(chosen), len(chosen), "")
    if not records:
        reasons = "; ".join(f"{each.name}: {each.why.rstrip('.')}" for each in ended[:4])
        raise BackendUnavailable(f"No step gave a record: {reasons}.")
    _report(out, records, ended, request)
    return Done(out, tuple(ended), records)


def _check_device(request: Request) -> None:
    """Raises BackendUnavailable where torch cannot use a GPU that is here: the CPU would be measured unasked."""
    if request.device != "auto" or not environment.has_cuda() or has_cuda():
        return
    import torch

    build = f"a build for CUDA {torch.version.cuda}" if torch.version.cuda else "a CPU build"
    raise BackendUnavailable(
        f"The driver shows {environment.environment([])['gpu']}, and torch {torch.__version__}, {build}, cannot use it "
        "(an older driver than that CUDA's?). See: vggbench doctor. Or measure the CPU: --device cpu."
    )


def default_folder() -> Path:
    """reports/<gpu or cpu>-<date>."""
    here = environment.environment([])
    name = re.sub(r"[^a-z0-9]+", "-", str(here.get("gpu") or here["cpu"]).lower()).strip("-")
    return Path("reports") / f"{name}-{datetime.now(timezone.utc):%Y-%m-%d}"


def _take(step: Step, request: Request, out: Path, end: float) -> tuple[Ended, list[Record]]:
    """Does a step, or finds what an earlier run kept of it. end: of the time for all steps."""
    path = out / "steps" / f"{re.sub(r'[^A-Za-z0-9]+', '-', step.name)}-{_key(step, request)[:12]}.jsonl"
    before = time.monotonic()
    if path.is_file():
        try:
            return Ended(step.name, "kept", 0.0), read_records(path)
        except RecordError:
            path.unlink()  # cut by a disk that was full; done anew
    try:
        why = _why_not(step, request)
        if why is None and before >= end:
            why = f"the time that was given is over; {_GOES_ON}"
        if why is not None:
            return Ended(step.name, "not run", 0.0, why), []
        with ending_at(end):
            found = step.work()
    except TimeIsOver:
        why = f"the time that was given ended before it did; {_GOES_ON}"
        return Ended(step.name, "not run", time.monotonic() - before, why), []
    except (VggbenchError, WorkerDied) as error:
        return Ended(step.name, "failed", time.monotonic() - before, " ".join(str(error).split())), []
    except Exception as error:  # of a library that has never met this machine: named, and the others go on
        why = " ".join(str(error).split())[:300]
        return Ended(step.name, "failed", time.monotonic() - before, f"{type(error).__name__}: {why}"), []
    write_records(path, found)
    return Ended(step.name, "done", time.monotonic() - before), found


def _why_not(step: Step, request: Request) -> str | None:
    """None, or what the step needs and is not here. Raises what a broken library raises when it is asked."""
    for precision, backend in step.needs:
        why = missing(backend, precision, _kind(request))
        if why is not None:
            return f"{backend} {precision}: {why}"
    return None


def _key(step: Step, request: Request) -> str:
    """What decides a step's records, without how long may be spent and which steps were chosen."""
    asked = {**dataclasses.asdict(request), "budget_seconds": None, "only": None, "no_network": None}
    changing = ("clock", "command", "commit")
    here = {
        key: str(value) for key, value in environment.environment([]).items() if not any(c in key for c in changing)
    }
    return digest_of({"step": step.name, "request": {key: str(value) for key, value in asked.items()}, "here": here})


def _kind(request: Request) -> str:
    return resolve_device(request.device, has_cuda()).split(":")[0]


def _report(out: Path, records: list[Record], ended: list[Ended], request: Request) -> None:
    """records.jsonl and index.html. Raises StorageError."""
    from vggbench import report as pages
    from vggbench.runs_gpu_targets import targets

    context = pages.context_from(records)
    notes = [f"{each.name}: {each.state}, {each.why}." for each in ended if each.why]
    notes += [f"{each.name}: {each.state} ({each.found or each.why})." for each in targets(records)]
    context = dataclasses.replace(context, notes=[*context.notes, *notes])
    write_records(out / "records.jsonl", records)
    pages.write_page(out / "index.html", pages.render(records, [], context))
