"""Limits that no server has: how many header fields, and how long a part of a body may take.

A request that stays within them pays for a comparison and one small object; a timer is set only where a
part of its body is really waited for.
"""

from __future__ import annotations

import asyncio
import types
from collections.abc import Awaitable, Generator
from typing import Any

from .errors import RequestTimeout
from .settings import HttpSettings

__all__ = ["Limits"]


class Limits:
    """ASGI middleware around an application of any kind.

    Its `receive` raises RequestTimeout where the next part of a body takes longer than `body_timeout_s`.
    An application that lets that pass is answered for with 408; so is, with 431, a head of too many fields.
    The size of bodies is limited by routes, which may differ (`bodies`).

    Args:
        app: an ASGI 3 application.
        settings: the limits.
    """

    def __init__(self, app: Any, settings: HttpSettings) -> None:
        self._app = app
        self._max_headers = settings.max_headers
        self._body_timeout_s = settings.body_timeout_s

    def __call__(self, scope: Any, receive: Any, send: Any) -> Awaitable[None]:
        """Serve as ASGI 3."""
        if scope["type"] != "http":
            return self._app(scope, receive, send)  # type: ignore[no-any-return]  # any application
        if len(scope["headers"]) > self._max_headers:
            return _refuse(send, 431, f"more than {self._max_headers} header fields")
        body = _Body(receive, self._body_timeout_s)
        return self._app(scope, body.receive, send)  # type: ignore[no-any-return]


class _Body:
    """A request's body as it comes."""

    __slots__ = ("_ended", "_receive", "_timeout_s")

    def __init__(self, receive: Any, timeout_s: float) -> None:
        self._receive = receive
        self._timeout_s = timeout_s
        self._ended = False

    async def receive(self) -> Any:
        """Return the next message."""
        if self._ended:  # what comes now is the disconnect, whenever that is
            return await self._receive()
        message = await _within(self._receive(), self._timeout_s)
        if not message.get("more_body", False):
            self._ended = True
        return message


@types.coroutine
def _within(coroutine: Any, timeout_s: float) -> Generator[Any, Any, Any]:
    """Await, with a time limit that costs nothing where the result is there already.

    Raises:
        RequestTimeout: it took longer than `timeout_s` seconds.
    """
    steps = coroutine.__await__()
    try:
        waited = next(steps)
    except StopIteration as done:
        return done.value
    return (yield from _wait(steps, waited, timeout_s).__await__())


async def _wait(steps: Generator[Any, Any, Any], waited: Any, timeout_s: float) -> Any:
    limit = asyncio.timeout(timeout_s)
    try:
        async with limit:
            return await _rest(steps, waited)
    except TimeoutError as error:
        if not limit.expired():
            raise
        raise RequestTimeout(f"nothing more of the request's body came within {timeout_s:g} s") from error


@types.coroutine
def _rest(steps: Any, waited: Any) -> Generator[Any, Any, Any]:
    """Drive what has been begun to its end; granian's awaitables are plain iterators, without `throw`."""
    while True:
        try:
            yield waited
        except BaseException as error:
            if not hasattr(steps, "throw"):
                raise
            try:
                waited = steps.throw(error)
            except StopIteration as done:
                return done.value
        else:
            return (yield from steps)


async def _refuse(send: Any, status: int, detail: str) -> None:
    body = detail.encode("ascii")
    headers = [(b"content-type", b"text/plain"), (b"content-length", b"%d" % len(body))]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
