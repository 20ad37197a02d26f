from __future__ import annotations

import asyncio
import contextlib

import pytest
from cliffracer_db import Database, DbSettings, PostgresStore
from psycopg import sql

from cliffracer_core import CliffracerService, ServiceConfig
from cliffracer_core.errors import ConfigurationError, ValidationError
from cliffracer_core.interfaces import Store
from cliffracer_core.testing import StoreContract


class TestPostgresStore(StoreContract):
    """The store contract, on a real server."""

    url: str

    @pytest.fixture(autouse=True)
    def _database(self, postgres_url: str) -> None:
        self.url = postgres_url

    async def make_store(self) -> Store:
        return PostgresStore(self.url)


async def test_service_has_the_store_when_its_url_says_so(postgres_url: str) -> None:
    """`postgresql://...?table=` is a store; `postgresql://` alone is in the database of the section `db`."""
    config = ServiceConfig(
        "s", db={"url": postgres_url}, store={"default": "postgresql://", "other": f"{postgres_url}?table=my_store"}
    )
    async with CliffracerService(config) as service, Database(postgres_url) as db:
        revision = await service.store().put("k", b"v")
        assert await service.store().get("k") == (b"v", revision)
        assert await service.store("other").get("k") is None
        await service.store("other").put("x", b"y")
        assert await db.select(sql.SQL("select key from my_store")) == [{"key": "x"}]


async def test_two_open_at_once_when_there_are_no_tables(postgres_url: str) -> None:
    """Replicas that start together make the tables once."""
    stores = [PostgresStore(DbSettings(url=postgres_url, application_name=f"a{n}")) for n in range(8)]
    await asyncio.gather(*(store.open() for store in stores))
    assert await stores[0].put("k", b"v") > 0
    await asyncio.gather(*(store.close() for store in stores))


async def test_write_stays_when_the_transaction_around_it_is_undone(postgres_url: str) -> None:
    """The store is no part of a repository's transaction: a lease or a counter must not be undone with it."""
    store = PostgresStore(postgres_url)
    await store.open()
    async with Database(postgres_url) as db:
        with contextlib.suppress(KeyError):
            async with db.transaction():
                await store.put("k", b"v")
                raise KeyError
    assert await store.get("k") is not None
    await store.close()


async def test_values_past_their_time_are_removed_from_the_table(postgres_url: str) -> None:
    """A new start removes rows whose time has passed."""
    store = PostgresStore(postgres_url)
    await store.open()
    await store.put("k", b"v", ttl_s=0.01)
    await store.close()
    async with Database(postgres_url) as db:
        await db.execute(sql.SQL("update cliffracer_store set expires_at = now() - interval '1 s'"))
        await store.open()
        assert await db.select(sql.SQL("select * from cliffracer_store")) == []
    await store.close()


async def test_bad_keys_times_and_tables_are_refused(postgres_url: str) -> None:
    """NUL in a key, a TTL of nothing, and a table that is no name have typed errors."""
    store = PostgresStore(postgres_url)
    await store.open()
    for bad in ("a\x00b", "\ud800"):
        with pytest.raises(ValidationError):
            await store.put(bad, b"x")
    with pytest.raises(ConfigurationError):
        await store.put("k", b"x", ttl_s=0)
    await store.close()
    with pytest.raises(ConfigurationError):
        PostgresStore(postgres_url, table="a; drop table b")
    with pytest.raises(ConfigurationError):
        PostgresStore("mysql://x")
