"""An open database for each test, empty; tests that break their server start their own."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator

import pytest
from cliffracer_db import Database, DbSettings, EmbeddedPostgres, embedded_postgres


@pytest.fixture
async def db(postgres_url: str) -> AsyncIterator[Database]:
    async with Database(DbSettings(url=postgres_url)) as database:
        yield database


@pytest.fixture
def own_postgres() -> Iterator[EmbeddedPostgres]:
    with embedded_postgres() as server:
        yield server
