"""Seconds of one call by the device's own clock: events around one enqueue, or around the launch of its CUDA graph.

trtexec's "GPU compute time" lies between the same two events. What is asked for beside it (vggbench.modes) is said.
"""

from __future__ import annotations

from collections import deque
from typing import Any

from vggbench.engines.logs import LOG
from vggbench.engines.run import Runner
from vggbench.engines.slots import AnyArray, Slot
from vggbench.modes import Mode

#: Calls enqueued back to back before one is waited for; a driver's queue holds about a thousand.
_AHEAD = 256


class Timer:
    """Times a runner's calls; keeps its CUDA graph until shape or addresses change. info: what was timed, flat."""

    def __init__(self, runner: Runner) -> None:
        self._runner, self._buffers = runner, runner.buffers
        self._graph: Any = None
        self._captured_at = -1
        self._events: list[Any] = []
        self._loaded: tuple[AnyArray, Slot, tuple[int, int]] | None = None
        self.info: dict[str, Any] = {}
        self.use(Mode())

    def use(self, mode: Mode) -> None:
        """How time_calls times from now on. Left open, a CUDA graph is captured: it is what serving an engine does."""
        self._end_graph()
        self._end_events()  # whether a wait for one spins or blocks is decided when it is made
        self._captured_at, self._loaded = -1, None
        self.mode = mode
        bracket = "" if mode.transfers == "none" else f" and transfers {mode.transfers}"
        self.info |= {**mode.said, "clock": f"CUDA events around one enqueue{bracket}", "cuda_graph": "off"}

    def time_calls(self, images: AnyArray, calls: int, back_to_back: bool) -> list[float]:
        """Seconds of each: from its start to its end, or with ``back_to_back`` from one end to the next.

        The very same array stays on the device from one call of this to the next. Raises UsageError for a batch or a
        size outside the profile.
        """
        slot = self._slot(images)
        if self._captured_at != self._runner.changes:
            self._end_graph()
            if self.mode.cuda_graph is not False:
                self._capture()
            self._captured_at = self._runner.changes
        return self._back_to_back(slot, calls) if back_to_back else self._in_turn(slot, calls)

    def _slot(self, images: AnyArray) -> Slot:
        """With these images on the device, put there once: coming again at every look they would give the GPU a rest
        that torch's peers do not have (backends.torch_clock).
        """
        runner = self._runner
        if self._loaded is not None:
            before, slot, when = self._loaded
            if before is images and when == (runner.pieces, runner.changes):
                return slot
        slot = runner.loaded(images)
        self._loaded = images, slot, (runner.pieces, runner.changes)
        return slot

    def _in_turn(self, slot: Slot, calls: int) -> list[float]:
        """A call is waited for when as many as the mode says are in flight."""
        taken: list[float] = []
        ring = self._pool(2 * self.mode.in_flight)
        flying: deque[tuple[Any, Any]] = deque()
        for call in range(calls):
            place = 2 * (call % self.mode.in_flight)
            start, stop = ring[place], ring[place + 1]
            self._buffers.record(start, self._runner.stream)
            self._launch(slot)
            self._buffers.record(stop, self._runner.stream)
            flying.append((start, stop))
            if len(flying) >= self.mode.in_flight:
                taken.append(self._between(*flying.popleft()))
        return [*taken, *(self._between(*pair) for pair in flying)]

    def _back_to_back(self, slot: Slot, calls: int) -> list[float]:
        """An event after each call, which is the next one's start; the host is ahead by at most _AHEAD of them."""
        ring = self._pool(min(calls, _AHEAD) + 1)
        taken: list[float] = []
        flying: deque[tuple[Any, Any]] = deque()
        self._buffers.record(ring[0], self._runner.stream)
        for call in range(calls):
            start, stop = ring[call % len(ring)], ring[(call + 1) % len(ring)]
            if len(flying) == len(ring) - 1:
                taken.append(self._between(*flying.popleft()))
            self._launch(slot)
            self._buffers.record(stop, self._runner.stream)
            flying.append((start, stop))
        return [*taken, *(self._between(*pair) for pair in flying)]

    def _between(self, start: Any, stop: Any) -> float:
        self._buffers.wait_event(stop)
        return self._buffers.seconds(start, stop)

    def _pool(self, count: int) -> list[Any]:
        while len(self._events) < count:
            self._events.append(self._buffers.event(self.mode.wait == "block"))
        return self._events[:count]

    def _launch(self, slot: Slot) -> None:
        """One call with the transfers that the mode has, on the stream."""
        if self.mode.transfers in ("both", "in"):
            self._runner.copy_in(slot)
        if self._graph is None:
            self._runner.enqueue()
        else:
            self._buffers.launch(self._graph, self._runner.stream)
        if self.mode.transfers in ("both", "out"):
            self._runner.copy_out(slot)

    def _capture(self) -> None:
        """A graph of one enqueue, after the warm one that loaded() was."""
        if not self._buffers.CAPTURES:
            self.info["cuda_graph"] = "this provider of buffers captures none; plain enqueues were timed"
            return
        try:
            self._graph = self._buffers.capture(self._runner.stream, self._runner.enqueue)
            self.info["cuda_graph"] = "captured"
        except Exception as error:  # each provider raises its own
            why = " ".join(str(error).split())[:120]
            self.info["cuda_graph"] = f"capture failed ({why}); plain enqueues were timed"
            LOG.warning("No CUDA graph could be captured (%s); plain enqueues are timed.", why)

    def _end_graph(self) -> None:
        if self._graph is not None:
            self._buffers.wait(self._runner.stream)
            self._buffers.end_graph(self._graph)
        self._graph = None

    def _end_events(self) -> None:
        for event in self._events:
            self._buffers.end_event(event)
        self._events.clear()

    def close(self) -> None:
        """Free graph and events; before the runner's own close. A second close does nothing."""
        self._loaded = None
        self._end_graph()
        self._end_events()
