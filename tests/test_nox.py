"""The sessions that the README names exist, and the right build of torch is chosen before anything is downloaded."""

from __future__ import annotations

import importlib.util
import itertools
import re
import subprocess
import sys
import threading
from pathlib import Path
from types import ModuleType

import pytest

TREE = Path(__file__).parents[1]

pytest.importorskip("nox", reason="nox runs the sessions and is not installed beside the tests")


@pytest.fixture(scope="module")
def noxfile() -> ModuleType:
    spec = importlib.util.spec_from_file_location("noxfile_under_test", TREE / "noxfile.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


class Session:
    """Remembers what would be installed."""

    def __init__(self, fail_index: bool = False) -> None:
        self.installed: list[tuple[str, ...]] = []
        self.fail_index = fail_index

    def install(self, *arguments: str) -> None:
        if self.fail_index and "--index-url" in arguments:
            import nox

            raise nox.command.CommandFailed("pip failed")
        self.installed.append(arguments)

    def warn(self, text: str) -> None:
        pass


def test_with_a_driver_torch_comes_from_the_configured_index(noxfile, monkeypatch):
    monkeypatch.setattr(noxfile, "has_nvidia_driver", lambda: True)
    monkeypatch.setattr(noxfile, "answers", lambda address: pytest.fail("the CPU index was asked"))
    session = Session()
    noxfile.install_torch(session)
    assert session.installed == [("torch", "-c", str(TREE / "constraints" / "gpu-trt11.txt"))]


def test_without_a_driver_the_cpu_index_is_used_where_it_answers(noxfile, monkeypatch):
    monkeypatch.setattr(noxfile, "has_nvidia_driver", lambda: False)
    monkeypatch.setattr(noxfile, "answers", lambda address: True)
    session = Session()
    noxfile.install_torch(session)
    assert len(session.installed) == 1
    assert session.installed[0][-2:] == ("--index-url", noxfile.CPU_INDEX)


@pytest.mark.parametrize("answers", [False, True])
def test_where_the_cpu_index_does_not_deliver_the_configured_one_does(noxfile, monkeypatch, answers):
    monkeypatch.setattr(noxfile, "has_nvidia_driver", lambda: False)
    monkeypatch.setattr(noxfile, "answers", lambda address: answers)
    session = Session(fail_index=True)
    noxfile.install_torch(session)
    assert session.installed == [("torch", "-c", str(TREE / "constraints" / "cpu.txt"))]


def test_an_index_that_never_answers_costs_seconds_only(noxfile, monkeypatch):
    monkeypatch.setattr(noxfile, "ANSWER_SECONDS", 0.2)

    given_up = threading.Event()

    def hang(*arguments: object, **options: object) -> None:
        waited.append(given_up.wait(60))
        raise OSError("no answer")

    waited: list[bool] = []
    monkeypatch.setattr(noxfile.urllib.request, "urlopen", hang)
    assert noxfile.answers("https://index.invalid/") is False
    assert waited == [], "the answer was waited for"
    given_up.set()


def test_the_tripwire_measures_anew_each_time_whatever_the_commit_changed(noxfile, monkeypatch, tmp_path):
    from vggbench.gate_axes import NAMES

    left = tmp_path / "ab" / "runs" / "base-001.jsonl"
    left.parent.mkdir(parents=True)
    left.write_text("of the last time")
    ran = []

    class Run:
        posargs = ()

        def create_tmp(self):
            return str(tmp_path)

        def log(self, text):
            pytest.fail(text)

        def run(self, *command, **how):
            if "ab" in command:
                ran.append((command, how["success_codes"], left.exists()))
            return "--max-seconds"

    monkeypatch.setattr(noxfile, "install", lambda *arguments: None)
    noxfile.tripwire(Run())
    ((command, accepted, was_there),) = ran
    assert not was_there, "ab would take it for a run of this commit"
    assert accepted == [0, 3]
    axes = [after for word, after in itertools.pairwise(command) if word == "--across"]
    assert "vggbench" in axes, "or the commit that raises the version could not land"
    assert set(axes) <= set(NAMES)


def test_every_pinned_set_pins_torch_exactly_and_includes_the_rest():
    for name in ("cpu", "gpu-trt10", "gpu-trt11"):
        text = (TREE / "constraints" / f"{name}.txt").read_text()
        assert "-c base.txt" in text
        assert re.search(r"^torch==\d+\.\d+\.\d+$", text, re.MULTILINE)


def test_every_dependency_is_pinned():
    pins = {line.split("==")[0] for line in (TREE / "constraints" / "base.txt").read_text().splitlines()}
    text = (TREE / "pyproject.toml").read_text()
    wanted = re.findall(r'"([a-z0-9-]+)[><=]', text.split("dependencies = [")[1].split("\n]")[0])
    assert len(wanted) > 8
    assert set(wanted) - {"torch"} <= pins


def test_the_sessions_of_the_readme_exist():
    done = subprocess.run(
        [sys.executable, "-m", "nox", "--list", "--noxfile", str(TREE / "noxfile.py")], capture_output=True, text=True
    )
    listed = set(re.findall(r"^[-*] (\S+)", done.stdout, re.MULTILINE))
    named = set(re.findall(r"nox -s ((?:[a-z]+ ?)+)", (TREE / "README.md").read_text()))
    assert {name for names in named for name in names.split()} <= listed, done.stderr
    assert {"reproduce", "tests", "lint", "types", "family", "wheel"} <= listed
