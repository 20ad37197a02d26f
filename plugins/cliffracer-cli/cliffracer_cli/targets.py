"""From `module:Service` to a service object."""

from __future__ import annotations

import os
import sys
import traceback
from importlib import import_module
from types import ModuleType

import click

from cliffracer_core.errors import CliffracerError, ServiceError
from cliffracer_core.service import CliffracerService

from .failures import failure_line

__all__ = ["load_service"]


def load_service(target: str) -> CliffracerService:
    """Import a target and return its service, unstarted.

    Args:
        target: `module:attribute`, a service class or object, where the attribute may have dots; or
            `module` alone where it defines exactly one service. The working directory is importable.

    Raises:
        click.UsageError: it names nothing, or nothing that is a service.
        ServiceError, or the CliffracerError itself: the module, or the class, fails when it is run.
    """
    name, separator, attribute = target.partition(":")
    if not name or (separator and not attribute):
        raise click.UsageError(f"target {target!r} is not of the form 'module:Service'")
    if name.endswith(".py") or os.sep in name:
        module = name.removesuffix(".py").strip("./").replace(os.sep, ".")
        raise click.UsageError(f"target {target!r} names a file; write the module, such as {module + ':Service'!r}")
    if os.getcwd() not in sys.path:
        sys.path.insert(0, os.getcwd())
    module_ = _import(name)
    found = _attribute(module_, attribute) if attribute else _only_service(module_)
    if isinstance(found, type) and issubclass(found, CliffracerService):
        try:
            return found()
        except Exception as error:
            raise _failed(f"service class {target!r} cannot be made", error) from error
    if not isinstance(found, CliffracerService):
        raise click.UsageError(f"target {target!r} is a {type(found).__name__}, not a service class or object")
    return found


def _import(name: str) -> ModuleType:
    try:
        return import_module(name)
    except ModuleNotFoundError as error:
        if error.name is not None and (name == error.name or name.startswith(f"{error.name}.")):
            raise click.UsageError(
                f"module {name!r} is neither in {os.getcwd()!r} nor installed; check the name, "
                f"or run the command from the directory that holds it"
            ) from error
        raise _failed(f"module {name!r} cannot be imported", error) from error
    except Exception as error:
        raise _failed(f"module {name!r} cannot be imported", error) from error


def _failed(what: str, error: Exception) -> CliffracerError:
    """Name where the program's own code failed, keeping the class of our errors for the exit code."""
    if isinstance(error, CliffracerError):
        error.message = f"{what}: {error.message}"
        return error
    if isinstance(error, SyntaxError):
        place = f"{os.path.relpath(error.filename)}, line {error.lineno}" if error.filename else "?"
        return ServiceError(f"{what}: {type(error).__name__}: {error.msg} ({place})")
    frame = traceback.extract_tb(error.__traceback__)[-1]
    return ServiceError(f"{what}: {failure_line(error)} ({os.path.relpath(frame.filename)}, line {frame.lineno})")


def _attribute(module: ModuleType, path: str) -> object:
    found: object = module
    for part in path.split("."):
        if not hasattr(found, part):
            known = ", ".join(sorted(_services(module))) or "none"
            raise click.UsageError(f"module {module.__name__!r} has no {path!r}; services in it: {known}")
        found = getattr(found, part)
    return found


def _services(module: ModuleType) -> dict[str, object]:
    """Return the service objects of a module, and the classes defined in it, by name."""
    return {
        name: value
        for name, value in vars(module).items()
        if isinstance(value, CliffracerService)
        or (isinstance(value, type) and issubclass(value, CliffracerService) and value.__module__ == module.__name__)
    }


def _only_service(module: ModuleType) -> object:
    found = _services(module)
    objects = {name: value for name, value in found.items() if isinstance(value, CliffracerService)}
    chosen = objects or found
    if len(chosen) != 1:
        what = f"has {len(chosen)} services" if chosen else "defines no service"
        names = ", ".join(sorted(chosen))
        remedy = f"name one, such as '{module.__name__}:{min(chosen)}' ({names})" if chosen else "name another module"
        raise click.UsageError(f"module {module.__name__!r} {what}; {remedy}")
    return next(iter(chosen.values()))
