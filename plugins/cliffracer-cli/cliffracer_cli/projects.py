"""Writing a new project from the templates that come with this package."""

from __future__ import annotations

import keyword
import re
import sys
from collections.abc import Mapping
from importlib.metadata import version
from importlib.resources import files
from pathlib import Path

import click

from .naming import class_name

__all__ = ["write_project"]

_NAME = re.compile(r"[a-z][a-z0-9]*([-_][a-z0-9]+)*")
_MAX_NAME = 60
_FILES = {
    "pyproject.toml": "pyproject.toml.tmpl",
    "README.md": "README.md.tmpl",
    "Dockerfile": "Dockerfile.tmpl",
    ".dockerignore": "dockerignore.tmpl",
    ".gitignore": "gitignore.tmpl",
    "src/{{package}}/__init__.py": "init.py.tmpl",
    "src/{{package}}/service.py": "service.py.tmpl",
    "src/{{package}}/py.typed": "",
    "tests/test_{{package}}.py": "test_service.py.tmpl",
}
"""Where a file stands in the project, and its template; no template for an empty file."""
_TAKEN = ("test", "tests", "src", "service", "item")


def write_project(path: Path) -> list[Path]:
    """Write a project whose name is that of its folder.

    Args:
        path: the folder, which is made where it does not exist.

    Returns:
        The files, below that folder.

    Raises:
        click.UsageError: the name cannot be that of a project, the folder is not empty, or cannot be written.
    """
    values = _values(path.name)
    root = files("cliffracer_cli") / "templates" / "project"
    written = []
    try:
        path.mkdir(parents=True, exist_ok=True)
        if any(path.iterdir()):
            raise click.UsageError(f"folder {str(path)!r} is not empty; give another name, or empty it")
        for place, template in _FILES.items():
            file = path / _filled(place, values)
            file.parent.mkdir(parents=True, exist_ok=True)
            text = (root / template).read_text(encoding="utf-8") if template else ""
            file.write_text(_filled(text, values), encoding="utf-8")
            written.append(file)
    except OSError as error:
        raise click.UsageError(f"folder {str(path)!r} cannot be written: {error.strerror}; give another") from None
    return written


def _values(name: str) -> Mapping[str, str]:
    """Return what stands in the templates for a project's name."""
    package = name.replace("-", "_")
    if not _NAME.fullmatch(name) or len(name) > _MAX_NAME:
        raise click.UsageError(
            f"name {name!r} cannot be that of a project; use up to {_MAX_NAME} lower-case letters, "
            f"digits, '-' and '_', the first one a letter, such as 'user-service'"
        )
    if keyword.iskeyword(package) or package in sys.stdlib_module_names or package in _TAKEN or _is_ours(package):
        raise click.UsageError(
            f"name {name!r} is taken: a module {package!r} would hide another; use one such as '{name}-service'"
        )
    major, minor = version("cliffracer-cli").split(".")[:2]
    return {
        "project": name,
        "package": package,
        "service": name,
        "class": _service_class(name),
        "requirement": f">={major}.{minor},<{major}.{int(minor) + 1}",
    }


def _is_ours(package: str) -> bool:
    return package.startswith(("cliffracer", "pytest")) or package in ("msgspec", "click", "pluggy", "rich", "nats")


def _service_class(name: str) -> str:
    name = class_name(name)
    taken = ("Item", "CliffracerService", "NotFoundError", "Annotated", "Meta", "Struct", "Events", "ServiceFactory")
    return f"{name}Service" if name in (*taken, "ClientProxy", "ValidationError") else name


def _filled(text: str, values: Mapping[str, str]) -> str:
    return re.sub(r"\{\{(\w+)\}\}", lambda found: values[found[1]], text)
