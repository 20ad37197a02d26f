"""A response that is ready as a whole goes to the client in one write.

ASGI hands it over in two messages, and a server turns a list of headers into bytes each time. Where a server's own
`send` is a `WholeSend`, and nobody stands between it and the application, one call with the bytes does both.
"""

from __future__ import annotations

from collections.abc import Awaitable
from typing import Any

__all__ = ["WholeSend"]


class WholeSend:
    """A server's `send` that takes a response whole."""

    __slots__ = ()

    def __call__(self, message: Any) -> Awaitable[None]:
        """Send as ASGI 3."""
        raise NotImplementedError

    def whole(self, status: int, lines: bytes, body: bytes) -> bool:
        """Send a response, which must have a body, and complete it.

        Args:
            status: of the response.
            lines: its headers, each ended by CRLF and known to be valid; `Content-Length` is among them.
            body: all of it.

        Returns:
            False, and nothing is sent, where it must come message by message: the client is gone or is behind with
            reading, or a response has begun.
        """
        raise NotImplementedError
