"""What ``--backend auto`` takes: the fastest backend that runs a precision here, and why."""

from __future__ import annotations

from dataclasses import dataclass

from vggbench import environment
from vggbench import precisions as table
from vggbench.backends import check_names, missing, without_gpu
from vggbench.errors import BackendUnavailable


@dataclass(frozen=True)
class Choice:
    """A backend that was chosen, and why, in one sentence."""

    backend: str
    why: str


def choose(precision: str, device: str) -> Choice:
    """The fastest backend that has the precision here, by the table's order; the GPU first for "auto".

    Raises UsageError for an unknown name, BackendUnavailable if none has it.
    """
    check_names(precision, device)
    reasons: dict[str, list[str]] = {}
    kinds = _kinds(device)
    for kind in kinds:
        faster: list[str] = []
        for row in table.fastest(precision, kind):
            why_not = missing(row.backend, precision, kind)
            if why_not is None:
                but = f"; faster would be {' and '.join(faster)}" if faster else ""
                how = f"{table.arithmetic(row)} on the {'GPU' if kind == 'cuda' else 'CPU'}"
                why = f"{row.backend} was chosen: the fastest backend here for {precision} ({how}){but}."
                return Choice(row.backend, why)
            faster.append(f"{row.backend} ({why_not})")
            reasons.setdefault(why_not, []).append(row.backend)
    if device == "cuda" and not environment.has_cuda():
        raise BackendUnavailable(without_gpu(precision))
    told = [f"{' and '.join(names)} ({why})" for why, names in reasons.items()]
    told += [text for kind in kinds for text in table.simulated(precision, kind)]
    if not told:
        told = [table.lacks(precision) if "cuda" not in kinds else "none computes in it"]
    what = "; ".join(told)
    raise BackendUnavailable(f"No backend runs {precision} on {' or '.join(kinds)} here: {what}. {_remedy(kinds)}")


def _kinds(device: str) -> list[str]:
    """The GPU first for "auto", where there is one."""
    if device != "auto":
        return [device]
    return ["cuda", "cpu"] if environment.has_cuda() else ["cpu"]


def _remedy(kinds: list[str]) -> str:
    accepted = "; ".join(f"--precision {found}" for kind in kinds if (found := _accepted(kind)))
    gpu = "" if "cuda" in kinds else " Or take a machine with an NVIDIA GPU."
    return f"{f'Accepted: {accepted}.' if accepted else 'What is missing: vggbench doctor.'}{gpu}"


def _accepted(kind: str) -> str:
    """Precisions that some backend runs here, without those that are only simulated."""
    found = [name for name in table.PRECISIONS if any(_runs(row, kind) for row in table.fastest(name, kind))]
    return ", ".join(found)


def _runs(row: table.Row, kind: str) -> bool:
    return missing(row.backend, row.precision, kind) is None
