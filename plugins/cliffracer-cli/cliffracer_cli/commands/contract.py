"""`cliffracer contract`."""

from __future__ import annotations

from pathlib import Path

import click

from cliffracer_cli.calling import with_client
from cliffracer_cli.comparing import Change, compare
from cliffracer_cli.contracts import Contract, fetch_contract, read_contract, require_discovery
from cliffracer_cli.failures import ExitCode
from cliffracer_cli.options import json_option, service_name, timeout_option, transport_option
from cliffracer_cli.output import print_json, printable
from cliffracer_core.client import ClientProxy

__all__ = ["command"]

_HELP = """Save a running service's contract, and compare it with a saved one.

\b
Examples:
  cliffracer contract save users users.contract.json
  cliffracer contract diff users users.contract.json
  cliffracer contract diff users users.contract.json --json

\b
Breaking: an endpoint that is gone; an argument that is new and required, or takes less than before;
a result that has lost a field, or may be something that it was not before; a reply that streams
now, or no more.

\b
Exit codes:
  0  saved; or no breaking change           3  a setting or a plugin is wrong or missing
  1  a breaking change                      4  no broker, or the service did not answer
  2  wrong usage, or the file holds no contract
"""
_name = click.argument("name", callback=service_name)
_timeout = timeout_option("Seconds to wait for answers.  [default: 0.5]")


@click.group("contract", help=_HELP, short_help="Save a service's contract, find breaking changes.")
def command() -> None:
    """Contracts."""


@command.command("save", no_args_is_help=True)
@_name
@click.argument("file", type=click.Path(dir_okay=False, path_type=Path))
@transport_option
@_timeout
@json_option
def save(name: str, file: Path, transport: str | None, timeout_s: float | None, as_json: bool) -> None:
    """Write the contract of a running service to a file, in place of what the file holds."""
    contract = _live(name, transport, timeout_s)
    try:
        file.write_bytes(contract.to_json())
    except OSError as error:
        raise click.UsageError(f"file {str(file)!r} cannot be written: {error.strerror}; name another") from None
    if as_json:
        print_json({"service": name, "version": contract.version, "endpoints": len(contract.endpoints)})


@command.command("diff", no_args_is_help=True)
@_name
@click.argument("file", type=click.Path(dir_okay=False, path_type=Path))
@transport_option
@_timeout
@json_option
def diff(name: str, file: Path, transport: str | None, timeout_s: float | None, as_json: bool) -> int:
    """Compare the contract of a running service with a saved one."""
    old = read_contract(file)
    changes = compare(old, _live(name, transport, timeout_s))
    breaking = [each for each in changes if each.breaking]
    if as_json:
        print_json({"service": name, "breaking": len(breaking), "changes": changes})
    else:
        for each in changes:
            click.echo(printable(_line(each)))
        if not changes:
            click.echo("no changes")
    return ExitCode.FAILED if breaking else ExitCode.OK


def _live(name: str, transport: str | None, timeout_s: float | None) -> Contract:
    require_discovery()

    async def fetch(client: ClientProxy) -> Contract:
        return await fetch_contract(client, name, timeout_s or 0.5)

    return with_client(transport, fetch)


def _line(change: Change) -> str:
    where = f"{change.endpoint}: {change.where}" if change.where else change.endpoint
    return f"{'breaking  ' if change.breaking else 'compatible'}  {where}: {change.what}"
