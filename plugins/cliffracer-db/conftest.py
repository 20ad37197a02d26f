"""An open database for each test, empty; tests that break their server start their own."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Iterator

import pytest
from cliffracer_db import Database, DbSettings, EmbeddedPostgres, embedded_postgres

# as tests/faults/conftest.py does, whichever of the two is first
_FORM = os.environ.pop("CLIFFRACER_FAULTS", None) or os.environ.get("FAULTS_FORM", "reduced")
os.environ["FAULTS_FORM"] = _FORM


@pytest.fixture(scope="session")
def in_full() -> bool:
    """Whether tests of faults are run in full, by `CLIFFRACER_FAULTS=full`."""
    return _FORM == "full"


@pytest.fixture
async def db(postgres_url: str) -> AsyncIterator[Database]:
    async with Database(DbSettings(url=postgres_url)) as database:
        yield database


@pytest.fixture
def own_postgres() -> Iterator[EmbeddedPostgres]:
    with embedded_postgres() as server:
        yield server
