"""The evaluation loop beside the session that it feeds: center crops of photographs that lie decoded in memory."""

from __future__ import annotations

import dataclasses
import hashlib
import os
import tempfile
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from vggbench import backends
from vggbench.backends import Session
from vggbench.backends.uploads import for_passes
from vggbench.images import Dataset, LabelledImage
from vggbench.measure import conditions, pipeline, shards, stages
from vggbench.measure.accuracy import PassResults, run_passes
from vggbench.measure.compare import network_run
from vggbench.measure.latency import Timed
from vggbench.measure.pipeline import IN_FLIGHT, DecodedImages
from vggbench.measure.stored import Job
from vggbench.protocols import Choices, Pass, as_flat_dict, protocol
from vggbench.results import Record, Samples, Workload
from vggbench.variants import Variant
from vggbench.views import to_input

#: Seconds of full-size VGG-16, by the kind of device.
IMAGES = {"cuda": 4096, "cpu": 64}
#: Loop and session in turn.
ROUNDS = 5
#: (height, width) of a photograph and the test scale beside a crop of 224; other crops take them in proportion.
PHOTOGRAPH, SCALE, CROP = (375, 500), 256, 224
#: Pixels repeat after so many images: 144 MB of them. Each image has a digest of its own.
DISTINCT = 256
#: Calls a round that the device's own clock takes.
CALLS = 20


@dataclass(frozen=True)
class Loop:
    """What is measured. environment: for the record."""

    variant: Variant
    device: str
    threads: int | None
    images: int
    rounds: int
    environment: dict[str, Any] = field(default_factory=dict)


@dataclass
class Handed:
    """What the loop gives to a session. kind: "pixels" or "floats"; shapes: of its calls, in order; ready: by shape,
    what the first such call held; seconds: that it all takes to prepare with no network to wait for."""

    kind: str
    shapes: list[tuple[int, ...]] = field(default_factory=list)
    ready: dict[tuple[int, ...], npt.NDArray[Any]] = field(default_factory=dict)
    seconds: float = 0.0


@dataclass(frozen=True)
class Alone:
    """A session without the loop. seconds: of all calls; calls: seconds by the device's own clock; info: how."""

    seconds: float
    calls: Sequence[float]
    info: dict[str, Any]


@contextmanager
def sleeping_threads() -> Iterator[None]:
    """A process started inside has OpenMP's waiting threads sleep, as `vggbench evaluate` has them."""
    if "OMP_WAIT_POLICY" in os.environ:
        yield
        return
    os.environ["OMP_WAIT_POLICY"] = "passive"
    try:
        yield
    finally:
        del os.environ["OMP_WAIT_POLICY"]


