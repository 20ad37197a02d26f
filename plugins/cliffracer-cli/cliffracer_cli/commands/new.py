"""`cliffracer new`."""

from __future__ import annotations

import os
from pathlib import Path

import click

from cliffracer_cli.options import json_option
from cliffracer_cli.output import print_json
from cliffracer_cli.projects import write_project

__all__ = ["command"]

_HELP = """Write a small project: a service, its tests, and a Dockerfile.

It runs with 'cliffracer dev', passes its own tests and 'mypy --strict', and is kept by uv.

\b
Examples:
  cliffracer new users
  cliffracer new services/user-accounts

\b
Exit codes:
  0  written
  2  a name that cannot be one, or a folder that is not empty
"""


@click.command("new", help=_HELP, short_help="Write a new project.", no_args_is_help=True)
@click.argument("name", type=click.Path(path_type=Path))
@json_option
def command(name: Path, as_json: bool) -> None:
    """Write."""
    path = Path(os.path.normpath(name))
    written = write_project(path)
    if as_json:
        print_json({"folder": str(path), "files": [str(each.relative_to(path)) for each in written]})
        return
    for each in written:
        click.echo(str(each))
    click.echo(f"\ncd {path} && uv sync && uv run pytest; 'README.md' says how to run it")
