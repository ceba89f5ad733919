"""Work prepared on threads ahead of who needs it, in order, within a budget of bytes."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Generator, Sequence
from typing import Generic, TypeVar

from vggbench.measure.stages import Stages

T = TypeVar("T")

#: However small results are, no more of them lie ready; what is prepared in vain when a run ends stays little.
AHEAD_ITEMS = 256


class _Slot(Generic[T]):
    """One item's result, its size in bytes, or what preparing it raised."""

    __slots__ = ("bytes", "done", "error", "value")

    def __init__(self) -> None:
        self.done = False
        self.value: T | None = None
        self.bytes = 0
        self.error: BaseException | None = None


class Ahead(Generic[T]):
    """prepare(item) for every item on ``workers`` threads; results() gives them in order.

    size: bytes of a result. Threads begin nothing new while what lies ready, with what is being prepared taken at its
    mean size, would exceed ``budget`` bytes; so memory stays within the budget and one result a thread. Who asks for
    what is not ready prepares the next one, too: where preparing is the slower part, waiting would leave a core idle.
    There is always progress, however large a result.
    """

    def __init__(
        self,
        prepare: Callable[[int], T],
        items: Sequence[int],
        workers: int,
        budget: int,
        size: Callable[[T], int],
        stages: Stages,
    ) -> None:
        self._prepare, self._items, self._budget, self._size = prepare, items, budget, size
        self._stages = stages
        self._changed = threading.Condition()
        self._slots: deque[_Slot[T]] = deque()
        self._begun = self._finished = 0
        self._ready = self._total = 0
        self._closed = False
        self.peak = 0
        self._threads = [threading.Thread(target=self._work, name="prepare", daemon=True) for _ in range(workers)]

    def results(self) -> Generator[T, None, None]:
        """prepare(item) in order. What it raised for an item is raised in that item's place. Ends all threads."""
        for thread in self._threads:
            thread.start()
        try:
            for _ in self._items:
                yield self._next()
        finally:
            with self._changed:
                self._closed = True
                self._changed.notify_all()
            for thread in self._threads:
                thread.join()

    def _next(self) -> T:
        while True:
            with self._changed:
                if self._slots and self._slots[0].done:
                    break
                mine = self._begin() if not self._slots or self._room() else None
                if mine is None:
                    started = time.perf_counter()
                    self._changed.wait()
                    self._stages.add("wait", time.perf_counter() - started)
            if mine is not None:
                with self._stages.timed("helped"):
                    self._fill(*mine)
        with self._changed:
            slot = self._slots.popleft()
            self._ready -= slot.bytes
            self._changed.notify_all()
        if slot.error is not None:
            raise slot.error
        return slot.value  # type: ignore[return-value]  # T may be None itself

    def _begin(self) -> tuple[_Slot[T], int]:
        """A slot for the next item; the lock is held."""
        slot: _Slot[T] = _Slot()
        self._slots.append(slot)
        item = self._items[self._begun]
        self._begun += 1
        return slot, item

    def _room(self) -> bool:
        """Whether one more may be begun; the lock is held."""
        if self._begun == len(self._items):
            return False
        mean = self._total / self._finished if self._finished else 0.0
        running = self._begun - self._finished
        return len(self._slots) < AHEAD_ITEMS and self._ready + (running + 1) * mean <= self._budget

    def _has_to_wait(self) -> bool:
        """Whether a thread has nothing to begin yet; the lock is held."""
        return not self._closed and self._begun < len(self._items) and not self._room()

    def _work(self) -> None:
        while True:
            with self._changed:
                if self._has_to_wait():
                    started = time.perf_counter()
                    while self._has_to_wait():
                        self._changed.wait()
                    self._stages.add("idle", time.perf_counter() - started)
                if self._closed or self._begun == len(self._items):
                    return
                slot, item = self._begin()
            self._fill(slot, item)

    def _fill(self, slot: _Slot[T], item: int) -> None:
        value, error, size = None, None, 0
        try:
            value = self._prepare(item)
            size = self._size(value)
        except BaseException as raised:  # it belongs to who asks for the item
            error = raised
        with self._changed:
            slot.value, slot.error, slot.bytes, slot.done = value, error, size, True
            self._finished += 1
            self._total += size
            self._ready += size
            self.peak = max(self.peak, self._ready)
            self._changed.notify_all()
