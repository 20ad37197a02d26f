"""Hypercorn: HTTP/1.1 and HTTP/2; HTTP/3 beside it.

Its protocols are used, under a connection of our own: Hypercorn's has no timeout for a request's head, waits for
ever for a client that does not read or an application that does not, and starts two tasks per request to know
when a connection is idle. Its `serve` waits without bound at the end on Python 3.12 and later.
"""

from __future__ import annotations

import asyncio
import logging
import socket
import time
from email.utils import formatdate
from typing import TYPE_CHECKING, Any

from hypercorn.app_wrappers import ASGIWrapper
from hypercorn.asyncio.worker_context import WorkerContext
from hypercorn.config import Config

from .choice import check_http3
from .connection import Connection
from .frames import Turn
from .framing import framed
from .interface import Asgi, ServerCapabilities, ServerSettings
from .sockets import listen, listen_both, settle, unlink, urls_of
from .stream import Stream
from .tls import Certificates, check

if TYPE_CHECKING:
    from .http3 import Http3

__all__ = ["HypercornServer"]

logger = logging.getLogger("cliffracer.http")


class HypercornServer:
    """Serve with Hypercorn; see `AsgiServer`."""

    capabilities = ServerCapabilities(http2=True, http3=True, tls_reload=True)

    def __init__(self) -> None:
        self._settings = ServerSettings()
        self._context = WorkerContext(None)
        self._connections: dict[asyncio.Task[None], Connection] = {}
        self._listener: asyncio.Server | None = None
        self._certificates: Certificates | None = None
        self._http3: Http3 | None = None

    async def start(self, app: Asgi, settings: ServerSettings) -> list[str]:
        """Listen; see `AsgiServer`."""
        check(settings)
        check_http3(settings, self.capabilities)
        self._settings = settings
        loop = asyncio.get_running_loop()
        if settings.tls_cert:
            self._certificates = Certificates(settings, ["h2", "http/1.1"])
            self._certificates.watch()
        config = _config(settings, self._context)
        try:
            found = await self._listen(app, config)
        except BaseException:
            await self._close_certificates()
            raise
        urls = urls_of(found, settings)
        wrapped, turn = ASGIWrapper(framed(app)), Turn()

        def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            connection = Connection(wrapped, config, settings, self._context, turn, reader, writer)
            task = loop.create_task(connection.run())
            self._connections[task] = connection
            task.add_done_callback(self._forget)

        self._listener = await loop.create_server(
            lambda: Stream(serve, settings.write_timeout_s),
            sock=found,
            backlog=settings.backlog,
            **self._tls(),
        )
        return urls

    async def _listen(self, app: Asgi, config: _Config) -> socket.socket:
        settings = self._settings
        if not settings.http3 or self._certificates is None:
            return listen(settings)
        from .http3 import Http3  # a large package, which few services use

        http3 = Http3(app, settings, lambda: config.response_headers("h3"))
        found, udp = listen_both(settings)
        try:
            await http3.start(udp)
        except BaseException:
            found.close()
            udp.close()
            raise
        self._http3 = http3
        self._certificates.renewed.append(http3.renew)
        config.alt_svc = [(b"alt-svc", b'h3=":%d"; ma=3600' % found.getsockname()[1])]
        return found

    def _tls(self) -> dict[str, Any]:
        if self._certificates is None:
            return {}
        return {"ssl": self._certificates.context, "ssl_handshake_timeout": self._settings.header_timeout_s}

    def _forget(self, task: asyncio.Task[None]) -> None:
        self._connections.pop(task, None)
        if not task.cancelled() and task.exception() is not None:
            logger.error("a connection failed", exc_info=task.exception())

    async def stop(self, grace_s: float) -> None:
        """Stop; see `AsgiServer`."""
        if self._listener is None:
            return
        listener, self._listener = self._listener, None
        await settle()
        listener.close()
        unlink(self._settings)
        await settle()
        for connection in self._connections.values():
            connection.pause()
        await settle()  # what was read begins, so that no connection looks idle whose request is about to run
        await self._context.terminated.set()
        for connection in list(self._connections.values()):
            connection.drain()
        waiting: set[asyncio.Task[None]] = set(self._connections)
        http3, self._http3 = self._http3, None
        if http3 is not None:
            http3.drain()
            waiting.add(asyncio.create_task(http3.wait()))
        if waiting:
            await asyncio.wait(waiting, timeout=grace_s)
        await self._cut()
        if http3 is not None:
            await http3.close()
        await self._close_certificates()

    async def _cut(self) -> None:
        left = dict(self._connections)
        if not left:
            return
        logger.warning("%d connections were cut at the end of the grace time", len(left))
        for task, connection in left.items():
            connection.abort()
            task.cancel()
        await asyncio.wait(list(left), timeout=1.0)

    async def _close_certificates(self) -> None:
        if self._certificates is not None:
            await self._certificates.close()
            self._certificates = None


class _Config(Config):
    """Hypercorn's settings, with headers that are made once a second, not once a response."""

    def __init__(self, context: WorkerContext) -> None:
        self._context = context
        self._second = 0
        self._date: list[tuple[bytes, bytes]] = []
        self.alt_svc: list[tuple[bytes, bytes]] = []
        """Says where HTTP/3 is (RFC 9114, 3.1.1); not while it ends."""

    def response_headers(self, protocol: str) -> list[tuple[bytes, bytes]]:
        second = int(time.time())
        if second != self._second:
            self._second = second
            self._date = [(b"date", formatdate(second, usegmt=True).encode("ascii"))]
        if self._context.terminated.is_set():
            return [*self._date, (b"connection", b"close")] if protocol == "h11" else self._date
        return self._date if protocol == "h3" or not self.alt_svc else [*self._date, *self.alt_svc]


def _config(settings: ServerSettings, context: WorkerContext) -> _Config:
    config = _Config(context)
    config.errorlog = logger
    config.accesslog = None
    config.keep_alive_timeout = settings.keep_alive_s
    config.keep_alive_max_requests = 2**62
    config.h11_max_incomplete_size = settings.max_header_bytes
    config.h2_max_header_list_size = settings.max_header_bytes
    config.websocket_max_message_size = settings.sockets.max_message_bytes
    return config
