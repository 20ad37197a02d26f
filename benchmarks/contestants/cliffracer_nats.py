"""Cliffracer with everything on: validation, correlation, deadline, concurrency limit, a task for each call."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import msgspec

from benchmarks.load import Call
from benchmarks.payload import Numbered
from benchmarks.tally import Tally
from cliffracer_core import ClientProxy, CliffracerService, ServiceConfig, event, rpc
from cliffracer_core.caller import Caller

from . import EVENTS, STORED, STREAM, Publisher


class Item(msgspec.Struct):
    number: int
    text: str


class Bench(CliffracerService):
    name = "bench"

    @rpc
    async def echo(self, number: int, text: str) -> Item:
        return Item(number + 1, text)


class Receiver(CliffracerService):
    def __init__(self, url: str, tally: Tally) -> None:
        super().__init__(ServiceConfig("bench", transport=url))
        self.tally = tally

    @event(EVENTS)
    async def on_item(self, item: Item) -> None:
        self.tally(item)


class Consumer(CliffracerService):
    def __init__(self, url: str, tally: Tally) -> None:
        super().__init__(ServiceConfig("bench", transport=url))
        self.tally = tally

    @event(STORED, durable=True, stream=STREAM)
    async def on_item(self, item: Item) -> None:
        self.tally(item)


@asynccontextmanager
async def serve(url: str) -> AsyncIterator[None]:
    async with Bench(ServiceConfig("bench", transport=url)):
        yield


def _call(caller: Caller) -> Call:
    async def call(item: Numbered) -> Item:
        reply: Item = await caller.call("bench", "echo", item, returns=Item)
        return reply

    return call


@asynccontextmanager
async def caller(url: str) -> AsyncIterator[Call]:
    async with ClientProxy(url) as proxy:
        yield _call(proxy.caller)


class _Publisher:
    def __init__(self, caller: Caller) -> None:
        self._caller = caller

    async def publish(self, item: Numbered) -> None:
        await self._caller.publish(EVENTS, item)

    async def flush(self) -> None:
        await self._caller.transport().flush()


@asynccontextmanager
async def publisher(url: str) -> AsyncIterator[Publisher]:
    async with ClientProxy(url) as proxy:
        yield _Publisher(proxy.caller)


@asynccontextmanager
async def receive(url: str, tally: Tally) -> AsyncIterator[None]:
    async with Receiver(url, tally):
        yield


@asynccontextmanager
async def consume(url: str, tally: Tally) -> AsyncIterator[None]:
    async with Consumer(url, tally):
        yield


@asynccontextmanager
async def inprocess() -> AsyncIterator[Call]:
    async with Bench(ServiceConfig("bench", transport="memory://")) as service:
        yield _call(service.caller)
