"""An engine by itself: built from a graph of `vggbench export`, run and timed in a Python without torch.

python -m vggbench.engines.cli_engine GRAPH.onnx --precision fp16 --batch 1:8:32 --json OUT.json
"""

from __future__ import annotations

import argparse
import importlib
import io
import json
import os
import sys
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from vggbench.engines import adapter
from vggbench.engines.buffers import PROVIDERS
from vggbench.engines.build import PRECISIONS, Options
from vggbench.engines.device import NO_DRIVER, first_device
from vggbench.engines.layers import described, layers_of
from vggbench.engines.opening import Settings, opened
from vggbench.engines.profile import profile_for
from vggbench.engines.run import Runner
from vggbench.engines.timing import Timer
from vggbench.errors import BackendUnavailable, DataError, StorageError, VggbenchError
from vggbench.modes import LIKE, Mode
from vggbench.sizes import parse

_WARMUP_SECONDS, _LEAST_CALLS = 0.2, 10


def main(arguments: Sequence[str] | None = None) -> int:
    """Prints where the result is; an error is one line on standard error and its exit code."""
    asked = _parser().parse_args(arguments)
    try:
        found = run(asked)
        text = json.dumps(found, indent=1) + "\n"
        if asked.json is None:
            print(text, end="")
        else:
            _write(asked.json, text.encode())
    except VggbenchError as error:
        print(f"vggbench: {error}", file=sys.stderr)
        return error.exit_code
    return 0


def run(asked: argparse.Namespace) -> dict[str, Any]:
    """What the engine is (info), its layers, and the seconds of its calls by batch. Raises VggbenchError."""
    if first_device() is None:  # before TensorRT is touched: without a driver 8.6 ends the process
        raise BackendUnavailable(NO_DRIVER)
    try:
        trt = importlib.import_module("tensorrt")
    except Exception as error:  # a broken installation raises what it likes
        raise BackendUnavailable(f"TensorRT does not load ({' '.join(str(error).split())}).") from error
    why = adapter.why_not(trt, asked.precision)
    if why is not None:
        raise BackendUnavailable(f"{why}.")
    if not asked.graph.is_file():
        raise DataError(f"{asked.graph}: no such graph. Make one with: vggbench export")
    profile = profile_for(asked.crop, asked.dense, parse(asked.batch, asked.sizes))
    options = Options(asked.workspace_mib and asked.workspace_mib << 20, asked.optimization_level)
    settings = Settings(profile, options, asked.buffers)
    runner, info = opened(trt, asked.graph, asked.precision, profile, settings)
    with ExitStack() as ending:
        ending.callback(runner.close)
        timer = Timer(runner)
        ending.callback(timer.close)
        timer.use(replace(LIKE[asked.like], in_flight=1) if asked.like else Mode())
        shape = profile.shapes(runner.channels_last)[1]
        runner.reshape(shape)
        found = layers_of(trt, runner.engine, runner.context, None)
        kept = asked.float_layers.split(",")
        names = [name for name in dict.fromkeys(name for one in found for name in one.names) if name not in kept]
        info |= described(found, names, asked.precision, str(info["engine_key"])[:12], str(info["profile"]))
        layers = json.loads(str(info["layers"]))["layers"]
        if asked.images is not None:
            _write_scores(runner, asked.images, asked.scores)
        seconds = _timed(runner, timer, shape, asked.seconds) if asked.seconds else []
        return {"info": {**info, **timer.info}, "layers": layers, "shape": shape, "seconds": seconds}


def _timed(runner: Runner, timer: Timer, shape: tuple[int, ...], least: float) -> list[float]:
    """Of calls on one input of random values, after a warm-up; trtexec's rules."""
    images = np.random.default_rng(0).normal(0, 64, shape).astype(runner.input.dtype)
    for seconds, calls in ((_WARMUP_SECONDS, 1), (least, _LEAST_CALLS)):
        taken: list[float] = []
        started = time.perf_counter()
        while time.perf_counter() - started < seconds or len(taken) < calls:
            taken += timer.time_calls(images, max(1, len(taken) // 10), False)
    return taken


def _write_scores(runner: Runner, images: Path, scores: Path | None) -> None:
    """Every output for a .npy of inputs, as .npz."""
    try:
        given = np.ascontiguousarray(np.load(images), dtype=runner.input.dtype)
    except (OSError, ValueError) as error:
        raise DataError(f"{images}: not an array of numpy's ({error}). Give a .npy file of inputs.") from error
    if given.ndim != 4:
        raise DataError(f"{images}: an array of {given.shape}; accepted are images of the engine's {runner.profile}.")
    outputs: dict[str, Any] = dict(runner(given))
    file = io.BytesIO()
    np.savez(file, **outputs)
    _write(scores or images.with_suffix(".scores.npz"), file.getvalue())


def _write(path: Path, data: bytes) -> None:
    """Whole or not at all."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        temporary.write_bytes(data)
        os.replace(temporary, path)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise StorageError(f"{path}: cannot write ({error.strerror}). Name another file.") from error


def _parser() -> argparse.ArgumentParser:
    grammar = argparse.ArgumentParser(prog="python -m vggbench.engines.cli_engine", description=(__doc__ or ""))
    grammar.add_argument("graph", type=Path, help="of vggbench export")
    grammar.add_argument("--precision", choices=PRECISIONS, default="fp32", help="of the graph; tf32 takes an fp32 one")
    grammar.add_argument("--float-layers", default="", help="as the graph was exported with: wider, and no fallback")
    grammar.add_argument("--crop", type=int, default=224, help="the network's crop in pixels")
    grammar.add_argument("--dense", action="store_true", help="the graph is in dense form")
    grammar.add_argument("--batch", help="N or MIN:OPT:MAX images")
    grammar.add_argument("--sizes", help="of dense images: N or MIN:OPT:MAX, each a side or HxW")
    grammar.add_argument("--buffers", choices=list(PROVIDERS), help="default: the first that works")
    grammar.add_argument("--workspace-mib", type=int, help="most device memory for a kernel's own use")
    grammar.add_argument("--optimization-level", type=int, choices=range(6), help="of the builder")
    grammar.add_argument("--like", choices=list(LIKE), help="time as trtexec does by default")
    grammar.add_argument("--seconds", type=float, default=3.0, help="to be timed at least; 0 for none")
    grammar.add_argument("--images", type=Path, help=".npy of inputs to be run")
    grammar.add_argument("--scores", type=Path, help=".npz for what comes out")
    grammar.add_argument("--json", type=Path, help="for the result, else it is printed")
    return grammar


if __name__ == "__main__":
    raise SystemExit(main())
