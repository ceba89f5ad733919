"""Seconds of one call by the device's own clock: events around one enqueue, or around the launch of its CUDA graph.

trtexec's "GPU compute time" lies between the same two events. Transfers are left out unless asked for.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from vggbench.engines.logs import LOG
from vggbench.engines.run import AnyArray, Runner, Slot

#: Calls enqueued before one is waited for; a driver's queue holds about a thousand.
_IN_FLIGHT = 256


@dataclass(frozen=True)
class Mode:
    """cuda_graph: launch one where the provider can capture; transfers: images in and results out within the time.

    trtexec before 11.0 times as Mode(False, True), from 11.0 on as Mode(True, False).
    """

    cuda_graph: bool = True
    transfers: bool = False


class Timer:
    """Times a runner's calls; keeps its CUDA graph until shape or addresses change. info: what was timed, flat."""

    def __init__(self, runner: Runner, mode: Mode = Mode()) -> None:
        self._runner, self._mode, self._buffers = runner, mode, runner._buffers
        self._graph: Any = None
        self._captured_at = -1
        self._events: list[Any] = []
        self.info: dict[str, Any] = {
            "clock": "CUDA events on the session's stream",
            "transfers": "in and out included" if mode.transfers else "excluded",
            "cuda_graph": "asked for" if mode.cuda_graph else "not asked for",
        }

    def time_calls(self, images: AnyArray, calls: int, back_to_back: bool) -> list[float]:
        """Seconds of each: waited for before the next, or with ``back_to_back`` from one end to the next.

        Raises UsageError for a batch or a size outside the profile.
        """
        slot = self._runner.loaded(images)
        self._capture(slot)
        if back_to_back:
            return self._end_to_end(slot, calls)
        start, stop = self._pool(2)
        taken = []
        for _ in range(calls):
            self._buffers.record(start, self._runner.stream)
            self._launch(slot)
            self._buffers.record(stop, self._runner.stream)
            self._buffers.wait_event(stop)
            taken.append(self._buffers.seconds(start, stop))
        return taken

    def _end_to_end(self, slot: Slot, calls: int) -> list[float]:
        """An event after each call; the host is ahead by at most _IN_FLIGHT of them."""
        events = self._pool(min(calls, _IN_FLIGHT) + 1)
        ring, taken, stream = len(events), [], self._runner.stream
        self._buffers.record(events[0], stream)
        read = 0  # how many calls' seconds were taken; call k ends at event k + 1
        for call in range(calls):
            if call + 1 - read >= ring:
                taken.append(self._between(events, read))
                read += 1
            self._launch(slot)
            self._buffers.record(events[(call + 1) % ring], stream)
        taken += [self._between(events, call) for call in range(read, calls)]
        return taken

    def _between(self, events: list[Any], call: int) -> float:
        start, stop = events[call % len(events)], events[(call + 1) % len(events)]
        self._buffers.wait_event(stop)
        return self._buffers.seconds(start, stop)

    def _pool(self, count: int) -> list[Any]:
        while len(self._events) < count:
            self._events.append(self._buffers.event())
        return self._events[:count]

    def _enqueue(self, slot: Slot) -> None:
        if self._mode.transfers:
            self._runner.copy_in(slot)
        self._runner.enqueue()
        if self._mode.transfers:
            self._runner.copy_out(slot)

    def _launch(self, slot: Slot) -> None:
        if self._graph is None:
            self._enqueue(slot)
        else:
            self._buffers.launch(self._graph, self._runner.stream)

    def _capture(self, slot: Slot) -> None:
        """A graph of one call, after the warm one that loaded() was; anew where shapes or addresses have changed."""
        if not self._mode.cuda_graph or self._captured_at == self._runner.changes:
            return
        self._end_graph()
        self._captured_at = self._runner.changes
        if not self._buffers.CAPTURES:
            self.info["cuda_graph"] = "this provider of buffers has none: plain enqueue was timed"
            return
        try:
            self._graph = self._buffers.capture(self._runner.stream, lambda: self._enqueue(slot))
            self.info["cuda_graph"] = "yes"
        except Exception as error:  # each provider raises its own
            why = " ".join(str(error).split())[:200]
            self.info["cuda_graph"] = f"failed ({why}): plain enqueue was timed"
            LOG.warning("No CUDA graph could be captured (%s); plain enqueue is timed.", why)

    def _end_graph(self) -> None:
        if self._graph is not None:
            self._buffers.wait(self._runner.stream)
            self._buffers.end_graph(self._graph)
        self._graph = None

    def close(self) -> None:
        """Free graph and events; before the runner's own close. A second close does nothing."""
        self._end_graph()
        for event in self._events:
            self._buffers.end_event(event)
        self._events.clear()
