"""uvicorn: HTTP/1.1 by httptools, fast. Its protocols are used as they are, in place of its `Server`."""

from __future__ import annotations

import asyncio
import logging
import socket
import time
from email.utils import formatdate
from typing import Any

import uvicorn
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol
from uvicorn.server import ServerState

from cliffracer_http.settings import HttpSettings

from .certificates import Certificates
from .heads import REFUSALS, is_too_long
from .interface import ServerCapabilities
from .patience import Patience, Waited, period_of

__all__ = ["UvicornServer"]

logger = logging.getLogger("cliffracer.http")

ARRIVAL_S = 0.05
"""After the listener has closed: what the kernel holds by then is read before idle connections are closed."""


class UvicornServer:
    """Serve with uvicorn's protocols; implements `AsgiServer`.

    uvicorn's own `Server` installs signal handlers and looks for its end ten times a second; its
    protocols know no limit of a head's size or time, which `_Protocol` and `Patience` add.
    """

    capabilities = ServerCapabilities(
        header_limit=True, header_timeout=True, silence_timeout=True, keep_alive_timeout=True,
        send_timeout=True, tls_reload=True, close_codes=True, prompt_stop=True, cuts=True,
    )  # fmt: skip

    def __init__(self, settings: HttpSettings) -> None:
        self._settings = settings
        self._state = ServerState()
        self._server: asyncio.Server | None = None
        self._patience: Patience | None = None
        self._second = 0

    async def start(self, app: Any, listener: socket.socket) -> None:
        """Accept; see `AsgiServer`."""
        settings = self._settings
        certificates = Certificates(settings, ["http/1.1"])
        config = uvicorn.Config(
            app, interface="asgi3", lifespan="off", log_config=None, access_log=False, server_header=False,
            http=_Protocol, ws="websockets-sansio", proxy_headers=False,
            timeout_keep_alive=settings.keep_alive_s,  # type: ignore[arg-type]  # goes to call_later as it is
        )  # fmt: skip
        config.load()
        loop = asyncio.get_running_loop()
        self._refresh_date()

        def connect() -> asyncio.Protocol:
            return _Protocol(config, self._state, {}, loop, settings)

        self._server = await loop.create_server(
            connect, sock=listener, ssl=certificates.context, backlog=config.backlog,
            ssl_handshake_timeout=settings.header_timeout_s if certificates.context else None,
        )  # fmt: skip

        def look() -> None:
            self._refresh_date()
            certificates.refresh()

        self._patience = Patience(self._http, period_of(settings), look)

    def _http(self) -> list[_Protocol]:
        return [each for each in self._state.connections if isinstance(each, _Protocol)]

    def _refresh_date(self) -> None:
        if (second := int(time.time())) != self._second:
            self._second = second
            self._state.default_headers = [(b"date", formatdate(second, usegmt=True).encode("ascii"))]

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
        state = self._state
        while state.connections or state.tasks:
            for connection in list(state.connections):
                connection.shutdown()
            if loop.time() >= end:
                break
            await asyncio.sleep(0.01)
        if state.connections or state.tasks:
            await self._cut()
        if self._patience is not None:
            self._patience.close()

    async def _cut(self) -> None:
        state = self._state
        logger.warning("%d connections are cut at the end of the grace time", len(state.connections))
        tasks = set(state.tasks)
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks, timeout=1.0)
        for connection in list(state.connections):
            connection.transport.abort()
        await asyncio.sleep(0)


class _Protocol(HttpToolsProtocol):
    """A connection that knows limits."""

    def __init__(
        self, config: uvicorn.Config, state: ServerState, app_state: dict[str, Any],
        loop: asyncio.AbstractEventLoop, settings: HttpSettings,
    ) -> None:  # fmt: skip
        super().__init__(config, state, app_state, loop)
        self._settings = settings
        self._max_head = settings.max_header_bytes
        self._head: Any = None
        self._head_bytes = 0

    def data_received(self, data: bytes) -> None:
        if len(data) > self._max_head and not self._reads_body() and is_too_long(data, self._max_head):
            self._refuse(431)
            return
        HttpToolsProtocol.data_received(self, data)
        scope = self.scope
        if scope is not None and "method" not in scope:
            self._count(scope, len(data))

    def _reads_body(self) -> bool:
        return self.cycle is not None and self.cycle.more_body

    def _count(self, scope: Any, size: int) -> None:
        """Add what came of a head that is not complete; its `scope` is uvicorn's, one for each request."""
        if scope is not self._head:
            self._head, self._head_bytes = scope, 0
        self._head_bytes += size
        if self._head_bytes > self._max_head:
            self._refuse(431)

    def _refuse(self, status: int) -> None:
        if self.transport.is_closing():
            return
        if self.cycle is None or self.cycle.response_complete:
            self.transport.write(REFUSALS[status])
        self.transport.close()

    def waits(self) -> Waited | None:
        settings, cycle = self._settings, self.cycle
        if size := self.transport.get_write_buffer_size():
            return settings.send_timeout_s, ("send", size)
        if self.scope is None:
            return settings.header_timeout_s, "first head"
        if cycle is not None and not cycle.response_complete:
            return None
        if "method" not in self.scope:
            return settings.header_timeout_s, ("head", id(self.scope))
        if cycle is not None and cycle.more_body:
            return settings.body_timeout_s, ("body", id(cycle))
        return None  # idle: uvicorn's own timer

    def give_up(self) -> None:
        if self.transport.get_write_buffer_size():
            self.transport.abort()
        elif self.scope is not None and "method" not in self.scope:
            self._refuse(408)
        else:
            self.transport.close()
