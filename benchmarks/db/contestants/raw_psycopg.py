"""psycopg's own pool: autocommit, prepared statements, binary COPY; rows stay tuples and nothing is checked."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from uuid import UUID

from psycopg import AsyncConnection, sql
from psycopg_pool import AsyncConnectionPool

from benchmarks.db.schema import COLUMNS, TABLE, TYPES, Row, make_row

from . import CONNECTIONS

_NAMES = sql.SQL(", ").join(map(sql.Identifier, COLUMNS))
_TABLE = sql.Identifier(TABLE)
SELECT = sql.SQL("select {} from {}").format(_NAMES, _TABLE).as_string(None)
GET = f"{SELECT} where id = %s"
INSERT = (
    sql.SQL("insert into {} ({}) values ({})")
    .format(_TABLE, _NAMES, sql.SQL(", ").join(sql.SQL("%s") for _ in COLUMNS))
    .as_string(None)
)
COPY = sql.SQL("copy {} ({}) from stdin (format binary)").format(_TABLE, _NAMES).as_string(None)


class Raw:
    def __init__(self, pool: AsyncConnectionPool[AsyncConnection]) -> None:
        self._pool = pool

    async def get(self, id: UUID) -> int:
        async with self._pool.connection() as connection:
            cursor = connection.cursor(binary=True)
            await cursor.execute(GET, (id,), prepare=True)
            row = await cursor.fetchone()
        assert row is not None
        amount: int = row[2]
        return amount

    async def create(self, number: int) -> None:
        async with self._pool.connection() as connection:
            await connection.execute(INSERT, make_row(number), prepare=True)

    def build(self, count: int) -> Sequence[Row]:
        return [make_row(number) for number in range(count)]

    async def create_many(self, built: Sequence[Row]) -> None:
        async with self._pool.connection() as connection, connection.cursor() as cursor, cursor.copy(COPY) as copy:
            copy.set_types(TYPES)
            for row in built:
                await copy.write_row(row)

    async def stream(self) -> AsyncIterator[int]:
        async with (
            self._pool.connection() as connection,
            connection.transaction(),
            connection.cursor("bench", binary=True) as cursor,
        ):
            cursor.itersize = 1000
            await cursor.execute(SELECT)
            async for row in cursor:
                yield row[2]


@asynccontextmanager
async def opened(url: str) -> AsyncIterator[Raw]:
    async with AsyncConnectionPool(
        url, kwargs={"autocommit": True}, min_size=CONNECTIONS, max_size=CONNECTIONS
    ) as pool:
        await pool.wait()
        yield Raw(pool)
