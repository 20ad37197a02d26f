"""`cliffracer explain`."""

from __future__ import annotations

import asyncio

import click

from cliffracer_cli.instructions import Instructions, configure_services, load_services
from cliffracer_cli.options import json_option, settings_options
from cliffracer_cli.output import print_json
from cliffracer_cli.running import no_urls

__all__ = ["command"]

_HELP = """Show what runs around a handler, outermost first, and around what its service sends.

The handler is compiled with the plugins installed here and the settings of this directory; nothing is
connected to.

\b
Examples:
  cliffracer explain app:Users.create_user
  cliffracer explain users.create_user --app app:Users
  cliffracer explain app:Users.create_user --json

\b
Exit codes:
  0  shown                   2  no such module or service
  1  the program fails       3  no such handler, or a setting, a declaration or a plugin is wrong
"""

_TITLES = {"in": "a call comes in through", "call": "its calls go out through", "publish": "its events go out through"}


@click.command("explain", help=_HELP, short_help="Show what runs around a handler.", no_args_is_help=True)
@click.argument("handler", metavar="MODULE:SERVICE.METHOD")
@click.option("--app", metavar="MODULE:SERVICE", help="Where the service of SERVICE.METHOD is.")
@settings_options
@json_option
def command(handler: str, app: str | None, transport: str | None, settings: dict[str, str], as_json: bool) -> None:
    """Explain."""
    target, _, method = handler.rpartition(".")
    name = None
    if app is not None:
        name, target = target, app
    elif ":" not in target:
        raise click.UsageError(f"{handler!r} is not of the form module:Service.method; write it so, or give --app")
    if not target or not method or name == "":
        raise click.UsageError(f"{handler!r} is not of the form {'service.method' if app else 'module:Service.method'}")
    instructions = Instructions(targets=[target], transport=transport, settings=settings)
    (service,) = services = load_services(instructions)
    configure_services(services, instructions, no_urls)
    if name is not None and name != service.name:
        raise click.UsageError(f"{target!r} is the service {service.name!r}, not {name!r}; correct one of them")
    chains = asyncio.run(service.explain(method))
    if as_json:
        print_json({"handler": f"{service.name}.{method}", **chains})
        return
    click.echo(f"{service.name}.{method}")
    for kind, layers in chains.items():
        click.echo(f"\n{_TITLES.get(kind, kind)}:")
        for number, layer in enumerate(layers, 1):
            click.echo(f"  {number}. {layer}")
