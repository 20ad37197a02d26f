from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import AsyncIterator

import pytest
from cliffracer_db import (
    Database,
    DbSettings,
    EmbeddedPostgres,
    RecordNotFound,
    Repository,
    SerializationFailure,
    UniqueViolation,
    transactional,
)
from psycopg import sql

from cliffracer_core import CliffracerService, ServiceConfig, rpc
from cliffracer_core.assembly import load_plugins
from cliffracer_core.errors import ConfigurationError, StartupError

from .db_models import Org, User, make_tables


class Users(CliffracerService):
    name = "users"
    users = Repository(User)
    orgs = Repository(Org)
    db = Database()
    attempts = 0

    @rpc
    async def create_user(self, name: str, email: str) -> User:
        return await self.users.create(User(name=name, email=email))

    @rpc
    async def get_user(self, id: str) -> User:
        return await self.users.get(id)

    @rpc
    @transactional
    async def create_both(self, name: str, twice: bool = False) -> int:
        await self.orgs.create(Org(name=name))
        for _ in range(2 if twice else 1):
            await self.users.create(User(name=name, email=name))
        return await self.users.count()

    @rpc
    @transactional(isolation="serializable", attempts=3)
    async def hard(self, fail: int) -> int:
        type(self).attempts += 1
        if self.attempts <= fail:
            raise SerializationFailure("another transaction got in the way")
        return self.attempts

    @rpc
    @transactional(read_only=True)
    async def reading(self) -> str:
        (row,) = await self.db.select(sql.SQL("select current_setting('transaction_read_only') as ro"))
        return str(row["ro"])


@pytest.fixture
async def service(db: Database) -> AsyncIterator[Users]:
    await make_tables(db, Org, User)
    Users.attempts = 0
    assert db.settings is not None
    async with Users(ServiceConfig("users", db={"url": db.settings.url})) as running:
        yield running


async def test_handlers_use_repositories_declared_on_the_class(service: Users) -> None:
    """Repositories are bound to the service's database; a model is a reply, and errors reach the caller typed."""
    made = await service.rpc_call("users", "create_user", name="ada", email="a@b")
    found = await service.rpc_call("users", "get_user", id=made["id"])
    assert found == made
    with pytest.raises(UniqueViolation) as caught:
        await service.rpc_call("users", "create_user", name="ada", email="a@b")
    assert caught.value.details["field"] == "email"
    with pytest.raises(RecordNotFound):
        await service.rpc_call("users", "get_user", id="00000000-0000-7000-8000-000000000000")


async def test_repositories_of_a_service_share_one_pool_and_close_it(db: Database, service: Users) -> None:
    """One pool for all of them, and for a second instance; its connections go with the last."""
    assert service.users.db.pool is service.orgs.db.pool is service.db.pool
    assert db.settings is not None
    async with Users(ServiceConfig("users2", db={"url": db.settings.url})) as other:
        assert other.users.db.pool is service.users.db.pool
        assert other.users is not service.users
    pool = service.db.pool
    await db.close()
    assert not pool.closed
    await service.stop()
    assert pool.closed


async def test_handler_is_one_transaction_when_marked(service: Users) -> None:
    """All that a @transactional handler wrote is committed, or none of it."""
    assert await service.rpc_call("users", "create_both", name="a") == 1
    with pytest.raises(UniqueViolation):
        await service.rpc_call("users", "create_both", name="b", twice=True)
    assert [each.name for each in await service.orgs.list()] == ["a"]
    assert await service.rpc_call("users", "reading") == "on"
    assert "shape db:transaction" in (await service.explain("create_both"))["in"]
    assert "shape db:transaction" not in (await service.explain("get_user"))["in"]


async def test_handler_runs_again_when_another_transaction_got_in_the_way(service: Users) -> None:
    """A marked handler is repeated on serialization failures, up to its attempts."""
    assert await service.rpc_call("users", "hard", fail=2) == 3
    Users.attempts = 0
    with pytest.raises(SerializationFailure):
        await service.rpc_call("users", "hard", fail=3)
    assert Users.attempts == 3


