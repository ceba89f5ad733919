"""Several processes that work on one run: started by torchrun, or by anything that sets its variables.

They share a folder, the cache, for all that is large, and a store at MASTER_ADDR:MASTER_PORT for the little else: who
does what, who is done, who failed. A folder alone would need names for runs and rules for what killed ones left there;
a process group would bind an evaluation to the network's interfaces for nothing. Only training makes one, for sums.
"""

from __future__ import annotations

import ctypes
import itertools
import json
import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any, TypeVar

from vggbench.errors import UsageError, VggbenchError
from vggbench.interrupts import raise_once

T = TypeVar("T")

#: Set by torchrun for every process; LOCAL_RANK and LOCAL_WORLD_SIZE too.
NEEDED = ("RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")
#: How long processes may take to find each other, and to take leave; the latter where the run failed, too.
MEET_SECONDS, LEAVE_SECONDS, FAILED_SECONDS = 300.0, 30.0, 1.0
#: Between two looks at the store.
LOOK_SECONDS = 0.05


class Ended(VggbenchError):
    """Another process of the run failed and has said why; this one ends with the same exit code."""

    def __init__(self, rank: int, exit_code: int) -> None:
        super().__init__(f"Worker {rank} failed.")
        self.exit_code = exit_code


@dataclass(frozen=True)
class Group:
    """The processes of a run as one of them sees them. rank: from 0. local_world: processes on this machine.

    All must call first, share and gather in the same order; each raises Ended once another process has failed.
    """

    rank: int = 0
    world: int = 1
    local_world: int = 1
    store: Any = None
    _numbers: Iterator[int] = field(default_factory=itertools.count, compare=False)

    @property
    def alone(self) -> bool:
        return self.world == 1

    def first(self, work: Callable[[], T]) -> T:
        """work() on rank 0, then on the others: what the first leaves in the cache they find there."""
        key = self._key("first")
        if self.rank:
            self._wait(key)
        found = work()
        if not self.rank and not self.alone:
            with _reached():
                self.store.set(key, "done")
        return found

    def share(self, value: Any) -> Any:
        """Rank 0's value, as JSON has it, on all."""
        if self.alone:
            return value
        key = self._key("share")
        if self.rank == 0:
            with _reached():
                self.store.set(key, json.dumps(value))
        return json.loads(self._wait(key))

    def gather(self, value: Any) -> list[Any] | None:
        """Every rank's value, in order, on rank 0, once all are there; None on the others."""
        if self.alone:
            return [value]
        key = self._key("gather")
        with _reached():
            self.store.set(f"{key}/{self.rank}", json.dumps(value))
        if self.rank:
            return None
        return [json.loads(self._wait(f"{key}/{rank}")) for rank in range(self.world)]

    def check(self) -> None:
        """Raises Ended if another process has failed, UsageError if whoever keeps the store is gone."""
        if self.alone:
            return
        with _reached():
            told = self.store.get("failed") if self.store.check(["failed"]) else None
        if told is not None:
            raise Ended(*json.loads(told))

    def fail(self, exit_code: int) -> bool:
        """Tells the others that this process ends; whether it is the first to do so and has to say why."""
        if self.alone:
            return True
        try:
            if self.store.add("failures", 1) > 1:
                return False
            self.store.set("failed", json.dumps([self.rank, exit_code]))
        except RuntimeError:  # whoever keeps the store is gone, and perhaps without a word
            return True
        return True

    def leave(self, patience_seconds: float) -> None:
        """The last word: rank 0, which may keep the store, goes last, but waits no longer than so for the others."""
        if self.alone:
            return
        end = time.monotonic() + patience_seconds
        try:
            self.store.set(f"left/{self.rank}", "yes")
            others = [f"left/{rank}" for rank in range(1, self.world)]
            while not self.rank and not self.store.check(others) and time.monotonic() < end:
                time.sleep(LOOK_SECONDS)
        except RuntimeError:
            return

    def _key(self, what: str) -> str:
        return f"{what}/{next(self._numbers)}"

    def _wait(self, key: str) -> Any:
        while True:
            with _reached():
                if self.store.check([key]):
                    return self.store.get(key)
            self.check()
            time.sleep(LOOK_SECONDS)


@contextmanager
def _reached() -> Iterator[None]:
    """Around calls of the store. Raises UsageError where whoever keeps it is gone."""
    try:
        yield
    except RuntimeError as error:  # torch's DistNetworkError and its like
        raise UsageError(
            "Worker 0 cannot be reached any more: it has ended, or its machine has. The same command goes on where it "
            "stopped."
        ) from error


