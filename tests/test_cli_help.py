"""The command line's help, its exit codes, and the process that it is."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys

import pytest
import typer
from cli_runs import CLASSES, EACH, TINY, TREE, environment, process, run

import vggbench
from vggbench import backends, cli_common, errors, protocols
from vggbench.cli import app

pytestmark = pytest.mark.usefixtures("one_cache")


def test_every_error_kind_has_its_exit_code_in_readme_and_help():
    kinds = [kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, Exception)]
    readme = (TREE / "README.md").read_text()
    told = {int(code) for code in re.findall(r"^\| (\d+) \|", readme, re.MULTILINE)}
    assert {kind.exit_code for kind in kinds} <= set(cli_common.EXIT_CODES)
    assert told == set(cli_common.EXIT_CODES)
    flat = " ".join(run("--help").output.split())
    assert all(f"{code} " in flat for code in cli_common.EXIT_CODES)


def test_the_help_of_options_names_every_accepted_value():
    flat = " ".join(run("evaluate", "--help").output.replace("│", " ").split())
    for name, accepted in protocols.CHOICES.items():
        assert f"--{name.replace('_', '-')}"[:14] in flat
        text = option_help("evaluate", name)
        assert [value for value in accepted if value not in text] == []
    for name, accepted in {
        "protocol": protocols.PROTOCOLS,
        "backend": backends.BACKENDS,
        "precision": backends.PRECISIONS,
        "device": backends.DEVICES,
    }.items():
        assert [value for value in accepted if value not in option_help("evaluate", name)] == []


def option_help(command: str, name: str) -> str:
    import inspect

    from vggbench import cli_run

    annotated = inspect.get_annotations(getattr(cli_run, command), eval_str=True)[name]
    return annotated.__metadata__[0].help


def test_version_is_the_packages():
    assert run("--version").output.strip() == f"vggbench {vggbench.__version__}"


def commands(group=None, path=()):
    """(name, command) of every command, groups left out."""
    group = group or typer.main.get_command(app)
    for name, command in group.commands.items():
        if hasattr(command, "commands"):
            yield from commands(command, (*path, name))
        else:
            yield " ".join((*path, name)), command


@pytest.mark.parametrize("command", [name for name, _ in commands()])
def test_every_command_has_help(command):
    result = run(*command.split(), "--help")
    assert result.exit_code == 0
    assert "Usage: vggbench " in result.output


def test_no_help_holds_brackets_that_rich_takes_for_markup():
    texts = [(name, option.help or "") for name, command in commands() for option in command.params]
    texts += [(name, command.help or "") for name, command in commands()]
    assert len(texts) > 100
    assert [text for text in texts if re.search(r"\[[a-z/#@]", text[1])] == []


# As a process


def test_python_dash_m_runs_and_is_silent_in_a_pipe(photos):
    done = process("evaluate", "--data", photos, "--network", "A", "--weights", "random:0", *TINY, "--protocol",
                   "center", "--scale", 32, "--backend", "pytorch", "--json")  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["images"] == CLASSES * EACH
    assert done.stderr == ""


def test_a_reader_that_goes_away_is_no_error_message():
    command, pipe = [sys.executable, "-m", "vggbench", "cache", "ls", "--json"], subprocess.PIPE
    with subprocess.Popen(command, stdout=pipe, stderr=pipe, text=True, env=environment()) as started:
        started.stdout.close()
        assert started.stderr.read() == ""
        assert started.wait(600) == cli_common.EXIT_BROKEN_PIPE


def test_help_loads_no_library_that_computes():
    code = (
        "import sys; from vggbench.cli import app; "
        "print([m for m in ('torch', 'numpy', 'onnxruntime', 'PIL', 'altair', 'pydantic') if m in sys.modules])"
    )
    before = os.times()
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment())
    assert done.stdout.strip() == "[]", done.stderr
    after = os.times()
    taken = after.children_user + after.children_system - before.children_user - before.children_system
    assert 0 < taken < 5, "seconds of a core"
