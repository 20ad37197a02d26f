"""uvicorn: HTTP/1.1, fast."""

from __future__ import annotations

import asyncio
import logging
from typing import Any

import uvicorn

from .choice import check_http3
from .guarded import protocol_class
from .interface import Asgi, ServerCapabilities, ServerSettings
from .sockets import listen, settle, unlink, urls_of
from .tls import Certificates, check
from .uvicorn_replies import taking_whole
from .uvicorn_sockets import socket_protocol

__all__ = ["UvicornServer"]

logger = logging.getLogger("cliffracer.http")


class UvicornServer:
    """Serve with uvicorn and httptools; see `AsgiServer`."""

    capabilities = ServerCapabilities(tls_reload=True)

    def __init__(self) -> None:
        self._settings = ServerSettings()
        self._server: uvicorn.Server | None = None
        self._ticks: asyncio.Task[None] | None = None
        self._certificates: Certificates | None = None

    async def start(self, app: Asgi, settings: ServerSettings) -> list[str]:
        """Listen; see `AsgiServer`."""
        check(settings)
        check_http3(settings, self.capabilities)
        self._settings = settings
        if settings.tls_cert:
            self._certificates = Certificates(settings, ["http/1.1"])
            self._certificates.watch()
        try:
            found = listen(settings)
        except BaseException:
            await self._close_certificates()
            raise
        urls = urls_of(found, settings)
        config = uvicorn.Config(
            taking_whole(app), interface="asgi3", lifespan="off", log_config=None, access_log=False,
            server_header=False, http=protocol_class(settings), ws=socket_protocol(),
            ws_max_size=settings.sockets.max_message_bytes,
            ws_ping_interval=settings.sockets.ping_interval_s, ws_ping_timeout=settings.sockets.ping_timeout_s,
            ws_per_message_deflate=settings.sockets.compression, backlog=settings.backlog, proxy_headers=False,
            timeout_keep_alive=settings.keep_alive_s,  # type: ignore[arg-type]  # an int by its types alone
        )  # fmt: skip
        config.load()
        if self._certificates is not None:
            config.ssl = self._certificates.context
        server = self._server = uvicorn.Server(config)
        server.lifespan = config.lifespan_class(config)
        await server.startup(sockets=[found])
        await server.on_tick(0)  # the date header
        self._ticks = asyncio.get_running_loop().create_task(server.main_loop())
        return urls

    async def stop(self, grace_s: float) -> None:
        """Stop; see `AsgiServer`."""
        server, self._server = self._server, None
        if server is None:
            return
        state = server.server_state
        await settle()
        for each in server.servers:
            each.close()
        unlink(self._settings)
        await settle()
        for connection in list(state.connections):
            connection.shutdown()
        end = asyncio.get_running_loop().time() + grace_s
        while (state.connections or state.tasks) and asyncio.get_running_loop().time() < end:
            await asyncio.sleep(0.01)
        await self._cut(state)
        server.should_exit = True
        if self._ticks is not None:
            self._ticks.cancel()
            await asyncio.wait([self._ticks])
        await self._close_certificates()

    async def _cut(self, state: Any) -> None:
        if not state.connections and not state.tasks:
            return
        logger.warning("%d connections were cut at the end of the grace time", len(state.connections))
        tasks = set(state.tasks)
        for connection in list(state.connections):
            connection.transport.abort()
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks, timeout=1.0)

    async def _close_certificates(self) -> None:
        if self._certificates is not None:
            await self._certificates.close()
            self._certificates = None
