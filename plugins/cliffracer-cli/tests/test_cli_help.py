"""Help, versions, and what starting costs."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from importlib.metadata import entry_points, version
from pathlib import Path

import click
import pytest
from cliffracer_cli.failures import ExitCode
from cliffracer_cli.group import BUILTIN, make_cli
from cliffracer_cli.main import main
from cliffracer_cli.testing import CommandLine, clean_environment

README = Path(__file__).parent.parent / "README.md"


@pytest.mark.parametrize("name", BUILTIN)
def test_help_of_a_command_has_examples_and_exit_codes(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Each help shows commands to copy, with options that exist."""
    assert main([name, "--help"]) == 0
    text = capsys.readouterr().out
    assert "Examples:\n" in text
    assert f"cliffracer {name}" in text
    assert name == "version" or "Exit codes" in text
    command = make_cli().get_command(click.Context(make_cli()), name)
    assert command is not None
    parts = [command, *(command.commands.values() if isinstance(command, click.Group) else ())]
    parameters = [parameter for each in parts for parameter in each.params]
    known = {option for parameter in parameters for option in (*parameter.opts, *parameter.secondary_opts)}
    for line in text.split("Options:")[0].splitlines():
        if line.strip().startswith(f"cliffracer {name} "):
            assert {word for word in line.split() if word.startswith("--")} <= known, line


def test_exit_codes_are_documented() -> None:
    """The README and the help list every exit code, and no other."""
    codes = {int(code) for code in ExitCode}
    rows = [line.split("|")[1].strip() for line in README.read_text().splitlines() if line.startswith("| ")]
    assert {int(cell) for cell in rows if cell.isdecimal()} == codes
    help = make_cli().help or ""
    listed = help.partition("Exit codes:\n")[2].partition("\n\n")[0]
    assert {int(line.split()[0]) for line in listed.splitlines()} == codes


def test_version_is_that_of_the_distribution(capsys: pytest.CaptureFixture[str]) -> None:
    """`--version` and `version` agree; `version` lists all that is installed."""
    assert main(["--version"]) == 0
    line = capsys.readouterr().out
    assert line.startswith(f"cliffracer {version('cliffracer-cli')} (Python 3.")
    assert main(["version"]) == 0
    text = capsys.readouterr().out
    assert text.startswith(line)
    assert f"cliffracer-core {version('cliffracer-core')}" in text


def test_version_is_json_when_asked_for(tmp_path: Path) -> None:
    """For programs."""
    with CommandLine("version", "--json", directory=tmp_path) as process:
        assert process.json()["distributions"]["cliffracer-cli"] == version("cliffracer-cli")


def test_script_is_installed() -> None:
    """`cliffracer` is `cliffracer_cli.main:main`."""
    (script,) = entry_points(group="console_scripts", name="cliffracer")
    assert script.load() is main


@pytest.mark.parametrize(
    ("arguments", "code", "text"),
    [
        (["cal"], 2, "error: no such command 'cal'; did you mean 'call'?"),
        (["frobnicate"], 2, "error: no such command 'frobnicate'; a plugin that adds it may not be installed"),
        (["--frobnicate"], 2, "error: no such option '--frobnicate'; see 'cliffracer --help'"),
        (["version", "--frobnicate"], 2, "error: no such option '--frobnicate'; see 'cliffracer version --help'"),
        ([], 2, "Usage: cliffracer [OPTIONS] COMMAND"),
        (["_worker"], 1, "error: worker has no parent; start it with 'cliffracer run --workers N'"),
    ],
)
def test_wrong_usage_is_one_line(tmp_path: Path, arguments: list[str], code: int, text: str) -> None:
    """Click's own sentences, too, are written as ours."""
    with CommandLine(*arguments, directory=tmp_path) as process:
        assert process.wait() == code
    assert process.err[0].startswith(text)


def test_start_is_fast_and_imports_nothing_heavy(tmp_path: Path) -> None:
    """`--help` takes less than 0.4 s, the best of five, and imports no client library, rich or watchfiles.

    Of a processor's time, that is: others may want it, too. On the clock it is less than 2 s.
    """
    program = "import sys; from cliffracer_cli.main import main; main(['--help']); print(sorted(sys.modules))"
    environment = clean_environment(tmp_path)
    environment.pop("PYTHONDONTWRITEBYTECODE", None)  # as installed: what was imported once is compiled
    worked, took = [], []
    for _ in range(5):
        started, before = time.perf_counter(), os.times()
        done = subprocess.run(
            [sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=True
        )
        took.append(time.perf_counter() - started)
        after = os.times()
        worked.append(after.children_user + after.children_system - before.children_user - before.children_system)
    assert min(worked) < 0.4, worked
    assert min(took) < 2, took
    modules = done.stdout.splitlines()[-1]
    for heavy in ("rich", "watchfiles", "nats", "uvloop", "anyio"):
        assert f"'{heavy}'" not in modules
