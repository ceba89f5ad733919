"""Everything this project does, as sessions: `nox -s reproduce`, `nox -s tests`; `nox -l` lists them."""

from __future__ import annotations

import ctypes
import hashlib
import http.client
import shutil
import threading
import urllib.request
from pathlib import Path

import nox

nox.needs_version = ">=2024.4.15"
nox.options.sessions = ["reproduce", "tests"]
nox.options.default_venv_backend = "virtualenv"
nox.options.reuse_venv = "yes"

HERE = Path(__file__).parent
#: What `tripwire` lets differ: its command is the same on both sides, so another backend, say, is the commit's doing.
TRIPWIRE_ACROSS = ("vggbench", "backend", "precision", "calibration", "form", "transfers", "threads", "variables")
CPU_INDEX = "https://download.pytorch.org/whl/cpu"
ANSWER_SECONDS = 4.0


@nox.session
def reproduce(session: nox.Session) -> None:
    """The page: the paper's tables beside measured numbers. Arguments after -- go to `vggbench reproduce`."""
    install(session, "numba")
    session.run("python", "-m", "vggbench", "reproduce", "--out", "out", *session.posargs)


@nox.session
def tests(session: nox.Session) -> None:
    """The tests. Arguments after -- go to pytest."""
    install(session, "test")
    session.run("python", "-m", "pytest", *session.posargs)


@nox.session
def lint(session: nox.Session) -> None:
    """Style and likely mistakes, by ruff."""
    install_tools(session, "ruff")
    session.run("ruff", "check", ".")
    session.run("ruff", "format", "--check", ".")


@nox.session
def types(session: nox.Session) -> None:
    """mypy --strict over both packages."""
    install(session, "types")
    session.run("python", "-m", "mypy")


@nox.session
def bench(session: nox.Session) -> None:
    """What is promised of speed: loop, pipeline, conversion, timing, hot paths. Arguments after -- go to pytest."""
    install(session, "test")
    # As `evaluate` and `reproduce` run: waiting OpenMP threads burn the cores on which images are decoded.
    quiet = {"OMP_WAIT_POLICY": "passive"}
    session.run("python", "-m", "pytest", "tests/bench", "--benchmark-only", "-s", *session.posargs, env=quiet)


@nox.session
def gpu(session: nox.Session) -> None:
    """Builds, checks and times everything on a machine with a GPU. Arguments after -- go to `vggbench gpu`."""
    install(session, "numba")
    for extra in ("tensorrt", "torch-tensorrt", "modelopt", "nvml"):
        try:
            session.install("-e", f".[{extra}]", "-c", str(constraints()))
        except nox.command.CommandFailed:
            session.warn(f"{extra} could not be installed; its steps are reported as not run.")
    session.run("python", "-m", "vggbench", "gpu", *session.posargs)


@nox.session
def tripwire(session: nox.Session) -> None:
    """The gate on the project itself: HEAD against the commit before it, in one environment, on any machine.

    25 % is what a shared machine can honestly tell: it catches a mistake that makes everything slower, no more. Not
    decided counts as passed. Arguments after -- name another commit to compare with.
    """
    install(session, "test")
    ref = session.posargs[0] if session.posargs else "HEAD~1"
    folder = Path(session.create_tmp()).resolve()
    before, runs = folder / "before", folder / "ab"
    if not _commit_is_here(session, ref):
        session.log(f"{ref} is not in this clone (a shallow one?); there is nothing to compare with.")
        return
    for left in (before, runs):  # nox keeps its temporary folder, and ab takes finished runs in its own as done
        shutil.rmtree(left, ignore_errors=True)
    session.run("git", "worktree", "prune", external=True)
    session.run("git", "worktree", "add", "--detach", str(before), ref, external=True, silent=True)
    try:
        old = {"PYTHONPATH": f"{before}:{before}/reference"}
        help_ = session.run(
            "python", "-m", "vggbench", "latency", "--help", env=old, silent=True, success_codes=range(256)
        )
        if "--max-seconds" not in str(help_):
            session.log(f"{ref} has no such `vggbench latency` yet; there is nothing to compare with.")
            return
        measure = "-m vggbench latency --network A --weights sample --batch 8 --min-seconds 0.3 --max-seconds 1"
        sides = {
            side: f"env PYTHONPATH={tree}:{tree}/reference python {measure}"
            for side, tree in (("base", before), ("head", HERE))
        }
        session.run(
            *("python", "-m", "vggbench", "ab", "--base", sides["base"], "--head", sides["head"]),
            *("--out", str(runs), "--tolerance", "25", "--quiet"),
            *(word for axis in TRIPWIRE_ACROSS for word in ("--across", axis)),
            success_codes=[0, 3],
        )
    finally:
        session.run("git", "worktree", "remove", "--force", str(before), external=True)


