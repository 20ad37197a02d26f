"""One connection of Hypercorn's: its protocols, between our reading and our running of applications."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import ssl
from collections.abc import Awaitable, Callable
from typing import Any

import h11
from hypercorn.config import Config
from hypercorn.events import Closed, Event, RawData
from hypercorn.protocol import ProtocolWrapper
from hypercorn.protocol.h2 import H2Protocol
from hypercorn.protocol.h11 import H11Protocol
from hypercorn.protocol.ws_stream import WSStream
from hypercorn.typing import ConnectionState
from hypercorn.utils import parse_socket_addr

from cliffracer_http.settings import HttpSettings

from .heads import REFUSALS, is_too_long
from .mailbox import Mailbox
from .patience import Waited

__all__ = ["Connection"]

logger = logging.getLogger("cliffracer.http")

READ_BYTES = 64 * 1024
LINGER_S = 2.0
"""After an answer to a request that was not read to its end: a close at once could cost the client the answer."""


class Connection:
    """A connection from accept to close; Hypercorn also takes it for the task group of its applications."""

    def __init__(
        self, app: Any, config: Config, context: Any, settings: HttpSettings, reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
    ) -> None:  # fmt: skip
        self._app = app
        self._settings = settings
        self._reader = reader
        self._writer = writer
        self._loop = asyncio.get_running_loop()
        self._tasks: set[asyncio.Task[None]] = set()
        self._requests = 0
        self._closing = False
        self._lingers = False
        self._cut = False
        transport = writer.transport
        found = transport.get_extra_info("socket")
        secure = transport.get_extra_info("ssl_object")
        self._protocol = ProtocolWrapper(
            app, config, context, self, ConnectionState({}), secure is not None,  # type: ignore[arg-type]  # duck-typed
            _address(found, transport.get_extra_info("peername")),
            _address(found, transport.get_extra_info("sockname")),
            self._send, secure.selected_alpn_protocol() if secure is not None else "http/1.1",
        )  # fmt: skip

    async def run(self) -> None:
        """Serve until the connection ends."""
        try:
            await self._protocol.initiate()
            await self._read()
            await self._protocol.handle(Closed())
            while self._tasks:
                await asyncio.wait(set(self._tasks))
        except (OSError, ssl.SSLError):
            await self._protocol.handle(Closed())
        except Exception:
            logger.exception("a connection failed")
        finally:
            for task in self._tasks:
                task.cancel()
            self._writer.transport.abort() if self._cut else self._writer.close()

    async def _read(self) -> None:
        with contextlib.suppress(ConnectionError, TimeoutError, ssl.SSLError):
            while data := await self._reader.read(READ_BYTES):
                if self._closing:
                    continue  # unread, so that the client may read
                if len(data) > self._settings.max_header_bytes and self._is_long(data):
                    self._refuse(431)
                    continue
                await self._protocol.handle(RawData(data))

    def _is_long(self, data: bytes) -> bool:
        inner = self._protocol.protocol
        begins = isinstance(inner, H11Protocol) and inner.stream is None
        return begins and not data.startswith(b"PRI * HTTP/2") and is_too_long(data, self._settings.max_header_bytes)

    def _refuse(self, status: int) -> None:
        self._closing = self._lingers = True
        self._writer.write(REFUSALS[status])
        if self._writer.can_write_eof():
            self._writer.write_eof()

    async def _send(self, event: Event) -> None:
        if isinstance(event, RawData):
            if self._writer.transport.is_closing():
                return
            self._writer.write(event.data)
            try:
                await self._writer.drain()
            except (ConnectionError, RuntimeError):
                await self._protocol.handle(Closed())
        elif isinstance(event, Closed):
            self._close()

    def _close(self) -> None:
        """Close, or at first only our half where the client still sends."""
        if self._closing:
            return
        self._closing = True
        if self._reads_body() and self._writer.can_write_eof() and not self._reader.at_eof():
            self._lingers = True
            with contextlib.suppress(OSError, RuntimeError):
                self._writer.write_eof()
        else:
            self._writer.close()

    def _reads_body(self) -> bool:
        inner = self._protocol.protocol
        return isinstance(inner, H11Protocol) and inner.connection.their_state is h11.SEND_BODY

    async def spawn_app(
        self, app: Any, config: Config, scope: Any, send: Callable[[Any], Awaitable[None]]
    ) -> Callable[[Any], Awaitable[None]]:
        """Start the application for a request, and return how it is given messages."""
        self._requests += 1
        box = Mailbox()
        self.spawn(self._serve, app, scope, box.get, send)
        return box.put

    def spawn(self, function: Callable[..., Any], *arguments: Any) -> None:
        """Run something for as long as the connection lasts."""
        task = self._loop.create_task(function(*arguments))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _serve(self, app: Any, scope: Any, receive: Any, send: Callable[[Any], Awaitable[None]]) -> None:
        try:
            await app(scope, receive, send)
        except Exception:
            logger.exception("%s %s failed", scope.get("method", scope["type"]), scope["path"])
        except asyncio.CancelledError:
            self._cut = True
            self._writer.transport.abort()
            raise
        try:
            await send(None)
        except (OSError, RuntimeError, h11.LocalProtocolError):
            logger.debug("a response could not be ended", exc_info=True)
            self._writer.close()

    def _is_idle(self) -> bool:
        inner = self._protocol.protocol
        return not inner.streams if isinstance(inner, H2Protocol) else inner.stream is None

    def _has_sockets(self) -> bool:
        inner = self._protocol.protocol
        streams = list(inner.streams.values()) if isinstance(inner, H2Protocol) else [inner.stream]
        return any(isinstance(each, WSStream) for each in streams)

    def waits(self) -> Waited | None:
        """Say what is waited for; see `patience.Connection`."""
        settings = self._settings
        if self._lingers:
            return LINGER_S, "linger"
        if (size := self._writer.transport.get_write_buffer_size()) and not self._has_sockets():
            return settings.send_timeout_s, ("send", size)
        if not self._is_idle():
            return None
        if self._requests == 0 or self._head_begun():
            return settings.header_timeout_s, ("head", self._requests)
        return settings.keep_alive_s, ("idle", self._requests)

    def _head_begun(self) -> bool:
        inner = self._protocol.protocol
        return isinstance(inner, H11Protocol) and bool(inner.connection.trailing_data[0])

    def give_up(self) -> None:
        """Close; see `patience.Connection`."""
        if self._lingers or self._writer.transport.get_write_buffer_size():
            self._writer.transport.abort()
        elif self._head_begun() and not self._closing:
            self._refuse(408)
        else:
            self.drain()

    def drain(self) -> None:
        """Close it where nothing runs; Hypercorn closes it after what runs."""
        if self._is_idle() and not self._tasks_of_apps() and not self._lingers:
            self._closing = True
            self._writer.close()

    def _tasks_of_apps(self) -> bool:
        sends = 1 if isinstance(self._protocol.protocol, H2Protocol) else 0  # its own task
        return len(self._tasks) > sends

    def cut(self) -> None:
        """End it now, and what runs."""
        self._cut = True
        for task in self._tasks:
            task.cancel()
        self._writer.transport.abort()


def _address(found: Any, address: Any) -> Any:
    return parse_socket_addr(found.family, address) if found is not None else None
