"""What a server of ASGI applications is to the rest of this distribution."""

from __future__ import annotations

import socket
from typing import Any, Protocol

import msgspec

from cliffracer_http.settings import HttpSettings

__all__ = ["AsgiServer", "ServerCapabilities"]


class ServerCapabilities(msgspec.Struct, frozen=True, kw_only=True):
    """What a server can do; what it lacks is False, and `docs/http-servers.md` says what that means."""

    http2: bool = False
    """HTTP/2, over TLS by ALPN and in the clear with prior knowledge."""
    header_limit: bool = False
    """It refuses a head that is longer than `max_header_bytes`, without keeping it in memory."""
    header_timeout: bool = False
    """It closes a connection whose next head is not complete within `header_timeout_s`."""
    silence_timeout: bool = False
    """The same holds for a connection on which nothing at all has come."""
    keep_alive_timeout: bool = False
    """It closes a connection that was idle for `keep_alive_s`."""
    send_timeout: bool = False
    """It cuts off a client that reads nothing for `send_timeout_s`."""
    tls_reload: bool = False
    """Certificates that change on disk serve new connections, without a restart."""
    close_codes: bool = False
    """A websocket application learns the code with which its client closed."""
    prompt_stop: bool = False
    """A stop closes at once the connections that have sent no complete head; else they last for the grace time."""
    cuts: bool = False
    """At the end of the grace time it closes the connections that are left."""


class AsgiServer(Protocol):
    """Serve one ASGI 3 application on one socket, in the running event loop, without signal handlers.

    `cliffracer_http.testing.HttpServerContract` says exactly what that means.
    """

    capabilities: ServerCapabilities

    def __init__(self, settings: HttpSettings) -> None: ...

    async def start(self, app: Any, listener: socket.socket) -> None:
        """Accept on a bound socket, which it owns from here on; connections are accepted when this returns.

        Args:
            app: called with `http` and `websocket` scopes, never with `lifespan`.
            listener: bound, not yet listening.

        Raises:
            ConfigurationError: the certificate or its key cannot be read.
        """

    async def stop(self, grace_s: float) -> None:
        """Accept no more, close what is idle, finish what runs within `grace_s` seconds, then cut it.

        What had arrived before is served. Safe to call twice, and after a failed `start`.
        """
