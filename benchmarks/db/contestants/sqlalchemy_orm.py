"""SQLAlchemy 2's ORM as its documentation shows it: a session, and its transaction, for each operation."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from uuid import UUID

from cliffracer_db.ids import new_id
from sqlalchemy import BigInteger, DateTime
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from benchmarks.db.schema import TABLE

from .sqlalchemy_core import connected


class Base(DeclarativeBase):
    pass


def _now() -> datetime:
    return datetime.now(UTC)


class Order(Base):
    __tablename__ = TABLE

    id: Mapped[UUID] = mapped_column(primary_key=True, default=new_id)
    customer: Mapped[str]
    amount: Mapped[int] = mapped_column(BigInteger)
    paid: Mapped[bool] = mapped_column(default=False)
    created_at: Mapped[datetime] = mapped_column(DateTime(timezone=True), default=_now)
    updated_at: Mapped[datetime] = mapped_column(DateTime(timezone=True), default=_now)


class Orm:
    def __init__(self, session: async_sessionmaker[AsyncSession]) -> None:
        self._session = session

    async def get(self, id: UUID) -> int:
        async with self._session() as session:
            order = await session.get(Order, id)
            assert order is not None
            return order.amount

    async def create(self, number: int) -> None:
        async with self._session() as session:
            session.add(Order(customer=f"customer {number}", amount=number))
            await session.commit()

    def build(self, count: int) -> Sequence[Order]:
        return [Order(customer=f"customer {number}", amount=number) for number in range(count)]

    async def create_many(self, built: Sequence[Order]) -> None:
        async with self._session() as session:
            session.add_all(built)
            await session.commit()


@asynccontextmanager
async def opened(url: str) -> AsyncIterator[Orm]:
    async with connected(url) as engine:
        yield Orm(async_sessionmaker(engine, expire_on_commit=False))
