"""The least an in-process call can cost: a task of asyncio and nothing else."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import msgspec

from benchmarks.load import Call
from benchmarks.payload import Numbered


class Item(msgspec.Struct):
    number: int
    text: str


async def echo(item: Numbered) -> Item:
    return Item(item.number + 1, item.text)


@asynccontextmanager
async def inprocess() -> AsyncIterator[Call]:
    async def call(item: Numbered) -> Item:
        return await asyncio.create_task(echo(item))

    yield call
