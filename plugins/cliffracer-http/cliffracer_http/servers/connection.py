"""One connection under Hypercorn's protocols."""

from __future__ import annotations

import asyncio
from typing import Any, cast

from hypercorn.asyncio.worker_context import WorkerContext
from hypercorn.config import Config
from hypercorn.events import Closed, RawData, Updated
from hypercorn.protocol.h11 import H11Protocol
from hypercorn.typing import AppWrapper, ConnectionState
from hypercorn.utils import parse_socket_addr

from .frames import Turn
from .hypercorn_http2 import Protocols
from .hypercorn_sockets import SocketApp
from .inbox import Group
from .interface import LINGER_BYTES, LINGER_S, ServerSettings

__all__ = ["Connection"]

_TOO_SLOW = b"HTTP/1.1 408 Request Timeout\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"
_TOO_LONG = b"HTTP/1.1 431 Request Header Fields Too Large\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"
_CHUNK = 2**16


class Connection:
    """Read, hand to the protocol, write, and keep the times."""

    def __init__(
        self, app: AppWrapper, config: Config, settings: ServerSettings, context: WorkerContext, turn: Turn,
        reader: asyncio.StreamReader, writer: asyncio.StreamWriter,
    ) -> None:  # fmt: skip
        self._app = app
        self._config = config
        self._settings = settings
        self._context = context
        self._turn = turn
        self._reader = reader
        self._writer = writer
        self._loop = asyncio.get_running_loop()
        self._protocol: Protocols | None = None
        self._idle = True
        self._done = False
        """The protocol has ended; what still comes is thrown away."""
        self._timer: asyncio.TimerHandle | None = None
        self._in_head = False
        """The clock runs for the rest of a request's head."""

    async def run(self) -> None:
        """Serve until either side ends it."""
        transport = self._writer.transport
        try:
            async with Group(self._loop) as group:
                self._protocol = self._wrap(group)
                await self._protocol.initiate()
                self._clock(self._settings.header_timeout_s, self.close)
                await self._read(self._protocol)
        except OSError:
            pass  # the peer is gone
        finally:
            self._clock(0, None)
            transport.close()

    def _wrap(self, group: Group) -> Protocols:
        extra = self._writer.get_extra_info
        sock, tls = extra("socket"), extra("ssl_object")
        client = parse_socket_addr(sock.family, sock.getpeername())
        server = parse_socket_addr(sock.family, sock.getsockname())
        alpn = "http/1.1" if tls is None else tls.selected_alpn_protocol()
        state = ConnectionState({})
        app = SocketApp(self._app, self._settings.sockets, self._turn, self._writer.transport)
        return Protocols(
            self._write,
            app,
            self._config,
            self._context,
            group,
            state,
            tls is not None,
            client,
            server,
            self._send,
            alpn,
        )

    async def _read(self, protocol: Protocols) -> None:
        late = 0
        while True:
            try:
                data = await self._reader.read(_CHUNK)
            except OSError:
                break
            if not data or (self._idle and self._writer.transport.is_closing()):
                break  # a request that came as the connection closed could not be answered: it does not begin
            if self._done:
                late += len(data)
                if late > LINGER_BYTES:
                    self.abort()
                continue
            if (self._in_head or len(data) > self._settings.max_header_bytes) and self._is_long_head(protocol, data):
                self._done = True
                self._writer.write(_TOO_LONG)
                self._end()
                continue
            await protocol.handle(RawData(data))
            if self._idle and not self._in_head and self._has_part_of_head(protocol):
                self._clock(self._settings.header_timeout_s, self._refuse_slow)
                self._in_head = True
        await protocol.handle(Closed())

    def _is_long_head(self, protocol: Protocols, data: bytes) -> bool:
        """Tell whether a head is too long with what has come now: h11 limits only those that are not complete."""
        inner, limit = protocol.protocol, self._settings.max_header_bytes
        if not self._idle or not isinstance(inner, H11Protocol) or data.startswith(b"PRI * HTTP/2.0"):
            return False
        if self._in_head:
            data = inner.connection.trailing_data[0] + data
        return len(data) > limit and data.find(b"\r\n\r\n", 0, limit) < 0

    @staticmethod
    def _has_part_of_head(protocol: Protocols) -> bool:
        inner = protocol.protocol
        return isinstance(inner, H11Protocol) and bool(inner.connection.trailing_data[0])

    async def _send(self, event: Any) -> None:
        if isinstance(event, RawData):
            if self._writer.transport.is_closing():
                return
            self._writer.write(event.data)
            try:
                await self._writer.drain()
            except OSError:
                if self._protocol is not None:
                    await self._protocol.handle(Closed())
        elif isinstance(event, Updated):
            self._idle = event.idle
            if event.idle and self._context.terminated.is_set():
                self.close()
            elif event.idle:
                self._clock(self._settings.keep_alive_s, self.close)
            else:
                self._clock(0, None)
        elif isinstance(event, Closed):
            self._finish()

    def _write(self, data: bytes) -> None:
        if not self._writer.transport.is_closing():
            self._writer.write(data)

    def _clock(self, delay_s: float, then: Any) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer = None if then is None else self._loop.call_later(delay_s, then)
        self._in_head = False

    def _refuse_slow(self) -> None:
        self._writer.write(_TOO_SLOW)
        self.close()

    def _finish(self) -> None:
        """End our side; closing at once could destroy a response that the peer, still sending, has not read."""
        if not self._done:
            self._done = True
            self._end()

    def _end(self) -> None:
        transport = self._writer.transport
        if transport.is_closing() or not transport.can_write_eof():
            transport.close()
            return
        try:
            transport.write_eof()
        except OSError:
            transport.close()
        else:
            self._clock(LINGER_S, transport.abort)

    def close(self) -> None:
        """Close after what is written has been sent."""
        self._clock(0, None)
        self._writer.transport.close()

    def pause(self) -> None:
        """Take no more from the network until `drain`."""
        if not self._writer.transport.is_closing():
            cast(asyncio.Transport, self._writer.transport).pause_reading()

    def drain(self) -> None:
        """Close if idle; otherwise when the running requests are done."""
        if self._idle:
            self.close()
        elif not self._writer.transport.is_closing():
            cast(asyncio.Transport, self._writer.transport).resume_reading()

    def abort(self) -> None:
        """Close at once."""
        self._writer.transport.abort()
