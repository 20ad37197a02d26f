"""nats-py as its documentation shows it, with msgspec for typed payloads."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

import msgspec
import nats
from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.errors import TimeoutError

from benchmarks.load import Call
from benchmarks.payload import Numbered
from benchmarks.tally import Tally

from . import BATCH, EVENTS, RPC, STORED, STREAM, Publisher


class Item(msgspec.Struct):
    number: int
    text: str


encode = msgspec.json.Encoder().encode
decode = msgspec.json.Decoder(Item).decode


@asynccontextmanager
async def connected(url: str) -> AsyncIterator[Client]:
    client = await nats.connect(url)
    try:
        yield client
    finally:
        await client.close()


@asynccontextmanager
async def serve(url: str) -> AsyncIterator[None]:
    async def echo(msg: Msg) -> None:
        item = decode(msg.data)
        await msg.respond(encode(Item(item.number + 1, item.text)))

    async with connected(url) as client:
        await client.subscribe(RPC, queue="q", cb=echo)
        await client.flush()
        yield


@asynccontextmanager
async def caller(url: str) -> AsyncIterator[Call]:
    async with connected(url) as client:

        async def call(item: Numbered) -> Item:
            reply = await client.request(RPC, encode(item), timeout=30)
            return decode(reply.data)

        yield call


class _Publisher:
    def __init__(self, client: Client) -> None:
        self._client = client

    async def publish(self, item: Numbered) -> None:
        await self._client.publish(EVENTS, encode(item))

    async def flush(self) -> None:
        await self._client.flush(timeout=60)


@asynccontextmanager
async def publisher(url: str) -> AsyncIterator[Publisher]:
    async with connected(url) as client:
        yield _Publisher(client)


@asynccontextmanager
async def receive(url: str, tally: Tally) -> AsyncIterator[None]:
    async def on_item(msg: Msg) -> None:
        tally(decode(msg.data))

    async with connected(url) as client:
        await client.subscribe(EVENTS, queue="q", cb=on_item)
        await client.flush()
        yield


@asynccontextmanager
async def consume(url: str, tally: Tally) -> AsyncIterator[None]:
    async with connected(url) as client:
        subscription = await client.jetstream().pull_subscribe(STORED, durable="bench-raw", stream=STREAM)

        async def pull() -> None:
            while True:
                with suppress(TimeoutError):
                    for msg in await subscription.fetch(BATCH, timeout=5):
                        tally(decode(msg.data))
                        await msg.ack()

        pulling = asyncio.create_task(pull())
        try:
            yield
        finally:
            pulling.cancel()
            with suppress(asyncio.CancelledError):
                await pulling
