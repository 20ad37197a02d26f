"""One connection of HTTP/3: its requests, its times, its end."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from aioquic.asyncio.protocol import QuicConnectionProtocol
from aioquic.h3.connection import ErrorCode
from aioquic.h3.events import DataReceived, H3Event, HeadersReceived
from aioquic.quic.connection import QuicConnection, stream_is_unidirectional
from aioquic.quic.events import (
    ConnectionTerminated,
    HandshakeCompleted,
    ProtocolNegotiated,
    QuicEvent,
    StopSendingReceived,
    StreamDataReceived,
    StreamReset,
)
from aioquic.quic.packet import QuicErrorCode

from .h3_limits import STREAM_WINDOW, Heads, Windowed
from .h3_request import Malformed, Request, scope_of
from .interface import LINGER_S

if TYPE_CHECKING:
    from .http3 import Http3

__all__ = ["Session"]

_PIECE = 64 * 1024
_BEHIND = 128 * 1024
"""Bytes of a response that may wait to be acknowledged before its application does."""
_PING_S = 10.0
"""Between pings while a request runs, so that neither side takes a quiet connection for a dead one."""


class Session(QuicConnectionProtocol):
    """Serve the requests of one connection.

    Args:
        quic: the connection, on which nothing has come yet.
        server: what it belongs to.
    """

    def __init__(self, quic: QuicConnection, server: Http3) -> None:
        super().__init__(quic)
        self._server = server
        self._windowed = Windowed.watch(quic, self._unread)
        self._h3: Heads | None = None
        self._requests: dict[int, Request] = {}
        self._heads: dict[int, asyncio.TimerHandle] = {}
        """Clocks of heads that are not complete."""
        self._behind: dict[int, asyncio.Event] = {}
        """Responses whose client must read before they go on."""
        self._since_read = 0
        self._is_open = False
        self._is_draining = False
        self._clock: asyncio.TimerHandle | None = None
        self._pings: asyncio.TimerHandle | None = None
        self.gone = asyncio.Event()
        """Set when it has been closed, by either side."""
        self._set_clock(server.settings.header_timeout_s, self.leave)

    # --- what comes ---

    def datagram_received(self, data: bytes | str, addr: Any) -> None:
        """Take a datagram."""
        super().datagram_received(data, addr)
        if self._windowed.is_over:
            self._ended()
        for stream_id, event in list(self._behind.items()):
            if self._windowed.backlog(stream_id) <= _BEHIND:
                event.set()
        if self._is_draining:
            self._leave_when_done()

    def quic_event_received(self, event: QuicEvent) -> None:
        """Take what the connection says."""
        if isinstance(event, StreamDataReceived):
            self._take(event)
        elif isinstance(event, StreamReset | StopSendingReceived):
            self._handled(event)
            self._cancelled(event.stream_id)
        elif isinstance(event, ProtocolNegotiated):
            self._h3 = Heads(self._quic, self._server.settings.max_header_bytes)
        elif isinstance(event, HandshakeCompleted):
            self._is_open = True
            self._server.opened(self)
            self._set_clock(self._server.settings.header_timeout_s, self.leave)
        elif isinstance(event, ConnectionTerminated):
            self._ended()

    def _handled(self, event: QuicEvent) -> list[H3Event]:
        return [] if self._h3 is None else self._h3.handle_event(event)

    def _take(self, event: StreamDataReceived) -> None:
        for each in self._handled(event):
            if isinstance(each, HeadersReceived):
                self._begin_or_trail(each)
            elif isinstance(each, DataReceived) and each.stream_id in self._requests:
                self._requests[each.stream_id].feed(each.data, last=each.stream_ended)
        if self._h3 is None:
            return
        if self._h3.buffered(event.stream_id) > self._server.settings.max_header_bytes:
            self.leave(ErrorCode.H3_EXCESSIVE_LOAD)
        elif not stream_is_unidirectional(event.stream_id) and self._h3.awaits_head(event.stream_id):
            self._expect_head(event.stream_id)

    def _expect_head(self, stream_id: int) -> None:
        if stream_id not in self._heads and not self._is_draining:
            timeout_s = self._server.settings.header_timeout_s
            self._heads[stream_id] = self._loop.call_later(timeout_s, self._refuse, stream_id, 408)

    def _begin_or_trail(self, event: HeadersReceived) -> None:
        stream_id = event.stream_id
        if not any(name == b":method" for name, _ in event.headers):  # trailers; ASGI has no place for them
            if stream_id in self._requests:
                self._requests[stream_id].feed(b"", last=event.stream_ended)
            return
        self._forget_head(stream_id)
        if self._is_draining or not self._windowed.is_sending(stream_id):
            self.reset(stream_id, ErrorCode.H3_REQUEST_REJECTED)
            return
        assert self._h3 is not None
        if stream_id in self._h3.too_long:
            self._refuse(stream_id, 431)
            return
        peer = self._quic.get_peer_address()
        try:
            scope = scope_of(list(event.headers), peer and (peer[0], peer[1]), self._server.address)
        except Malformed:
            self._refuse(stream_id, 400)
            return
        request = self._requests[stream_id] = Request(self, stream_id, scope)
        request.feed(b"", last=event.stream_ended)
        self._set_clock(0, None)
        if self._pings is None:
            self._pings = self._loop.call_later(_PING_S, self._ping)
        request.task = self._loop.create_task(request.run(self._server.app))

    def _forget_head(self, stream_id: int) -> None:
        clock = self._heads.pop(stream_id, None)
        if clock is not None:
            clock.cancel()

    def _cancelled(self, stream_id: int) -> None:
        self._forget_head(stream_id)
        request = self._requests.get(stream_id)
        if request is not None and not request.ended:
            self.give_up(request, ErrorCode.H3_REQUEST_CANCELLED)

    # --- what goes ---

    def begin(self, stream_id: int, status: int, headers: list[tuple[bytes, bytes]], *, last: bool = False) -> None:
        """Send the head of a response."""
        assert self._h3 is not None
        head = [(b":status", b"%d" % status), *headers, *self._server.headers()]
        self._h3.send_headers(stream_id, head, last)
        self._transmit_soon()

    async def write(self, request: Request, body: bytes, *, last: bool) -> None:
        """Send a part of a response; waits for a client that is behind, and gives up one that stays there."""
        assert self._h3 is not None
        view, stream_id = memoryview(body), request.stream_id
        for start in range(0, len(body), _PIECE) or (0,):
            ends = last and start + _PIECE >= len(body)
            if len(body) or ends:
                self._h3.send_data(stream_id, bytes(view[start : start + _PIECE]), ends)
                self._transmit_soon()
            if not ends and self._windowed.backlog(stream_id) > _BEHIND:
                await self._wait_for(request)
            if request.ended:
                return
        if last:
            self._want_no_more(stream_id)

    async def _wait_for(self, request: Request) -> None:
        event = self._behind[request.stream_id] = asyncio.Event()
        try:
            async with asyncio.timeout(self._server.settings.write_timeout_s):
                await event.wait()
        except TimeoutError:
            self.give_up(request, ErrorCode.H3_REQUEST_CANCELLED)
        finally:
            self._behind.pop(request.stream_id, None)

    def was_read(self, size: int) -> None:
        """Let the client send more once enough was read."""
        self._since_read += size
        if self._since_read >= STREAM_WINDOW // 4:
            self._since_read = 0
            self._transmit_soon()

    def finish(self, request: Request, status: int | None) -> None:
        """Forget a request whose application has ended; `status` is what is said where it said nothing."""
        if not request.ended:
            if request.begun or status is None:
                self.give_up(request, ErrorCode.H3_INTERNAL_ERROR)
            else:
                request.end()
                self._refuse(request.stream_id, status)
        self._requests.pop(request.stream_id, None)
        if self._requests or self.gone.is_set():
            return
        if self._pings is not None:
            self._pings.cancel()
            self._pings = None
        if self._is_draining:
            self._set_clock(LINGER_S, self.leave)
            self._leave_when_done()
        else:
            self._set_clock(self._server.settings.keep_alive_s, self.leave)

    def give_up(self, request: Request, code: int) -> None:
        """End a request that has no whole response."""
        request.end()
        self.reset(request.stream_id, code)
        event = self._behind.get(request.stream_id)
        if event is not None:
            event.set()

    def reset(self, stream_id: int, code: int) -> None:
        """End both ways of a stream."""
        if self._h3 is not None and not self.gone.is_set():
            self._quic.reset_stream(stream_id, code)
            self._want_no_more(stream_id, code)
            self._h3.end_sending(stream_id)
            self._transmit_soon()

    def _refuse(self, stream_id: int, status: int) -> None:
        """Answer a request that no application sees."""
        self._forget_head(stream_id)
        if self._h3 is not None and self._windowed.is_sending(stream_id):
            self._h3.too_long.discard(stream_id)
            self.begin(stream_id, status, [(b"content-length", b"0")], last=True)
            self._want_no_more(stream_id)

    def _want_no_more(self, stream_id: int, code: int = ErrorCode.H3_NO_ERROR) -> None:
        if self._windowed.is_receiving(stream_id):
            self._quic.stop_stream(stream_id, code)

    def _unread(self, stream_id: int) -> int | None:
        if stream_is_unidirectional(stream_id):
            return 0
        request = self._requests.get(stream_id)
        return None if request is None or request.ended else request.unread

    # --- times and the end ---

    def _set_clock(self, delay_s: float, then: Callable[[], None] | None) -> None:
        if self._clock is not None:
            self._clock.cancel()
        self._clock = None if then is None else self._loop.call_later(delay_s, then)

    def _ping(self) -> None:
        self._quic.send_ping(0)
        self._transmit_soon()
        self._pings = self._loop.call_later(_PING_S, self._ping)

    def drain(self) -> None:
        """Begin no more requests, and leave when those that run are answered."""
        self._is_draining = True
        if self._h3 is None or not self._is_open:
            self.leave(QuicErrorCode.CONNECTION_REFUSED)
            return
        for stream_id in list(self._heads):
            self._forget_head(stream_id)
            self.reset(stream_id, ErrorCode.H3_REQUEST_REJECTED)
        self._h3.send_goaway(self._windowed.next_request)
        self.transmit()
        if not self._requests:
            self._set_clock(LINGER_S, self.leave)
        self._leave_when_done()

    def _leave_when_done(self) -> None:
        """Leave when the client has all of each response: what is on its way then would be lost."""
        if not self._requests and not self._windowed.owes:
            self.leave()

    def leave(self, code: int = ErrorCode.H3_NO_ERROR) -> None:
        """Close, and say so."""
        if not self.gone.is_set():
            self.close(code)
            self._ended()

    def abort(self) -> set[asyncio.Task[None]]:
        """Close at once; returns the requests that still run, cancelled."""
        tasks = {each.task for each in self._requests.values() if each.task is not None}
        self.leave(ErrorCode.H3_INTERNAL_ERROR)
        for task in tasks:
            task.cancel()
        return tasks

    def forget(self) -> None:
        """Leave no timer behind."""
        if self._timer is not None:
            self._timer.cancel()
        if self._transmit_task is not None:
            self._transmit_task.cancel()

    def _ended(self) -> None:
        if self.gone.is_set():
            return
        self.gone.set()
        self._set_clock(0, None)
        for clock in (*self._heads.values(), *([self._pings] if self._pings else [])):
            clock.cancel()
        self._heads.clear()
        for request in self._requests.values():
            request.end()
        for event in self._behind.values():
            event.set()
        self._server.left(self)
