"""uvicorn's `send`, which also takes a whole response."""

from __future__ import annotations

from collections.abc import Awaitable
from typing import Any

from uvicorn.protocols.http.httptools_impl import STATUS_LINE, RequestResponseCycle

from .interface import Asgi
from .whole import WholeSend

__all__ = ["taking_whole"]

_send = RequestResponseCycle.send


def taking_whole(app: Asgi) -> Asgi:
    """Give an application a `WholeSend` for each request."""

    def call(scope: Any, receive: Any, send: Any) -> Awaitable[None]:
        return app(scope, receive, _Reply(send.__self__) if scope["type"] == "http" else send)

    return call


class _Reply(WholeSend):
    __slots__ = ("_cycle",)

    def __init__(self, cycle: RequestResponseCycle) -> None:
        self._cycle = cycle

    def __call__(self, message: Any) -> Awaitable[None]:
        return _send(self._cycle, message)

    def whole(self, status: int, lines: bytes, body: bytes) -> bool:
        cycle = self._cycle
        if cycle.response_started or cycle.disconnected or cycle.flow.write_paused:
            return False
        cycle.response_started = cycle.response_complete = True
        cycle.waiting_for_100_continue = False
        keeps = cycle.keep_alive
        own = b"".join([b"%b: %b\r\n" % each for each in cycle.default_headers])
        end = b"\r\n" if keeps else b"connection: close\r\n\r\n"
        cycle.transport.write(b"".join((STATUS_LINE[status], own, lines, end, body)))
        cycle.message_event.set()
        if not keeps:
            cycle.transport.close()
        cycle.on_response()
        return True
