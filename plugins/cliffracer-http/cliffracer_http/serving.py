"""Listen with the server that is configured."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from typing import Any

from cliffracer_core.errors import StartupError
from cliffracer_core.interfaces import SocketLimits

from .settings import HttpSettings

__all__ = ["Serving"]


class Serving:
    """A server in the running event loop, until servers/ has it."""

    def __init__(self, settings: HttpSettings, sockets: SocketLimits | None = None) -> None:
        self._settings = settings
        self._sockets = sockets or SocketLimits()
        self.addresses: list[str] = []
        self._task: asyncio.Task[None] | None = None

    async def start(self, app: Any) -> None:
        """Listen."""
        import uvicorn

        settings = self._settings
        family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
        listener = socket.socket(family, socket.SOCK_STREAM)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind((settings.host, settings.port))
        except OSError as error:
            listener.close()
            raise StartupError(f"cannot listen on {settings.host}:{settings.port}: {error}; set http.port") from error
        sockets = self._sockets
        config = uvicorn.Config(
            app, interface="asgi3", lifespan="off", log_config=None, access_log=False, ws="websockets-sansio",
            ws_max_size=sockets.max_message_bytes, ws_ping_interval=sockets.ping_interval_s,
            ws_ping_timeout=sockets.ping_timeout_s, ws_per_message_deflate=sockets.compression,
        )  # fmt: skip
        self._server = uvicorn.Server(config)
        self._server.capture_signals = contextlib.nullcontext  # type: ignore[assignment,method-assign]
        self.addresses = [f"http://{settings.host}:{listener.getsockname()[1]}"]
        self._task = asyncio.create_task(self._server.serve(sockets=[listener]))
        while not self._server.started:
            if self._task.done():
                await self._task
            await asyncio.sleep(0.005)

    async def stop(self, grace_s: float) -> None:
        """Stop."""
        self._server.should_exit = True
        self._server.config.timeout_graceful_shutdown = max(1, int(grace_s))
        if self._task is not None:
            await self._task