def _commit_is_here(session: nox.Session, ref: str) -> bool:
    command = ["git", "rev-parse", "--verify", "--quiet", f"{ref}^{{commit}}"]
    return bool(session.run(*command, external=True, silent=True, success_codes=[0, 1, 128]))


@nox.session
def family(session: nox.Session) -> None:
    """Trains the sample family anew: hours. Arguments after -- go to the command, as --seeds 0 or --jobs 2."""
    install(session)
    session.run("python", "-m", "vggbench.train.family", "--out", "out/family", *session.posargs)
    session.run("python", "-m", "vggbench.runs_family", "out/family")


@nox.session
def wheel(session: nox.Session) -> None:
    """The built wheel, installed without the clone, does its job. Arguments after -- go to `vggbench reproduce`."""
    folder = Path(session.create_tmp()).resolve()
    built = folder / "dist"
    shutil.rmtree(built, ignore_errors=True)
    install_torch(session)
    session.run("python", "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", str(built), str(HERE))
    (file,) = built.glob("*.whl")
    # Without its dependencies a second time, because a rebuilt wheel has the version of the one before it.
    session.install(str(file), "-c", str(constraints()))
    session.install("--force-reinstall", "--no-deps", str(file))
    with session.chdir(folder):
        session.run("vggbench", "doctor")
        session.run("vggbench", "reproduce", "--out", "out", *session.posargs)


def install(session: nox.Session, extra: str | None = None) -> None:
    """torch's right build, then the project (editable) with pinned versions; nothing if that is already there."""
    stamp = Path(session.virtualenv.location) / "vggbench-installed"
    wanted = _state(session, extra)
    if stamp.exists() and stamp.read_text() == wanted:
        session.log("Installed already; nothing that decides it has changed.")
        return
    stamp.unlink(missing_ok=True)
    install_torch(session)
    session.install("-e", f".[{extra}]" if extra else ".", "-c", str(constraints()))
    stamp.write_text(wanted)


def install_torch(session: nox.Session) -> None:
    """A CUDA build only where an NVIDIA driver is found; else the CPU build from PyTorch's own index if it answers."""
    if not has_nvidia_driver() and answers(CPU_INDEX + "/"):
        try:
            # Without dependencies: that index holds few versions of them; the next step brings the pinned ones.
            session.install("torch", "-c", "constraints/cpu.txt", "--no-deps", "--index-url", CPU_INDEX)
        except nox.command.CommandFailed:
            session.warn("PyTorch's CPU index did not deliver; taking torch from the configured index.")
        else:
            return
    session.install("torch", "-c", str(constraints()))


def install_tools(session: nox.Session, *tools: str) -> None:
    """Tools that need nothing of the project, at their pinned versions."""
    session.install(*tools, "-c", "constraints/base.txt")


def constraints() -> Path:
    """The pinned set for this machine."""
    return HERE / "constraints" / ("gpu-trt11.txt" if has_nvidia_driver() else "cpu.txt")


def has_nvidia_driver() -> bool:
    """Whether the driver's library or its tool is here; no CUDA package is needed to ask."""
    try:
        ctypes.CDLL("libcuda.so.1")
    except OSError:
        return shutil.which("nvidia-smi") is not None
    return True


def answers(address: str) -> bool:
    """Whether the address answers within seconds. In a thread, because looking up a name knows no time limit."""
    found: list[bool] = []

    def ask() -> None:
        try:
            request = urllib.request.Request(address, method="HEAD")
            with urllib.request.urlopen(request, timeout=ANSWER_SECONDS) as answer:
                found.append(answer.status == 200)
        except (OSError, http.client.HTTPException):
            pass

    thread = threading.Thread(target=ask, daemon=True)
    thread.start()
    thread.join(ANSWER_SECONDS)
    return bool(found) and found[0]


def _state(session: nox.Session, extra: str | None) -> str:
    """What decides an environment's content: this project's metadata, the pins, the Python and its place."""
    python = (Path(session.virtualenv.location) / "pyvenv.cfg").read_text()
    sha = hashlib.sha256(f"{python} {extra} {HERE} {constraints().name}".encode())
    for file in [HERE / "pyproject.toml", HERE / "noxfile.py", *sorted((HERE / "constraints").glob("*.txt"))]:
        sha.update(file.read_bytes())
    return sha.hexdigest()
