"""How a call is timed on a GPU: what a figure must say beside itself, and trtexec's two sets of defaults.

Imports nothing of ours: what runs engines in a Python without torch reads it too.
"""

from __future__ import annotations

from dataclasses import dataclass

#: What lies between the two events of a call, beside the computation.
TRANSFERS = {
    "both": "host to device and back, pinned memory",
    "in": "host to device only, pinned memory",
    "out": "device to host only, pinned memory",
    "none": "excluded",
}
WAITS = {"spin": "spinning", "block": "blocked until the device interrupts"}


@dataclass(frozen=True)
class Mode:
    """cuda_graph: None leaves it to the session, which says what it did. transfers, wait: keys of TRANSFERS, WAITS.

    in_flight: queries enqueued before the oldest is waited for; it acts where calls are timed one at a time.
    """

    cuda_graph: bool | None = None
    transfers: str = "none"
    wait: str = "spin"
    in_flight: int = 1

    def __post_init__(self) -> None:
        if self.transfers not in TRANSFERS or self.wait not in WAITS or self.in_flight < 1:
            raise ValueError(f"{self}: transfers are {', '.join(TRANSFERS)}; waits {', '.join(WAITS)}; in flight 1 up")

    @property
    def said(self) -> dict[str, object]:
        """For a session's info, and so for the record; "cuda_graph" is the session's to say, for capture can fail."""
        return {"transfers": TRANSFERS[self.transfers], "wait": WAITS[self.wait], "in_flight": self.in_flight}


#: trtexec's defaults. 11.0 turned all three around; two queries are in flight in both.
LIKE = {
    "trtexec-10": Mode(cuda_graph=False, transfers="both", wait="block", in_flight=2),
    "trtexec-11": Mode(cuda_graph=True, transfers="none", wait="spin", in_flight=2),
}
#: Also trtexec's, in both: seconds of warm-up, then at least so many calls and at least so many seconds.
LIKE_WARMUP_SECONDS, LIKE_ITERATIONS, LIKE_SECONDS = 0.2, 10, 3.0
