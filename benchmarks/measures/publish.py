"""Publishing typed payloads, in bursts that each end with the server's PONG.

A first small burst is received by a raw client and looked at; of the rest the server's own counters
must agree with ours.
"""

from __future__ import annotations

import asyncio
import json
import time

import nats
from nats.aio.client import Client

from benchmarks.bench import Bench
from benchmarks.contestants import EVENTS, Publisher, find
from benchmarks.payload import FIRST, TEXT, Model
from benchmarks.worker import Station

BURST = 10_000
CHECKED = 100
SETTLE_S = 0.2
"""The server counts a little after it has answered."""


async def publish(station: Station, *, seconds: float) -> None:
    """Check, warm up, then measure."""
    contestant = find(station.contestant)
    items = [contestant.Item(number=FIRST + number, text=TEXT) for number in range(BURST)]
    witness = await nats.connect(station.url)
    async with contestant.publisher(station.url) as publisher:
        await asyncio.sleep(SETTLE_S)
        before = await _received(witness)
        await _check_content(witness, publisher, items[:CHECKED])
        warmed_up, _ = await _bursts(publisher, items, seconds / 4)
        count, elapsed_s = await _bursts(publisher, items, seconds)
        await _check_count(witness, before + CHECKED + warmed_up + count)
    await witness.close()
    station.say(publish=count / elapsed_s)


async def _bursts(publisher: Publisher, items: list[Model], seconds: float) -> tuple[int, float]:
    publish = publisher.publish
    count = 0
    begun = time.perf_counter()
    while (elapsed_s := time.perf_counter() - begun) < seconds:
        for item in items:
            await publish(item)
        await publisher.flush()
        count += len(items)
    return count, elapsed_s


async def _check_content(witness: Client, publisher: Publisher, items: list[Model]) -> None:
    heard = await witness.subscribe(EVENTS)
    await witness.flush()
    for item in items:
        await publisher.publish(item)
    await publisher.flush()
    for item in items:
        found = json.loads((await heard.next_msg(timeout=5)).data)
        if found != {"number": item.number, "text": item.text}:
            raise ValueError(f"published was {item!r}, received {found!r}")
    await heard.unsubscribe()
    await witness.flush()


async def _received(witness: Client) -> int:
    """Return how many messages the server has from all connections but the witness's."""
    reply = await witness.request("$SYS.REQ.ACCOUNT.PING.CONNZ", b"", timeout=5)
    connections = json.loads(reply.data)["data"]["connections"]
    return sum(each["in_msgs"] for each in connections if each["cid"] != witness.client_id)


async def _check_count(witness: Client, expected: int) -> None:
    for _ in range(20):
        await asyncio.sleep(SETTLE_S)
        found = await _received(witness)
        if found == expected:
            return
    raise ValueError(f"the server has counted {found} messages, sent were {expected}")


def sample(bench: Bench, contestant: str) -> dict[str, float]:
    """Messages per second."""
    with bench.worker("measures.publish:publish", contestant, seconds=bench.seconds) as publisher:
        return publisher.hear()
