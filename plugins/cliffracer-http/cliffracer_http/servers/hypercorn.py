"""Hypercorn: HTTP/1.1 and HTTP/2. Its protocols are used as they are, in place of its `serve`."""

from __future__ import annotations

import asyncio
import logging
import socket
import sys
from typing import Any

from hypercorn.asyncio.worker_context import WorkerContext
from hypercorn.config import Config

from cliffracer_http.settings import HttpSettings

from .certificates import Certificates
from .hypercorn_connection import Connection
from .interface import ServerCapabilities
from .patience import Patience, period_of

__all__ = ["HypercornServer"]

logger = logging.getLogger("cliffracer.http")

ARRIVAL_S = 0.05
"""After the listener has closed: what the kernel holds by then is read before idle connections are closed."""


class HypercornServer:
    """Serve with Hypercorn's protocols; implements `AsgiServer`.

    Hypercorn's own `serve` waits without bound, on Python 3.12 and later, for connections that are open.
    """

    capabilities = ServerCapabilities(
        http2=True, header_limit=True, header_timeout=True, silence_timeout=True, keep_alive_timeout=True,
        send_timeout=True, tls_reload=True, prompt_stop=True, cuts=True,
    )  # fmt: skip

    def __init__(self, settings: HttpSettings) -> None:
        self._settings = settings
        config = self._config = Config()
        config.include_server_header = False
        config.keep_alive_max_requests = sys.maxsize
        config.h11_max_incomplete_size = settings.max_header_bytes
        config.h2_max_header_list_size = settings.max_header_bytes
        config.errorlog = logger
        self._context = WorkerContext(None)
        self._connections: set[Connection] = set()
        self._server: asyncio.Server | None = None
        self._patience: Patience | None = None

    async def start(self, app: Any, listener: socket.socket) -> None:
        """Accept; see `AsgiServer`."""
        settings = self._settings
        certificates = Certificates(settings, ["h2", "http/1.1"])

        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            connection = Connection(app, self._config, self._context, settings, reader, writer)
            self._connections.add(connection)
            try:
                await connection.run()
            finally:
                self._connections.discard(connection)

        self._server = await asyncio.start_server(
            serve, sock=listener, ssl=certificates.context,
            ssl_handshake_timeout=settings.header_timeout_s if certificates.context else None,
        )  # fmt: skip
        self._patience = Patience(lambda: self._connections, period_of(settings), certificates.refresh)

    async def stop(self, grace_s: float) -> None:
        """Stop; see `AsgiServer`."""
        server, self._server = self._server, None
        if server is None:
            return
        loop = asyncio.get_running_loop()
        end = loop.time() + grace_s
        for _ in range(3):  # what waits to be accepted
            await asyncio.sleep(0)
        server.close()
        await asyncio.sleep(min(ARRIVAL_S, grace_s))
        await self._context.terminated.set()
        while self._connections:
            for connection in list(self._connections):
                connection.drain()
            if loop.time() >= end:
                await self._cut()
                break
            await asyncio.sleep(0.01)
        if self._patience is not None:
            self._patience.close()

    async def _cut(self) -> None:
        logger.warning("%d connections are cut at the end of the grace time", len(self._connections))
        for connection in list(self._connections):
            connection.cut()
        end = asyncio.get_running_loop().time() + 1.0
        while self._connections and asyncio.get_running_loop().time() < end:
            await asyncio.sleep(0.01)
