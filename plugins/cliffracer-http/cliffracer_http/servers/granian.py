"""Granian: HTTP/1.1 and HTTP/2 in Rust, calling the application in this process's event loop."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import socket
from pathlib import Path
from typing import Any

from granian.constants import HTTPModes, Interfaces, SSLProtocols
from granian.http import HTTP1Settings, HTTP2Settings
from granian.net import SocketHolder  # type: ignore[attr-defined]  # imported there to be imported
from granian.server.embed import Server

from .choice import check_http3
from .framing import framed
from .interface import Asgi, ServerCapabilities, ServerSettings
from .sockets import listen, settle, unlink, urls_of
from .tls import Certificates, check

__all__ = ["GranianServer"]

logger = logging.getLogger("cliffracer.http")

_THREADS_S = 0.03
"""What Granian's threads need to let go of a socket: the interpreter aborts where it ends before that."""
_QUIET_S = 0.5
"""How long after the last request another may come that was already read."""


class _Embedded(Server):
    """Granian's embedded server on a socket of ours, whose errors are ours too."""

    def __init__(self, found: socket.socket, **options: Any) -> None:
        self._found = found
        super().__init__(**options)

    def _init_shared_socket(self) -> None:
        self._ssp = None
        make: Any = SocketHolder  # its stub knows no arguments
        self._shd = make(os.dup(self._found.fileno()), self._found.family == socket.AF_UNIX, self.backlog)


class GranianServer:
    """Serve with Granian; see `AsgiServer`."""

    capabilities = ServerCapabilities(
        http2=True,
        keep_alive_timeout=False,
        write_timeout=False,
        header_limit=False,
        socket_pings=False,
        socket_close=False,
        socket_codes=False,
        socket_limit=False,
        socket_compression=False,
        early_response=False,
        framing_refused=False,
    )

    def __init__(self) -> None:
        self._settings = ServerSettings()
        self._server: _Embedded | None = None
        self._serving: asyncio.Task[None] | None = None
        self._found: socket.socket | None = None
        self._running: set[asyncio.Task[Any]] = set()
        self._last_socket: float | None = None
        """When one ended, on the loop's clock."""

    async def start(self, app: Asgi, settings: ServerSettings) -> list[str]:
        """Listen; see `AsgiServer`."""
        check(settings)
        check_http3(settings, self.capabilities)
        if settings.tls_cert:
            Certificates(settings, ["http/1.1"])  # its errors, before Granian panics
        self._settings = settings
        found = self._found = listen(settings)
        running, whole = self._running, framed(app)

        async def counted(scope: Any, receive: Any, send: Any) -> None:
            task = asyncio.current_task()
            assert task is not None
            running.add(task)
            try:
                await whole(scope, receive, send)
            finally:
                running.discard(task)
                if scope["type"] == "websocket":
                    self._last_socket = asyncio.get_running_loop().time()

        # without TLS, `auto` would wait for a first byte without end, to know which version it is
        mode = HTTPModes.auto if settings.tls_cert else HTTPModes.http1
        server = self._server = _Embedded(
            found, target=counted, interface=Interfaces.ASGINL, http=mode, log_enabled=False,
            backlog=settings.backlog, backpressure=2**20,
            http1_settings=HTTP1Settings(
                header_read_timeout=max(1, int(settings.header_timeout_s * 1000)),
                max_buffer_size=max(8192, settings.max_header_bytes),
            ),
            http2_settings=HTTP2Settings(max_headers_size=settings.max_header_bytes),
            ssl_cert=Path(settings.tls_cert) if settings.tls_cert else None,
            ssl_key=Path(settings.tls_key) if settings.tls_key else None,
            ssl_key_password=settings.tls_key_password, ssl_protocol_min=SSLProtocols.tls12,
        )  # fmt: skip
        self._serving = asyncio.get_running_loop().create_task(server.serve())
        while not server.wrks:
            if self._serving.done():
                await self._serving
            await asyncio.sleep(0)
        return urls_of(found, settings)

    async def stop(self, grace_s: float) -> None:
        """Stop; see `AsgiServer`."""
        server, self._server = self._server, None
        if server is None or self._serving is None or self._found is None:
            return
        await settle()
        server.stop()  # type: ignore[no-untyped-call]  # Granian's is not typed
        self._found.close()
        await self._finish(self._serving, grace_s)
        await self._cut()
        unlink(self._settings)
        if self._last_socket is not None:
            await asyncio.sleep(max(0.0, self._last_socket + _THREADS_S - asyncio.get_running_loop().time()))

    async def _finish(self, serving: asyncio.Task[None], grace_s: float) -> None:
        """Wait for what runs; not for connections in the middle of a head, which Granian keeps until their time."""
        time = asyncio.get_running_loop().time
        end, quiet_since = time() + grace_s, time()
        while not serving.done() and time() < end and time() - quiet_since < _QUIET_S:
            await asyncio.wait([serving], timeout=0.01)
            if self._running:
                quiet_since = time()

    async def _cut(self) -> None:
        left = set(self._running)
        if left:
            logger.warning("%d requests were cut at the end of the grace time", len(left))
            for task in left:
                task.cancel()
            await asyncio.wait(left, timeout=1.0)
        if self._serving is not None and not self._serving.done():
            self._serving.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._serving
