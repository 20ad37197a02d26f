"""Writing many rows at once."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import psycopg

from .database import Database
from .pool import Connection
from .statements import Statements
from .tenancy import TenantRows
from .transactions import current_transaction
from .translation import DRIVER_ERRORS, translate

__all__ = ["Rows", "copy_rows", "insert_rows"]

Rows = Sequence[Sequence[Any]]


async def copy_rows(db: Database, statements: Statements, chunks: Iterator[Rows]) -> int:
    """Write rows with COPY, all or none, and return how many. Errors as `Repository.create_many`."""
    pool = db.pool
    first = next(chunks, None)  # before anything is sent: most mistakes are in the first rows
    if first is None:
        return 0
    transaction = current_transaction(pool)
    if transaction is not None:
        async with db.transaction():  # a savepoint, so that the transaction can go on where a row is refused
            return await _copy(transaction.connection, statements, first, chunks)
    connection = await pool.take()
    try:
        return await _copy(connection, statements, first, chunks)
    finally:
        await pool.give_back(connection)


async def _copy(connection: Connection, statements: Statements, rows: Rows | None, more: Iterator[Rows]) -> int:
    written = 0
    try:
        async with connection.cursor() as cursor, cursor.copy(statements.copy) as copy:
            copy.set_types([each.sql_type for each in statements.table.fields.values()])
            write = copy.formatter.write_row  # rows are buffered there; `copy.write_row` awaits for each
            while rows is not None:
                for row in rows:
                    data = write(row)
                    if data:
                        await copy.writer.write(data)
                written += len(rows)
                rows = next(more, None)
    except psycopg.Error as error:
        raise translate(error, statements.fields) from error
    return written


async def insert_rows(db: Database, tenant: TenantRows, statements: Statements, chunks: Iterator[Rows]) -> int:
    """Write a tenant's rows, all or none, and return how many; PostgreSQL has no COPY under row-level security."""
    written = 0
    rows = next(chunks, None)
    if rows is None:
        return 0
    async with db.transaction():
        while rows is not None:
            async with tenant.connection() as connection:
                try:
                    await connection.cursor().executemany(statements.insert, rows)
                except DRIVER_ERRORS as error:
                    raise translate(error, statements.fields) from error
            written += len(rows)
            rows = next(chunks, None)
    return written
