"""Distributions: each complete, alone, of one version, declaring exactly what it imports."""

from __future__ import annotations

import ast
import os
import re
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from uv import find_uv_bin

ROOT = Path(__file__).parent.parent
PROJECTS = {
    tomllib.loads((folder / "pyproject.toml").read_text())["project"]["name"]: folder
    for folder in [ROOT, *sorted(path.parent for path in ROOT.glob("plugins/*/pyproject.toml"))]
}
IMPORT_TO_DISTRIBUTION = {"nats": "nats-py"}

CORE_ALONE = """
import asyncio
from importlib.metadata import distributions
from cliffracer_core import CliffracerService, rpc

class Hello(CliffracerService):
    @rpc
    async def greet(self, name: str) -> str:
        return f"hello {name}"

async def main():
    async with Hello() as service:
        assert await service.rpc_call("hello", "greet", name="Ada") == "hello Ada"

asyncio.run(main())
print(sorted(each.metadata["Name"] for each in distributions()))
"""

CORE_AND_NATS = """
import asyncio, sys
from cliffracer_core import CliffracerService, ServiceConfig, rpc

class Hello(CliffracerService):
    @rpc
    async def greet(self, name: str) -> str:
        return f"hello {name}"

async def main():
    async with Hello(ServiceConfig("hello", nats_url=sys.argv[1])) as service:
        assert await service.rpc_call("hello", "greet", name="Ada") == "hello Ada"
    print("called over", type(service).__name__)

asyncio.run(main())
"""


def project(folder: Path) -> dict[str, Any]:
    table: dict[str, Any] = tomllib.loads((folder / "pyproject.toml").read_text())["project"]
    return table


def run(*command: str | Path) -> str:
    done = subprocess.run([str(each) for each in command], capture_output=True, text=True, timeout=180, check=False)
    assert done.returncode == 0, f"{command}: {done.stdout}\n{done.stderr}"
    return done.stdout


