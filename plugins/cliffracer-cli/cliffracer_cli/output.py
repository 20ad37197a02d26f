"""Printing results."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

import click
import msgspec

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

__all__ = ["console", "make_table", "print_json", "print_result", "printable"]


def print_json(value: object) -> None:
    """Print one line of JSON."""
    click.echo(msgspec.json.encode(value, enc_hook=str))


def print_result(value: object) -> None:
    """Print a result for people: text as it is, anything else as indented JSON, in colour on a terminal."""
    if isinstance(value, str):
        click.echo(printable(value) if sys.stdout.isatty() else value)
        return
    text = msgspec.json.format(msgspec.json.encode(value, enc_hook=str), indent=2).decode()
    if not sys.stdout.isatty():
        click.echo(text)
        return
    from rich.console import Console  # 80 ms

    Console().print_json(text)


def printable(text: str) -> str:
    """Replace what a terminal would take for a command; lines stay."""
    return "".join(each if each.isprintable() or each in "\n\t" else "?" for each in text)


def console() -> Console:
    """Return a console as wide as the terminal, or as wide as it takes where there is none."""
    from rich.console import Console

    return Console() if sys.stdout.isatty() else Console(width=10_000)


def make_table(columns: Sequence[str], rows: Sequence[Sequence[str]], *, numbers: Sequence[str] = ()) -> Table:
    """Make a table; cells of the columns in `numbers` stand right, and no text is taken for markup."""
    from rich import box
    from rich.table import Table
    from rich.text import Text

    table = Table(box=box.SIMPLE_HEAD if sys.stdout.isatty() else None, pad_edge=False, header_style="bold")
    for column in columns:
        table.add_column(column, justify="right" if column in numbers else "left", overflow="fold")
    for row in rows:
        table.add_row(*(Text(printable(cell)) for cell in row))
    return table
