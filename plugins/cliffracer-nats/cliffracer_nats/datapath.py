"""`DataPath`: the socket under nats-py's client, with messages read and written by ourselves.

nats-py keeps what it is good at: it connects, authenticates, answers PING, reconnects and subscribes
again. It reads lines and writes commands through this object as through its own. Messages of
subscriptions that are listened to here never reach it: they are taken apart and handed over inside
`data_received`, without a task, a queue or a future per message. What one turn of the event loop has to
say leaves in one write. Why, with the profiles: docs/adr/0006.
"""

from __future__ import annotations

import asyncio
import os
import ssl
from collections.abc import Callable, Mapping
from typing import Any
from urllib.parse import ParseResult

from nats.aio.transport import Transport

from cliffracer_core.messages import SharedHeaders

from .headers import StatusHeaders, parse_headers

__all__ = ["DataPath", "Receive"]

Receive = Callable[[bytes, bytes | None, Mapping[str, str] | None, bytes], None]
"""Takes a message: subject and reply subject as they stand on the wire, headers, body. It never raises."""
_FIRST_PARTS, _MOST_PARTS = 160, 2048
"""Pieces of commands, five a message, that are written before the turn ends: some thirty messages, so that the other
side begins while this one still works; then twice as many each time, so that a burst costs few writes."""
_SHORT_BLOCK, _BLOCKS = 64, 256  # header blocks of that length, such as a lone timeout, are read once and remembered
_MOST_LINES = 512  # first lines of events, which come again where size and subject do
_INBOX = b"_INBOX."
_HIGH_WATER = 1 << 20  # bytes in the socket's buffer from which publishers wait
_CLOSE_S = 1.0
_MESSAGE, _HEADERS = ord("M"), ord("H")


class DataPath(Transport):
    """One server connection after another, as nats-py opens them."""

    def __init__(self) -> None:
        self._receivers: dict[bytes, Receive] = {}
        self._lines: dict[bytes, tuple[Receive, bytes, int]] = {}
        self.socket: Socket | None = None
        """The present connection's, once there was one."""
        self._held = b""

    async def connect(self, uri: ParseResult, buffer_size: int, connect_timeout: float) -> None:
        """Open a socket; nothing has been read yet."""
        loop = asyncio.get_running_loop()
        host, port = uri.hostname or "localhost", uri.port or 4222
        connecting = loop.create_connection(lambda: Socket(self._receivers, self._lines), host, port)
        _, opened = await asyncio.wait_for(connecting, connect_timeout)
        self.socket = opened

    async def connect_tls(
        self, uri: str | ParseResult, ssl_context: ssl.SSLContext, buffer_size: int, connect_timeout: float
    ) -> None:
        """Turn the open socket into a TLS one."""
        plain = self._opened()
        secured = Socket(self._receivers, self._lines)
        loop = asyncio.get_running_loop()
        name = uri if isinstance(uri, str) else uri.hostname
        starting = loop.start_tls(plain.transport, secured, ssl_context, server_hostname=name)
        transport = await asyncio.wait_for(starting, connect_timeout)
        if transport is None:
            raise ConnectionResetError("the server closed the connection during the TLS handshake")
        secured.connection_made(transport)
        self.socket = secured

    def hear(self, number: bytes, receive: Receive) -> None:
        """Hand the messages of a subscription to `receive`; `number` is its, as it stands on the wire."""
        self._receivers[number] = receive

    def unhear(self, number: bytes) -> None:
        """Leave the messages of a subscription to nats-py again."""
        self._receivers.pop(number, None)
        self._lines.clear()

    def send(self, *parts: bytes) -> bool:
        """Send with what else this turn of the loop says; False where the socket is full: then `drain`."""
        return self._opened().send(parts)

    def _opened(self) -> Socket:
        if self.socket is None:
            raise ConnectionResetError("not connected")
        return self.socket

    def write(self, payload: bytes) -> None:
        """Write at once, behind all that was sent before; CONNECT waits for the PING after it.

        A server that refuses the credentials answers and closes at once. With PING written separately the
        answer is often lost to a connection reset, and wrong credentials look like a dead server.
        """
        if payload.startswith(b"CONNECT "):
            self._held = payload
            return
        held, self._held = self._held, b""
        self._opened().write((held, payload))

    def writelines(self, payload: list[bytes]) -> None:
        """Write at once, behind all that was sent before."""
        self._opened().write(payload)

    async def drain(self) -> None:
        """Wait until the socket takes more."""
        await self._opened().drain()

    async def read(self, buffer_size: int) -> bytes:
        """Return what arrived for nats-py; empty at the end."""
        return await self._opened().read()

    async def readline(self) -> bytes:
        """Return one line that arrived for nats-py.

        Raises:
            OSError: the connection ended before; nats-py would take an empty line for a good answer.
        """
        return await self._opened().readline()

    async def wait_closed(self) -> None:
        """Wait until the socket is closed; a peer that takes nothing any more is not waited for."""
        if self.socket is not None:
            await asyncio.wait({self.socket.closed}, timeout=_CLOSE_S)
            self.socket.transport.abort()

    def close(self) -> None:
        """Send what is buffered and close."""
        if self.socket is not None:
            self.socket.close()

    def at_eof(self) -> bool:
        """Whether the connection ended and nats-py has read all that was for it."""
        return self.socket is None or self.socket.at_eof()

    def __bool__(self) -> bool:
        return True  # false makes nats-py replace it by its own


