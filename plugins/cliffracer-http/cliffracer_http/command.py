"""`cliffracer openapi`; imported where cliffracer-cli asks for commands, and so is there."""

from __future__ import annotations

from pathlib import Path

import click
from cliffracer_cli.options import output_option, settings_options

__all__ = ["command"]

_HELP = """Describe the HTTP routes of services as OpenAPI 3.1.

Services are compiled with the plugins installed here and the settings of this directory; nothing is
started or connected to. Several services are described as one, as on one port.

\b
Examples:
  cliffracer openapi app:Users
  cliffracer openapi app:Users app:Orders --server https://api.example.com --output openapi.json

\b
Exit codes:
  0  written                2  no such module or service, or the file cannot be written
  1  the program fails      3  a setting, a declaration or a plugin is wrong
"""


@click.command("openapi", help=_HELP, short_help="Describe HTTP routes as OpenAPI.", no_args_is_help=True)
@click.argument("targets", metavar="MODULE:SERVICE...", nargs=-1, required=True)
@click.option("--server", "servers", metavar="URL", multiple=True, help="Where it will be served; repeatable.")
@settings_options
@output_option
def command(
    targets: tuple[str, ...], servers: tuple[str, ...], transport: str | None, settings: dict[str, str],
    output: Path | None,
) -> None:  # fmt: skip
    """Describe."""
    from cliffracer_cli.documents import compiled, write_document  # not with every command's start

    from .openapi import described, openapi_document

    services = [described(each) for each in compiled(targets, transport, settings)]
    write_document(openapi_document(services, servers=servers), output)
