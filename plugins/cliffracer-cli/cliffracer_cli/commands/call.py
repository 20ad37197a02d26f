"""`cliffracer call`."""

from __future__ import annotations

import click

from cliffracer_cli.arguments import HELP, read_payload
from cliffracer_cli.calling import with_client
from cliffracer_cli.options import header_option, json_option, subject, timeout_option, transport_option
from cliffracer_cli.output import print_json, print_result
from cliffracer_core.client import ClientProxy

__all__ = ["command"]

_HELP = f"""Call a method of a service and print its result.

{HELP}
\b
Examples:
  cliffracer call users.get_user id=7
  cliffracer call users.create_user '{{"name": "Ada", "email": "ada@example.com"}}' --json
  cat user.json | cliffracer call users.create_user - --timeout 5
  cliffracer call users.get_user id='"7"' --header Idempotency-Key=k1

\b
Exit codes:
  0  it answered            3  a setting or a plugin is wrong
  1  with an error          4  nobody there: no broker, or no such service or method
  2  wrong usage            5  no answer in time
"""


@click.command("call", help=_HELP, short_help="Call a method and print its result.", no_args_is_help=True)
@click.argument("method", metavar="SERVICE.METHOD", callback=subject)
@click.argument("arguments", nargs=-1)
@transport_option
@timeout_option("Seconds the call may take.  [default: the setting 'timeout']")
@header_option
@json_option
def command(
    method: str,
    arguments: tuple[str, ...],
    transport: str | None,
    timeout_s: float | None,
    headers: dict[str, str],
    as_json: bool,
) -> None:
    """Call."""
    payload = read_payload(arguments)

    async def call(client: ClientProxy) -> object:
        caller = await client.connect()
        sent: object = {} if payload is None else payload
        result: object = await caller.request(f"rpc.{method}", sent, timeout=timeout_s, headers=headers)
        return result

    result = with_client(transport, call)
    (print_json if as_json else print_result)(result)
