"""`cliffracer services`."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING

import click

from cliffracer_cli.calling import with_client
from cliffracer_cli.census import EndpointRow, ServiceRow, take_census
from cliffracer_cli.contracts import require_discovery
from cliffracer_cli.options import json_option, timeout_option, transport_option
from cliffracer_cli.output import console, make_table, print_json
from cliffracer_core.client import ClientProxy

if TYPE_CHECKING:
    from rich.table import Table

__all__ = ["command"]

_HELP = """List the running services, by the NATS micro protocol ($SRV); also those of other languages.

Rates are per second: since the start, or with --watch since the last look. Times are in milliseconds:
the average since the start, and of the slowest endpoint the 99th percentile of its last requests.

\b
Examples:
  cliffracer services --transport nats://localhost:4222
  cliffracer services users --endpoints
  cliffracer services --watch
  cliffracer services --json

\b
Exit codes:
  0  asked, also where nobody answered      3  a setting or a plugin is wrong or missing
  2  wrong usage                            4  no broker
"""

_NUMBERS = ("ENDPOINTS", "REQUESTS", "ERRORS", "RATE", "AVERAGE", "P99")


@click.command("services", help=_HELP, short_help="List the running services.")
@click.argument("name", required=False)
@transport_option
@click.option("--endpoints", is_flag=True, help="A line for each endpoint.")
@click.option("--watch", is_flag=True, help="Look again and again, until Ctrl-C.")
@click.option(
    "--interval",
    "interval_s",
    type=click.FloatRange(min=0.1),
    default=1.0,
    show_default=True,
    metavar="S",
    help="Seconds between looks.",
)
@timeout_option("Seconds to wait for answers.  [default: 0.5]")
@json_option
def command(
    name: str | None,
    transport: str | None,
    endpoints: bool,
    watch: bool,
    interval_s: float,
    timeout_s: float | None,
    as_json: bool,
) -> None:
    """List services."""
    require_discovery()
    waiting_s = timeout_s or 0.5

    async def look(client: ClientProxy) -> None:
        async for rows in _looks(client, name, waiting_s, interval_s if watch else None):
            if as_json:
                print_json(rows)
            elif rows:
                console().print(_table(rows, endpoints))
            else:
                click.echo(f"no service answered within {waiting_s:g} s", err=True)

    async def look_live(client: ClientProxy) -> None:
        from rich.live import Live

        with Live(console=console(), auto_refresh=False, screen=True) as live:
            async for rows in _looks(client, name, waiting_s, interval_s):
                live.update(_table(rows, endpoints), refresh=True)

    with_client(transport, look_live if watch and not as_json and sys.stdout.isatty() else look)


async def _looks(
    client: ClientProxy, name: str | None, timeout_s: float, interval_s: float | None
) -> AsyncIterator[list[ServiceRow]]:
    """Yield what answers: once, or every `interval_s` seconds."""
    from cliffracer_discovery import discover

    loop = asyncio.get_running_loop()
    before: dict[str, ServiceRow] = {}
    looked = loop.time()
    while True:
        asked = loop.time()
        answers = await discover(client, "STATS", name=name, timeout_s=timeout_s)
        rows = take_census(answers, before=before, elapsed_s=asked - looked)
        yield rows
        if interval_s is None:
            return
        before, looked = {row.id: row for row in rows}, asked
        await asyncio.sleep(max(0.0, interval_s - (loop.time() - asked)))


def _table(rows: list[ServiceRow], endpoints: bool) -> Table:
    cells = []
    for row in rows:
        cells.append([row.name, row.version, row.id, str(len(row.endpoints)), *_figures(row)])
        if endpoints:
            for each in row.endpoints:
                cells.append([f"  {each.name}", "", each.subject, "", *_figures(each)])
    columns = ["NAME", "VERSION", "ID", "ENDPOINTS", "REQUESTS", "ERRORS", "RATE", "AVERAGE", "P99"]
    return make_table(columns, cells, numbers=_NUMBERS)


def _figures(row: ServiceRow | EndpointRow) -> list[str]:
    return [str(row.requests), str(row.errors), _figure(row.rate_per_s), _figure(row.average_ms), _figure(row.p99_ms)]


def _figure(value: float | None) -> str:
    return "-" if value is None else f"{value:.3g}" if value < 1000 else f"{value:.0f}"
