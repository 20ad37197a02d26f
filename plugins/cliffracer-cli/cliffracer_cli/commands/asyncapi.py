"""`cliffracer asyncapi`."""

from __future__ import annotations

from pathlib import Path

import click

from cliffracer_cli.asyncapi import asyncapi_document
from cliffracer_cli.documents import compiled, write_document
from cliffracer_cli.options import output_option, settings_options

__all__ = ["command"]

_HELP = """Describe what a service answers and hears as AsyncAPI 3.0: its RPC methods and its events.

The service is compiled with the plugins installed here and the settings of this directory; nothing is
started or connected to.

\b
Examples:
  cliffracer asyncapi app:Users
  cliffracer asyncapi app:Users --transport nats://localhost:4222 --output asyncapi.json

\b
Exit codes:
  0  written                2  no such module or service, or the file cannot be written
  1  the program fails      3  a setting, a declaration or a plugin is wrong
"""


@click.command("asyncapi", help=_HELP, short_help="Describe RPC and events as AsyncAPI.", no_args_is_help=True)
@click.argument("target", metavar="MODULE:SERVICE")
@settings_options
@output_option
def command(target: str, transport: str | None, settings: dict[str, str], output: Path | None) -> None:
    """Describe."""
    (wiring,) = compiled([target], transport, settings)
    urls = {} if transport is None else {"default": transport}
    write_document(asyncapi_document(wiring, urls=urls), output)