def time_loop(asked: Loop) -> list[Record]:
    """In a fresh process: one record of kind "loop"; samples are the loop's seconds, a round each.

    In turn with it a session of its own makes the same calls with its inputs ready: conditions' session_seconds.
    Sessions are opened before the seconds begin. Raises what open_session and run_passes raise.
    """
    started, before = datetime.now(timezone.utc).isoformat(timespec="seconds"), time.perf_counter()
    asked = as_evaluated(asked)
    weights, choices = asked.variant.weights, Choices()
    (step,) = protocol("center", (weights.crop_size * SCALE // CROP,)).passes
    dataset, decoded = in_memory(asked.images, weights.crop_size, choices)
    handed = handed_over(asked, dataset, decoded, step, choices)
    loops: list[PassResults] = []
    alone: list[Alone] = []
    device = "cuda:0" if shards.resolve(asked.variant.backend, asked.device) == "cuda" else "cpu"
    look = conditions.look(device)
    for number in range(2 * asked.rounds):
        if number % 4 in (0, 3):  # loop, session, session, loop: a drift hits both alike
            loops.append(loop_once(asked, dataset, decoded, step))
        else:
            alone.append(session_once(asked, handed))
    around = conditions.between(look, conditions.look(device), 2 * asked.rounds * asked.images)
    session = {**loops[-1].session, "form": "crop", "transfers": "host to host"}
    return [
        Record(
            kind="loop",
            networks=[network_run(asked.variant, step, session)],
            workload=Workload(
                protocol="center",
                choices=as_flat_dict(choices),
                data={"name": dataset.name, "split": dataset.split, "images": asked.images, "total": asked.images},
                batch=max(handed.shapes)[0],
                size=[weights.crop_size, weights.crop_size],
            ),
            samples=Samples(unit="seconds", values=[each.counts.seconds for each in loops]),
            environment=asked.environment,
            started=started,
            elapsed_seconds=time.perf_counter() - before,
            process=1,
            conditions={**said(loops, alone, handed), **around},
        )
    ]


def as_evaluated(asked: Loop) -> Loop:
    """With the input that the loop's own sessions have, which for an engine are pixels."""
    variant = asked.variant
    sizes = for_passes(variant.backend, variant.sizes)
    return dataclasses.replace(asked, variant=dataclasses.replace(variant, sizes=sizes))


def said(loops: Sequence[PassResults], alone: Sequence[Alone], handed: Handed) -> dict[str, Any]:
    """A record's conditions: raw seconds, a value a round, of the session alone and of each stage of the loop."""
    spent = [each.counts.stages for each in loops]
    names = [name for name in stages.NAMES if any(name in each for each in spent)]
    held = f"{handed.kind} of up to {max(handed.shapes)[0]} images"
    ahead = f"{IN_FLIGHT + 1} calls under way" if handed.kind == "pixels" else "each call waited for"
    found: dict[str, Any] = {
        "session_seconds": [each.seconds for each in alone],
        "session_measured": f"{held} ready in host memory, scores back in it (both transfers included), {ahead}",
        "without_network_seconds": handed.seconds,
        "limiting": stages.limiting(stages.total(spent, in_turn=True)),
        **{f"stage_{name}_seconds": [each.get(name, 0.0) for each in spent] for name in names if name != "threads"},
        "preparing_threads": int(spent[0].get("threads", 0)),
        "omp_wait_policy": os.environ.get("OMP_WAIT_POLICY", "the library's own"),
    }
    calls = [second for each in alone for second in each.calls]
    if calls:
        info = alone[-1].info
        found |= {"engine_call_seconds": calls, "engine_batch": max(handed.shapes)[0]}
        found |= {f"engine_{name}": info[name] for name in ("clock", "transfers", "cuda_graph") if name in info}
    return found


def in_memory(count: int, crop: int, choices: Choices) -> tuple[Dataset, DecodedImages]:
    """Photographs of no file, decoded already: whoever asks for a file's bytes fails."""
    height, width = (side * crop // CROP for side in PHOTOGRAPH)
    generator = np.random.default_rng(0)
    pixels = [_photograph(generator, height, width) for _ in range(min(count, DISTINCT))]
    digests = tuple(hashlib.sha256(f"photograph {index}".encode()).hexdigest() for index in range(count))
    decoded = DecodedImages(limit=count * pixels[0].nbytes)
    for index, digest in enumerate(digests):
        decoded.put(digest, choices.exif, pixels[index % len(pixels)])
    images = tuple(LabelledImage(f"{index}.jpg", Path("not-a-file", f"{index}.jpg"), 0) for index in range(count))
    return Dataset("made in memory", "test", ("one",), images, digests, "", "in memory", count), decoded


def _photograph(generator: np.random.Generator, height: int, width: int) -> npt.NDArray[np.uint8]:
    """Patches of 25 pixels under noise."""
    patches = generator.integers(8, 248, (height // 25 + 1, width // 25 + 1, 3), np.uint8)
    smooth = patches.repeat(25, axis=0).repeat(25, axis=1)[:height, :width]
    return np.asarray(smooth + generator.integers(0, 16, smooth.shape, np.uint8) - np.uint8(8))


def handed_over(asked: Loop, dataset: Dataset, decoded: DecodedImages, step: Pass, choices: Choices) -> Handed:
    """By the loop's own pipeline, into a session that notes what it is given and does nothing."""
    variant = asked.variant
    with closing(backends.open_session(variant, asked.device, asked.threads)) as session:
        noting = _Noting(session, variant.weights.num_classes)
    jobs = [Job(step, block) for block in shards.blocks(step, variant.weights.crop_size, dataset.digests)]
    workers = pipeline.default_workers(noting.device.split(":")[0])
    before = time.perf_counter()
    for _ in pipeline.compute(dataset, jobs, {step.form: noting}, variant.weights, choices, decoded, workers=workers):
        pass
    noting.handed.seconds = time.perf_counter() - before
    return noting.handed


class _Noting:
    """Scores of zero at once; takes pixels where the session does."""

    def __init__(self, session: Session, classes: int) -> None:
        self.device, self._classes = session.device, classes
        self.info: dict[str, Any] = {}
        self.handed = Handed("pixels" if hasattr(session, "submit") else "floats")
        if self.handed.kind == "pixels":
            self.submit = self._submit

    def __call__(self, images: npt.NDArray[Any]) -> npt.NDArray[np.float32]:
        self.handed.shapes.append(images.shape)
        self.handed.ready.setdefault(images.shape, images)
        return np.zeros((len(images), self._classes), np.float32)

    def _submit(self, pixels: npt.NDArray[np.uint8]) -> Callable[[], npt.NDArray[np.float32]]:
        scores = self(pixels)
        return lambda: scores

    def close(self) -> None:
        pass


def loop_once(asked: Loop, dataset: Dataset, decoded: DecodedImages, step: Pass) -> PassResults:
    """The whole of it, posteriors written to a cache of its own."""
    variant = asked.variant
    with tempfile.TemporaryDirectory(prefix="vggbench-") as folder:
        return run_passes(
            dataset,
            variant.weights,
            [step],
            backend=variant.backend,
            precision=variant.precision,
            quantization=variant.quantization,
            device=asked.device,
            threads=asked.threads,
            cache_root=Path(folder),
            decoded=decoded,
            sizes=variant.sizes,
        )


def session_once(asked: Loop, handed: Handed) -> Alone:
    """A fresh session, as the loop's is; by its own clock too, if it has one."""
    with closing(backends.open_session(asked.variant, asked.device, asked.threads)) as session:
        seconds = seconds_alone(session, handed)
        calls: list[float] = []
        if isinstance(session, Timed):
            images = handed.ready[max(handed.shapes)]
            if handed.kind == "pixels" and not asked.variant.takes_pixels:
                images = to_input(images, asked.variant.weights.preprocess)
            calls = session.time_calls(images, CALLS, True)
        return Alone(seconds, calls, dict(session.info))


def seconds_alone(session: Any, handed: Handed) -> float:
    """Of the calls that the loop makes, as many of them under way at once."""
    running: deque[Callable[[], Any]] = deque()
    before = time.perf_counter()
    for shape in handed.shapes:
        if handed.kind == "floats":
            session(handed.ready[shape])
            continue
        running.append(session.submit(handed.ready[shape]))
        if len(running) > IN_FLIGHT:
            running.popleft()()
    while running:
        running.popleft()()
    return time.perf_counter() - before
