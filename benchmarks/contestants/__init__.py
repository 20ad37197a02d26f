"""Who takes part: one module each, all with the same functions over the same subjects."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from importlib import import_module
from typing import Protocol, cast

from benchmarks.load import Call
from benchmarks.payload import Numbered
from benchmarks.tally import Tally

__all__ = [
    "BATCH",
    "COLUMNS",
    "EVENTS",
    "FASTSTREAM",
    "MODULES",
    "RPC",
    "STORED",
    "STREAM",
    "Contestant",
    "Publisher",
    "find",
]

RPC = "rpc.bench.echo"
EVENTS = "bench.events"
STORED = "benchdurable.item"
STREAM = "BENCHDURABLE"
BATCH = 100
"""Durable messages asked for at once."""

FASTSTREAM = ("pydantic", "msgspec", "log")
"""Ways to set up FastStream; see its module."""
COLUMNS = {"nats-py": "base", "faststream": "FastStream", "cliffracer": "Cliffracer"}
MODULES = {"nats-py": "raw_nats", "faststream": "faststream_nats", "cliffracer": "cliffracer_nats", "task": "bare_task"}


class Publisher(Protocol):
    """A connection that publishes events."""

    async def publish(self, item: Numbered) -> object:
        """Send one on `EVENTS`."""

    async def flush(self) -> None:
        """Return with the server's PONG."""


class Contestant(Protocol):
    """What a module in this package offers; a `Contestant` is the module."""

    Item: Callable[..., Numbered]

    def serve(self, url: str) -> AbstractAsyncContextManager[object]:
        """Answer `RPC` with the number plus one and the same text."""

    def caller(self, url: str) -> AbstractAsyncContextManager[Call]:
        """Connect, and give what calls `RPC`."""

    def publisher(self, url: str) -> AbstractAsyncContextManager[Publisher]:
        """Connect, and give what publishes."""

    def receive(self, url: str, tally: Tally) -> AbstractAsyncContextManager[object]:
        """Hand each of `EVENTS` to `tally`, in a typed handler."""

    def consume(self, url: str, tally: Tally) -> AbstractAsyncContextManager[object]:
        """Hand each message of `STREAM` to `tally`, in a typed handler, and acknowledge it."""

    def inprocess(self) -> AbstractAsyncContextManager[Call]:
        """Give what calls an echo handler in this process, without a server."""


def find(name: str) -> Contestant:
    """Import a contestant; only then are its libraries loaded. Not every one has every function."""
    return cast(Contestant, import_module(f"{__name__}.{MODULES[name]}"))
