"""An engine that torch-tensorrt built, run by the project's own runner: so that both are timed alike."""

from __future__ import annotations

import hashlib
import time
from contextlib import ExitStack
from typing import Any

from vggbench.backends import Array, check_images, check_scores, tensorrt, torch_tensorrt
from vggbench.engines import buffers, layers
from vggbench.engines.run import Runner
from vggbench.engines.timing import Timer
from vggbench.modes import Mode
from vggbench.variants import Variant


class NativePlan:
    """See vggbench.backends.Session and vggbench.measure.latency.Timed; a context that closes itself."""

    def __init__(self, variant: Variant, plan: bytes, info: dict[str, Any], open_seconds: float) -> None:
        self._variant, self.device, self.open_seconds = variant, "cuda:0", open_seconds
        name, provided = buffers.provider(None)
        self._runner = Runner(tensorrt.load(), plan, provided)
        with ExitStack() as failing:
            failing.callback(self._runner.close)
            self._timer = Timer(self._runner)
            failing.callback(self._timer.close)
            self.info: dict[str, Any] = {**info, "runner": "native", "buffers": name, **self._timer.info}
            self.info |= self._layers(plan)
            failing.pop_all()

    def _layers(self, plan: bytes) -> dict[str, Any]:
        """As far as the plan tells: torch-tensorrt builds it with names of its own, and mostly without details."""
        runner, precision = self._runner, self._variant.precision
        runner.reshape(runner.profile.shapes()[1])
        found = layers.layers_of(tensorrt.load(), runner.engine, runner.context, ())
        return layers.described(found, (), precision, hashlib.sha256(plan).hexdigest()[:12], str(runner.profile))

    @classmethod
    def of(cls, variant: Variant, threads: int | None, batch: int, size: tuple[int, int]) -> NativePlan:
        """Builds the engine for one batch and size. Raises BackendUnavailable."""
        before = time.perf_counter()
        built = torch_tensorrt.open_for(variant, "cuda", threads, batch, size)
        try:
            plan = built.plan(*size)
            info = dict(built.info)
        finally:
            built.close()
        return cls(variant, plan, info, time.perf_counter() - before)

    def __call__(self, images: Array) -> Array:
        check_images(images, self._variant)
        (scores,) = self._runner(images).values()
        return check_scores(scores, self._variant)

    def use(self, mode: Mode) -> None:
        """How time_calls times."""
        self._timer.use(mode)
        self.info |= self._timer.info

    def time_calls(self, images: Array, calls: int, back_to_back: bool) -> list[float]:
        """See vggbench.measure.latency.Timed."""
        taken = self._timer.time_calls(images, calls, back_to_back)
        self.info |= self._timer.info
        return taken

    def close(self) -> None:
        """Free the device's memory; a second close does nothing."""
        self._timer.close()
        self._runner.close()

    def __enter__(self) -> NativePlan:
        return self

    def __exit__(self, *ended: object) -> None:
        self.close()
