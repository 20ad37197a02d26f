"""`OwnPort`: sockets on a port beside the HTTP server's."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import msgspec
from cliffracer_http.handshakes import deny
from cliffracer_http.matcher import Matcher
from cliffracer_http.servers.choice import make_server
from cliffracer_http.settings import HttpSettings, server_settings

from cliffracer_core.errors import ConfigurationError, StartupError
from cliffracer_core.interfaces import SocketLimits

if TYPE_CHECKING:
    from .endpoint import Endpoint

__all__ = ["OwnPort"]

_STOP_S = 2.0


class OwnPort:
    """A server for sockets alone.

    Args:
        http: what of it holds here too: which server, TLS, times, whether workers share the port.
        host: to listen on.
        port: likewise; 0 takes a free one.
        limits: what the server enforces.

    Raises:
        ConfigurationError: the port is none, or one that workers cannot share.
    """

    def __init__(self, http: HttpSettings, host: str, port: int, limits: SocketLimits) -> None:
        if not 0 <= port <= 65535:
            raise ConfigurationError(f"setting 'websocket.port' is {port}; give one up to 65535, or 0 for a free one")
        if http.reuse_port and port == 0:
            raise ConfigurationError(
                "http.reuse_port and 'cliffracer run --workers' need a websocket.port that is not 0"
            )
        self._server = make_server(http.server)
        self._settings = msgspec.structs.replace(
            server_settings(http), host=host, port=port, unix_socket=None, sockets=limits
        )
        self._endpoints: Matcher[Endpoint] = Matcher()
        self._urls: list[str] = []

    @property
    def url(self) -> str:
        """Where it listens, such as `ws://127.0.0.1:8081`."""
        return self._urls[0].replace("http", "ws", 1)

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
            self._urls = await self._server.start(self, self._settings)
        except StartupError as error:
            raise StartupError(f"websocket.port: {error.message}") from error

    async def stop(self) -> None:
        """Listen no more."""
        await self._server.stop(_STOP_S)

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Serve as ASGI 3: the sockets, and nothing to anyone else."""
        found = self._endpoints.find(scope["path"]) if scope["type"] == "websocket" else None
        if found is not None:
            endpoint, values = found
            await endpoint(scope, receive, send, values)
        elif scope["type"] == "websocket":
            await deny(scope, receive, send, 404, "nothing is at this path")
        elif scope["type"] == "http":
            headers = [(b"content-type", b"text/plain"), (b"upgrade", b"websocket"), (b"connection", b"upgrade")]
            await send({"type": "http.response.start", "status": 426, "headers": headers})
            await send({"type": "http.response.body", "body": b"this port takes websockets only\n"})
