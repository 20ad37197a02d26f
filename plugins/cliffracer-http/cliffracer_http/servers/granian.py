"""granian: HTTP/1.1 and HTTP/2 in Rust, in threads of its own; applications run in our event loop."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import socket
from pathlib import Path
from typing import Any

from granian.constants import HTTPModes, Interfaces
from granian.http import HTTP1Settings, HTTP2Settings
from granian.net import SocketHolder
from granian.server.embed import Server

from cliffracer_http.settings import HttpSettings

from .certificates import check_certificates
from .interface import ServerCapabilities

__all__ = ["GranianServer"]

logger = logging.getLogger("cliffracer.http")

BACKLOG = 1024
ARRIVAL_S = 0.05
"""Before the listener closes, which ends what granian has accepted and not yet read."""
END_S = 1.0
"""For cancelled applications to end, and for granian's threads after that."""


class GranianServer:
    """Serve with granian's embedded server; implements `AsgiServer`.

    granian has no limit on how long a client may read, or be idle, and leaves connections open that its
    stop finds idle, until they close themselves or the process ends.
    """

    capabilities = ServerCapabilities(http2=True, header_limit=True, header_timeout=True)

    def __init__(self, settings: HttpSettings) -> None:
        self._settings = settings
        self._app: Any = None
        self._running: set[asyncio.Task[Any]] = set()
        self._server: Server | None = None
        self._serving: asyncio.Task[None] | None = None

    async def start(self, app: Any, listener: socket.socket) -> None:
        """Accept; see `AsgiServer`."""
        settings = self._settings
        check_certificates(settings)
        self._app = app
        head_ms = int(settings.header_timeout_s * 1000)
        server = self._server = _Server(
            self._run, interface=Interfaces.ASGINL, log_enabled=False, http=HTTPModes.auto, backlog=BACKLOG,
            http1_settings=HTTP1Settings(header_read_timeout=head_ms, max_buffer_size=settings.max_header_bytes),
            http2_settings=HTTP2Settings(max_headers_size=settings.max_header_bytes),
            ssl_cert=Path(settings.tls_cert) if settings.tls_cert else None,
            ssl_key=Path(settings.tls_key) if settings.tls_key else None, ssl_key_password=settings.tls_key_password,
        )  # fmt: skip
        server.take(listener)
        self._serving = asyncio.create_task(server.serve())
        await asyncio.sleep(0)

    async def _run(self, scope: Any, receive: Any, send: Any) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._running.add(task)
        try:
            await self._app(scope, receive, send)
        finally:
            self._running.discard(task)

    async def stop(self, grace_s: float) -> None:
        """Stop; see `AsgiServer`."""
        server, serving = self._server, self._serving
        self._server = self._serving = None
        if server is None or serving is None:
            return
        arrival_s = min(ARRIVAL_S, grace_s)
        await asyncio.sleep(arrival_s)
        server.stop()
        await asyncio.wait({serving}, timeout=grace_s - arrival_s)
        if running := set(self._running):
            logger.warning("%d requests are cancelled at the end of the grace time", len(running))
            for task in running:
                task.cancel()
            await asyncio.wait(running, timeout=END_S)
        if not serving.done():
            await asyncio.wait({serving}, timeout=END_S)
            serving.cancel()
            await asyncio.wait({serving})
        if self._settings.unix_socket is not None:
            with contextlib.suppress(OSError):
                os.unlink(self._settings.unix_socket)


class _Server(Server):
    """A server on a socket that is bound already."""

    def take(self, listener: socket.socket) -> None:
        listener.listen(BACKLOG)
        uds = listener.family == socket.AF_UNIX
        self._shd = SocketHolder(listener.detach(), uds, BACKLOG)
        self._sfd = self._shd.get_fd()
        self._ssp = None

    def _init_shared_socket(self) -> None:
        pass
