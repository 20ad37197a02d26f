"""The network of a simulation: every message between a service and the broker passes here, or does not."""

from __future__ import annotations

import asyncio
import math
import zlib
from collections.abc import Callable
from contextvars import Context
from typing import Protocol

from cliffracer_core.memory import MemoryBroker
from cliffracer_core.messages import Message

from .injector import Event, Injector
from .virtual_time import START_S

__all__ = ["Connection", "Network", "Way", "describe_message"]


class Way:
    """One direction of a connection: when the last message on it arrives, behind which the next one queues."""

    def __init__(self) -> None:
        self.last_at = 0.0


class Connection(Protocol):
    """A transport, as the network sees it."""

    name: str
    """Whose it is."""
    epoch: int
    """Grows each time it breaks; what was on its way then is lost."""
    inward: Way
    outward: Way

    @property
    def connected(self) -> bool:
        """Whether anything passes."""

    def cut(self, for_s: float) -> None:
        """Break it, for so many seconds."""


class Network:
    """Carry messages, with the injector's faults, and keep the trace.

    Args:
        loop: whose time it is.
        injector: chooses the faults.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, injector: Injector) -> None:
        self.injector = injector
        self.trace: list[Event] = []
        self.recording = True
        self.brokers: list[MemoryBroker] = []
        self.connections: dict[Connection, None] = {}
        self.server_up_at = 0.0
        """Loop time from which the server takes connections."""
        self._loop = loop
        self._context = Context()  # of no process: what is on its way outlives its sender
        self._flying: dict[asyncio.Future[None], None] = {}

    def note(self, what: str, who: str, about: str = "") -> None:
        """Add a line to the trace."""
        if self.recording:
            self.trace.append(Event(round(self._loop.time() - START_S, 9), what, who, about))

    def carry(
        self,
        connection: Connection,
        way: Way,
        about: str,
        arrive: Callable[[], object],
        *,
        again: Callable[[], object] | None = None,
    ) -> None:
        """Take a message on its way over a connection.

        Args:
            connection: over which.
            way: its `inward` or `outward`.
            about: for the trace.
            arrive: called when it arrives, if it does.
            again: called after that where a duplicate of it is to come; None where that never happens.
        """
        self.break_something(connection)
        fate, epoch = self.injector.fate(), connection.epoch
        if fate.drop or not connection.connected:
            self.note("drop" if fate.drop else "lost", connection.name, about)
            return
        now = self._loop.time()
        at = max(now + fate.delay_s, way.last_at)
        if fate.reorder_s:
            self.note("reorder", connection.name, about)
            at += fate.reorder_s
        elif at > now:
            at = way.last_at = math.nextafter(at, math.inf)  # the loop's heap does not keep order among equals
        landed = self._loop.create_future()
        self._flying[landed] = None

        def land() -> None:
            del self._flying[landed]
            landed.set_result(None)
            if connection.epoch != epoch:
                self.note("lost", connection.name, about)
                return
            self.note("arrive", connection.name, about)
            arrive()
            if fate.duplicate and again is not None:
                self.note("duplicate", connection.name, about)
                again()

        if at > now:
            self._loop.call_at(at, land, context=self._context)
        else:
            self._loop.call_soon(land, context=self._context)

    async def settle(self) -> None:
        """Return when all that is on its way now has arrived or was lost."""
        if self._flying:
            await asyncio.wait(list(self._flying))

    def break_something(self, connection: Connection) -> None:
        """Restart the server, break a connection, or, mostly, do nothing."""
        what = self.injector.breakage()
        if what == "server":
            self.restart_server(self.injector.outage_s())
        elif what == "connection" and connection.connected:
            connection.cut(self.injector.outage_s())

    def restart_server(self, down_s: float) -> None:
        """Break all connections for `down_s` seconds; what is stored is kept, what is on its way lost."""
        self.note("restart", "server", f"down for {down_s:.3f} s")
        self.server_up_at = max(self.server_up_at, self._loop.time() + down_s)
        for connection in list(self.connections):
            connection.cut(down_s)
        for broker in self.brokers:
            broker.restart()


def describe_message(kind: str, message: Message) -> str:
    """Say in one line which message it is; its content only as a checksum."""
    return f"{kind} {message.subject} ({len(message.body)} bytes, {zlib.crc32(message.body):08x})"
