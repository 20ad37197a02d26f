"""`OwnPort`: sockets on a port beside the HTTP server's."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import msgspec
from cliffracer_http.matcher import Matcher
from cliffracer_http.serving import Serving
from cliffracer_http.settings import HttpSettings

from cliffracer_core.errors import ConfigurationError, StartupError
from cliffracer_core.interfaces import SocketLimits

from .admission import Refused, deny

if TYPE_CHECKING:
    from .endpoint import Endpoint

__all__ = ["OwnPort"]

_STOP_S = 2.0


class OwnPort:
    """A server for sockets alone.

    Args:
        host: to listen on.
        port: likewise; 0 takes a free one.
        limits: what the server enforces.

    Raises:
        ConfigurationError: the port is none.
    """

    def __init__(self, host: str, port: int, limits: SocketLimits) -> None:
        try:
            settings = msgspec.convert({"host": host, "port": port}, HttpSettings)
        except msgspec.ValidationError as error:
            raise ConfigurationError(f"setting 'websocket.port': {error}; correct it") from None
        self._serving = Serving(settings, limits)
        self._endpoints: Matcher[Endpoint] = Matcher()

    @property
    def url(self) -> str:
        """Where it listens, such as `ws://127.0.0.1:8081`."""
        return self._serving.addresses[0].replace("http", "ws", 1)

    async def start(self, routes: Iterable[tuple[str, Endpoint]]) -> None:
        """Listen.

        Raises:
            ConfigurationError: one path twice.
            StartupError: the port cannot be listened on.
        """
        for path, endpoint in routes:
            if self._endpoints.get(path) is not None:
                raise ConfigurationError(f"two websocket handlers have the path {path!r}; change one")
            self._endpoints.add(path, endpoint)
        try:
            await self._serving.start(self)
        except StartupError as error:
            raise StartupError(f"websocket.port: {error.message}") from error

    async def stop(self) -> None:
        """Listen no more."""
        await self._serving.stop(_STOP_S)

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Serve as ASGI 3: the sockets, and nothing to anyone else."""
        found = self._endpoints.find(scope["path"]) if scope["type"] == "websocket" else None
        if found is not None:
            endpoint, values = found
            await endpoint(scope, receive, send, values)
        elif scope["type"] == "websocket":
            await deny(scope, receive, send, Refused(404, "nothing is at this path"))
        elif scope["type"] == "http":
            headers = [(b"content-type", b"text/plain"), (b"upgrade", b"websocket"), (b"connection", b"upgrade")]
            await send({"type": "http.response.start", "status": 426, "headers": headers})
            await send({"type": "http.response.body", "body": b"this port takes websockets only\n"})
