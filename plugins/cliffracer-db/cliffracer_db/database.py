"""`Database`: a pool, transactions, and statements written by hand."""

from __future__ import annotations

import asyncio
import contextlib
import random
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Self, TypeVar, overload

import msgspec
import psycopg
from psycopg.pq import TransactionStatus
from psycopg.rows import dict_row

from cliffracer_core.errors import ConfigurationError, DatabaseError
from cliffracer_core.interfaces import ServiceInfo

from .composition import Statement, executable, set_transaction
from .errors import DatabaseUnavailable, InvalidValue, SerializationFailure
from .pool import Connection, Pool, join_pool, leave_pool
from .settings import DbSettings, parse_url, settings_of
from .tenants import current_tenant
from .transactions import (
    Isolation,
    Transaction,
    TransactionOptions,
    announce,
    current_transaction,
    in_transaction,
    running,
)
from .translation import DRIVER_ERRORS, FAILED, translate

if TYPE_CHECKING:
    from psycopg.abc import QueryNoTemplate

__all__ = ["Database", "Parameters", "Statement"]

T = TypeVar("T")
Parameters = Sequence[Any] | Mapping[str, Any]


class Database:
    """PostgreSQL, through the pool that all with the same settings share.

    A Provider: `db = Database()` on a service class is opened with the service, by its settings. On its
    own it is an async context manager.

    Args:
        settings: a URL or `DbSettings`; those of the service where None.

    Example:
        async with Database("postgresql://localhost/shop") as db:
            async with db.transaction():
                ...
    """

    def __init__(self, settings: DbSettings | str | None = None) -> None:
        if isinstance(settings, str):
            settings = DbSettings(url=parse_url(settings))
        self.settings = settings
        self._joined: Pool | None = None

    def bind(self, service: ServiceInfo, name: str) -> Self:
        """Return a copy for one service, with its settings where none were given."""
        return type(self)(self.settings or settings_of(service))

    async def open(self) -> None:
        """Connect; does nothing where it is open.

        Raises:
            DatabaseUnavailable: nobody there, or refused.
        """
        if self._joined is not None:
            return
        settings = self.settings or DbSettings()
        pool = self._joined = await join_pool(settings)
        try:
            await pool.give_back(await pool.take())
        except BaseException as error:
            await self.close()
            if isinstance(error, DatabaseError):
                reason = str(error.__cause__ or error).strip().splitlines()[-1]
                raise DatabaseUnavailable(
                    f"database {settings.place!r} cannot be reached: {reason}; "
                    f"start one with 'cliffracer dev', or set DB_HOST, DB_NAME, DB_USER and DB_PASSWORD"
                ) from error
            raise

    async def close(self) -> None:
        """Give the pool back; safe to call twice."""
        pool, self._joined = self._joined, None
        if pool is not None:
            await leave_pool(pool)

    async def __aenter__(self) -> Self:
        await self.open()
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self.close()

    @property
    def pool(self) -> Pool:
        """The pool. Raises DatabaseUnavailable while it is not open."""
        if self._joined is None:
            raise DatabaseUnavailable("the database is not open; use 'async with Database(...)', or start the service")
        return self._joined

    def statistics(self) -> dict[str, int]:
        """Return the pool's figures: `pool_size`, `pool_available`, `requests_waiting`, `requests_num`, ..."""
        return self.pool.get_stats()

    async def ping(self) -> float:
        """Ask the database for nothing; returns how long it took, in ms. Errors as `execute`."""
        begin = time.perf_counter()
        await self.fetch_all("select 1")
        return (time.perf_counter() - begin) * 1000

    # --- transactions ---

    @property
    def in_transaction(self) -> bool:
        """Whether the running task is in a transaction of this database."""
        return in_transaction(self.pool)

    @contextlib.asynccontextmanager
    async def connection(self) -> AsyncIterator[Connection]:
        """Take psycopg's connection: the transaction's in one, else one in autocommit mode.

        Of a call with a tenant, and inside `as_tenant`, it is in a transaction that knows the tenant.

        Raises:
            WrongTenant: the running transaction is another tenant's.
            CliffracerError: the driver's errors, translated.
        """
        tenant = current_tenant()
        transaction = current_transaction(self.pool)
        async with self._taken(transaction) as connection:
            if transaction is not None:
                await transaction.join(tenant)
                yield connection
            elif tenant is None:
                yield connection
            else:
                async with connection.transaction():
                    await announce(connection, tenant)
                    yield connection
                    _refuse_failed(connection)

    @contextlib.asynccontextmanager
    async def _taken(self, transaction: Transaction | None) -> AsyncIterator[Connection]:
        connection = await self.pool.take() if transaction is None else transaction.connection
        try:
            yield connection
        except psycopg.Error as error:
            raise translate(error) from error
        finally:
            if transaction is None:
                await self.pool.give_back(connection)

    @contextlib.asynccontextmanager
    async def transaction(self, *, isolation: Isolation | None = None, read_only: bool = False) -> AsyncIterator[Self]:
        """Run a block in a transaction: committed at its end, undone where it raises.

        What repositories of this database do inside, in this task and those it starts, is part of it. A
        transaction in a transaction is a savepoint; while it is open, other tasks of the outer one may do nothing,
        for that could be undone with the inner one. The first tenant for whom something is done inside is the
        transaction's; it has no other.

        Args:
            isolation: the server's default where None.
            read_only: whether writes are refused.

        Raises:
            ConfigurationError: a nested one that asks for another isolation level or mode.
            DatabaseError: a statement failed and the block went on to its end; all of it is undone.
            SerializationFailure: another got in the way; run it again, as `retrying` does.
            CliffracerError: any other error of the database.
        """
        options = TransactionOptions(isolation=isolation, read_only=read_only)
        outer = current_transaction(self.pool)
        if outer is not None and (isolation or read_only):
            raise ConfigurationError(
                "a nested transaction cannot change its isolation level or mode; ask the outer one"
            )
        async with self._taken(outer) as connection:
            if outer is not None:
                try:
                    with outer.nested():
                        async with connection.transaction():
                            yield self
                            _refuse_failed(connection)
                except BaseException:
                    outer.undone += 1
                    raise
                finally:
                    outer.announced = False  # where it was undone, the server has forgotten what was set inside
                return
            async with connection.transaction():
                if isolation or read_only:
                    await connection.execute(set_transaction(options), prepare=False)
                transaction = Transaction(self.pool, connection)
                await transaction.join(current_tenant())
                token = running.set((*running.get(), transaction))
                try:
                    yield self
                    _refuse_failed(connection)
                finally:
                    transaction.active = False
                    running.reset(token)

    async def retrying(
        self,
        function: Callable[[], Awaitable[T]],
        *,
        isolation: Isolation | None = "serializable",
        read_only: bool = False,
        attempts: int = 5,
    ) -> T:
        """Run `function` in a transaction, anew after a pause where another transaction got in the way.

        Raises:
            SerializationFailure: the last attempt failed so, too.
            CliffracerError: any other error; at once.
        """
        attempt = 1
        while True:
            try:
                async with self.transaction(isolation=isolation, read_only=read_only):
                    return await function()
            except SerializationFailure:
                if attempt >= attempts or self.in_transaction:
                    raise
            await asyncio.sleep(random.uniform(0, min(0.005 * 2**attempt, 1.0)))
            attempt += 1

    # --- statements ---

    @overload
    async def select(
        self, statement: Statement, parameters: Parameters | None = ..., *, returns: type[T]
    ) -> list[T]: ...
    @overload
    async def select(self, statement: Statement, parameters: Parameters | None = ...) -> list[dict[str, Any]]: ...
    async def select(
        self, statement: Statement, parameters: Parameters | None = None, *, returns: Any = None
    ) -> list[Any]:
        """Run a query written by hand.

        Args:
            statement: `sql.SQL(...)`, with `sql.Identifier` for names and placeholders for values; on Python 3.14
                and later also a template, `t"select ... where id = {id}"`, whose values become parameters.
            parameters: values of the placeholders; without any, `%` is a plain character.
            returns: the type of a row, such as a Struct with the columns as fields; dicts where None.

        Raises:
            InvalidValue: the statement is a str or another type, or a row does not fit `returns`.
            DatabaseError: the parameters do not fit the placeholders, or what the database refused.
        """
        query = executable(statement, parameters)
        async with self.connection() as connection:
            cursor = connection.cursor(row_factory=dict_row, binary=True)
            await _execute(cursor, query, parameters)
            rows = await cursor.fetchall()
        try:
            return rows if returns is None else [msgspec.convert(row, returns, str_keys=True) for row in rows]
        except msgspec.ValidationError as error:
            raise InvalidValue(f"a row does not fit {getattr(returns, '__name__', returns)!r}: {error}") from None

    async def execute(self, statement: Statement, parameters: Parameters | None = None) -> int:
        """Run a statement written by hand; returns how many rows it touched. Errors as `select`."""
        query = executable(statement, parameters)
        async with self.connection() as connection:
            cursor = connection.cursor()
            await _execute(cursor, query, parameters)
            return max(cursor.rowcount, 0)

    async def fetch_all(
        self,
        text: str,
        parameters: Parameters = (),
        fields: Mapping[str, str] | None = None,
        *,
        alone: bool = False,
    ) -> list[tuple[Any, ...]]:
        """Run a statement that was composed before; prepared, rows as tuples. For repositories.

        Args:
            text: of the statement.
            parameters: its values.
            fields: constraint to field, for errors.
            alone: whether it is committed by itself, also where a transaction runs.
        """
        pool = self.pool
        transaction = None if alone else current_transaction(pool)
        connection = await pool.take() if transaction is None else transaction.connection
        try:
            cursor = connection.cursor(binary=True)
            await cursor.execute(text, parameters, prepare=True)
            return await cursor.fetchall() if cursor.description is not None else []
        except DRIVER_ERRORS as error:
            raise translate(error, fields) from error
        finally:
            if transaction is None:
                await pool.give_back(connection)

    async def run(self, text: str, parameters: Parameters = (), fields: Mapping[str, str] | None = None) -> int:
        """Run a statement that was composed before; prepared, returns how many rows it touched."""
        pool = self.pool
        transaction = current_transaction(pool)
        connection = await pool.take() if transaction is None else transaction.connection
        try:
            cursor = connection.cursor()
            await cursor.execute(text, parameters, prepare=True)
            return cursor.rowcount
        except DRIVER_ERRORS as error:
            raise translate(error, fields) from error
        finally:
            if transaction is None:
                await pool.give_back(connection)


def _refuse_failed(connection: Connection) -> None:
    """Refuse to commit what PostgreSQL would undo without a word. Raises DatabaseError."""
    if connection.pgconn.transaction_status == TransactionStatus.INERROR:
        raise DatabaseError(FAILED)


async def _execute(cursor: psycopg.AsyncCursor[Any], query: QueryNoTemplate, parameters: Parameters | None) -> None:
    try:
        await cursor.execute(query, parameters)
    except TypeError as error:  # a mapping for placeholders without names, or the other way about
        raise translate(psycopg.ProgrammingError()) from error
