"""Cliffracer's `Repository` as it comes: values are checked before they are written, rows become models."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import aclosing, asynccontextmanager
from uuid import UUID

from cliffracer_db import Database, DbSettings, Repository

from benchmarks.db.schema import Order

from . import CONNECTIONS


class Orders:
    def __init__(self, repository: Repository[Order]) -> None:
        self._orders = repository

    async def get(self, id: UUID) -> int:
        return (await self._orders.get(id)).amount

    async def create(self, number: int) -> None:
        await self._orders.create(Order(customer=f"customer {number}", amount=number))

    def build(self, count: int) -> Sequence[Order]:
        return [Order(customer=f"customer {number}", amount=number) for number in range(count)]

    async def create_many(self, built: Sequence[Order]) -> None:
        await self._orders.create_many(built)

    async def stream(self) -> AsyncIterator[int]:
        async with aclosing(self._orders.stream()) as rows:
            async for each in rows:
                yield each.amount


@asynccontextmanager
async def opened(url: str) -> AsyncIterator[Orders]:
    settings = DbSettings(url=url, pool_min_size=CONNECTIONS, pool_max_size=CONNECTIONS)
    async with Database(settings) as db:
        await db.pool.wait()
        yield Orders(Repository(Order, db))
