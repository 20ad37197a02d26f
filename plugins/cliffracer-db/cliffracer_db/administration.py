"""What the commands do: find a service's database and models."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import TypeVar

from cliffracer_cli.devnote import read_note

from cliffracer_core.assembly import load_plugins, resolve_settings
from cliffracer_core.config import ServiceConfig
from cliffracer_core.errors import ConfigurationError
from cliffracer_core.service import CliffracerService

from .catalogue import difference
from .database import Database
from .migrations import Migrations
from .models import Table
from .repository import Repository
from .settings import DbSettings, parse_url

__all__ = ["differences", "migrations_of", "with_database"]

T = TypeVar("T")


def differences(service: CliffracerService, url: str | None) -> str:
    """Return the statements between a service's models and its database. Errors as `with_database`."""
    tables = _tables(service)

    async def compare(db: Database) -> str:
        return await difference(db, tables)

    return with_database(service, url, compare)


def _tables(service: CliffracerService) -> list[Table]:
    found: dict[str, Table] = {}
    for cls in reversed(type(service).__mro__):
        for each in vars(cls).values():
            if isinstance(each, Repository):
                found[each.table.name] = each.table
    if not found:
        raise ConfigurationError(
            f"service {service.name!r} has no repository; declare 'users = Repository(User)' on it"
        )
    return list(found.values())


def migrations_of(service: CliffracerService, directory: Path | None) -> Migrations:
    """Return a service's migrations: those in `directory`, or where its settings say."""
    if directory is None:
        settings = resolve_settings(load_plugins(), service.config, overrides=service.overrides).sections["db"]
        assert isinstance(settings, DbSettings)
        directory = Path(settings.migrations)
    return Migrations(directory, service.name)


def with_database(service: CliffracerService, url: str | None, use: Callable[[Database], Awaitable[T]]) -> T:
    """Open the database of a service, run `use`, and return its result.

    Args:
        service: whose settings say where it is.
        url: says so instead.
        use: what to do.

    Raises:
        ConfigurationError: nobody says where it is.
        CliffracerError: it cannot be reached, or what `use` raised.
    """
    settings = _settings(service.config, service.overrides, url)

    async def run() -> T:
        async with Database(settings) as db:
            return await use(db)

    return asyncio.run(run())


def _settings(config: ServiceConfig, overrides: Mapping[str, object], url: str | None) -> DbSettings:
    if url is not None:
        return DbSettings(url=parse_url(url))
    resolved = resolve_settings(load_plugins(), config, overrides=overrides)
    settings = resolved.sections["db"]
    assert isinstance(settings, DbSettings)
    if "db.url" in resolved.sources or "db.host" in resolved.sources:
        return settings
    found = read_note().get("db.url")
    if found is None:
        raise ConfigurationError(
            "no database is set; give --url postgresql://user@host/name, set DB_HOST, "
            "or start 'cliffracer dev' in this directory"
        )
    return DbSettings(url=found)
