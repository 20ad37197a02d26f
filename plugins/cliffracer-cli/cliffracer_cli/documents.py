"""What commands that write a document about a service share: loading it unstarted, and writing JSON."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from pathlib import Path

import click
import msgspec

from cliffracer_core.interfaces import Wiring

from .instructions import Instructions, configure_services, load_services
from .running import no_urls

__all__ = ["compiled", "write_document"]


def compiled(targets: Sequence[str], transport: str | None, settings: Mapping[str, str]) -> list[Wiring]:
    """Load and compile services without starting them; nothing is connected to.

    Raises:
        click.UsageError: a target names no service.
        CliffracerError: a setting, a declaration or a plugin is wrong.
    """
    instructions = Instructions(targets=list(targets), transport=transport, settings=dict(settings))
    services = load_services(instructions)
    configure_services(services, instructions, no_urls)

    async def compile_all() -> list[Wiring]:
        return [await each.wiring() for each in services]

    return asyncio.run(compile_all())


def write_document(document: object, output: Path | None) -> None:
    """Write indented JSON to a file, or to standard output. Raises click.UsageError where it cannot be written."""
    text = msgspec.json.format(msgspec.json.encode(document), indent=2) + b"\n"
    if output is None:
        click.echo(text, nl=False)
        return
    try:
        output.write_bytes(text)
    except OSError as error:
        raise click.UsageError(f"file {str(output)!r} cannot be written: {error.strerror}; name another") from None