async def test_handler_is_refused_when_it_cannot_be_transactional(postgres_url: str) -> None:
    """A generator, two marks, no handler, an unknown isolation level or no attempts stop the start, or the class."""

    class Streams(CliffracerService):
        @rpc
        @transactional
        async def items(self) -> AsyncIterator[int]:
            yield 1

    class Twice(CliffracerService):
        @rpc
        @transactional
        @transactional
        async def one(self) -> None: ...

    class Helps(CliffracerService):
        @transactional
        async def helper(self) -> None: ...

    for cls, named in ((Streams, "streams its reply"), (Twice, "twice"), (Helps, "no handler")):
        with pytest.raises(ConfigurationError, match=named):
            await cls(ServiceConfig("s", db={"url": postgres_url})).start()
    with pytest.raises(ConfigurationError, match="isolation"):
        transactional(isolation="none")  # type: ignore[call-overload]
    with pytest.raises(ConfigurationError, match="attempts"):
        transactional(attempts=0)


async def test_marked_handler_is_refused_when_the_plugin_is_disabled(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the plugin a @transactional handler does not run without its transaction."""
    monkeypatch.setenv("CLIFFRACER_DISABLE", "db")
    with pytest.raises(ConfigurationError, match="transactional"):
        await Users(ServiceConfig("users")).start()


async def test_start_names_place_and_remedy_when_there_is_no_database() -> None:
    """A service whose database is not there does not start, within seconds."""
    with pytest.raises((StartupError, ConnectionError), match=r"127.0.0.1:1/shop.*DB_HOST"):
        await Users(ServiceConfig("users", db={"host": "127.0.0.1", "port": 1, "name": "shop"})).start()


async def test_flat_names_and_environment_reach_the_section(
    monkeypatch: pytest.MonkeyPatch, postgres_server: EmbeddedPostgres
) -> None:
    """`db_host`, DB_NAME, `connection_pool_size` ... are the section's fields."""
    monkeypatch.setenv("DB_NAME", postgres_server.create_database().rpartition("/")[2])
    monkeypatch.setenv("DB_PASSWORD", postgres_server.password)
    config = ServiceConfig(
        "users", db_host="127.0.0.1", db_port=postgres_server.port, db_user="app", connection_pool_size=3
    )
    async with Users(config) as service:
        assert await service.db.ping() > 0
        assert service.db.pool.max_size == 3


@pytest.mark.parametrize(
    "section",
    [
        {"url": "mysql://x/y"}, {"pool_max_size": 0}, {"pool_min_size": 5, "pool_max_size": 2}, {"pool_timeout_s": 0},
        {"hosst": "x"}, {"port": "many"},
    ],
)  # fmt: skip
async def test_settings_are_refused_when_they_are_wrong(section: dict[str, object]) -> None:
    """A wrong setting stops the start before anything is connected."""
    with pytest.raises(ConfigurationError):
        await Users(ServiceConfig("users", db=section)).start()


async def test_health_tells_of_the_database(own_postgres: EmbeddedPostgres) -> None:
    """`connected` with the latency; an error while it is gone; nothing for a service without one."""
    async with CliffracerService(ServiceConfig("none")) as plain:
        assert "database" not in await plain.health()
    async with Users(ServiceConfig("users", db={"url": own_postgres.url})) as service:
        report = (await service.health())["database"]
        assert report["connected"] is True
        assert 0 < float(str(report["latency_ms"])) < 5000
        own_postgres.kill()
        assert "database_unavailable" in str((await service.health())["database"]["error"])


def test_idle_plugin_imports_no_driver() -> None:
    """Loading the plugin costs no import of psycopg."""
    code = (
        "import sys; from cliffracer_core.assembly import load_plugins; p = load_plugins(); "
        "list(p.ask('cliffracer_register_settings')); print(p.is_active('db'), 'psycopg' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["True", "False"]
    assert load_plugins().is_active("db")


async def test_pool_belongs_to_the_loop_when_there_are_two(postgres_url: str) -> None:
    """Two event loops in one process have pools of their own."""
    async with Database(DbSettings(url=postgres_url)) as db:
        pool = db.pool

        async def elsewhere() -> bool:
            async with Database(DbSettings(url=postgres_url)) as other:
                await other.ping()
                return other.pool is pool

        assert await asyncio.to_thread(lambda: asyncio.run(elsewhere())) is False
