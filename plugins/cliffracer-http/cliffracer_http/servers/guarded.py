"""uvicorn's protocol with what it lacks: times and a limit for a request's head, and for a client's reading."""

from __future__ import annotations

import asyncio
from typing import Any

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from .interface import LINGER_BYTES, LINGER_S, ServerSettings

__all__ = ["protocol_class"]

_TOO_SLOW = b"HTTP/1.1 408 Request Timeout\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"
_TOO_LARGE = b"HTTP/1.1 431 Request Header Fields Too Large\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"


async def _refuse(scope: Any, receive: Any, send: Any) -> None:
    headers = [(b"content-length", b"0"), (b"connection", b"close")]
    await send({"type": "http.response.start", "status": 431, "headers": headers})
    await send({"type": "http.response.body", "body": b""})


def protocol_class(settings: ServerSettings) -> type[asyncio.Protocol]:
    """Make the protocol of one server."""
    header_timeout_s, write_timeout_s = settings.header_timeout_s, settings.write_timeout_s
    max_header_bytes = settings.max_header_bytes

    class Guarded(HttpToolsProtocol):
        _timer: asyncio.TimerHandle | None = None
        _late_timer: asyncio.TimerHandle | None = None
        _write_timer: asyncio.TimerHandle | None = None
        _head_bytes = 0
        _late_bytes = 0

        def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn's own
            super().connection_made(transport)
            self._timer = self.loop.call_later(header_timeout_s, transport.close)

        def data_received(self, data: bytes) -> None:
            if self._timer is not None and not self._head_bytes:
                self._stop_clock()
            if len(data) + self._head_bytes > max_header_bytes:
                self._head_bytes += len(data)
            HttpToolsProtocol.data_received(self, data)  # `super()` costs twice as much, at each request
            scope: Any = self.scope
            if scope is None or "method" not in scope:
                self._wait_for_head(len(data))
            elif self._head_bytes:
                self._head_bytes = 0
                self._stop_clock()
            elif self.timeout_keep_alive_task is None and self.cycle is not None and self.cycle.response_complete:
                self._wait_for_next()

        def _wait_for_next(self) -> None:  # only blank lines came, or more of a body that nobody reads
            self.timeout_keep_alive_task = self.loop.call_later(
                self.timeout_keep_alive, self.timeout_keep_alive_handler
            )

        def _wait_for_head(self, size: int) -> None:
            if self.transport.is_closing():
                return
            if self._head_bytes <= max_header_bytes:
                self._head_bytes += size
            if self._head_bytes > max_header_bytes:
                self._end(_TOO_LARGE)
            elif self._timer is None:
                self._timer = self.loop.call_later(header_timeout_s, self._end, _TOO_SLOW)

        def _end(self, answer: bytes) -> None:
            self._stop_clock()
            if self.cycle is None or self.cycle.response_complete:  # a response on its way is not broken into
                self.transport.write(answer)
            self.transport.close()

        def on_headers_complete(self) -> None:
            if self._head_bytes > max_header_bytes:
                size = len(self.url) + sum(len(name) + len(value) + 4 for name, value in self.headers)
                if size > max_header_bytes:
                    self.app = _refuse
            HttpToolsProtocol.on_headers_complete(self)

        def on_body(self, body: bytes) -> None:
            super().on_body(body)
            if self.cycle.response_complete:
                if self._late_timer is None:
                    self._late_timer = self.loop.call_later(LINGER_S, self.transport.abort)
                self._late_bytes += len(body)
                if self._late_bytes > LINGER_BYTES:
                    self.transport.abort()

        def on_message_complete(self) -> None:
            HttpToolsProtocol.on_message_complete(self)
            if self._late_timer is not None:
                self._stop_late()

        def pause_writing(self) -> None:
            super().pause_writing()
            if self._write_timer is None:
                self._write_timer = self.loop.call_later(write_timeout_s, self.transport.abort)

        def resume_writing(self) -> None:
            super().resume_writing()
            if self._write_timer is not None:
                self._write_timer.cancel()
                self._write_timer = None

        def _stop_late(self) -> None:
            self._late_bytes = 0
            if self._late_timer is not None:
                self._late_timer.cancel()
                self._late_timer = None

        def connection_lost(self, exc: Exception | None) -> None:
            self._stop_clock()
            self._stop_late()
            self.resume_writing()
            super().connection_lost(exc)
            self._unset_keepalive_if_required()  # uvicorn leaves it after a reset, and it holds the connection

        def _stop_clock(self) -> None:
            if self._timer is not None:
                self._timer.cancel()
                self._timer = None

    return Guarded