class Socket(asyncio.Protocol):
    """Take the server's bytes apart; source: NATS documentation, "Client Protocol"."""

    transport: asyncio.Transport

    def __init__(self, receivers: Mapping[bytes, Receive], lines: dict[bytes, tuple[Receive, bytes, int]]) -> None:
        self._receivers = receivers
        self._lines = lines  # first lines read before: receiver, subject, size of the body
        self._loop = asyncio.get_running_loop()
        self.closed: asyncio.Future[None] = self._loop.create_future()
        self._rest = b""  # the beginning of something whose end has not arrived
        self._chunks: list[bytes] = []  # what arrived since, while `_missing` bytes were still to come
        self._missing = 0
        self._control = bytearray()  # for nats-py
        self._ended = False
        self._error: Exception | None = None
        self._reader: asyncio.Future[None] | None = None
        self._blocks: dict[bytes, Mapping[str, str]] = {}
        self.out: list[bytes] = []
        self.scheduled = False
        self.limit = _FIRST_PARTS
        self._fd = -1
        self.writable: asyncio.Future[None] | None = None  # pending while the socket is full

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport  # type: ignore[assignment]  # a stream transport
        self.transport.set_write_buffer_limits(high=_HIGH_WATER)
        if not transport.get_extra_info("sslcontext"):
            self._fd = transport.get_extra_info("socket").fileno()

    # --- in

    def data_received(self, data: bytes) -> None:
        if self._missing > len(data):  # a large message: join its pieces once
            self._missing -= len(data)
            self._chunks.append(data)
            return
        if self._rest or self._chunks:
            data = b"".join((self._rest, *self._chunks, data))
            self._chunks.clear()
        self._missing = 0
        taken = self._take(data)
        self._rest = data[taken:] if taken < len(data) else b""
        if self._control and self._reader is not None and not self._reader.done():
            self._reader.set_result(None)
        if self.out:  # what the callbacks answered
            self.flush()
        elif not self.scheduled:  # behind the tasks that the callbacks woke, so that their words leave in one write
            self.schedule()

    def _take(self, data: bytes) -> int:
        """Handle every whole command in `data` and return where the first that is not whole begins."""
        receivers, find, blocks, lines = self._receivers, data.find, self._blocks, self._lines
        start, end = 0, len(data)
        while start < end:
            line = find(b"\r\n", start)
            if line < 0:
                return start
            kind = data[start]
            if kind == _MESSAGE:  # MSG subject sid [reply-to] bytes
                head = data[start:line]
                known = lines.get(head)
                if known is None:
                    words = head.split()
                    receive = receivers.get(words[2])
                    size = int(words[-1])
                    if len(words) == 4 and receive is not None and not words[1].startswith(_INBOX):
                        self._remember(head, (receive, words[1], size))
                    subject, reply_to = words[1], words[3] if len(words) == 5 else None
                else:
                    receive, subject, size = known
                    reply_to = None
                stop = line + 2 + size
                if stop + 2 > end:
                    self._missing = stop + 2 - end
                    return start
                if receive is None:
                    self._control += data[start : stop + 2]
                else:
                    receive(subject, reply_to, None, data[line + 2 : stop])
            elif kind == _HEADERS:  # HMSG subject sid [reply-to] header-bytes bytes
                words = data[start + 5 : line].split()
                headed = line + 2 + int(words[-2])
                stop = line + 2 + int(words[-1])
                if stop + 2 > end:
                    self._missing = stop + 2 - end
                    return start
                receive = receivers.get(words[1])
                if receive is None:
                    self._control += data[start : stop + 2]
                else:
                    block = data[line + 2 : headed]
                    headers = blocks.get(block) or self._read_headers(block)
                    receive(words[0], words[2] if len(words) == 5 else None, headers, data[headed:stop])
            else:
                self._control += data[start : line + 2]
                stop = line
            start = stop + 2
        return start

    def _remember(self, head: bytes, read: tuple[Receive, bytes, int]) -> None:
        if len(self._lines) >= _MOST_LINES:
            self._lines.clear()
        self._lines[head] = read

    def _read_headers(self, block: bytes) -> Mapping[str, str] | None:
        headers = parse_headers(block)
        if headers is None or len(block) > _SHORT_BLOCK or type(headers) is StatusHeaders:
            return headers
        if len(self._blocks) >= _BLOCKS:
            self._blocks.clear()
        remembered = self._blocks[block] = SharedHeaders(headers)
        return remembered

    async def read(self) -> bytes:
        """See `DataPath.read`."""
        await self._wait_for(lambda: bool(self._control))
        data = bytes(self._control)
        self._control.clear()
        return data

    async def readline(self) -> bytes:
        """See `DataPath.readline`."""
        await self._wait_for(lambda: b"\n" in self._control)
        if not self._control:
            raise self._error or ConnectionResetError("the server closed the connection")
        length = self._control.find(b"\n") + 1 or len(self._control)
        line = bytes(self._control[:length])
        del self._control[:length]
        return line

    async def _wait_for(self, ready: Callable[[], bool]) -> None:
        while not ready() and not self._ended:
            self._reader = self._loop.create_future()
            try:
                await self._reader
            finally:
                self._reader = None

    def at_eof(self) -> bool:
        return self._ended and not self._control

    def eof_received(self) -> None:
        self._end()

    def connection_lost(self, error: Exception | None) -> None:
        self._error = error
        self._fd = -1
        self._end()
        self.out.clear()
        self.resume_writing()
        if not self.closed.done():
            self.closed.set_result(None)

    def _end(self) -> None:
        self._ended = True
        if self._reader is not None and not self._reader.done():
            self._reader.set_result(None)

    # --- out

    def send(self, parts: tuple[bytes, ...]) -> bool:
        self.out.extend(parts)  # `MendedClient.send` does the same
        if not self.scheduled:
            self.schedule()
        elif len(self.out) > self.limit:
            self.write_early()
        return self.writable is None

    def schedule(self) -> None:
        """Write when the loop has run what it is about to."""
        self.scheduled = True
        self._loop.call_soon(self._flush_scheduled)

    def write(self, parts: Any) -> None:
        self.out += parts
        self.flush()

    def _flush_scheduled(self) -> None:
        self.scheduled = False
        self.limit = _FIRST_PARTS
        if self.out:
            self.flush()

    def write_early(self) -> None:
        """Write what this turn of the loop has said so far."""
        self.limit = min(self.limit * 2, _MOST_PARTS)
        self.flush()

    def flush(self) -> None:
        """Write to the socket itself, since uvloop's own `write` waits for the turn's end."""
        data, taken = b"".join(self.out), 0
        self.out.clear()
        if self.transport.is_closing():
            return
        if self._fd >= 0 and not self.transport.get_write_buffer_size():
            try:
                taken = os.write(self._fd, data)
            except OSError:  # full for now, or the connection ended: the transport finds out which
                taken = 0
        if taken < len(data):
            self.transport.write(data[taken:])

    def pause_writing(self) -> None:
        self.writable = self._loop.create_future()

    def resume_writing(self) -> None:
        if self.writable is not None and not self.writable.done():
            self.writable.set_result(None)
        self.writable = None

    async def drain(self) -> None:
        """Wait until the socket takes more. Raises ConnectionResetError where it ended."""
        if self.transport.is_closing():
            raise ConnectionResetError("connection lost")
        if self.writable is not None:
            await asyncio.shield(self.writable)

    def close(self) -> None:
        if not self.transport.is_closing():
            self.flush()
            self.transport.close()
