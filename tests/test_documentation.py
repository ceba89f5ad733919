"""What the documentation names is there: commands and their options, files, nox sessions."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import typer

from vggbench.cli import app

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / name for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md")] + sorted(ROOT.glob("docs/**/*.md"))
COMMAND = re.compile(r"vggbench ((?:[a-z][a-z-]*)(?: [a-z][a-z-]*)?)((?: +[^`\n|&;>)]*)?)")
FILE = re.compile(r"(?<![\w/.-])((?:tests|docs|vggbench|reference|constraints)/[\w./-]+\.(?:py|md|txt|yml|png|jinja2))")


def named(path: Path) -> str:
    """A page with its continued lines put together."""
    return path.read_text(encoding="utf-8").replace("\\\n", " ")


def command_of(words: list[str]):
    """The command that the first words name, or None for prose."""
    found = typer.main.get_command(app)
    for word in words:
        if not hasattr(found, "commands") or word not in found.commands:
            break
        found = found.commands[word]
    return None if hasattr(found, "commands") else found


def strange_options(text: str) -> list[str]:
    """Options behind a command of ours that it does not have."""
    found = []
    for words, rest in COMMAND.findall(text):
        command = command_of(words.split())
        if command is None:
            continue
        known = {option for each in command.params for option in (*each.opts, *each.secondary_opts)} | {"--help"}
        given = re.findall(r"(?<![\w-])--[a-z][a-z-]*", re.sub(r"\$\(.*|#.*", "", rest))
        found += [f"{words} {option}" for option in given if option not in known]
    return found


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_options_beside_a_command_are_its_options(page):
    assert strange_options(named(page)) == []


def test_an_option_that_is_none_is_found():
    assert strange_options("`vggbench gate a b --accross torch`, `vggbench weights list --json`") == [
        "gate a --accross"
    ]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_files_that_a_page_names_exist(page):
    assert [name for name in FILE.findall(named(page)) if not (ROOT / name).exists()] == []