@contextmanager
def exchanging(group: Group) -> Iterator[None]:
    """Around torch's sums over all processes. Raises Ended or UsageError where one of them is gone."""
    try:
        yield
    except RuntimeError as error:
        end = time.monotonic() + FAILED_SECONDS
        while True:  # a process that fails closes its connections before it can say why
            late = time.monotonic() > end
            group.check()
            if late:
                break
            time.sleep(LOOK_SECONDS)
        raise UsageError(
            "Another worker cannot be reached any more: it has ended, or its machine has. The same command goes on "
            "from the last checkpoint."
        ) from error


#: One process, as without torchrun.
ALONE = Group()


@contextmanager
def joined() -> Iterator[Group]:
    """The group that the environment speaks of, ALONE without one. On leaving, rank 0 waits for the others.

    One GPU is left visible to each process, by LOCAL_RANK: so this comes before anything that asks for devices.
    SIGTERM, by which launchers end the others when one fails, becomes KeyboardInterrupt: what is done is saved.
    Raises UsageError for variables that make no sense and for processes that do not find each other.
    """
    if int_of("WORLD_SIZE", 1) == 1 or "RANK" not in os.environ:
        yield ALONE
        return
    missing = [name for name in NEEDED if not os.environ.get(name)]
    if missing:
        raise UsageError(f"WORLD_SIZE and RANK are set and {', '.join(missing)} not. Start with torchrun, or set all.")
    rank, world, local_world = int_of("RANK", 0), int_of("WORLD_SIZE", 1), int_of("LOCAL_WORLD_SIZE", 1)
    if not rank < world or not 1 <= local_world <= world:
        raise UsageError(
            f"RANK={rank}, WORLD_SIZE={world}, LOCAL_WORLD_SIZE={local_world}: accepted are ranks from 0 to below "
            "WORLD_SIZE, and 1 to WORLD_SIZE processes a machine."
        )
    _take_gpu(int_of("LOCAL_RANK", 0))
    group = Group(rank, world, local_world, _store())
    before = signal.signal(signal.SIGTERM, raise_once)
    patience = FAILED_SECONDS
    try:
        yield group
        patience = LEAVE_SECONDS
    finally:
        group.leave(patience)
        signal.signal(signal.SIGTERM, before)


def int_of(name: str, default: int) -> int:
    """Raises UsageError for a variable that is no number from 0 on."""
    text = os.environ.get(name, "") or str(default)
    if not text.isdecimal():
        raise UsageError(f"{name}={text!r}: accepted are whole numbers from 0 on, as torchrun sets them.")
    return int(text)


def _take_gpu(local_rank: int) -> None:
    """A launcher that gives each process its own GPU has left one, which stays."""
    try:
        ctypes.CDLL("libcuda.so.1")  # loaded, not yet initialized: that reads the variable
    except OSError:
        return
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    devices = visible.split(",") if visible else []
    if visible is None:
        os.environ["CUDA_VISIBLE_DEVICES"] = str(local_rank)
    elif len(devices) > 1:
        os.environ["CUDA_VISIBLE_DEVICES"] = devices[local_rank % len(devices)]


def _store() -> Any:
    from torch.distributed import PrefixStore, rendezvous  # type: ignore[attr-defined]

    try:
        store, _, _ = next(rendezvous("env://", timeout=timedelta(seconds=MEET_SECONDS)))
    except (RuntimeError, ValueError) as error:
        where = f"{os.environ['MASTER_ADDR']}:{os.environ['MASTER_PORT']}"
        reason = str(error).split("\n", 1)[0]
        raise UsageError(
            f"The processes of this run did not meet at {where} ({reason}). Is worker 0 there, and the port free?"
        ) from error
    return PrefixStore("vggbench", store)


@contextmanager
def summing(group: Group, device: str) -> Iterator[None]:
    """Around torch's sums over all: its process group, NCCL between GPUs and Gloo between CPUs. None for one alone."""
    if group.alone:
        yield
        return
    # Its functions keep the process group of the moment as their default. Imported later, as the first optimizer does,
    # they would hold ours after its end, and Gloo's threads, which now and then abort the process on its way out.
    import torch.distributed.nn.functional  # noqa: F401
    from torch import distributed

    backend = "nccl" if device.startswith("cuda") else "gloo"
    distributed.init_process_group(backend, store=group.store, rank=group.rank, world_size=group.world)
    try:
        yield
    finally:
        distributed.destroy_process_group()
