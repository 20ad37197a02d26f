"""Who asked goes away, over HTTP or RPC: the SQL that a handler had started for it ends, and its connection is free."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import httpx
import pytest
from cliffracer_db import Database, DbSettings, transactional
from cliffracer_http import get, post
from psycopg import sql

from cliffracer_core import ClientProxy, CliffracerService, ServiceConfig, rpc
from cliffracer_core.testing import eventually, unique

RUNNING = sql.SQL(
    "select pid, state from pg_stat_activity where datname = current_database() "
    "and pid <> pg_backend_pid() and query like '%%pg_sleep%%' and state <> 'idle'"
)


class Reports(CliffracerService):
    """Has one connection to its database, so that one that is lost would be missed."""

    db = Database()

    @rpc
    @get("/slow")
    async def slow(self) -> None:
        await self.db.execute(sql.SQL("select pg_sleep(60)"))

    @post("/slow")
    @transactional
    async def slow_transaction(self, name: str) -> None:
        await self.db.execute(sql.SQL("select pg_sleep(60)"))

    @get("/rows")
    async def rows(self) -> AsyncIterator[int]:
        yield 1
        await self.db.execute(sql.SQL("select pg_sleep(60)"))
        yield 2

    @get("/backend")
    async def backend(self) -> int:
        (row,) = await self.db.select(sql.SQL("select pg_backend_pid() as pid"))
        return int(row["pid"])


class Front(CliffracerService):
    """Asks the reports for it."""

    target = ""

    @get("/through")
    async def through(self) -> None:
        await self.rpc_call(self.target, "slow")


@pytest.fixture
async def reports(postgres_url: str, nats_url: str, server: str) -> AsyncIterator[Any]:
    config = ServiceConfig(
        unique(), transport=nats_url, http={"port": 0, "server": server}, db={"url": postgres_url, "pool_max_size": 1}
    )
    async with Reports(config) as service:
        yield service


@pytest.fixture
def server() -> str:
    """Which one serves, where a test does not say."""
    return "uvicorn"


@pytest.fixture
async def running(postgres_url: str) -> AsyncIterator[Callable[[], Awaitable[bool]]]:
    """Look, by a connection of its own, whether the slow statement runs."""
    async with Database(DbSettings(url=postgres_url)) as db:

        async def look() -> bool:
            return bool(await db.select(RUNNING))

        yield look


@contextlib.asynccontextmanager
async def still_usable(url: str) -> AsyncIterator[None]:
    """The service's one connection is the same before and after."""
    async with httpx.AsyncClient(base_url=url, timeout=10) as client:
        before = (await client.get("/backend")).json()
        yield
        assert (await client.get("/backend")).json() == before


async def ended(running: Callable[[], Awaitable[bool]]) -> None:
    async def none() -> bool:
        return not await running()

    await eventually(none)


async def leave(url: str, method: str, path: str, running: Callable[[], Awaitable[bool]], **options: Any) -> None:
    """Ask on a connection of its own, and close it while the statement runs."""
    async with httpx.AsyncClient(base_url=url, timeout=60) as client:
        task = asyncio.create_task(client.request(method, path, **options))
        await eventually(running)
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


@pytest.mark.parametrize(
    ("server", "method", "path", "options"),
    [
        ("uvicorn", "GET", "/slow", {}),
        ("uvicorn", "POST", "/slow", {"json": {"name": "a"}}),
        ("uvicorn", "GET", "/rows", {}),
        ("hypercorn", "POST", "/slow", {"json": {"name": "a"}}),
        ("granian", "POST", "/slow", {"json": {"name": "a"}}),
    ],
    ids=["a query", "a transaction", "a stream", "on hypercorn", "on granian"],
)
async def test_sql_ends_when_the_client_goes_away(
    reports: Any, running: Any, method: str, path: str, options: dict[str, Any]
) -> None:
    """PostgreSQL no longer works for a client that has gone, and the connection serves the next one."""
    async with still_usable(reports.http.url):
        await leave(reports.http.url, method, path, running, **options)
        await ended(running)


async def test_sql_ends_when_the_client_of_its_caller_goes_away(reports: Any, running: Any, nats_url: str) -> None:
    """The same through a call over the broker: HTTP to one service, RPC to the other, SQL there."""
    config = ServiceConfig(unique(), transport=nats_url, http={"port": 0, "server": "uvicorn"})
    async with Front(config) as front:
        found: Any = front
        found.target = reports.name
        async with still_usable(reports.http.url):
            await leave(found.http.url, "GET", "/through", running)
            await ended(running)


async def test_sql_ends_when_a_caller_gives_up(reports: Any, running: Any, nats_url: str) -> None:
    """The same for a call without HTTP."""
    async with ClientProxy(nats_url) as proxy, still_usable(reports.http.url):
        task = asyncio.create_task(proxy.send(f"{reports.name}.slow", {}))
        await eventually(running)
        task.cancel()
        await ended(running)
