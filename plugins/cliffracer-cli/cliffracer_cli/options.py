"""Options that several commands share."""

from __future__ import annotations

import platform
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any, TypeVar

import click

from cliffracer_core.errors import InvalidSubject
from cliffracer_core.subjects import validate_subject, validate_token

from .logs import LEVELS
from .state import State

__all__ = [
    "header_option",
    "json_option",
    "output_option",
    "service_name",
    "serving_options",
    "settings_options",
    "timeout_option",
    "transport_option",
    "version_text",
]

F = TypeVar("F", bound=Callable[..., Any])


def version_text() -> str:
    """Return `cliffracer 0.1.0 (Python 3.11.7)`."""
    return f"cliffracer {version('cliffracer-cli')} (Python {platform.python_version()})"


def _remember_json(ctx: click.Context, _: click.Parameter, value: bool) -> bool:
    if value:
        ctx.ensure_object(State).json = True
    return value


json_option = click.option(
    "--json",
    "as_json",
    is_flag=True,
    is_eager=True,  # so that a wrong option after it is reported as JSON too
    callback=_remember_json,
    help="Print JSON; an error is JSON on stderr.",
)
transport_option = click.option("--transport", metavar="URL", help="Where to connect, such as nats://localhost:4222.")


def _pairs(ctx: click.Context, parameter: click.Parameter, values: tuple[str, ...]) -> dict[str, str]:
    pairs = {}
    for value in values:
        key, separator, text = value.partition("=")
        if not separator or not key.strip():
            raise click.BadParameter(f"{value!r} is not of the form key=value", ctx, parameter)
        pairs[key.strip()] = text
    return pairs


def subject(ctx: click.Context, parameter: click.Parameter, value: str) -> str:
    """Check a subject without wildcards; a click callback."""
    try:
        return validate_subject(value)
    except InvalidSubject as error:
        raise click.BadParameter(str(error), ctx, parameter) from None


def service_name(ctx: click.Context, parameter: click.Parameter, value: str) -> str:
    """Check a service's name; a click callback."""
    try:
        return validate_token(value, "service")
    except InvalidSubject as error:
        raise click.BadParameter(str(error), ctx, parameter) from None


header_option = click.option(
    "--header", "headers", metavar="KEY=VALUE", multiple=True, callback=_pairs, help="Send a header; repeatable."
)
_set_option = click.option(
    "--set",
    "settings",
    metavar="KEY=VALUE",
    multiple=True,
    callback=_pairs,
    help="A setting, such as timeout=5 or nats.connect_timeout_s=2; repeatable. Stronger than files and "
    "environment, weaker than ServiceConfig(...) in code.",
)


def settings_options(function: F) -> F:
    """Add `--transport` and `--set`."""
    return transport_option(_set_option(function))


def output_option(function: F) -> F:
    """Add `--output`."""
    path = click.Path(dir_okay=False, path_type=Path)
    return click.option("--output", "-o", type=path, help="Write to this file, in place of what it holds.")(function)


def timeout_option(help: str) -> Callable[[F], F]:
    """Add `--timeout`, in seconds."""
    return click.option("--timeout", "timeout_s", type=click.FloatRange(min=0, min_open=True), metavar="S", help=help)


def serving_options(function: F) -> F:
    """Add `--uvloop/--no-uvloop` and `--log-level`."""
    uvloop = click.option("--uvloop/--no-uvloop", default=None, help="Run on uvloop.  [default: where it is installed]")
    level = click.option(
        "--log-level", type=click.Choice(LEVELS, case_sensitive=False), default="info", show_default=True
    )
    return uvloop(level(function))
