from __future__ import annotations

import asyncio
import time

import psycopg
import pytest
from cliffracer_db import (
    Database,
    DatabaseUnavailable,
    DbSettings,
    EmbeddedPostgres,
    PoolExhausted,
    Repository,
)
from msgspec.structs import replace
from psycopg import sql

from cliffracer_core.errors import ConfigurationError, DatabaseError
from cliffracer_core.testing import eventually

from .db_models import Org, make_tables


async def test_call_is_refused_when_the_pool_stays_exhausted(postgres_url: str) -> None:
    """With every connection in use a call ends with PoolExhausted after `pool_timeout_s`; it works once one is free."""
    async with Database(DbSettings(url=postgres_url, pool_max_size=2, pool_timeout_s=0.2)) as db:
        async with db.connection(), db.connection():
            begin = time.monotonic()
            with pytest.raises(PoolExhausted) as caught:
                await db.ping()
            assert 0.15 < time.monotonic() - begin < 5
            assert (caught.value.status, caught.value.retryable) == (503, True)
        await db.ping()


async def test_open_names_place_and_reason_when_nobody_is_there() -> None:
    """A wrong port, password or database fails at once, with the place and never the password."""
    begin = time.monotonic()
    with pytest.raises(DatabaseUnavailable, match=r"127.0.0.1:1/shop.*DB_HOST") as caught:
        await Database("postgresql://me:secret-word@127.0.0.1:1/shop").open()
    assert time.monotonic() - begin < 3
    assert "secret-word" not in str(caught.value)


async def test_open_fails_when_the_password_is_wrong(postgres_server: EmbeddedPostgres) -> None:
    """The server's reason is told."""
    url = postgres_server.url.replace(postgres_server.password, "secret-word")
    with pytest.raises(DatabaseUnavailable, match="password authentication failed") as caught:
        await Database(url).open()
    assert "secret-word" not in str(caught.value)


@pytest.mark.parametrize("url", ["", "mysql://h/db", "postgresql", "postgresql://h:port/db", "postgresql://h:99999/db"])
def test_url_is_refused_when_it_is_none(url: str) -> None:
    """A setting that is no PostgreSQL URL is a ConfigurationError that shows the form."""
    with pytest.raises(ConfigurationError, match="postgresql://user:password@host:5432/name"):
        Database(url)


async def test_session_is_as_set(postgres_url: str) -> None:
    """Time zone, timeouts and the name are those of the settings; nothing is set behind pgbouncer."""
    show = sql.SQL("select name, setting from pg_settings where name = any(%s) order by 1")
    wanted = (["application_name", "lock_timeout", "statement_timeout", "TimeZone"],)
    settings = DbSettings(url=postgres_url, statement_timeout_s=7, lock_timeout_s=0.5, application_name="shop")
    async with Database(settings) as db:
        found = {each["name"]: each["setting"] for each in await db.select(show, wanted)}
    assert found == {"application_name": "shop", "lock_timeout": "500", "statement_timeout": "7000", "TimeZone": "UTC"}
    async with Database(replace(settings, pgbouncer=True)) as db:
        found = {each["name"]: each["setting"] for each in await db.select(show, wanted)}
        assert (found["lock_timeout"], found["statement_timeout"]) == ("0", "0")


async def test_what_the_url_says_wins(postgres_url: str) -> None:
    """Options, name and the like in the URL are kept beside the session's own; what libpq does not know is refused."""
    more = "?application_name=theirs&options=-csearch_path%3Dmine%20-cstatement_timeout%3D1234"
    show = sql.SQL("select current_setting(name) as value from unnest(%s::text[]) as name")
    names = ["application_name", "search_path", "statement_timeout", "lock_timeout", "TimeZone"]
    async with Database(postgres_url + more) as db:
        found = [each["value"] for each in await db.select(show, [names])]
    assert found == ["theirs", "mine", "1234ms", "10s", "UTC"]
    for bad in ("?nonsense=1", "?sslmode=maybe%"):
        with pytest.raises(ConfigurationError, match=r"db\.url") as caught:
            await Database(postgres_url + bad).open()
        assert postgres_url.split(":")[2].partition("@")[0] not in str(caught.value)


@pytest.mark.parametrize("pgbouncer", [False, True])
async def test_statements_are_prepared_unless_behind_pgbouncer(postgres_url: str, pgbouncer: bool) -> None:
    """A repository's statement is prepared once whatever its values; behind pgbouncer none is."""
    settings = DbSettings(url=postgres_url, pgbouncer=pgbouncer, pool_max_size=1)
    async with Database(settings) as db:
        await make_tables(db, Org)
        orgs = Repository(Org, db)
        for number in range(10):
            made = await orgs.create(Org(name=f"{number}"))
            await orgs.get(made.id)
            await orgs.list(limit=10 ** (number % 10))
        statements = await db.select(sql.SQL("select statement from pg_prepared_statements"))
    assert len([each for each in statements if "pg_prepared" not in each["statement"]]) == (0 if pgbouncer else 3)


