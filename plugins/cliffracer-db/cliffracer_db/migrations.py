"""Migrations: numbered files, each applied once, in order, under a lock that only one process has."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import hashlib
import importlib.util
import logging
import re
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import datetime
from pathlib import Path
from typing import cast

import msgspec
import psycopg
from psycopg import sql
from psycopg.pq import TransactionStatus

from cliffracer_core.errors import CliffracerError, ConfigurationError, DatabaseError

from .database import Database
from .errors import StatementTimeout, UnknownTable
from .settings import DbSettings
from .statement_texts import ends_transaction, statements_in
from .translation import translate

__all__ = ["Migration", "Migrations", "State", "new_migration"]

logger = logging.getLogger("cliffracer.db")

_NAME = re.compile(r"(\d{4,})_([a-z0-9_]+)\.(sql|py)\Z")
_ALONE = re.compile(r"\A--\s*cliffracer:\s*no transaction\s*$", re.M)
_LOCK_ATTEMPTS = 10
_LIMITS = "select set_config('lock_timeout', %s, %s::boolean), set_config('statement_timeout', '0', %s::boolean)"
_TABLE = """
create table if not exists cliffracer_migrations (
    service text not null,
    number bigint not null,
    name text not null,
    checksum text not null,
    applied_at timestamptz not null default clock_timestamp(),
    primary key (service, number)
)
"""


class Migration(msgspec.Struct, frozen=True):
    """One file."""

    number: int
    name: str
    path: Path

    @property
    def checksum(self) -> str:
        """SHA-256 of the file."""
        return hashlib.sha256(self.path.read_bytes()).hexdigest()


class State(msgspec.Struct, frozen=True):
    """A migration as files and database know it."""

    number: int
    name: str
    applied_at: datetime | None = None
    problem: str = ""
    """`changed` after it was applied, `missing` file, or nothing."""


class Migrations:
    """The migrations of one service.

    Args:
        directory: holds `0001_name.sql` and `0002_name.py` files; a Python file has `async def migrate(db)`.
        service: the name under which the database remembers them.
        lock_timeout_s: how long a statement of a migration waits for a lock, before the migration is tried again.
        wait_s: how long to wait for another process that migrates.
    """

    def __init__(
        self, directory: Path | str, service: str, *, lock_timeout_s: float = 2.0, wait_s: float = 300.0
    ) -> None:
        self.directory = Path(directory)
        self.service = service
        self._lock_timeout_s = lock_timeout_s
        self._wait_s = wait_s

    def files(self) -> list[Migration]:
        """Return the files by number.

        Raises:
            ConfigurationError: there is no directory, a file's name is none, or two have one number.
        """
        if not self.directory.is_dir():
            raise ConfigurationError(
                f"there is no directory {str(self.directory)!r}; make the first migration with 'cliffracer db new'"
            )
        found: dict[int, Migration] = {}
        for path in sorted(self.directory.iterdir()):
            match = _NAME.match(path.name)
            if match is None:
                if path.suffix in (".sql", ".py") and not path.name.startswith("_"):
                    raise ConfigurationError(f"migration {path.name!r} is not named as '0001_add_users.sql'; rename it")
                continue
            migration = Migration(int(match[1]), match[2], path)
            if migration.number in found:
                other = found[migration.number].path.name
                raise ConfigurationError(f"migrations {other!r} and {path.name!r} have one number; renumber the later")
            found[migration.number] = migration
        return [found[number] for number in sorted(found)]

    async def status(self, db: Database) -> list[State]:
        """Return what files and database know, by number. Errors as `files` and `Database.select`."""
        applied = await self._applied(db)
        states = {
            number: State(number, name, applied_at, "missing") for number, (name, _, applied_at) in applied.items()
        }
        for each in self.files():
            known = applied.get(each.number)
            if known is None:
                states[each.number] = State(each.number, each.name)
            else:
                same = known[1] == each.checksum
                states[each.number] = State(each.number, each.name, known[2], "" if same else "changed")
        return [states[number] for number in sorted(states)]

    async def migrate(self, db: Database) -> list[Migration]:
        """Apply what is not applied yet, and return it. Of several processes at once one does, the others wait.

        Raises:
            ConfigurationError: a file was changed after it was applied, or is numbered before the last applied one.
            StatementTimeout: another process migrates for longer than `wait_s`, or a lock is not to be had.
            CliffracerError: a migration failed; it left nothing, and those before it stay.
        """
        files = self.files()
        async with self._locked(db):
            await db.execute(sql.SQL(_TABLE))
            applied = await self._applied(db)
            pending = [each for each in files if each.number not in applied]
            for each in files:
                known = applied.get(each.number)
                if known is not None and known[1] != each.checksum:
                    raise ConfigurationError(
                        f"migration {each.path.name!r} was changed after it was applied; undo that, and write a new one"
                    )
            if pending and applied and pending[0].number < max(applied):
                raise ConfigurationError(
                    f"migration {pending[0].path.name!r} comes before the last one applied ({max(applied):04d}); "
                    f"give it a later number"
                )
            for each in pending:
                await self._apply(db, each)
        return pending

    async def _applied(self, db: Database) -> dict[int, tuple[str, str, datetime]]:
        query = sql.SQL("select number, name, checksum, applied_at from cliffracer_migrations where service = %s")
        try:
            rows = await db.select(query, [self.service])
        except UnknownTable:
            return {}
        return {row["number"]: (row["name"], row["checksum"], row["applied_at"]) for row in rows}

    @contextlib.asynccontextmanager
    async def _locked(self, db: Database) -> AsyncIterator[None]:
        """Hold the service's advisory lock, on a connection that is in no transaction while it waits or holds it.

        A statement that waits would keep a snapshot, which an index built concurrently waits for in turn.
        """
        settings = db.settings or DbSettings()
        try:
            connection = await psycopg.AsyncConnection.connect(settings.conninfo(), autocommit=True)
        except psycopg.Error as error:
            raise translate(error) from error
        async with connection:
            loop = asyncio.get_running_loop()
            end = loop.time() + self._wait_s
            while True:
                cursor = await connection.execute(
                    "select pg_try_advisory_lock(hashtext('cliffracer_migrations'), hashtext(%s))", [self.service]
                )
                if (await cursor.fetchone() or (False,))[0]:
                    break
                if loop.time() > end:
                    raise StatementTimeout(
                        f"another process migrates {self.service!r} for {self._wait_s:g} s; look why"
                    )
                await asyncio.sleep(0.1)
            yield

    async def _apply(self, db: Database, migration: Migration) -> None:
        name = migration.path.name
        try:
            if migration.path.suffix != ".sql":
                function = _function_of(migration)
                await self._retrying(name, lambda: self._in_transaction(db, migration, lambda: function(db)))
            elif _ALONE.search(text := migration.path.read_text(encoding="utf-8-sig")):
                for statement in statements_in(text):
                    await self._retrying(name, functools.partial(self._alone, db, statement))
                await self._remember(db, migration)
            else:
                if ends_transaction(text):
                    raise ConfigurationError("it begins or ends a transaction, but runs in one; leave that out")
                run = functools.partial(db.execute, sql.SQL(text))
                await self._retrying(name, lambda: self._in_transaction(db, migration, run))
        except StatementTimeout as error:
            raise StatementTimeout(f"migration {name!r}: a lock is not to be had; look who keeps it") from error
        except CliffracerError as error:
            reason = str(error.__cause__).splitlines()[0] if isinstance(error.__cause__, psycopg.Error) else error
            raise DatabaseError(f"migration {name!r} failed: {reason}") from error
        except Exception as error:  # of a Python file, or one that is no UTF-8
            raise DatabaseError(f"migration {name!r} failed: {type(error).__name__}: {error}") from error
        logger.info("migration %s is applied", name)

    async def _retrying(self, name: str, run: Callable[[], Awaitable[object]]) -> None:
        for attempt in range(1, _LOCK_ATTEMPTS + 1):
            try:
                await run()
            except StatementTimeout:
                if attempt == _LOCK_ATTEMPTS:
                    raise
                logger.warning("migration %s: a lock is not to be had; trying again", name)
                await asyncio.sleep(min(0.1 * 2**attempt, 5.0))
            else:
                return

    async def _in_transaction(self, db: Database, migration: Migration, run: Callable[[], Awaitable[object]]) -> None:
        async with db.transaction(), db.connection() as connection:
            await connection.execute(_LIMITS, (self._lock_limit(), True, True))
            await run()
            if connection.pgconn.transaction_status == TransactionStatus.IDLE:
                raise ConfigurationError("it has ended the transaction it runs in; leave that out")
            await self._remember(db, migration)

    async def _alone(self, db: Database, statement: str) -> None:
        """Run a statement outside a transaction; one that works concurrently holds up nobody, and may wait."""
        waits = re.search(r"\bconcurrently\b", statement, re.I)
        async with db.connection() as connection:
            await connection.execute(_LIMITS, ("0" if waits else self._lock_limit(), False, False))
            try:
                await connection.execute(sql.SQL(statement))
            finally:
                with contextlib.suppress(psycopg.Error):  # the connection is lost, and its settings with it
                    await connection.execute("reset lock_timeout")
                    await connection.execute("reset statement_timeout")

    def _lock_limit(self) -> str:
        return str(round(self._lock_timeout_s * 1000))

    async def _remember(self, db: Database, migration: Migration) -> None:
        await db.execute(
            sql.SQL("insert into cliffracer_migrations (service, number, name, checksum) values (%s, %s, %s, %s)"),
            [self.service, migration.number, migration.name, migration.checksum],
        )


def _function_of(migration: Migration) -> Callable[[Database], Awaitable[object]]:
    spec = importlib.util.spec_from_file_location(f"migration_{migration.number}", migration.path)
    if spec is None or spec.loader is None:
        raise ConfigurationError(f"migration {migration.path.name!r} cannot be imported")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    function = getattr(module, "migrate", None)
    if not asyncio.iscoroutinefunction(function):
        raise ConfigurationError(f"migration {migration.path.name!r} has no 'async def migrate(db)'; write one")
    return cast(Callable[[Database], Awaitable[object]], function)


def new_migration(directory: Path | str, name: str, text: str, *, suffix: str = ".sql") -> Path:
    """Write a file under the next number, and return its path.

    Raises:
        ConfigurationError: the name has other characters than a-z, 0-9 and `_`.
    """
    if not re.fullmatch(r"[a-z0-9_]+", name):
        raise ConfigurationError(f"name {name!r} has other characters than a-z, 0-9 and '_'; choose another")
    place = Path(directory)
    place.mkdir(parents=True, exist_ok=True)
    last = max((each.number for each in Migrations(place, "").files()), default=0)
    path = place / f"{last + 1:04d}_{name}{suffix}"
    path.write_text(text, encoding="utf-8")
    return path
