"""Behind pgbouncer in transaction mode, where it is installed: each statement may be another session's."""

from __future__ import annotations

import asyncio
import os
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest
from cliffracer_db import Database, DatabaseUnavailable, DbSettings, EmbeddedPostgres, Repository, as_tenant, where
from psycopg import sql

from cliffracer_core import CliffracerService, ServiceConfig, event, rpc
from cliffracer_core.testing import eventually, unique

from .db_models import Org, make_tables
from .db_tenants import A, B, Note

PROGRAM = shutil.which("pgbouncer", path=f"{os.environ.get('PATH', '')}:/usr/sbin")
pytestmark = pytest.mark.skipif(
    PROGRAM is None and "REQUIRE_PGBOUNCER" not in os.environ,
    reason="pgbouncer is not installed; apt-get install pgbouncer",
)

CONFIGURATION = """
[databases]
{database} = host=127.0.0.1 port={port} dbname={database} user=app password={password}
[pgbouncer]
listen_addr = 127.0.0.1
listen_port = {listen}
unix_socket_dir =
auth_type = any
pool_mode = transaction
default_pool_size = 3
"""


@pytest.fixture
def bounced_url(postgres_server: EmbeddedPostgres, postgres_url: str) -> Iterator[str]:
    """The database behind a pgbouncer that has three sessions for all."""
    assert PROGRAM is not None
    name = postgres_url.rpartition("/")[2]
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        listen = probe.getsockname()[1]
    with tempfile.TemporaryDirectory() as directory:
        os.chmod(directory, 0o755)
        file = Path(directory) / "pgbouncer.ini"
        file.write_text(
            CONFIGURATION.format(
                database=name, port=postgres_server.port, password=postgres_server.password, listen=listen
            )
        )
        as_nobody = ["-u", "nobody"] if os.geteuid() == 0 else []  # it refuses root
        process = subprocess.Popen([PROGRAM, *as_nobody, file], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        url = f"postgresql://app:any@127.0.0.1:{listen}/{name}"
        try:
            for _ in range(500):
                try:
                    psycopg.connect(url, connect_timeout=5).close()
                    break
                except psycopg.OperationalError:
                    assert process.poll() is None
            yield url
        finally:
            process.terminate()
            process.wait(10)


class Orgs(CliffracerService):
    orgs = Repository(Org)

    @rpc(idempotent=True)
    async def add(self, name: str, subject: str) -> Org:
        made = await self.orgs.create(Org(name=name))
        await self.publish(subject, {"name": name}, outbox=True)
        return made


async def test_everything_works_when_each_statement_may_be_another_sessions(
    postgres_url: str, bounced_url: str
) -> None:
    """Repositories, transactions, streams, tenants, outbox and inbox of more tasks than there are sessions."""
    async with Database(DbSettings(url=postgres_url)) as direct:
        await make_tables(direct, Org, Note)
    with pytest.raises(DatabaseUnavailable, match="unsupported startup parameter"):
        await Database(bounced_url).open()
    async with Database(DbSettings(url=bounced_url, pgbouncer=True)) as db:
        orgs, notes = Repository(Org, db), Repository(Note, db)

        async def work(number: int) -> None:
            for turn in range(8):  # a statement is prepared the fifth time, where it is
                made = await orgs.create(Org(name=f"{number} {turn}"))
                assert await asyncio.gather(*(orgs.get(made.id) for _ in range(4))) == [made] * 4
                async with db.transaction(isolation="serializable", read_only=True):
                    assert await orgs.get(made.id) == made
                await orgs.create_many([Org(name=f"{number} {turn} {n}") for n in range(5)])
                own = where("name").like(f"{number} {turn} %")
                assert len([each async for each in orgs.stream(own, batch=2)]) == 5
                with as_tenant(tenant := A if number % 2 else B):
                    await notes.create(Note(title=f"{number} {turn}"))
                    assert {each.org_id for each in await notes.list()} == {tenant}
                assert await db.select(sql.SQL("select * from notes")) == []

        await asyncio.gather(*(work(number) for number in range(8)))
        assert await orgs.count() == 8 * 8 * 6
        task = asyncio.create_task(db.execute(sql.SQL("select pg_sleep(30)")))
        await asyncio.sleep(0)
        task.cancel()
        await asyncio.wait({task})
        await asyncio.gather(*(db.ping() for _ in range(10)))
    subject, got = unique(), list[str]()

    class Listening(Orgs):
        @event(f"{subject}.added")
        async def hear(self, name: str) -> None:
            got.append(name)

    section = {"url": bounced_url, "pgbouncer": True, "outbox": True, "outbox_poll_s": 0.05}
    async with Listening(ServiceConfig(unique(), db=section, store="postgresql://")) as service:
        arguments = {"name": "once", "subject": f"{subject}.added"}
        first, again = [
            await service.caller.call(service.name, "add", arguments, idempotency_key="k") for _ in range(2)
        ]
        assert first == again
        await eventually(lambda: got == ["once"])
        assert await service.store().put("k", b"v") > 0
