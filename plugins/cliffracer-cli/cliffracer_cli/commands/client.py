"""`cliffracer client`."""

from __future__ import annotations

import click

from cliffracer_cli.calling import with_client
from cliffracer_cli.clientmodule import client_module
from cliffracer_cli.contracts import Contract, fetch_contract, require_discovery
from cliffracer_cli.options import service_name, timeout_option, transport_option
from cliffracer_core.client import ClientProxy

__all__ = ["command"]

_HELP = """Write a typed client of a running service to standard output.

It is one module: msgspec Structs for what is sent and returned, classes of the service's own errors,
and a class with a method for each endpoint, over a Caller of cliffracer-core. It is the same for the
same contract.

\b
Examples:
  cliffracer client users > users_client.py
  cliffracer client users --transport nats://localhost:4222 > users_client.py

\b
Exit codes:
  0  written                3  a setting or a plugin is wrong or missing
  1  instances differ       4  no broker, or the service did not answer
  2  wrong usage
"""


@click.command("client", help=_HELP, short_help="Write a typed client of a running service.", no_args_is_help=True)
@click.argument("name", callback=service_name)
@transport_option
@timeout_option("Seconds to wait for answers.  [default: 0.5]")
def command(name: str, transport: str | None, timeout_s: float | None) -> None:
    """Write a client."""
    require_discovery()

    async def fetch(client: ClientProxy) -> Contract:
        return await fetch_contract(client, name, timeout_s or 0.5)

    click.echo(client_module(with_client(transport, fetch)), nl=False)
