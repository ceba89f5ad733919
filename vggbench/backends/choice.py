"""What ``--backend auto`` takes: the fastest backend that runs a precision here, and why."""

from __future__ import annotations

from dataclasses import dataclass

from vggbench import environment
from vggbench import precisions as table
from vggbench.backends import check_names, missing
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
    reasons: list[str] = []
    for kind in [device] if device != "auto" else (["cuda", "cpu"] if environment.has_cuda() else ["cpu"]):
        faster: list[str] = []
        for row in table.fastest(precision, kind):
            why_not = missing(row.backend, precision, kind)
            if why_not is None:
                but = f"; faster would be {' and '.join(faster)}" if faster else ""
                how = f"{table.arithmetic(row)} on the {'GPU' if kind == 'cuda' else 'CPU'}"
                why = f"{row.backend} was chosen: the fastest backend here for {precision} ({how}){but}."
                return Choice(row.backend, why)
            faster.append(f"{row.backend} ({why_not})")
        reasons += faster + table.simulated(precision, kind)
    raise BackendUnavailable(f"No backend runs {precision} on {device} here: {'; '.join(reasons) or 'none has it'}.")
