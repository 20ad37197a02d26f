"""`cliffracer dlq`."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any, TypeVar

import click
import msgspec

from cliffracer_cli.calling import with_client
from cliffracer_cli.deadletters import DeadLetter, durable_transport, payload_of, pick
from cliffracer_cli.options import json_option, service_name, transport_option
from cliffracer_cli.output import console, make_table, print_json, print_result, printable
from cliffracer_core.client import ClientProxy
from cliffracer_core.deadletters import dlq_stream, redrive
from cliffracer_core.errors import ConflictError, NotFoundError
from cliffracer_core.interfaces import DurableTransport
from cliffracer_core.messages import Message

__all__ = ["command"]

_HELP = """Show, redrive and drop dead letters: durable events that a service's handler gave up.

\b
Examples:
  cliffracer dlq list billing
  cliffracer dlq show billing 3 --payload
  cliffracer dlq redrive billing 3 4
  cliffracer dlq redrive billing --all --yes
  cliffracer dlq drop billing 3

\b
Exit codes:
  0  done                                   3  a setting is wrong, or the transport keeps no messages
  1  no such one, or not to be redriven     4  no broker, or it did not confirm
  2  wrong usage
"""
F = TypeVar("F", bound=Callable[..., Any])
Picked = list[tuple[DeadLetter, Message]]

_service = click.argument("service", callback=service_name)
_sequences = click.argument("sequences", metavar="SEQUENCE...", nargs=-1, type=click.IntRange(min=1))


def _selection(function: F) -> F:
    """Add what `redrive` and `drop` share."""
    for add in (
        json_option,
        transport_option,
        click.option("--yes", is_flag=True, help="Do not ask; needed with --all where nobody can answer."),
        click.option("--all", "everything", is_flag=True, help="All that the service has now."),
        _sequences,
        _service,
    ):
        function = add(function)
    return function


@click.group("dlq", help=_HELP, short_help="Show, redrive and drop dead letters.")
def command() -> None:
    """Dead letters."""


@command.command("list")
@_service
@transport_option
@json_option
def list_(service: str, transport: str | None, as_json: bool) -> None:
    """List a service's dead letters, oldest first."""
    letters = [letter for letter, _ in _picked(service, (), transport)]
    if as_json:
        print_json(letters)
    elif not letters:
        click.echo(f"service {service!r} has no dead letters", err=True)
    else:
        columns = ["SEQUENCE", "HANDLER", "SUBJECT", "ATTEMPTS", "FIRST FAILED", "LAST FAILED", "BYTES"]
        columns += ["CORRELATION ID", "CAUSE"]
        rows = [
            [
                str(each.sequence), each.handler, _cell(each.subject), _cell(each.attempts),
                _cell(each.first_failed_at), _cell(each.failed_at), str(each.payload_bytes),
                _cell(each.correlation_id), _cell(each.cause),
            ]
            for each in letters
        ]  # fmt: skip
        console().print(make_table(columns, rows, numbers=("SEQUENCE", "ATTEMPTS", "BYTES")))


@command.command("show", no_args_is_help=True)
@_service
@click.argument("sequences", metavar="SEQUENCE...", nargs=-1, type=click.IntRange(min=1), required=True)
@click.option("--payload", is_flag=True, help="Show what the event carries, too.")
@transport_option
@json_option
def show(service: str, sequences: tuple[int, ...], payload: bool, transport: str | None, as_json: bool) -> None:
    """Show single dead letters."""
    picked = _picked(service, sequences, transport)
    if as_json:
        print_json([_described(*each, payload=payload) for each in picked])
        return
    for number, (letter, message) in enumerate(picked):
        if number:
            click.echo()
        for key, value in msgspec.structs.asdict(letter).items():
            if key == "final" and value is None:
                continue
            click.echo(f"{key.replace('_', ' ') + ':':<16} {printable(_cell(value))}")
        if payload:
            click.echo("payload:")
            print_result(payload_of(message))


@command.command("redrive", no_args_is_help=True)
@_selection
def redrive_(
    service: str, sequences: tuple[int, ...], everything: bool, yes: bool, transport: str | None, as_json: bool
) -> None:
    """Send dead letters to the handler that failed, under a new message id, and remove them."""

    async def send(source: DurableTransport, sequence: int) -> str:
        return await redrive(source, service, sequence)

    _check(service, sequences, everything, yes, "redrive")
    _each(service, sequences, transport, as_json, send, "redriven as")


@command.command("drop", no_args_is_help=True)
@_selection
def drop(
    service: str, sequences: tuple[int, ...], everything: bool, yes: bool, transport: str | None, as_json: bool
) -> None:
    """Remove dead letters for good."""

    async def remove(source: DurableTransport, sequence: int) -> str:
        if not await source.delete(dlq_stream(service), sequence):
            raise NotFoundError(f"dead letter {sequence} of service {service!r} is gone already")
        return ""

    _check(service, sequences, everything, yes, "drop")
    _each(service, sequences, transport, as_json, remove, "dropped")


def _check(service: str, sequences: tuple[int, ...], everything: bool, yes: bool, verb: str) -> None:
    """Refuse a selection of nothing or of two kinds, and ask before all are taken."""
    if everything == bool(sequences):
        raise click.UsageError("neither or both of SEQUENCE and --all are given; give one of them")
    if everything and not yes:
        if not sys.stdin.isatty():
            raise click.UsageError(f"--all would {verb} every dead letter of {service!r}; confirm with --yes")
        click.confirm(f"{verb} all dead letters of {service!r}?", abort=True, err=True)


def _picked(service: str, sequences: tuple[int, ...], transport: str | None) -> Picked:
    async def look(client: ClientProxy) -> Picked:
        return await pick(durable_transport(await client.connect()), service, sequences)

    return with_client(transport, look)


def _each(
    service: str, sequences: tuple[int, ...], transport: str | None, as_json: bool, act: Callable[..., Any], done: str
) -> None:
    """Do something with each dead letter, and say at once what is done, so that a failure hides none of it."""

    async def run(client: ClientProxy) -> None:
        source = durable_transport(await client.connect())
        refused: list[str] = []
        for letter, _ in await pick(source, service, sequences):
            try:
                new_id = await act(source, letter.sequence)
            except ConflictError:
                if sequences:
                    raise
                refused.append(str(letter.sequence))  # the others need not wait for it
                continue
            if as_json:
                print_json({"sequence": letter.sequence} | ({"message_id": new_id} if new_id else {}))
            else:
                click.echo(f"{letter.sequence} {done} {new_id}".rstrip())
        if refused:
            raise ConflictError(
                f"of service {service!r}, {', '.join(refused)} cannot be redriven; "
                f"see why with 'cliffracer dlq show {service} {refused[0]}'"
            )

    with_client(transport, run)


def _described(letter: DeadLetter, message: Message, *, payload: bool) -> dict[str, object]:
    described = msgspec.structs.asdict(letter)
    if payload:
        value = payload_of(message)
        described |= {"payload_base64": value} if isinstance(value, bytes) else {"payload": value}
    return described


def _cell(value: object) -> str:
    return "-" if value is None else str(value)