@pytest.fixture(scope="module")
def dist(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """All distributions, built once."""
    folder = tmp_path_factory.mktemp("dist")
    run(find_uv_bin(), "build", "--quiet", "--all-packages", "--out-dir", folder, ROOT)
    return folder


def environment(folder: Path, *wheels: Path) -> Path:
    """Make a clean virtual environment with these wheels and return its Python."""
    run(find_uv_bin(), "venv", "--quiet", "--python", sys.executable, folder)
    python = folder / "bin" / "python"
    run(find_uv_bin(), "pip", "install", "--quiet", "--python", python, *wheels)
    return python


def wheel(dist: Path, name: str) -> Path:
    return next(dist.glob(f"{name.replace('-', '_')}-[0-9]*.whl"))


def test_every_wheel_and_source_distribution_holds_its_own_package_only(dist: Path) -> None:
    """What is installed or unpacked under a name is that package, with its license and type marker, and no more."""
    for name in PROJECTS:
        package = name.replace("-", "_")
        names = zipfile.ZipFile(wheel(dist, name)).namelist()
        roots = {each.split("/")[0] for each in names if ".dist-info" not in each}
        assert roots == (set() if name == "cliffracer" else {package})
        assert name == "cliffracer" or f"{package}/py.typed" in names
        assert any(each.endswith("licenses/LICENSE") for each in names)
        with tarfile.open(next(dist.glob(f"{package}-[0-9]*.tar.gz"))) as archive:
            top = {each.split("/")[1] for each in archive.getnames() if "/" in each}
        assert top - {package} <= {"pyproject.toml", "README.md", "LICENSE", "CHANGELOG.md", "PKG-INFO", ".gitignore"}


def test_kernel_serves_alone_when_only_pluggy_and_msgspec_are_there(dist: Path, tmp_path: Path) -> None:
    """`cliffracer-core` needs two packages and runs a memory service with them."""
    python = environment(tmp_path / "venv", wheel(dist, "cliffracer-core"))
    assert run(python, "-c", CORE_ALONE).strip() == str(["cliffracer-core", "msgspec", "pluggy"])


def test_kernel_serves_over_nats_when_the_plugin_is_installed(dist: Path, tmp_path: Path, nats_url: str) -> None:
    """Installing `cliffracer-nats` is all it takes to use `nats_url`."""
    python = environment(tmp_path / "venv", wheel(dist, "cliffracer-core"), wheel(dist, "cliffracer-nats"))
    assert "called over" in run(python, "-c", CORE_AND_NATS, nats_url)


def test_new_project_passes_its_tests_and_checks_when_it_is_installed(dist: Path, tmp_path: Path) -> None:
    """The wheel of the command line holds the templates; `uv sync`, pytest and mypy are content with what they make."""
    python = environment(tmp_path / "venv", wheel(dist, "cliffracer-core"), wheel(dist, "cliffracer-cli"))
    project = tmp_path / "user-accounts"
    run(python, "-m", "cliffracer_cli", "new", project)
    options = (
        "--quiet",
        "--project",
        project,
        "--directory",
        project,
        "--find-links",
        dist,
        "--python",
        sys.executable,
    )
    run(find_uv_bin(), "sync", *options)
    assert "2 passed" in run(find_uv_bin(), "run", *options, "pytest")
    assert "no issues found" in run(find_uv_bin(), "run", *options, "mypy")
    target = "user_accounts:UserAccounts.add"
    assert "user-accounts.add" in run(find_uv_bin(), "run", *options, "cliffracer", "explain", target)


def test_all_distributions_share_one_version_and_require_that_of_the_kernel() -> None:
    """A plugin of 0.N takes the kernel of 0.N and no other."""
    versions = {name: project(folder)["version"] for name, folder in PROJECTS.items()}
    assert len(set(versions.values())) == 1, versions
    major, minor = map(int, versions["cliffracer-core"].split(".")[:2])
    wanted = f">={major}.{minor},<{major}.{minor + 1}"
    for name, folder in PROJECTS.items():
        for requirement in project(folder)["dependencies"]:
            if "cliffracer" in requirement:
                assert requirement.endswith(wanted), (name, requirement)


def imported(folder: Path) -> Iterator[str]:
    """Yield the top-level names a distribution's own package imports."""
    for path in folder.glob("*_*/**/*.py"):
        if "tests" in path.relative_to(folder).parts:
            continue
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                yield from (alias.name.split(".")[0] for alias in node.names)
            elif isinstance(node, ast.ImportFrom) and not node.level and node.module:
                yield node.module.split(".")[0]


@pytest.mark.parametrize("name", [name for name in PROJECTS if name != "cliffracer"])
def test_distribution_declares_exactly_what_it_imports(name: str) -> None:
    """Nothing is used that is not required, and nothing required that is not used."""
    table = project(PROJECTS[name])
    required = {re.split(r"[\[<>=; ]", each)[0] for each in table["dependencies"]}
    optional = {
        re.split(r"[\[<>=; ]", each)[0] for extras in table.get("optional-dependencies", {}).values() for each in extras
    }
    own = name.replace("-", "_")
    used = {
        IMPORT_TO_DISTRIBUTION.get(each, each.replace("_", "-"))
        for each in set(imported(PROJECTS[name]))
        if each not in sys.stdlib_module_names and each != own
    }
    assert used - required - optional == set(), "imported and not declared"
    assert required - used - {"pytest-asyncio"} == set(), "declared and not imported"


def test_importing_the_kernel_leaves_what_a_start_needs_for_the_start() -> None:
    """Reading settings, finding plugins and parsing URLs need modules that a bare import does not load."""
    found = subprocess.run(
        [sys.executable, "-c", "import asyncio, msgspec, pluggy, sys; before = set(sys.modules); "
         "import cliffracer_core; print(*sorted(set(sys.modules) - before))"],
        capture_output=True, text=True, check=True, env={**os.environ, "PYTHONPATH": ""},
    ).stdout.split()  # fmt: skip
    late = {"importlib.metadata", "urllib.parse", "tomllib", "difflib", "random", "zipfile", "pathlib", "tempfile"}
    assert late.isdisjoint(found)
    assert "cliffracer_core.service" in found
