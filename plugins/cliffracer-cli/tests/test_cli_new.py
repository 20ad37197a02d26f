"""`new`: the project it writes runs, passes its own tests and checks, and is refused where it would spoil something."""

from __future__ import annotations

import subprocess
import sys
import tomllib
from importlib.metadata import version
from pathlib import Path

import pytest
from cliffracer_cli.testing import CommandLine, clean_environment

NAME = "user-accounts"


def new(folder: Path, *arguments: str) -> CommandLine:
    with CommandLine("new", *arguments, directory=folder) as process:
        process.wait()
    return process


@pytest.fixture
def project(tmp_path: Path) -> Path:
    process = new(tmp_path, NAME)
    assert process.wait() == 0, process.err
    return tmp_path / NAME


def check(project: Path, *command: str) -> str:
    environment = clean_environment(project.parent, PYTHONPATH=str(project / "src"), PYTHONDONTWRITEBYTECODE="1")
    del environment["PYTHONWARNINGS"]  # the tools' own
    arguments = [sys.executable, "-m", *command]
    done = subprocess.run(arguments, cwd=project, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_project_passes_its_own_tests_and_checks(project: Path) -> None:
    """pytest, mypy as the project sets it up, which is strict, and ruff are content, formatting included."""
    assert "2 passed" in check(project, "pytest", "-p", "no:cacheprovider")
    assert "no issues found in 3 source files" in check(project, "mypy", "--cache-dir", str(project.parent / "cache"))
    check(project, "ruff", "check", "--no-cache", "--select", "E,F,I,B,UP,SIM,RET,N", "--ignore", "I001")
    check(project, "ruff", "check", "--no-cache")
    check(project, "ruff", "format", "--no-cache", "--check")
    settings = tomllib.loads((project / "pyproject.toml").read_text())
    assert settings["tool"]["mypy"]["strict"] is True
    minor = version("cliffracer-core").split(".")[1]
    assert f"cliffracer-core>=0.{minor},<0.{int(minor) + 1}" in settings["project"]["dependencies"]


def test_project_runs_with_dev(project: Path) -> None:
    """`cliffracer dev` serves it, with the command that its README and its Dockerfile name."""
    target = "user_accounts:UserAccounts"
    assert f"cliffracer dev {target}\n" in (project / "README.md").read_text()
    assert f'CMD ["cliffracer", "run", "{target}"]\n' in (project / "Dockerfile").read_text()
    path = {"PYTHONPATH": str(project / "src")}
    with CommandLine("dev", target, "--no-reload", directory=project, environment=path) as running:
        running.wait_for("is ready")
        environment = {"XDG_RUNTIME_DIR": str(project)}
        with CommandLine(
            "call", f"{NAME}.add", "name=first", "--json", directory=project, environment=environment
        ) as it:
            assert it.json() == {"id": 1, "name": "first"}
        assert running.stop() == 0


def test_files_are_told_when_a_project_is_written(tmp_path: Path) -> None:
    """Every file that is there is named, and no placeholder is left in one."""
    told = new(tmp_path, f"below/{NAME}", "--json").json()
    folder = tmp_path / "below" / NAME
    assert told["folder"] == f"below/{NAME}"
    assert sorted(told["files"]) == sorted(
        str(each.relative_to(folder)) for each in folder.rglob("*") if each.is_file()
    )
    assert not [each for each in folder.rglob("*") if each.is_file() and "{{" in each.read_text()]


def test_folder_is_left_alone_when_it_is_not_empty(tmp_path: Path) -> None:
    """Nothing in it is changed; an empty one is used."""
    (tmp_path / NAME).mkdir()
    (tmp_path / NAME / "mine.txt").write_text("mine")
    process = new(tmp_path, NAME)
    assert process.wait() == 2
    assert process.err == [f"error: folder {NAME!r} is not empty; give another name, or empty it"]
    assert [each.name for each in (tmp_path / NAME).iterdir()] == ["mine.txt"]
    (tmp_path / "empty").mkdir()
    assert new(tmp_path, "empty").wait() == 0
    (tmp_path / "file").write_text("")
    assert "cannot be written" in new(tmp_path, "file").err[0]


@pytest.mark.parametrize(
    "name",
    ["9lives", "Users", "a b", "a--b", "-", ".", "..", "é", "x" * 61, "class", "json", "tests", "cliffracer-core"],
)
def test_name_is_refused_when_it_cannot_be_one(tmp_path: Path, name: str) -> None:
    """What could not be imported, or would hide a module, is wrong usage with a remedy, and nothing is written."""
    (tmp_path / "in").mkdir()
    process = new(tmp_path / "in", "--", name)
    assert process.wait() == 2
    assert "; use " in process.err[0]
    assert list((tmp_path / "in").iterdir()) == []
