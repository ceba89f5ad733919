"""Seconds of calls by a GPU's own clock, for what runs through torch: events around one enqueue or graph launch.

The network's input and output stay in one place on the device, on a stream of our own; what a mode says is between a
call's two events is enqueued between them. ``cuda`` is torch.cuda, or what stands for it in a test.
"""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from vggbench.backends import Array
from vggbench.modes import Mode

#: A call of the network: images on the device -> scores on the device.
Run = Callable[[Tensor], Tensor]
#: Before a capture, so that libraries choose kernels and allocate outside of it.
_WARM_CALLS = 3


class TorchClock:
    """Times ``run`` on one device. own_graph: what to say where the function brings CUDA graphs of its own."""

    def __init__(
        self, run: Run, device: str, info: dict[str, Any], own_graph: str = "", cuda: Any = torch.cuda
    ) -> None:
        self._run, self._device, self._info, self._cuda = run, device, info, cuda
        self._own_graph = own_graph
        self._stream: Any = cuda.Stream(device)
        self._launch: Callable[[], Tensor] | None
        self._key: tuple[Any, ...]
        self.use(Mode())

    def use(self, mode: Mode) -> None:
        """From the next call on; the session's info says it."""
        self.mode = mode
        self.forget()
        bracket = (
            "around one enqueue" if mode.transfers == "none" else f"around one enqueue and transfers {mode.transfers}"
        )
        self._info |= {**mode.said, "clock": f"CUDA events {bracket}"}

    def time_calls(self, images: Array, calls: int, back_to_back: bool) -> list[float]:
        """See vggbench.measure.latency.Timed."""
        self._place(images)
        with torch.inference_mode(), self._cuda.stream(self._stream):
            return self._back_to_back(calls) if back_to_back else self._in_turn(calls)

    def forget(self) -> None:
        """Free what is kept between calls: the input on the device, its copies on the host, the graph."""
        self._key, self._launch = (), None
        self._host = self._input = self._back = torch.empty(0)

    def _place(self, images: Array) -> None:
        """Input, output and graph for these images, made once."""
        key = (images.shape, images.__array_interface__["data"][0])
        if key == self._key:
            return
        self.forget()
        pinned = self._cuda.is_available()
        with torch.inference_mode(), self._cuda.stream(self._stream):
            self._host = torch.from_numpy(images)
            self._host = self._host.pin_memory() if pinned else self._host
            self._input = self._host.to(self._device)
            output = self._run(self._input)
            for _ in range(_WARM_CALLS - 1):
                output = self._run(self._input)
            self._back = torch.empty(output.shape, dtype=output.dtype, pin_memory=pinned)
            self._launch, self._info["cuda_graph"] = self._captured()
        self._stream.synchronize()
        self._key = key

    def _captured(self) -> tuple[Callable[[], Tensor], str]:
        """What launches the network, and what to say of CUDA graphs. A capture that fails is said, not raised."""
        if not self.mode.cuda_graph:
            return lambda: self._run(self._input), self._own_graph or "off"
        self._stream.synchronize()
        graph = self._cuda.CUDAGraph()
        try:
            with self._cuda.graph(graph, stream=self._stream, capture_error_mode="thread_local"):
                output = self._run(self._input)
        except RuntimeError as error:
            why = str(error).strip().splitlines()[0][:120]
            return lambda: self._run(self._input), f"capture failed ({why}); plain enqueues were timed"

        def launch() -> Tensor:
            graph.replay()
            return output

        return launch, "captured"

    def _enqueue(self, start: Any, end: Any) -> None:
        """One call between its events."""
        assert self._launch is not None
        if start is not None:
            start.record(self._stream)
        if self.mode.transfers in ("both", "in"):
            self._input.copy_(self._host, non_blocking=True)
        output = self._launch()
        if self.mode.transfers in ("both", "out"):
            self._back.copy_(output, non_blocking=True)
        end.record(self._stream)

    def _in_turn(self, calls: int) -> list[float]:
        """Each from its start to its end; a call is waited for when in_flight are enqueued."""
        taken: list[float] = []
        flying: deque[tuple[Any, Any]] = deque()
        for _ in range(calls):
            pair = self._event(), self._event()
            self._enqueue(*pair)
            flying.append(pair)
            if len(flying) >= self.mode.in_flight:
                taken.append(_seconds(*flying.popleft()))
        return [*taken, *(_seconds(*pair) for pair in flying)]

    def _back_to_back(self, calls: int) -> list[float]:
        """From one end to the next, without waiting."""
        ends = [self._event() for _ in range(calls + 1)]
        ends[0].record(self._stream)
        for end in ends[1:]:
            self._enqueue(None, end)
        ends[-1].synchronize()
        return [before.elapsed_time(after) / 1000 for before, after in itertools.pairwise(ends)]

    def _event(self) -> Any:
        return self._cuda.Event(enable_timing=True, blocking=self.mode.wait == "block")


def _seconds(start: Any, end: Any) -> float:
    end.synchronize()
    return float(start.elapsed_time(end)) / 1000
