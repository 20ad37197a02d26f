"""`relay`: events that wait in the outbox, until JetStream has the last one and it is forgotten here."""

from __future__ import annotations

import asyncio
import os
import time

import nats
from cliffracer_db import Database
from cliffracer_nats.embedded import embedded_nats
from psycopg import sql

from benchmarks.bench import Bench
from benchmarks.worker import Station
from cliffracer_core import CliffracerService, ServiceConfig

__all__ = ["sample", "send"]

KEYS = 1000
WITHIN_S = 120.0
SUBJECT, STREAM = "placed.order", "PLACED"
_WAITING = sql.SQL("select count(*) as events from cliffracer_outbox where service = 'shop' and failure is null")


class Shop(CliffracerService):
    db = Database()


async def send(station: Station, *, keys: int) -> None:
    """Write events in one transaction; the clock runs from its commit."""
    events = int(os.environ["BENCH_EVENTS"])
    with embedded_nats() as server:
        settings = {"url": station.url, "outbox": True}
        async with Shop(ServiceConfig("shop", nats_url=server.url, db=settings)) as service:
            # the stream is made with the first event
            await service.publish(SUBJECT, {"number": -1}, durable=True)
            async with service.db.transaction():
                for number in range(events):
                    await service.publish(SUBJECT, _order(number), outbox=f"customer {number % keys}", durable=True)
            begun = time.perf_counter()
            while (await service.db.select(_WAITING))[0]["events"]:
                if time.perf_counter() - begun > WITHIN_S:
                    raise ValueError(f"not all of {events} events were sent within {WITHIN_S:g} s")
                await asyncio.sleep(0.02)
            elapsed_s = time.perf_counter() - begun
        client = await nats.connect(server.url)
        stored = (await client.jetstream().stream_info(STREAM)).state.messages
        await client.close()
    if stored != events + 1:
        raise ValueError(f"of {events} events JetStream has {stored - 1}")
    station.say(rate=events / elapsed_s)


def _order(number: int) -> dict[str, object]:
    return {"number": number, "customer": f"customer {number}", "amount": number * 3, "paid": False}


def sample(bench: Bench, contestant: str) -> dict[str, float]:
    """Events per second, with many keys and with one."""
    found = {}
    for row, keys in (("relay", KEYS), ("relay_one_key", 1)):
        with bench.worker("db.relay:send", contestant, keys=keys) as worker:
            found[row] = float(worker.hear(WITHIN_S + 60)["rate"])
    return found
