"""The table before and after a sample: made anew, filled, counted; over a connection of its own, by psycopg."""

from __future__ import annotations

from uuid import UUID

from psycopg import AsyncConnection, sql

from .schema import TABLE, Order, make_row

__all__ = ["check_rows", "clear", "fill", "fresh_table"]

_TABLE = sql.Identifier(TABLE)


async def fresh_table(url: str, rows: int = 0) -> list[UUID]:
    """Make the table anew with rows numbered from 0; returns their ids."""
    async with await AsyncConnection.connect(url, autocommit=True) as connection:
        await connection.execute(sql.SQL("drop table if exists {}").format(_TABLE))
        await connection.execute(sql.SQL(Order.get_create_table_sql()))
        made = [make_row(number) for number in range(rows)]
        copying = sql.SQL("copy {} from stdin").format(_TABLE)
        async with connection.cursor() as cursor, cursor.copy(copying) as copy:
            for row in made:
                await copy.write_row(row)
        await connection.execute(sql.SQL("vacuum analyze {}").format(_TABLE))
    return [row[0] for row in made]


async def fill(url: str, rows: int) -> None:
    """Make so many rows on the server, numbered from 0."""
    async with await AsyncConnection.connect(url, autocommit=True) as connection:
        await connection.execute(
            sql.SQL(
                "insert into {} (id, customer, amount, paid, created_at, updated_at) "
                "select gen_random_uuid(), 'customer ' || n, n, false, now(), now() from generate_series(0, {}) n"
            ).format(_TABLE, sql.Literal(rows - 1))
        )
        await connection.execute(sql.SQL("vacuum analyze {}").format(_TABLE))


async def clear(url: str) -> None:
    """Remove all rows."""
    async with await AsyncConnection.connect(url, autocommit=True) as connection:
        await connection.execute(sql.SQL("truncate {}").format(_TABLE))


async def check_rows(url: str, rows: int) -> None:
    """Compare what is in the table with rows numbered from 0.

    Raises:
        ValueError: some are missing, or there are others.
    """
    async with await AsyncConnection.connect(url, autocommit=True) as connection:
        cursor = await connection.execute(
            sql.SQL("select count(*), count(distinct amount), max(amount) from {}").format(_TABLE)
        )
        found = await cursor.fetchone()
    if found != (rows, rows, rows - 1):
        raise ValueError(f"of {rows} rows there are {found[0] if found else 0}, or not each is there once")
