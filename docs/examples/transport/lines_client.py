"""A client of lines_broker.py: what a client library is to a transport."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
from collections.abc import Callable
from urllib.parse import urlsplit

import msgspec
from lines_broker import LIMIT, Frame, read, write

from cliffracer_core.messages import Message


class Client:
    """A connection that comes back when it breaks, with its subscriptions.

    Args:
        url: `lines://host:port`.
        on_nobody: called with the reply subject of a request that nobody heard.
        on_disconnect: called each time a connection ends.
    """

    def __init__(self, url: str, on_nobody: Callable[[str], None], on_disconnect: Callable[[], None]) -> None:
        self._host, self._port = urlsplit(url).hostname, urlsplit(url).port
        self._on_nobody = on_nobody
        self._on_disconnect = on_disconnect
        self._ids = itertools.count(1)
        self._pings: dict[int, asyncio.Future[None]] = {}
        self._writer: asyncio.StreamWriter | None = None
        self._reading: asyncio.Task[None] | None = None
        self.subscriptions: dict[int, Listening] = {}

    @property
    def connected(self) -> bool:
        """Whether there is a connection just now."""
        return self._writer is not None

    async def connect(self) -> None:
        """Connect. Raises OSError."""
        self._reading = asyncio.create_task(self._read(await self._connect()))

    async def close(self) -> None:
        """Hand over what has arrived, send what is buffered, and disconnect for good; safe to call twice."""
        for each in list(self.subscriptions.values()):
            await each.drain()
        if self._reading is not None:
            with contextlib.suppress(OSError):
                await self.ping()
            self._reading.cancel()
            await asyncio.wait([self._reading])
            self._reading = None
        self._disconnect()

    async def send(self, frame: Frame) -> None:
        """Send a frame; waits where the broker takes no more. Raises OSError."""
        writer = self._connection()
        write(writer, frame)
        with contextlib.suppress(OSError):  # the reading task sees it, and connects again
            await writer.drain()

    async def ping(self) -> None:
        """Return when all sent before is done, and all that this sent here is handed over. Raises OSError."""
        id, pong = next(self._ids), asyncio.get_running_loop().create_future()
        write(self._connection(), Frame("ping", id))
        self._pings[id] = pong
        await pong

    async def subscribe(self, pattern: str, on_message: Callable[[Message], None], queue: str | None) -> Listening:
        """Listen; active when this returns. Raises OSError."""
        listening = Listening(self, Frame("subscribe", next(self._ids), pattern, queue), on_message)
        write(self._connection(), listening.frame)
        self.subscriptions[listening.frame.id] = listening
        await self.ping()
        return listening

    def _connection(self) -> asyncio.StreamWriter:
        if self._writer is None:
            raise ConnectionError("not connected")
        return self._writer

    async def _connect(self) -> asyncio.StreamReader:
        reader, self._writer = await asyncio.open_connection(self._host, self._port, limit=LIMIT)
        for each in self.subscriptions.values():
            write(self._writer, each.frame)
        return reader

    async def _read(self, reader: asyncio.StreamReader) -> None:
        while True:  # one connection after another
            with contextlib.suppress(OSError, ValueError, msgspec.MsgspecError):
                while line := await reader.readline():
                    self._take(read(line))
            self._disconnect()
            while self._writer is None:
                await asyncio.sleep(0.1)
                with contextlib.suppress(OSError):
                    reader = await self._connect()

    def _take(self, frame: Frame) -> None:
        if frame.do == "pong":
            pong = self._pings.pop(frame.id)
            if not pong.done():
                pong.set_result(None)
        elif frame.do == "nobody":
            self._on_nobody(frame.subject)
        elif frame.message is not None and frame.id in self.subscriptions:
            self.subscriptions[frame.id].on_message(frame.message)

    def _disconnect(self) -> None:
        if self._writer is not None:
            self._writer.close()
            self._writer = None
        pings, self._pings = self._pings, {}
        for pong in pings.values():
            if not pong.done():
                pong.set_exception(ConnectionError("disconnected"))
        self._on_disconnect()


class Listening:
    """One subscription."""

    def __init__(self, client: Client, frame: Frame, on_message: Callable[[Message], None]) -> None:
        self._client = client
        self.frame = frame
        self.on_message = on_message

    async def drain(self) -> None:
        """Stop; what had arrived is handed over when this returns. Safe to call twice."""
        id = self.frame.id
        if id in self._client.subscriptions:
            with contextlib.suppress(OSError):
                await self._client.send(Frame("unsubscribe", id))
                await self._client.ping()
            self._client.subscriptions.pop(id, None)
