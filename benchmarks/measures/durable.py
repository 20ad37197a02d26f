"""Durable events: a stream filled beforehand, pulled in batches, each message acknowledged by itself.

The stream is kept in memory: the disk is the same for all and would only add noise. How many messages
there are depends on what the contestant handles in the time, found in a rehearsal.
"""

from __future__ import annotations

import asyncio

import nats
from nats.js import JetStreamContext
from nats.js.api import StorageType
from nats.js.errors import NotFoundError

from benchmarks.bench import Bench
from benchmarks.contestants import STORED, STREAM, find
from benchmarks.payload import FIRST, body
from benchmarks.tally import Tally
from benchmarks.worker import Station

STEP = 250
FEWEST, MOST = 5_000, 400_000
CONFIRM = 1000
"""While it fills, the server's word is awaited once in so many messages; it drops past 10,000 unstored."""


async def keep(station: Station, *, count: int) -> None:
    """Fill the stream, and check at the end that every message is acknowledged."""
    client = await nats.connect(station.url)
    stream = client.jetstream(timeout=30)
    try:
        await stream.delete_stream(STREAM)
    except NotFoundError:
        pass
    await stream.add_stream(name=STREAM, subjects=[STORED], storage=StorageType.MEMORY)
    for number in range(1, count + 1):
        if number % CONFIRM and number != count:
            await client.publish(STORED, body(FIRST + number - 1))
        else:
            await stream.publish(STORED, body(FIRST + number - 1))
    stored = (await stream.stream_info(STREAM)).state.messages
    if stored != count:
        raise ValueError(f"the stream holds {stored} of {count} messages")
    station.say(filled=count)
    if await station.hear():
        await _check_acks(stream, count)
        station.say(acked=count)
    await stream.delete_stream(STREAM)
    await client.close()


async def _check_acks(stream: JetStreamContext, count: int) -> None:
    for _ in range(40):
        (consumer,) = await stream.consumers_info(STREAM)
        floor = consumer.ack_floor.stream_seq if consumer.ack_floor else 0
        if floor == count and not consumer.num_ack_pending and not consumer.num_redelivered:
            return
        await asyncio.sleep(0.1)
    raise ValueError(
        f"acknowledged are {floor} of {count}, {consumer.num_ack_pending} are open, "
        f"{consumer.num_redelivered} came again"
    )


async def consume(station: Station, *, count: int) -> None:
    """Handle all messages; stay until the acknowledgements are checked."""
    tally = Tally(count, STEP)
    async with find(station.contestant).consume(station.url, tally):
        await tally.expect(count, within_s=120)
        station.say(durable=tally.rate())
        await station.hear()


def sample(bench: Bench, contestant: str) -> dict[str, float]:
    """Messages per second, from the first to the last handled."""
    if contestant not in bench.counts:
        rate = _sample(bench, contestant, FEWEST)["durable"]
        bench.counts[contestant] = min(MOST, max(FEWEST, int(rate * bench.seconds)))
    return _sample(bench, contestant, bench.counts[contestant])


def _sample(bench: Bench, contestant: str, count: int) -> dict[str, float]:
    with bench.worker("measures.durable:keep", "nobody", count=count) as keeper:
        keeper.hear(120)
        with bench.worker("measures.durable:consume", contestant, count=count) as consumer:
            facts = consumer.hear(180)
            keeper.say("check")
            keeper.hear()
            return facts
