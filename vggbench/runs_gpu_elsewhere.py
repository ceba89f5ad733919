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
from vgg_reference.weights import Weights
from vggbench import cache, environment, runs_inputs, runs_numerics
from vggbench.backends import describe
from vggbench.errors import BackendUnavailable
from vggbench.graphs import OUTPUT, graph_path
from vggbench.images import Dataset
from vggbench.measure.batches import Views
from vggbench.measure.compare import Bench, Logits, network_run, record_of_logits
from vggbench.measure.records import latency_record
from vggbench.results import Record, Samples
from vggbench.runs_fresh import TimeIsOver, cause, in_fresh_process, seconds_left
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
    views = Views(dataset, weights, runs_numerics.step_of(weights, asked), setting.choices, setting.on_bad)
    base = in_fresh_process(reference_logits, asked, dataset, weights)
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


def reference_logits(asked: runs_numerics.Asked, dataset: Dataset, weights: Weights) -> Logits:
    """In a fresh process, for it may run on the GPU."""
    variant, *_ = runs_numerics.variants_of(dataset, weights, asked)
    setting = asked.setting
    views = Views(dataset, weights, runs_numerics.step_of(weights, asked), setting.choices, setting.on_bad)
    return Bench(views, setting.device, setting.threads).logits(variant)


def _info(variant: Variant, threads: int, said: dict[str, Any]) -> dict[str, Any]:
    return {**describe(variant, "cuda:0", threads), **said, "runner": "another Python"}


def _run(python: Path, variant: Variant, *options: str) -> dict[str, Any]:
    """What cli_engine wrote. Raises BackendUnavailable, TimeIsOver."""
    drawn = Variant(variant.weights, variant.form, "tensorrt", variant.precision, quantization=variant.quantization)
    graph = graph_path(drawn, cache.root())
    with tempfile.TemporaryDirectory(prefix="vggbench-") as folder:
        out = Path(folder) / "engine.json"
        command = [str(python), "-m", "vggbench.engines.cli_engine", str(graph), "--precision", variant.precision,
                   "--crop", str(variant.weights.crop_size), "--json", str(out), *options]  # fmt: skip
        left = seconds_left()
        try:
            done = subprocess.run(
                command, capture_output=True, text=True, errors="replace", env=_variables(Path(folder)),
                timeout=LIMIT_SECONDS if left is None else min(left, LIMIT_SECONDS),
            )  # fmt: skip
        except (OSError, subprocess.TimeoutExpired) as error:
            if seconds_left() == 0.0:
                raise TimeIsOver("ended, for its time was over") from error
            raise BackendUnavailable(f"{python}: the engine's Python did not do it ({error}).") from error
        if done.returncode != 0 or not out.is_file():
            said = done.stderr.strip().splitlines() if done.returncode > 0 else []
            last = said[-1].removeprefix("vggbench: ") if said else f"it was {cause(done.returncode)}"
            raise BackendUnavailable(f"In {python.name}: {last}")
        found: dict[str, Any] = json.loads(out.read_text(encoding="utf-8"))
    return found


def _variables(folder: Path) -> dict[str, str]:
    """With this package on the other Python's path, and nothing that lies beside it: an installed one has a numpy and a
    torch for this Python there.
    """
    package = folder / "vggbench"
    package.symlink_to(Path(vggbench.__file__).resolve().parent, target_is_directory=True)
    paths = [str(folder), *filter(None, [os.environ.get("VGGBENCH_ENGINE_PATH")])]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(paths), "VGGBENCH_CACHE": str(cache.root())}
