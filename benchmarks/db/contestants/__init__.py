"""Who takes part: one module each, the same operations on the same table."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import AbstractAsyncContextManager
from importlib import import_module
from typing import Any, Protocol, cast
from uuid import UUID

__all__ = ["COLUMNS", "CONNECTIONS", "MODULES", "Contestant", "Opened", "find"]

CONNECTIONS = 16
"""In each contestant's pool, one for each of the tasks that measure."""
COLUMNS = {
    "psycopg": "psycopg", "core": "SQLAlchemy core", "orm": "SQLAlchemy ORM", "cliffracer": "Cliffracer",
}  # fmt: skip
MODULES = {"psycopg": "raw_psycopg", "core": "sqlalchemy_core", "orm": "sqlalchemy_orm", "cliffracer": "repository"}


class Opened(Protocol):
    """Connections, and what is done over them. Not every contestant has every operation."""

    async def get(self, id: UUID) -> int:
        """Read the row with this id; returns its amount."""

    async def create(self, number: int) -> object:
        """Make a row of this number and write it."""

    def build(self, count: int) -> Sequence[Any]:
        """Make models, or what stands for them, to be written by `create_many`."""

    async def create_many(self, built: Sequence[Any]) -> object:
        """Write all of them, or none."""

    def stream(self) -> AsyncIterator[int]:
        """Yield the amount of each row, holding few rows."""


class Contestant(Protocol):
    """What a module in this package offers; a `Contestant` is the module."""

    def opened(self, url: str) -> AbstractAsyncContextManager[Opened]:
        """Connect."""


def find(name: str) -> Contestant:
    """Import a contestant; only then are its libraries loaded."""
    return cast(Contestant, import_module(f"{__name__}.{MODULES[name]}"))
