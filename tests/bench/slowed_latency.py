"""A session that is really slowed, timed as `vggbench latency` times one: a command for `vggbench ab`.

python tests/bench/slowed_latency.py --network fake|A|D --slower PERCENT --processes 1 --no-peak --out FILE
"""

from __future__ import annotations

import argparse
import time
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from vgg_reference.weights import random_weights
from vggbench import environment
from vggbench.backends import Array, Session, open_session
from vggbench.backends.fake import FakeSession
from vggbench.measure.latency import measure_latency
from vggbench.measure.records import latency_record
from vggbench.measure.turns import joined
from vggbench.results import write_records
from vggbench.variants import Variant

#: A call of the fake: long beside what a sleep is late by, on a busy machine too.
FAKE_SECONDS = 0.05


class Slowed:
    """A session whose every call takes a share longer; what it says of itself does not change."""

    def __init__(self, session: Session, share: float) -> None:
        self._session, self._share = session, share
        self.device, self.info = session.device, session.info

    def __call__(self, images: Array) -> Array:
        before = time.perf_counter()
        scores = self._session(images)
        until = time.perf_counter() + self._share * (time.perf_counter() - before)
        while time.perf_counter() < until:  # a sleep would free the core and let it cool
            pass
        return scores

    def close(self) -> None:
        self._session.close()


def opened(network: str, share: float) -> tuple[Any, Variant]:
    """The session and its variant; "fake" computes nothing and sleeps."""
    if network == "fake":
        tiny = random_weights("A", 0, width=1 / 64, hidden_width=1 / 256, num_classes=7, crop_size=32)
        variant = Variant(tiny, "crop", "fake")
        return FakeSession(variant, seconds_per_image=FAKE_SECONDS * (1 + share)), variant
    variant = Variant(random_weights(network, 0, width=1 / 4), "crop", "onnxruntime")
    session = open_session(variant, "cpu", None)
    return (Slowed(session, share) if share else session), variant


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--network", default="fake")
    parser.add_argument("--slower", type=float, default=0.0, help="percent")
    parser.add_argument("--min-seconds", type=float, default=0.5)
    parser.add_argument("--processes", type=int, default=1, choices=[1])
    parser.add_argument("--no-peak", action="store_true")
    parser.add_argument("--out", type=Path, required=True)
    asked = parser.parse_args()
    session, variant = opened(asked.network, asked.slower / 100)
    size = (variant.weights.crop_size, variant.weights.crop_size)
    started = datetime.now(timezone.utc).isoformat(timespec="seconds")
    turns = joined()
    samples = measure_latency(session, 1, size, asked.min_seconds, turns=turns)
    here = environment.environment()
    found = latency_record(
        session, variant, samples, 1, size, environment=here, started=started,
        conditions={"turns": len(turns.waits)} if turns is not None else None,
    )  # fmt: skip
    write_records(asked.out, [found])
    session.close()


if __name__ == "__main__":
    main()
