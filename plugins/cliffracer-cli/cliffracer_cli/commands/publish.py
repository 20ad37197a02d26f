"""`cliffracer publish`."""

from __future__ import annotations

import click

from cliffracer_cli.arguments import HELP, read_payload
from cliffracer_cli.calling import with_client
from cliffracer_cli.options import header_option, json_option, timeout_option, transport_option
from cliffracer_cli.options import subject as checked_subject
from cliffracer_cli.output import print_json
from cliffracer_core.client import ClientProxy

__all__ = ["command"]

_HELP = f"""Publish an event.

{HELP}
\b
Examples:
  cliffracer publish user.created id=7 name=Ada
  cliffracer publish order.placed '{{"id": 1}}' --durable --message-id order-1

\b
Exit codes:
  0  sent, or with --durable stored      3  a setting or a plugin is wrong
  1  it cannot be sent                   4  no broker, or it did not confirm
  2  wrong usage
"""


@click.command("publish", help=_HELP, no_args_is_help=True)
@click.argument("subject", callback=checked_subject)
@click.argument("arguments", nargs=-1)
@transport_option
@click.option("--durable", is_flag=True, help="Wait until the broker has stored it.")
@click.option("--message-id", metavar="ID", help="The same ID within two minutes is stored once; with --durable.")
@timeout_option("Seconds to wait for the broker's confirmation.  [default: the setting 'timeout']")
@header_option
@json_option
def command(
    subject: str,
    arguments: tuple[str, ...],
    transport: str | None,
    durable: bool,
    message_id: str | None,
    timeout_s: float | None,
    headers: dict[str, str],
    as_json: bool,
) -> None:
    """Publish."""
    if message_id is not None and not durable:
        raise click.UsageError("--message-id works with --durable only; give both")
    payload = read_payload(arguments)

    async def publish(client: ClientProxy) -> None:
        caller = await client.connect()
        await caller.publish(
            subject, payload, durable=durable, headers=headers, message_id=message_id, timeout=timeout_s
        )

    with_client(transport, publish)
    if as_json:
        print_json({"subject": subject, "durable": durable})
