"""NVIDIA's trtexec beside our own timing: its options for a mode, and what several of its versions print.

Its definitions are ours too (vggbench.modes): events around one enqueue or graph launch, 200 ms of warm-up, then at
least 10 queries and 3 s, percentiles without interpolation. trtexec is not in TensorRT's wheels.
"""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from vggbench.errors import BackendUnavailable
from vggbench.modes import LIKE_ITERATIONS, LIKE_SECONDS, LIKE_WARMUP_SECONDS, Mode

#: Runs a command, gives its output and exit status.
Runs = Callable[[list[str]], tuple[str, int]]
#: Building an engine of VGG-16 takes minutes.
_LIMIT_SECONDS = 1800
_SECONDS_NAMES = {"GPU Compute Time": "compute", "Latency": "latency", "Enqueue Time": "enqueue"}
#: Before 8.0: a heading, then a value a line.
_OLD_NAMES = {"GPU Compute": "compute", "Host Latency": "latency"}
_SET = {"cuda_graph": "--useCudaGraph", "spin": "--useSpinWait", "no_transfers": "--noDataTransfers"}
#: Where the defaults are the other way round, an option's name is looked up in its own help.
_UNSET = {
    "cuda_graph": r"--(?:no|disable)\w*Cuda\w*Graph\w*",
    "spin": r"--(?:no|disable)\w*Spin\w*|--\w*Block\w*(?:Wait|Sync)\w*",
    "no_transfers": r"--(?:use|include|enable|with|add)?\w*(?<!no)DataTransfers?\b",
}


@dataclass(frozen=True)
class Measured:
    """What trtexec printed, in seconds. compute, latency, enqueue: "min", "mean", "median", "max", "p90", ... as there.

    cuda_graph, transfers, spin: what it said of its mode, None where it did not.
    """

    version: tuple[int, int, int]
    queries_per_second: float
    compute: Mapping[str, float]
    latency: Mapping[str, float]
    enqueue: Mapping[str, float]
    cuda_graph: bool | None
    transfers: bool | None
    spin: bool | None

    def median_seconds(self, mode: Mode) -> float:
        """Of what lies between the two events in this mode."""
        return self.compute["median"] if mode.transfers == "none" else self.latency["median"]


def find() -> str:
    """trtexec's path. Raises BackendUnavailable."""
    found = shutil.which("trtexec")
    if found is None:
        raise BackendUnavailable(
            "trtexec is not on the PATH. It comes with TensorRT's archive or container, not with its wheel: unpack one "
            "and put its bin folder on the PATH."
        )
    return found


def measure(
    program: str, source: list[str], shape: tuple[int, int, int, int], mode: Mode, name: str = "images",
    run: Runs | None = None,
) -> Measured:  # fmt: skip
    """What trtexec measures in our mode. source: options that name an engine, or a graph and how to build it.

    shape: of the input called ``name``. Raises BackendUnavailable: it fails, says what is not understood, or ran in
    another mode.
    """
    run = run or _run
    help_text, _ = run([program, "--help"])
    sizes = [f"--shapes={name}:{'x'.join(map(str, shape))}"]
    output, status = run([program, *source, *sizes, *options(help_text, mode)])
    if status != 0 or "&&&& FAILED" in output:
        raise BackendUnavailable(f"trtexec failed: {_error(output)}.")
    found = parse(output)
    said = {"CUDA graph": (found.cuda_graph, bool(mode.cuda_graph)), "spin wait": (found.spin, mode.wait == "spin"),
            "transfers": (found.transfers, mode.transfers != "none")}  # fmt: skip
    for what, (there, ours) in said.items():
        if there is not None and there != ours:
            raise BackendUnavailable(
                f"trtexec ran with {what} {'on' if there else 'off'}, ours is the other way round."
            )
    return found


