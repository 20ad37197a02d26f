"""One request over HTTP/3, as ASGI."""

from __future__ import annotations

import asyncio
import logging
import re
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote

from hypercorn.utils import filter_pseudo_headers, suppress_body

from .interface import Asgi

if TYPE_CHECKING:
    from .h3_session import Session

__all__ = ["Malformed", "Request", "scope_of"]

logger = logging.getLogger("cliffracer.http")
Headers = list[tuple[bytes, bytes]]
_METHOD = re.compile(rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+").fullmatch
_PATH = re.compile(rb"/[\x21-\x7e]*|\*").fullmatch
_NAME = re.compile(rb"[!#$%&'*+.^_`|~0-9a-z-]+").fullmatch
_HOP = frozenset((b"connection", b"keep-alive", b"proxy-connection", b"transfer-encoding", b"upgrade"))
"""Fields of HTTP/1.1's connections, which HTTP/3 forbids (RFC 9114, 4.2)."""


class Malformed(Exception):  # it never leaves this package
    """A request that cannot be served; it gets 400."""


def scope_of(headers: Headers, client: Any, server: Any) -> dict[str, Any]:
    """Return the scope of a request.

    Raises:
        Malformed: it has no method or path, or a length that is none.
    """
    pseudo = {name: value for name, value in headers if name[:1] == b":"}
    method, target = pseudo.get(b":method", b""), pseudo.get(b":path", b"")
    if not _METHOD(method) or not _PATH(target) or b":protocol" in pseudo:
        raise Malformed
    lengths = [value for name, value in headers if name == b"content-length"]
    if len(lengths) > 1 or not all(each.isdigit() for each in lengths):
        raise Malformed
    path, _, query = target.partition(b"?")
    return {
        "type": "http", "asgi": {"version": "3.0", "spec_version": "2.1"}, "http_version": "3",
        "method": method.decode("ascii").upper(), "scheme": "https", "path": unquote(path.decode("ascii")),
        "raw_path": path, "query_string": query, "root_path": "", "headers": _joined(filter_pseudo_headers(headers)),
        "client": client, "server": server, "state": {}, "extensions": {},
    }  # fmt: skip


def _joined(headers: Headers) -> Headers:
    """Make one `cookie` of several, into which clients cut it (RFC 9114, 4.2.1)."""
    cookies = [value for name, value in headers if name == b"cookie"]
    if len(cookies) < 2:
        return headers
    return [*(each for each in headers if each[0] != b"cookie"), (b"cookie", b"; ".join(cookies))]


class Request:
    """A request that runs: its body comes in, its response goes out.

    Args:
        session: its connection.
        stream_id: its stream.
        scope: as ASGI has it.
    """

    def __init__(self, session: Session, stream_id: int, scope: dict[str, Any]) -> None:
        self._session = session
        self.stream_id = stream_id
        self._scope = scope
        self._body = bytearray()
        self._is_whole = False
        """All of the body has come."""
        self._is_read = False
        """The application has been told so."""
        self._there = asyncio.Event()
        self._bodiless = False
        self.begun = False
        """A response was begun."""
        self.ended = False
        """The response has ended, or nobody waits for it: the client has gone, or was given up."""
        self.task: asyncio.Task[None] | None = None

    @property
    def unread(self) -> int:
        """Bytes that wait for the application."""
        return len(self._body)

    def feed(self, data: bytes, *, last: bool) -> None:
        """Take a part of the body; where its client sends no more, `last`."""
        if not self.ended:
            self._body += data
        self._is_whole = self._is_whole or last
        self._there.set()

    def end(self) -> None:
        """Tell the application of a disconnect."""
        self.ended = True
        self._body.clear()
        self._there.set()

    async def run(self, app: Asgi) -> None:
        """Serve it."""
        status: int | None = 500
        try:
            await app(self._scope, self._receive, self._send)
        except asyncio.CancelledError:
            status = None
            raise
        except Exception:
            logger.exception("the application failed")
        finally:
            self._session.finish(self, status)

    async def _receive(self) -> Any:
        while not (self.ended or self._body or (self._is_whole and not self._is_read)):
            self._there.clear()
            await self._there.wait()
        if self.ended:
            return {"type": "http.disconnect"}
        body = bytes(self._body)
        self._body.clear()
        self._is_read = self._is_whole
        self._session.was_read(len(body))
        return {"type": "http.request", "body": body, "more_body": not self._is_whole}

    async def _send(self, message: Any) -> None:
        if self.ended:
            return
        if message["type"] == "http.response.start" and not self.begun:
            status = int(message["status"])
            headers = _checked(message.get("headers", ()))
            self._bodiless = suppress_body(self._scope["method"], status)
            self._session.begin(self.stream_id, status, headers)
            self.begun = True
        elif message["type"] == "http.response.body" and self.begun:
            body = b"" if self._bodiless else message.get("body", b"")
            more = message.get("more_body", False)
            await self._session.write(self, body, last=not more)
            if not more:
                self.end()
        else:
            raise RuntimeError(f"{message['type']!r} does not come {'then' if self.begun else 'first'}")


def _checked(headers: Iterable[tuple[bytes, bytes]]) -> Headers:
    found: Headers = []
    for name, value in headers:
        name, value = bytes(name).lower(), bytes(value).strip()
        if not _NAME(name) or any(each in value for each in b"\r\n\x00"):
            raise ValueError(f"response header {name!r} has characters that may not be in one")
        if name not in _HOP:
            found.append((name, value))
    return found
