"""`cliffracer plugins`."""

from __future__ import annotations

import click
import msgspec

from cliffracer_cli.failures import ExitCode
from cliffracer_cli.inventory import Inventory, take_inventory
from cliffracer_cli.options import json_option
from cliffracer_cli.output import console, make_table, print_json

__all__ = ["command"]

_HELP = """List the installed plugins, what each registered, and all settings with their present values.

Values come from the settings files of this directory and the environment; secrets are masked. What a
plugin gives to one handler or service only, 'cliffracer explain' shows.

\b
Examples:
  cliffracer plugins
  cliffracer plugins --service users        with the tables [services.users]
  CLIFFRACER_DISABLE=discovery cliffracer plugins --json

\b
Exit codes:
  0  all well      2  wrong usage      3  a plugin or a setting is broken
"""


@click.command("plugins", help=_HELP, short_help="List plugins and settings.")
@click.option("--service", metavar="NAME", help="Read the settings of this service.")
@json_option
def command(service: str | None, as_json: bool) -> int:
    """List plugins."""
    inventory = take_inventory(service)
    if as_json:
        print_json(inventory)
    else:
        _print(inventory)
    return ExitCode.OK if inventory.sound else ExitCode.CONFIGURATION


def _print(inventory: Inventory) -> None:
    rows = []
    for each in inventory.plugins:
        hooks = [hook.removeprefix("register_") for hook in each.registered]
        given = [", ".join(items) for items in each.registered.values()]
        lines = [f"{hook}: {items}" if items else hook for hook, items in zip(hooks, given, strict=True)]
        rows.append([each.name, each.distribution, each.version, each.state, "; ".join(lines)])
    out = console()
    out.print(make_table(["NAME", "DISTRIBUTION", "VERSION", "STATE", "REGISTERED"], rows))
    settings = [
        [each.name, msgspec.json.encode(each.value, enc_hook=str).decode(), each.source]
        for plugin in inventory.plugins
        for each in plugin.settings
    ]
    if settings:
        out.print()
        out.print(make_table(["SETTING", "VALUE", "FROM"], settings))
    for each in inventory.plugins:
        if each.error is not None:
            click.echo(f"error: {each.error}", err=True)
    if inventory.error is not None:
        click.echo(f"error: {inventory.error}", err=True)
