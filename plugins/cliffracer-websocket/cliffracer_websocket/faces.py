"""Types for programs: what they call, and the sockets that they hand in."""

from __future__ import annotations

from typing import Any, Protocol

__all__ = ["Broadcast", "Receiver", "Socket", "accept"]


class Broadcast(Protocol):
    """The type of `websocket_broadcast`, for a class that declares it to type checkers."""

    async def __call__(self, data: object, *, key: str | None = None) -> None:
        """Send a message to every socket of the service; see `broadcast_all`."""


class Socket(Protocol):
    """What `add_connection` takes: Starlette's WebSocket, or this plugin's."""

    async def send(self, message: Any, /) -> None:
        """Send an ASGI event."""


class Receiver(Protocol):
    """What `listen` reads: Starlette's WebSocket."""

    async def receive(self) -> Any:
        """Return the next ASGI event."""


async def accept(websocket: Socket) -> None:
    """Accept a socket that nobody has accepted yet."""
    state = getattr(websocket, "application_state", None)
    accept = getattr(websocket, "accept", None)
    if accept is not None and getattr(state, "name", "") == "CONNECTING":
        await accept()
