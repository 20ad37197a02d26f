"""FastStream's NatsBroker with typed handlers; `--faststream` chooses how.

`pydantic` is its default without its log of two lines a message, `log` its default with that log, and
`msgspec` has the serializer that suits msgspec Structs, also without the log.
"""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import msgspec
from fast_depends.msgspec import MsgSpecSerializer
from faststream.nats import JStream, NatsBroker, PullSub, TestNatsBroker
from pydantic import BaseModel

from benchmarks.load import Call
from benchmarks.tally import Tally

from . import BATCH, EVENTS, FASTSTREAM, RPC, STORED, STREAM, Publisher

CHOICE = os.environ.get("BENCH_FASTSTREAM", FASTSTREAM[0])

if CHOICE == "msgspec":

    class Item(msgspec.Struct):
        number: int
        text: str

else:

    class Item(BaseModel):  # type: ignore[no-redef]  # one or the other
        number: int
        text: str


def _broker(url: str) -> NatsBroker:
    if CHOICE == "log":
        return NatsBroker(url)
    if CHOICE == "msgspec":
        return NatsBroker(url, logger=None, serializer=MsgSpecSerializer())
    return NatsBroker(url, logger=None)


@asynccontextmanager
async def _started(broker: NatsBroker) -> AsyncIterator[NatsBroker]:
    async with broker:
        await broker.start()
        await broker.connection.flush()
        yield broker


def _echoing(url: str) -> NatsBroker:
    broker = _broker(url)

    @broker.subscriber(RPC, queue="q")
    async def echo(item: Item) -> Item:
        return Item(number=item.number + 1, text=item.text)

    return broker


@asynccontextmanager
async def serve(url: str) -> AsyncIterator[None]:
    async with _started(_echoing(url)):
        yield


def _call(broker: NatsBroker) -> Call:
    async def call(item: Any) -> Item:
        reply = await broker.request(item, RPC, timeout=30)
        body: Any = await reply.decode()
        return Item(**body)

    return call


@asynccontextmanager
async def caller(url: str) -> AsyncIterator[Call]:
    async with _started(_broker(url)) as broker:
        yield _call(broker)


class _Publisher:
    def __init__(self, broker: NatsBroker) -> None:
        self._broker = broker

    async def publish(self, item: Any) -> None:
        await self._broker.publish(item, EVENTS)

    async def flush(self) -> None:
        await self._broker.connection.flush(timeout=60)


@asynccontextmanager
async def publisher(url: str) -> AsyncIterator[Publisher]:
    async with _started(_broker(url)) as broker:
        yield _Publisher(broker)


@asynccontextmanager
async def receive(url: str, tally: Tally) -> AsyncIterator[None]:
    broker = _broker(url)

    @broker.subscriber(EVENTS, queue="q")
    async def on_item(item: Item) -> None:
        tally(item)

    async with _started(broker):
        yield


@asynccontextmanager
async def consume(url: str, tally: Tally) -> AsyncIterator[None]:
    broker = _broker(url)

    @broker.subscriber(
        STORED, stream=JStream(STREAM, declare=False), durable="bench-faststream", pull_sub=PullSub(batch_size=BATCH)
    )
    async def on_item(item: Item) -> None:
        tally(item)

    async with _started(broker):
        yield


@asynccontextmanager
async def inprocess() -> AsyncIterator[Call]:
    async with TestNatsBroker(_echoing("nats://localhost:4222")) as broker:
        yield _call(broker)
