"""A deterministic session for tests of the other parts: no network, scores from each image alone.

It has every precision and no row in vggbench.precisions, for nothing computes in any: a coarser precision gives the
same scores in coarser steps, so that what compares precisions has something to find.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import numpy as np

from vggbench.backends import PRECISIONS, Array, check_images, check_scores, describe
from vggbench.variants import Variant

#: Of the scores, about as coarse as the precision is among values up to 6.
_STEPS = {"bf16": 2.0**-6, "fp16": 2.0**-9, "int8": 2.0**-4, "tf32": 2.0**-9, "fp8": 2.0**-3}


def available() -> str | None:
    """None: it needs nothing."""
    return None


def precisions(device: str) -> dict[str, str | None]:
    """All of them, whatever the device."""
    return dict.fromkeys(PRECISIONS)


def has_cuda() -> bool:
    """It runs on the CPU."""
    return False


def open_session(variant: Variant, device: str, threads: int | None) -> FakeSession:
    """A fake that neither sleeps nor fails."""
    return FakeSession(variant, threads=threads or 1)


class FakeSession:
    """See vggbench.backends.Session.

    calls and images count what it was asked for; it sleeps ``seconds_per_image`` and, from call ``fail_at`` on
    (counted from 0), raises ``error()``.
    """

    def __init__(
        self,
        variant: Variant,
        *,
        threads: int = 1,
        seconds_per_image: float = 0.0,
        fail_at: int | None = None,
        error: Callable[[], BaseException] = lambda: RuntimeError("the fake session fails here"),
    ) -> None:
        self.device = "cpu"
        self.info: dict[str, Any] = {
            **describe(variant, "cpu", threads),
            "arithmetic": "none: made-up scores",
            "fake": True,
        }
        self.calls = 0
        self.images = 0
        self.closed = False
        self._variant = variant
        self._seconds_per_image = seconds_per_image
        self._fail_at = fail_at
        self._error = error
        # The weights' digest decides the scores, as it does in a network.
        self._phases = np.random.default_rng(int(variant.weights.digest[:16], 16)).uniform(
            0, 2 * np.pi, (6, variant.weights.num_classes)
        )

    def __call__(self, images: Array) -> Array:
        check_images(images, self._variant)
        if self.closed:
            raise ValueError("This session is closed.")
        call = self.calls
        self.calls += 1
        if self._fail_at is not None and call >= self._fail_at:
            raise self._error()
        self.images += len(images)
        if self._seconds_per_image:
            time.sleep(self._seconds_per_image * len(images))
        return check_scores(np.stack([self._scores(image) for image in images]), self._variant)

    def _scores(self, image: Array) -> Array:
        """Of one image (3, h, w): waves in the mean and the spread of each channel. Returns (classes,)."""
        pixels = image.astype(np.float64)
        statistics = np.concatenate([pixels.mean(axis=(1, 2)), pixels.std(axis=(1, 2))])
        scores = np.sin(self._phases + statistics[:, None] / 16).sum(axis=0)
        step = _STEPS.get(self._variant.precision)
        rounded: Array = (scores if step is None else np.round(scores / step) * step).astype(np.float32)
        return rounded

    def close(self) -> None:
        """A second close does nothing."""
        self.closed = True
