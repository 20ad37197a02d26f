"""`cliffracer db`; the driver is imported when a command runs, not when it is offered."""

from __future__ import annotations

from pathlib import Path

import click
from cliffracer_cli.options import json_option
from cliffracer_cli.output import console, make_table, print_json
from cliffracer_cli.targets import load_service

__all__ = ["command"]

_HELP = """Migrate a service's database.

Migrations are files in a directory: 0001_name.sql, 0002_name.py (with 'async def migrate(db)'). Each
is applied once, in a transaction, in order; of several processes at once one applies it.

\b
Examples:
  cliffracer db new add_users
  cliffracer db diff app:Users --write add_age
  cliffracer db migrate app:Users
  cliffracer db status app:Users

The database is the one the settings name (DB_HOST, DB_NAME ..., or db.url), else that of a running
'cliffracer dev' in this directory.
"""

_directory = click.option(
    "--directory", type=click.Path(path_type=Path, file_okay=False),
    help="Where the files are.  [default: the setting db.migrations]",
)  # fmt: skip
_new_directory = click.option(
    "--directory", type=click.Path(path_type=Path, file_okay=False), default="migrations", show_default=True,
    help="Where the files are.",
)  # fmt: skip
_url = click.option("--url", metavar="URL", help="The database, such as postgresql://user@host/name.")
_target = click.argument("target", metavar="MODULE:SERVICE")


@click.group("db", help=_HELP, short_help="Migrate a service's database.")
def command() -> None:
    """Migrations."""


@command.command("migrate")
@_target
@_directory
@_url
@json_option
def migrate(target: str, directory: Path | None, url: str | None, as_json: bool) -> None:
    """Apply the migrations that are not applied yet."""
    from .administration import migrations_of, with_database

    service = load_service(target)
    done = with_database(service, url, migrations_of(service, directory).migrate)
    if as_json:
        print_json([{"number": each.number, "name": each.name} for each in done])
    for each in [] if as_json else done:
        click.echo(f"applied {each.path.name}")
    if not done and not as_json:
        click.echo("nothing to apply", err=True)


@command.command("status")
@_target
@_directory
@_url
@json_option
def status(target: str, directory: Path | None, url: str | None, as_json: bool) -> int:
    """List the migrations; exit code 1 where one is pending, changed or missing."""
    from .administration import migrations_of, with_database

    service = load_service(target)
    states = with_database(service, url, migrations_of(service, directory).status)
    if as_json:
        print_json(states)
    else:
        rows = [
            [f"{each.number:04d}", each.name, str(each.applied_at or "pending"), each.problem or "-"] for each in states
        ]
        console().print(make_table(["NUMBER", "NAME", "APPLIED", "PROBLEM"], rows))
    return int(any(each.applied_at is None or each.problem for each in states))


@command.command("new")
@click.argument("name")
@click.option("--python", is_flag=True, help="Write a Python file.")
@_new_directory
def new(name: str, python: bool, directory: Path) -> None:
    """Write an empty migration under the next number."""
    from .migrations import new_migration

    text = "async def migrate(db):\n    ...\n" if python else "-- Write statements here.\n"
    click.echo(new_migration(directory, name, text, suffix=".py" if python else ".sql"))


@command.command("diff")
@_target
@click.option("--write", metavar="NAME", help="Write the migration under the next number.")
@_directory
@_url
def diff(target: str, write: str | None, directory: Path | None, url: str | None) -> int:
    """Compare a service's models with its database, and print the statements between; exit code 1 where there are some.

    With --write they become a migration, and the exit code is 0.
    """
    from .administration import differences, migrations_of
    from .migrations import new_migration

    service = load_service(target)
    text = differences(service, url)
    if not text:
        click.echo("models and database agree", err=True)
        return 0
    if write is None:
        click.echo(text, nl=False)
        return 1
    click.echo(new_migration(migrations_of(service, directory).directory, write, text))
    return 0
