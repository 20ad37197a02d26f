"""`cliffracer version`."""

from __future__ import annotations

import platform
from importlib.metadata import distributions

import click

from cliffracer_cli.options import json_option, version_text
from cliffracer_cli.output import print_json

__all__ = ["command"]

_HELP = """Show the versions of Cliffracer's installed distributions.

\b
Examples:
  cliffracer version
  cliffracer version --json
"""


@click.command("version", help=_HELP, short_help="Show versions.")
@json_option
def command(as_json: bool) -> None:
    """Show the versions of Cliffracer's installed distributions."""
    found = {
        each.name: each.version
        for each in distributions()
        if each.name.startswith(("cliffracer", "pytest-cliffracer"))
        or any(point.group == "cliffracer" for point in each.entry_points)
    }
    if as_json:
        print_json({"python": platform.python_version(), "distributions": dict(sorted(found.items()))})
        return
    click.echo(version_text())
    for name, version in sorted(found.items()):
        click.echo(f"  {name} {version}")
