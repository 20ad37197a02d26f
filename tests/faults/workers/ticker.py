"""Ticker: sends numbered messages to sockets, some of which do not read."""

from __future__ import annotations

import asyncio
import gc
import os
import time
from pathlib import Path
from typing import Any

import msgspec
from cliffracer_websocket import RealTimeStreamProcessor, WebSocket, websocket

from cliffracer_core import CliffracerService, ServiceConfig, rpc

from .serving import serve

__all__ = ["QUEUE", "State"]

QUEUE = 16
"""Messages that may wait for one client."""


class State(msgspec.Struct, frozen=True):
    """What it has of sockets."""

    open: int
    stalled: int
    waiting: int
    """Of the client for which most messages wait."""
    private: int
    """Bytes of memory that are this process's alone."""


def _private() -> int:
    gc.collect()
    lines = Path("/proc/self/smaps_rollup").read_text().splitlines()
    return sum(int(line.split()[1]) * 1024 for line in lines if line.startswith("Private_Dirty:"))


class Ticker(CliffracerService):
    """Sends to all, or to those that are to be stalled."""

    name = "ticker"
    version = "1.0.0"
    stream = RealTimeStreamProcessor(queue_messages=QUEUE)
    http: Any

    def __init__(self, **options: Any) -> None:
        sockets = {"max_connections_per_address": 10_000, "stall_timeout_s": 600.0, "ping_interval_s": 600.0}
        http = {"port": 0, "server": os.environ["SERVER"]}
        super().__init__(ServiceConfig("ticker", http=http, websocket=sockets), **options)

    @websocket("/ticks/{group}")
    async def listen(self, websocket: WebSocket, group: str) -> None:
        """Take a socket into a group."""
        await self.stream.add_connection(websocket.id, websocket, groups=[group])

    @rpc
    async def where(self) -> str:
        """Return its address."""
        return str(self.http.url)

    @rpc
    async def tick(self, first: int, count: int, pause_s: float, size: int) -> None:
        """Send messages to all: their number, when they were sent, and so many letters."""
        for number in range(first, first + count):
            await self.stream.broadcast_all([number, time.monotonic(), "x" * size])
            await asyncio.sleep(pause_s)

    @rpc
    async def fill(self, group: str, size: int) -> int:
        """Send a message to one group, and return how many sockets have lost one."""
        await self.stream.broadcast_to_group(group, [-1, 0.0, "x" * size])
        return sum(each.outbox.dropped > 0 for each in self.stream.rooms.members.values())

    @rpc
    async def state(self) -> State:
        """Return what it has of sockets."""
        stalled = list(self.stream.stalled)
        waiting = max((each.waiting for each in stalled), default=0)
        return State(len(self.stream.rooms.members), len(stalled), waiting, _private())


if __name__ == "__main__":
    serve(Ticker)