def options(help_text: str, mode: Mode) -> list[str]:
    """Its options for a mode, whatever its defaults are. Raises BackendUnavailable where it has none."""
    flipped = version_of(help_text)[0] >= 11
    wanted = {
        "cuda_graph": bool(mode.cuda_graph),
        "spin": mode.wait == "spin",
        "no_transfers": mode.transfers == "none",
    }
    found = [
        f"--iterations={LIKE_ITERATIONS}",
        f"--duration={LIKE_SECONDS:g}",
        f"--warmUp={1000 * LIKE_WARMUP_SECONDS:g}",
    ]
    known = set(re.findall(r"--\w+", help_text))
    if mode.transfers in ("in", "out"):
        raise BackendUnavailable("trtexec has transfers both ways or none. Time with --transfers both or none.")
    for key, on in wanted.items():
        if on == flipped:
            continue
        names = [_SET[key]] if on else sorted(name for name in known if re.fullmatch(_UNSET[key], name, re.IGNORECASE))
        if not names or names[0] not in known:
            raise BackendUnavailable(
                f"This trtexec has no option to turn {key.replace('_', ' ')} {'on' if on else 'off'}. Compare in its "
                f"own mode: --like trtexec-{'11' if flipped else '10'}."
            )
        found.append(names[0])
    if mode.transfers == "both" and "--exposeDMA" in known:
        found.append("--exposeDMA")  # one stream, as ours
    return found


def parse(output: str) -> Measured:
    """From 7 on. Raises BackendUnavailable for an output that is not understood."""
    text = re.sub(r"^\[[\d/:-]+\] \[[VIWE]\] ", "", output, flags=re.MULTILINE)
    values = {key: _line(text, name) for name, key in _SECONDS_NAMES.items()}
    for name, key in _OLD_NAMES.items():
        values[key] = values[key] or _block(text, name)
    rate = re.search(r"^throughput:\s*([\d.]+)\s*qps", text, re.IGNORECASE | re.MULTILINE)
    if rate is None or "median" not in values["compute"]:
        raise BackendUnavailable(
            f"trtexec's output is not understood: no throughput and GPU compute time in it ({_error(output)})."
        )
    return Measured(
        version_of(text),
        float(rate[1]),
        values["compute"],
        values["latency"] or values["compute"],
        values["enqueue"],
        _switch(text, "CUDA Graph"),
        _switch(text, "Data transfers"),
        _switch(text, "Spin-wait"),
    )


def version_of(text: str) -> tuple[int, int, int]:
    """8.6.1 of "[TensorRT v8601]", 10.7.0 of v100700. Raises BackendUnavailable."""
    found = re.search(r"\[TensorRT v(\d{4,6})\]", text)
    if found is None:
        raise BackendUnavailable(f"trtexec does not say its version ({_error(text)}).")
    number = int(found[1])
    if number >= 100000:
        return number // 10000, number // 100 % 100, number % 100
    return number // 1000, number // 100 % 10, number % 100


def _line(text: str, name: str) -> dict[str, float]:
    """ "GPU Compute Time: min = 1.1 ms, ..., percentile(99%) = 1.3 ms" -> seconds by name."""
    found = re.search(rf"^{name}: (min = .*)$", text, re.MULTILINE)
    if found is None:
        return {}
    parts = re.findall(r"([a-z]+)(?:\((\d+)%\))? = ([\d.eE+-]+) ms", found[1])
    return {f"p{percent}" if percent else key: float(value) / 1000 for key, percent, value in parts}


def _block(text: str, name: str) -> dict[str, float]:
    """The same of a heading with a value a line, as before 8.0."""
    found = re.search(rf"^{name}\n((?:\w[\w ]*: .*\n?)+)", text, re.MULTILINE)
    if found is None:
        return {}
    parts = re.findall(r"^(min|max|mean|median|percentile): ([\d.]+) ms(?:.* at (\d+)%)?", found[1], re.MULTILINE)
    return {f"p{percent}" if percent else key: float(value) / 1000 for key, value, percent in parts}


def _switch(text: str, name: str) -> bool | None:
    found = re.search(rf"^{name}: (Enabled|Disabled)", text, re.IGNORECASE | re.MULTILINE)
    return None if found is None else found[1].lower() == "enabled"


def _error(output: str) -> str:
    """Its first line that is an error, else its last one."""
    lines = [line.strip() for line in output.splitlines() if line.strip()]
    errors = [line for line in lines if "[E]" in line]
    return (errors or lines[-1:] or ["it printed nothing"])[0][:200]


def _run(command: list[str]) -> tuple[str, int]:
    try:
        done = subprocess.run(
            command,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            timeout=_LIMIT_SECONDS,
        )
    except subprocess.TimeoutExpired:
        raise BackendUnavailable(f"trtexec did not end within {_LIMIT_SECONDS} s ({Path(command[0]).name}).") from None
    except OSError as error:
        raise BackendUnavailable(f"trtexec does not start ({error.strerror}).") from error
    return done.stdout, done.returncode
