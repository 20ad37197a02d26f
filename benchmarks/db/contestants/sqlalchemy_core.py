"""SQLAlchemy 2, without its ORM: tables, `insert` with many rows, `stream`."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

from sqlalchemy import BigInteger, Boolean, Column, DateTime, MetaData, Table, Text, Uuid, insert, select
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine

from benchmarks.db.schema import COLUMNS, TABLE, make_row

from . import CONNECTIONS

DRIVER = os.environ.get("BENCH_SQLALCHEMY", "asyncpg")
ORDERS = Table(
    TABLE,
    MetaData(),
    Column("id", Uuid, primary_key=True),
    Column("customer", Text, nullable=False),
    Column("amount", BigInteger, nullable=False),
    Column("paid", Boolean, nullable=False),
    Column("created_at", DateTime(timezone=True), nullable=False),
    Column("updated_at", DateTime(timezone=True), nullable=False),
)


@asynccontextmanager
async def connected(url: str) -> AsyncIterator[AsyncEngine]:
    """Open an engine whose pool is as large as the others'."""
    engine = create_async_engine(
        url.replace("postgresql://", f"postgresql+{DRIVER}://", 1), pool_size=CONNECTIONS, max_overflow=0
    )
    try:
        yield engine
    finally:
        await engine.dispose()


class Core:
    def __init__(self, engine: AsyncEngine) -> None:
        self._engine = engine

    def build(self, count: int) -> Sequence[dict[str, Any]]:
        return [dict(zip(COLUMNS, make_row(number), strict=True)) for number in range(count)]

    async def create_many(self, built: Sequence[dict[str, Any]]) -> None:
        async with self._engine.begin() as connection:
            await connection.execute(insert(ORDERS), built)

    async def stream(self) -> AsyncIterator[int]:
        async with self._engine.connect() as connection:
            rows = await connection.stream(select(ORDERS).execution_options(yield_per=1000))
            async for row in rows:
                yield row.amount


@asynccontextmanager
async def opened(url: str) -> AsyncIterator[Core]:
    async with connected(url) as engine:
        yield Core(engine)
