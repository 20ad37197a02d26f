from __future__ import annotations

import asyncio
import os
import sys
from pathlib import Path

import msgspec
from cliffracer_db import Database
from cliffracer_nats.embedded import embedded_nats
from psycopg import sql

from cliffracer_core import ServiceConfig
from cliffracer_core.interfaces import DurableTransport
from cliffracer_core.testing import eventually

from .db_killed import Effect, Order, Orders
from .db_models import make_tables

KILLS = 200 if os.environ.get("CLIFFRACER_FAULTS") == "full" else 40


async def test_every_committed_orders_event_arrives_when_the_service_is_killed(db: Database) -> None:
    """`kill -9` at random points: each committed order's event is stored once, none of an undone order.

    40 times, and 200 times with `CLIFFRACER_FAULTS=full`. The service handles the events itself, idempotently:
    each has its effect once.
    """
    await make_tables(db, Order, Effect)
    assert db.settings is not None
    with embedded_nats() as nats:
        variables = {
            "CLIFFRACER_DB__URL": db.settings.url, "CLIFFRACER_DB__OUTBOX": "true", "NATS_URL": nats.url,
            "CLIFFRACER_DB__OUTBOX_POLL_S": "0.01", "CLIFFRACER_DB__OUTBOX_LEASE_S": "0.02",
        }  # fmt: skip
        process = await asyncio.create_subprocess_exec(
            sys.executable, str(Path(__file__).with_name("db_killed.py")), str(KILLS),
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
    assert len(committed) > KILLS
    assert not [number for number in committed if number % 5 == 0]
    assert sorted(events) == sorted(committed)
    assert sorted(effects) == sorted(committed)
    by_key: dict[int, list[int]] = {}
    for number in events:
        by_key.setdefault(number // 1_000_000, []).append(number)
    assert len(by_key) > KILLS // 2