async def test_connection_is_usable_when_its_task_was_cancelled(postgres_url: str) -> None:
    """Cancelled at any point of a query, again and again: no connection is lost, and none is left in a query."""
    async with Database(DbSettings(url=postgres_url, pool_max_size=3)) as db:
        await make_tables(db, Org)
        orgs = Repository(Org, db)
        for number in range(150):
            task = asyncio.create_task(orgs.create(Org(name=f"{number}")) if number % 3 else sleep(db))
            for _ in range(number % 30):
                await asyncio.sleep(0)
            if number % 7 == 0:
                await asyncio.sleep(0.002)
            task.cancel()
            await asyncio.wait({task})

        async def all_back() -> bool:
            figures = db.statistics()
            return figures["pool_available"] == figures["pool_size"]

        await eventually(all_back)
        await asyncio.gather(*(db.ping() for _ in range(20)))
        busy = sql.SQL(
            "select 1 from pg_stat_activity "
            "where state <> 'idle' and pid <> pg_backend_pid() and datname = current_database()"
        )

        async def idle() -> bool:  # of a query that began just after its cancel request the client is gone
            return not await db.select(busy)

        await eventually(idle)


async def sleep(db: Database) -> None:
    await db.execute(sql.SQL("select pg_sleep(30)"))


async def test_calls_fail_at_once_and_recover_when_the_database_is_gone_and_back(
    own_postgres: EmbeddedPostgres,
) -> None:
    """While it is gone each call ends quickly with a retryable error; within 2 s of its return calls work again."""
    async with Database(DbSettings(url=own_postgres.url, pool_min_size=2, pool_max_size=5)) as db:
        await make_tables(db, Org)
        await asyncio.gather(*(db.ping() for _ in range(5)))
        own_postgres.kill()
        for _ in range(20):
            begin = time.monotonic()
            with pytest.raises(DatabaseUnavailable) as caught:
                await db.ping()
            assert time.monotonic() - begin < 2
            assert caught.value.retryable
        results = await asyncio.gather(*(db.ping() for _ in range(30)), return_exceptions=True)
        assert all(isinstance(each, DatabaseUnavailable) for each in results)
        own_postgres.start()
        back = time.monotonic()

        async def works() -> bool:
            results = await asyncio.gather(*(db.ping() for _ in range(5)), return_exceptions=True)
            return all(isinstance(each, float) for each in results)

        await eventually(works)
        assert time.monotonic() - back < 2
        assert await Repository(Org, db).count() == 0


async def test_no_committed_row_is_lost_when_the_server_restarts_under_load(own_postgres: EmbeddedPostgres) -> None:
    """Every row whose `create` returned is there after two restarts and a crash, and no connection leaks."""
    async with Database(DbSettings(url=own_postgres.url, pool_max_size=8)) as db:
        await make_tables(db, Org)
        orgs = Repository(Org, db)
        written: list[str] = []
        errors: list[BaseException] = []
        going = True

        async def write(worker: int) -> None:
            number = 0
            while going:
                number += 1
                name = f"{worker}-{number}"
                try:
                    async with db.transaction():
                        await orgs.create(Org(name=name))
                    written.append(name)
                except DatabaseError as error:
                    errors.append(error)
                    await asyncio.sleep(0.01)

        async def progress(count: int) -> None:
            target = len(written) + count

            async def there() -> bool:
                return len(written) >= target

            await eventually(there, timeout_s=20)

        workers = [asyncio.create_task(write(number)) for number in range(12)]
        for how in (own_postgres.restart, own_postgres.restart, own_postgres.kill, own_postgres.start):
            await progress(300) if how != own_postgres.start else await asyncio.sleep(0)
            await asyncio.to_thread(how)
        await progress(300)
        going = False
        await asyncio.gather(*workers)
        stored = {each.name for each in await orgs.find()}
        assert set(written) <= stored
        assert errors
        assert {type(each) for each in errors} <= {DatabaseUnavailable}

        async def all_back() -> bool:
            figures = db.statistics()
            return figures["pool_available"] == figures["pool_size"] <= 8

        await eventually(all_back)
    # the server notices each end in its own time
    counting = "select count(*) from pg_stat_activity where application_name = 'cliffracer'"
    with psycopg.connect(own_postgres.url, autocommit=True) as connection:
        await eventually(lambda: connection.execute(counting).fetchone() == (0,))
