from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Callable
from pathlib import Path

import msgspec
from cliffracer_db import Database
from cliffracer_db.migrations import Migrations
from cliffracer_nats.embedded import embedded_nats
from psycopg import sql

from cliffracer_core import ServiceConfig
from cliffracer_core.interfaces import DurableTransport
from cliffracer_core.testing import eventually

from .db_killed import Effect, Order, Orders
from .db_models import make_tables


async def test_every_committed_orders_event_arrives_when_the_service_is_killed(
    db: Database, in_full: bool, record_property: Callable[[str, object], None]
) -> None:
    """`kill -9` at random points: each committed order's event is stored once, none of an undone order.

    40 times, and 200 times with `CLIFFRACER_FAULTS=full`. The service handles the events itself, idempotently:
    each has its effect once.
    """
    kills = 200 if in_full else 40
    await make_tables(db, Order, Effect)
    assert db.settings is not None
    with embedded_nats() as nats:
        variables = {
            "CLIFFRACER_DB__URL": db.settings.url, "CLIFFRACER_DB__OUTBOX": "true", "NATS_URL": nats.url,
            "CLIFFRACER_DB__OUTBOX_POLL_S": "0.01", "CLIFFRACER_DB__OUTBOX_LEASE_S": "0.02",
        }  # fmt: skip
        process = await asyncio.create_subprocess_exec(
            sys.executable, str(Path(__file__).with_name("db_killed.py")), str(kills),
            env={**os.environ, **variables}, stderr=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE,
        )  # fmt: skip
        _, errors = await process.communicate()
        assert process.returncode == 0, errors.decode()[-2000:]
        section = {"url": db.settings.url, "outbox": True, "outbox_poll_s": 0.05}
        async with Orders(ServiceConfig("orders", db=section, nats_url=nats.url)) as service:

            async def empty() -> bool:
                return await db.select(sql.SQL("select 1 from cliffracer_outbox limit 1")) == []

            await eventually(empty, timeout_s=60)
            transport = service.runtime.transports["default"]
            assert isinstance(transport, DurableTransport)
            events = [msgspec.json.decode(each.message.body)["number"] async for each in transport.browse("ORDER")]
            (row,) = await db.select(sql.SQL("select count(*) as n from orders"))

            async def all_handled() -> bool:
                return await service.effects.count() >= int(row["n"])

            await eventually(all_handled, timeout_s=60)
            effects = [each.number for each in await service.effects.find()]
        committed = [row["number"] for row in await db.select(sql.SQL("select number from orders"))]
    assert len(committed) > kills
    assert not [number for number in committed if number % 5 == 0]
    assert sorted(events) == sorted(committed)
    assert sorted(effects) == sorted(committed)
    by_key: dict[int, list[int]] = {}
    for number in events:
        by_key.setdefault(number // 1_000_000, []).append(number)
    assert len(by_key) >= kills // 2
    record_property("figure", f"{kills} kills, {len(committed)} orders committed")
    print(f"{kills} kills, {len(committed)} orders committed, {len(events)} events, {len(effects)} effects")


async def test_migrations_go_on_when_the_process_that_applies_them_is_killed(
    db: Database, postgres_url: str, tmp_path: Path
) -> None:
    """Of two processes that start at once one is killed in the middle: the other applies the rest, each file once."""
    for number in range(1, 7):
        text = f"create table m{number} (n int); insert into m{number} values (1); select pg_sleep(0.15);"
        (tmp_path / f"{number:04d}_m{number}.sql").write_text(text)
    command = [sys.executable, str(Path(__file__).with_name("db_migrating.py")), postgres_url, str(tmp_path)]
    processes = [await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.PIPE) for _ in range(2)]
    applied = sql.SQL("select to_regclass('m2') is not null as made")

    async def begun() -> bool:
        return bool((await db.select(applied))[0]["made"])

    await eventually(begun, timeout_s=30)
    holder = sql.SQL(
        "select application_name as name from pg_locks join pg_stat_activity using (pid) "
        "where locktype = 'advisory' and granted and datname = current_database()"
    )
    (row,) = await db.select(holder)
    killed = next(each for each in processes if row["name"] == f"replica-{each.pid}")
    killed.kill()
    (other,) = [each for each in processes if each is not killed]
    printed, _ = await other.communicate()
    await killed.communicate()
    assert other.returncode == 0
    assert 1 <= int(printed) < 6
    states = await Migrations(tmp_path, "shop").status(db)
    assert [(each.number, each.problem) for each in states if each.applied_at] == [(n, "") for n in range(1, 7)]
    for number in range(1, 7):
        assert await db.select(sql.SQL("select n from {}").format(sql.Identifier(f"m{number}"))) == [{"n": 1}]
