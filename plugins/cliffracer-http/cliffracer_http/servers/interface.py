"""What every server of ASGI applications offers here, and says it lacks."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Annotated, Any, Protocol

import msgspec

from cliffracer_core.interfaces import SocketLimits

__all__ = ["LINGER_BYTES", "LINGER_S", "Asgi", "AsgiServer", "ServerCapabilities", "ServerSettings"]

Asgi = Callable[[Any, Any, Any], Awaitable[None]]
"""An ASGI 3 application."""
LINGER_S = 2.0
LINGER_BYTES = 16 * 1024 * 1024
"""What a client may go on sending after the response to it ended, before the connection is cut."""
Positive = Annotated[float, msgspec.Meta(gt=0)]
Count = Annotated[int, msgspec.Meta(ge=1)]


class ServerCapabilities(msgspec.Struct, frozen=True, kw_only=True):
    """What a server can; a promise that it lacks is not made for it."""

    http2: bool = False
    http3: bool = False
    """HTTP/3 where the settings say so, for requests and not for websockets; where False, such settings are refused."""
    tls: bool = True
    tls_reload: bool = False
    """A renewed certificate is taken without a restart."""
    unix_socket: bool = True
    websockets: bool = True
    socket_pings: bool = True
    """A websocket client that does not answer a ping in time is cut off."""
    socket_close: bool = True
    """A websocket whose application waits for a message can be closed with a code; where False, it is only cut off."""
    socket_codes: bool = True
    """A websocket is closed for what its client sends with the code that RFC 6455 names; where False, or with none."""
    socket_limit: bool = True
    """A message past the limit is refused as it comes; where False, once the whole of it has come."""
    socket_compression: bool = True
    """Messages are compressed where the settings say so; where False, never."""
    header_timeout: bool = True
    """A connection whose request head does not arrive in time is closed."""
    header_limit: bool = True
    """A head longer than `max_header_bytes` is refused with 431; where False, the connection is only closed."""
    keep_alive_timeout: bool = True
    """An idle connection is closed in time."""
    write_timeout: bool = True
    """A client that does not read its response is cut off in time."""
    early_response: bool = True
    """A response sent before the whole body was read reaches a client that is still sending."""
    framing_refused: bool = True
    """A request with both a length and chunks gets 400; where False it is read by chunks, and the connection ends."""


class ServerSettings(msgspec.Struct, frozen=True, kw_only=True):
    """Where and within which bounds a server serves."""

    host: str = "127.0.0.1"
    port: int = 0
    """0 takes a free one."""
    unix_socket: str | None = None
    """Listen on this path in place of host and port."""
    reuse_port: bool = False
    """Let other processes of this user listen on the same port; the kernel spreads connections over them."""
    tls_cert: str | None = None
    """Path of the certificate chain in PEM; with `tls_key` the server speaks TLS."""
    tls_key: str | None = None
    tls_key_password: str | None = None
    tls_reload_s: Positive = 5.0
    """How often the certificate's files are looked at for a change."""
    http3: bool = False
    """Serve HTTP/3 too, over UDP at the same port; needs TLS."""
    keep_alive_s: Positive = 75.0
    """An idle connection is closed after so long."""
    header_timeout_s: Positive = 10.0
    """For the whole head of a request, from its first byte, and for the first byte of a connection."""
    write_timeout_s: Positive = 60.0
    """A client that reads nothing for so long, while there is much to send, is cut off."""
    max_header_bytes: Count = 64 * 1024
    backlog: Count = 1024
    sockets: SocketLimits = SocketLimits()
    """Of websockets."""


class AsgiServer(Protocol):
    """Serve one application in the running event loop, without signal handlers or threads of its own making."""

    capabilities: ServerCapabilities

    async def start(self, app: Asgi, settings: ServerSettings) -> list[str]:
        """Listen, and return the URLs; connections are accepted when this returns.

        Raises:
            ConfigurationError: the settings ask for what it cannot, or a certificate cannot be read.
            StartupError: the address cannot be listened on.
        """

    async def stop(self, grace_s: float) -> None:
        """Accept no more, close idle connections, finish running requests; cut what runs after `grace_s` seconds."""
