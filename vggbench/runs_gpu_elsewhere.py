"""TensorRT in another Python, one without torch: driven over files by vggbench.engines.cli_engine, recorded here.

For a machine where the Python with torch has no TensorRT, and the one with TensorRT (8.6, as a rule) nothing but numpy.
"""

from __future__ import annotations

import json
import os
import subprocess
import tempfile
from datetime import datetime, timezone
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np

import vggbench
from vggbench import cache, environment, runs_inputs, runs_numerics
from vggbench.backends import describe
from vggbench.errors import BackendUnavailable
from vggbench.graphs import OUTPUT, graph_path
from vggbench.measure.batches import Views
from vggbench.measure.compare import Bench, Logits, network_run, record_of_logits
from vggbench.measure.records import latency_record
from vggbench.results import Record, Samples
from vggbench.variants import Variant

#: An engine of VGG-16 takes minutes to build where no timings are kept.
LIMIT_SECONDS = 900.0
#: Pixels of a call that gives scores; the engine splits them as its profile says.
_CALL_PIXELS = 64 * 224**2


def time_elsewhere(
    python: Path, variant: Variant, batches: tuple[int, ...], seconds: float, threads: int, here: dict[str, Any]
) -> list[Record]:
    """A latency record a batch, each of an engine made for it. Raises BackendUnavailable with that Python's line."""
    found = []
    crop = variant.weights.crop_size
    for batch in batches:
        started = datetime.now(timezone.utc).isoformat(timespec="seconds")
        said = _run(python, variant, "--batch", str(batch), "--seconds", str(max(seconds, 0.001)))
        session: Any = SimpleNamespace(info=_info(variant, threads, said["info"]), device="cuda:0")
        found.append(
            latency_record(
                session,
                variant,
                Samples(unit="seconds", values=said["seconds"]),
                batch,
                (crop, crop),
                environment=here,
                started=started,
                process=1,
                conditions={"clock": said["info"].get("clock", "CUDA events")},
            )
        )
    return found


def numerics_elsewhere(
    python: Path, variant: Variant, images: int, device: str, threads: int, reference: str = "fp32@pytorch"
) -> list[Record]:
    """One numerics record of a sample network: its engine's scores there against ``reference`` here."""
    started = datetime.now(timezone.utc).isoformat(timespec="seconds")
    setting = runs_inputs.setting(backend="pytorch", device=device, threads=threads)
    asked = runs_numerics.Asked(setting, reference=reference, variants=("fp32@pytorch",))
    dataset, weights = runs_numerics.open_inputs(asked, network=variant.weights.network, images=images)
    base_variant, *_ = runs_numerics.variants_of(dataset, weights, asked)
    views = Views(dataset, weights, runs_numerics.step_of(weights, asked), setting.choices, setting.on_bad)
    base = Bench(views, device, threads).logits(base_variant)
    inputs = np.concatenate(list(views.batches(_CALL_PIXELS)))
    with tempfile.TemporaryDirectory(prefix="vggbench-") as folder:
        np.save(Path(folder) / "images.npy", inputs)
        scores = Path(folder) / "scores.npz"
        files = ["--images", str(Path(folder) / "images.npy"), "--scores", str(scores)]
        said = _run(python, variant, "--batch", "1:32:64", "--seconds", "0", *files)
        with np.load(scores) as outputs:
            values = outputs[OUTPUT].astype(np.float32)
    info = {**_info(variant, threads, said["info"]), "device": "cuda:0"}
    logits = Logits(values, network_run(variant, views.step, info))
    note = "The engine ran in another Python; its layers were not looked at."
    return [record_of_logits(views, base, logits, note, environment.environment(), started)]


def _info(variant: Variant, threads: int, said: dict[str, Any]) -> dict[str, Any]:
    return {**describe(variant, "cuda:0", threads), **said, "runner": "another Python"}


def _run(python: Path, variant: Variant, *options: str) -> dict[str, Any]:
    """What cli_engine wrote. Raises BackendUnavailable."""
    drawn = Variant(variant.weights, variant.form, "tensorrt", variant.precision, quantization=variant.quantization)
    graph = graph_path(drawn, cache.root())
    tree = str(Path(vggbench.__file__).resolve().parents[1])
    paths = [tree, *filter(None, [os.environ.get("VGGBENCH_ENGINE_PATH")])]
    with tempfile.TemporaryDirectory(prefix="vggbench-") as folder:
        out = Path(folder) / "engine.json"
        command = [str(python), "-m", "vggbench.engines.cli_engine", str(graph), "--precision", variant.precision,
                   "--crop", str(variant.weights.crop_size), "--json", str(out), *options]  # fmt: skip
        try:
            done = subprocess.run(
                command, capture_output=True, text=True, errors="replace", timeout=LIMIT_SECONDS,
                env={**os.environ, "PYTHONPATH": os.pathsep.join(paths), "VGGBENCH_CACHE": str(cache.root())},
            )  # fmt: skip
        except (OSError, subprocess.TimeoutExpired) as error:
            raise BackendUnavailable(f"{python}: the engine's Python did not do it ({error}).") from error
        if done.returncode != 0 or not out.is_file():
            last = (done.stderr.strip().splitlines() or [f"it ended with status {done.returncode}"])[-1]
            raise BackendUnavailable(f"In {python.name}: {last.removeprefix('vggbench: ')}")
        found: dict[str, Any] = json.loads(out.read_text(encoding="utf-8"))
    return found
