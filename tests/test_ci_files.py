"""The workflow files to copy: by both services' schemas, by a linter, and by running their shell with a stand-in."""

from __future__ import annotations

import itertools
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import typer.main
from ruamel.yaml import YAML

from vggbench.cli import app

CI = Path(__file__).parents[1] / "docs" / "ci"
GITHUB, GITLAB = CI / "github-actions.yml", CI / "gitlab-ci.yml"
SCHEMAS = {GITHUB: "vendor.github-workflows", GITLAB: "vendor.gitlab-ci"}
BASH = ["bash", "--noprofile", "--norc", "-eo", "pipefail", "-c"]  # as GitHub runs `shell: bash`

#: Stands in for vggbench: notes its arguments, writes what was asked for, and exits as told.
STAND_IN = """#!/bin/sh
echo "$0 $@" >> "$CALLS"
while [ $# -gt 0 ]; do
  case $1 in
    --markdown | --junit) mkdir -p "$(dirname "$2")"; echo "| a table |" > "$2" ;;
    ab) status=${AB:-0} ;;
    gate) status=${GATE:-0} ;;
  esac
  shift
done
exit "${status:-0}"
"""


def load(path):
    return YAML(typ="safe").load(path.read_text(encoding="utf-8"))


def check_schema(path, schema):
    command = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", schema, str(path)]
    return subprocess.run(command, capture_output=True, text=True, timeout=600)


def lint(path, folder):
    """zizmor's audit, offline: syntax, expressions, permissions, injection into shell, pins by major version."""
    target, config = folder / ".github" / "workflows" / "vggbench.yml", folder / "zizmor.yml"
    target.parent.mkdir(parents=True)
    shutil.copy(path, target)
    config.write_text('rules: {unpinned-uses: {config: {policies: {"actions/*": ref-pin}}}}\n')
    binary = Path(sys.executable).parent / "zizmor"
    command = [str(binary), "--offline", "--persona", "pedantic", "--strict-collection", "-c", str(config), str(target)]
    return subprocess.run(command, capture_output=True, text=True, timeout=600)


@pytest.mark.parametrize("path", SCHEMAS, ids=lambda path: path.stem)
def test_the_file_is_valid_by_its_services_schema(path):
    done = check_schema(path, SCHEMAS[path])
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize(
    ("path", "right", "wrong"),
    [(GITHUB, "runs-on:", "run-on:"), (GITLAB, "exit_codes: 3", "exit_codes: three")],
    ids=["github", "gitlab"],
)
def test_the_schema_check_can_fail(path, right, wrong, tmp_path):
    broken = tmp_path / path.name
    broken.write_text(path.read_text().replace(right, wrong))
    assert check_schema(broken, SCHEMAS[path]).returncode == 1


