"""Decorators: `websocket` for sockets, `channels` for clients of the Centrifuge protocol."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any, TypeVar

import msgspec

from cliffracer_core.errors import ConfigurationError
from cliffracer_core.handlers import Mark, mark

__all__ = ["CHANNELS", "HOOKS", "OWNER", "SOCKET", "SocketOptions", "channels", "path_names", "websocket"]

F = TypeVar("F", bound=Callable[..., Any])

OWNER = "websocket"
SOCKET = "websocket"
CHANNELS = "channels"
HOOKS = {
    name: Mark(OWNER, name)
    for name in ("on_websocket_connect", "on_websocket_disconnect", "on_websocket_message", "websocket_handler")
}
"""Methods that are handlers by their names."""

_NAME = re.compile(r"\{([^{}:]*)(?::[^{}]*)?\}")


class SocketOptions(msgspec.Struct, frozen=True):
    """Where a handler is served."""

    path: str


def websocket(path: str) -> Callable[[F], F]:
    """Serve websockets on a path such as `/rooms/{id}`; path parameters are arguments by name.

    A handler with a parameter of type `WebSocket` runs as long as its socket; the socket is accepted by
    `await websocket.accept()`, or by the first use of it. One without is called for each message, which
    is decoded into its other parameters; what it returns is sent back, unless it is None.

    Raises:
        ConfigurationError: the path does not begin with '/'.
    """
    return _mark(SOCKET, path)


def channels(path: str = "/connection/websocket") -> Callable[[F], F]:
    """Serve the service's groups, as channels, to clients of the Centrifuge JSON protocol.

    The handler is asked before a client subscribes: it returns True to let it, and raises
    AuthorizationError or returns False not to. It may have parameters `channel`, `client` (id), `action`
    (`subscribe`; with this parameter also `publish`), `data` (what the client sent along) and injected ones.

    Raises:
        ConfigurationError: the path does not begin with '/'.
    """
    return _mark(CHANNELS, path)


def _mark(kind: str, path: str) -> Callable[[F], F]:
    if not isinstance(path, str) or not path.startswith("/"):
        raise ConfigurationError(f"@{kind}: path {path!r} does not begin with '/'; write it as '/rooms/{{id}}'")
    return lambda function: mark(function, OWNER, kind, SocketOptions(path))


def path_names(path: str) -> list[str]:
    """Return the names of a path's parameters."""
    return _NAME.findall(path)