def test_the_linter_has_nothing_to_say(tmp_path):
    done = lint(GITHUB, tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "No findings" in done.stdout


def test_the_linter_finds_what_it_should(tmp_path):
    text = GITHUB.read_text().replace('"$VGGBENCH" -r', '"${{ github.head_ref }}" -r').replace("persist-", "# ")
    broken = tmp_path / "broken.yml"
    broken.write_text(text)
    done = lint(broken, tmp_path)
    assert done.returncode != 0
    assert "template-injection" in done.stdout
    assert "artipacked" in done.stdout


def test_permissions_are_minimal_and_actions_pinned_by_major_version():
    workflow = load(GITHUB)
    assert workflow["permissions"] == {"contents": "read"}
    assert not any("permissions" in job for job in workflow["jobs"].values())
    used = [step["uses"] for job in workflow["jobs"].values() for step in job["steps"] if "uses" in step]
    assert len(used) >= 5
    assert all(re.fullmatch(r"actions/[a-z-]+@v\d+", action) for action in used), used


def test_both_cache_what_vggbench_keeps_and_publish_junit_and_page():
    workflow, pipeline = load(GITHUB), load(GITLAB)["vggbench"]
    job = workflow["jobs"]["gate"]
    steps = {step["name"]: step for step in job["steps"]}
    cached = steps["Sample images and graphs"]["with"]["path"]
    assert job["env"]["VGGBENCH_CACHE"] == "${{ github.workspace }}/" + cached
    assert pipeline["variables"]["VGGBENCH_CACHE"] == "$CI_PROJECT_DIR/" + pipeline["cache"]["paths"][0].rstrip("/")
    assert steps["Page, JUnit and records"]["if"] == "${{ !cancelled() }}"
    assert steps["Page, JUnit and records"]["with"]["path"] == "vggbench/"
    assert pipeline["artifacts"]["reports"]["junit"] == "vggbench/junit.xml"
    assert pipeline["artifacts"]["when"] == "always"


@pytest.fixture
def machine(tmp_path):
    """A folder with two stand-ins installed; run(script, **variables) -> the finished shell."""
    for side in ("base", "head"):
        binary = tmp_path / f".venv-{side}" / "bin" / "vggbench"
        binary.parent.mkdir(parents=True)
        binary.write_text(STAND_IN)
        binary.chmod(0o755)

    def run(script, **variables):
        environment = {
            "PATH": os.environ["PATH"],
            "CALLS": str(tmp_path / "calls"),
            "GITHUB_STEP_SUMMARY": str(tmp_path / "step-summary"),
            **variables,
        }
        return subprocess.run(
            [*BASH, script], cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=600
        )

    return run


def github(*names):
    """Scripts of the named steps, and the variables of the workflow."""
    workflow = load(GITHUB)
    steps = {step["name"]: step for step in workflow["jobs"]["gate"]["steps"]}
    return "\n".join(steps[name]["run"] for name in names), {k: str(v) for k, v in workflow["env"].items()}


def gitlab():
    job = load(GITLAB)["vggbench"]
    return "\n".join(job["script"]), {k: str(v) for k, v in job["variables"].items()}


@pytest.mark.parametrize(
    ("gate", "wanted", "expected"),
    [("0", "false", 0), ("1", "false", 1), ("2", "false", 2), ("3", "false", 0), ("3", "true", 3), ("70", "false", 70)],
)
def test_github_fails_on_a_regression_and_on_the_undecided_only_where_wanted(machine, tmp_path, gate, wanted, expected):
    script, variables = github("Judge")
    done = machine(script, **{**variables, "GATE": gate, "FAIL_ON_INCONCLUSIVE": wanted})
    assert done.returncode == expected, done.stderr
    assert (tmp_path / "step-summary").read_text() == "| a table |\n"
    assert ("::warning" in done.stdout) == (gate == "3" and wanted == "false")


@pytest.mark.parametrize(("gate", "expected"), [("0", 0), ("1", 1), ("2", 2), ("3", 3)])
def test_gitlab_hands_the_status_on_and_allows_only_the_undecided(machine, gate, expected):
    script, variables = gitlab()
    assert machine(script, **{**variables, "GATE": gate}).returncode == expected
    assert load(GITLAB)["vggbench"]["allow_failure"] == {"exit_codes": 3}


@pytest.mark.parametrize("service", ["github", "gitlab"])
@pytest.mark.parametrize(("ab", "goes_on"), [("0", True), ("1", True), ("3", True), ("2", False), ("6", False)])
def test_timing_that_broke_off_stops_and_its_verdict_does_not(machine, service, ab, goes_on):
    script, variables = github("Measure") if service == "github" else gitlab()
    done = machine(script, **{**variables, "AB": ab})
    assert done.returncode == (0 if goes_on else int(ab)), done.stderr


@pytest.mark.parametrize("service", ["github", "gitlab"])
def test_every_option_in_the_files_is_one_of_the_commands(machine, tmp_path, service):
    script, variables = github("Measure", "Judge") if service == "github" else gitlab()
    assert machine(script.replace('exit "$status"\n', ""), **variables).returncode == 0
    commands = typer.main.get_command(app).commands
    calls = [line.split() for line in (tmp_path / "calls").read_text().splitlines()]
    assert [words[1] for words in calls] == ["ab", *["cache", "evaluate"] * 2, "gate"]
    calls = [words for words in calls if words[1] != "cache"]
    for words in calls:
        # A command given to ab carries the options of that command.
        for name, options in split_by_command(words[1:], commands):
            known = {option for parameter in commands[name].params for option in parameter.opts}
            assert set(options) <= known, (name, set(options) - known)
    assert calls[3].count("--across") == len(variables["ACROSS"].split())
    assert calls[1][0].endswith(".venv-base/bin/vggbench")


@pytest.mark.parametrize("service", ["github", "gitlab"])
def test_a_runner_that_keeps_its_folder_measures_anew(machine, tmp_path, service):
    """Else ab would take the runs of the last commit as done, and evaluate its answers."""
    left = tmp_path / "vggbench" / "times" / "runs" / "base-001.jsonl"
    left.parent.mkdir(parents=True)
    left.write_text("of the last time")
    script, variables = github("Measure") if service == "github" else gitlab()
    if service == "gitlab":
        before = load(GITLAB)["vggbench"]["before_script"]
        script = "\n".join([*(line for line in before if line.startswith("rm ")), script])
    assert machine(script, **variables).returncode == 0
    assert not left.exists()
    calls = [line.split()[1:] for line in (tmp_path / "calls").read_text().splitlines()]
    for place in (place for place, words in enumerate(calls) if words[0] == "evaluate"):
        assert calls[place - 1] == ["cache", "prune", "--kind", "posteriors"]


def test_gitlab_makes_its_worktree_again_where_git_remembers_one(tmp_path):
    """As on a runner that ran git clean: the folder is gone, git's note of it is not."""
    lines = [line for line in load(GITLAB)["vggbench"]["before_script"] if line.startswith(("rm ", "git "))]
    script = "git init -q . && git -c user.name=a -c user.email=a@b.test commit -q --allow-empty -m a\n"
    script += "git worktree add -q --detach base HEAD && rm -rf base\n" + "\n".join(lines)
    environment = {"PATH": os.environ["PATH"], "CI_MERGE_REQUEST_DIFF_BASE_SHA": "HEAD", "HOME": str(tmp_path)}
    done = subprocess.run([*BASH, script], cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "base" / ".git").exists()


def split_by_command(words, commands):
    """(command, its options) of a command line that may hold others: ab ... --base .../vggbench latency --batch 1."""
    name, found = words[0], {words[0]: []}
    for before, word in itertools.pairwise(words):
        if before.endswith("/vggbench") and word in commands:
            name = word
            found.setdefault(name, [])
        elif word in ("--base", "--head"):
            name = words[0]
        if word.startswith("--"):
            found[name].append(word)
    return found.items()


def test_the_readme_says_what_the_files_do():
    text = (CI / "README.md").read_text()
    for name in (GITHUB.name, GITLAB.name, "FAIL_ON_INCONCLUSIVE", "allow_failure", "VGGBENCH_CACHE"):
        assert name in text
    commands = typer.main.get_command(app).commands
    for command in re.findall(r"(?:^|`)vggbench ([a-z-]+)", text, flags=re.MULTILINE):
        assert command in commands, command
