"""What enters from outside: of all headers, those that a service may see, and an id that is safe to log."""

from __future__ import annotations

import re
from typing import Any

from cliffracer_core import create_correlation_id
from cliffracer_core.messages import AUTHORIZATION, CORRELATION_ID, IDEMPOTENCY_KEY, TIMEOUT_MS, TRACEPARENT

__all__ = ["CORRELATION_HEADER", "Admitted", "admit", "correlated", "correlation_of"]

CORRELATION_HEADER = b"x-correlation-id"
_REQUEST_ID = "X-Request-ID"
_ID = re.compile(r"[A-Za-z0-9_.-]{1,128}").fullmatch
_TRACEPARENT = re.compile(r"(?!ff)[0-9a-f]{2}-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}").fullmatch
_KEY = re.compile(r"[\x21-\x7e]([\x20-\x7e]{0,253}[\x21-\x7e])?").fullmatch
_WHOLE = re.compile(r"[0-9]{1,9}").fullmatch
_CHECKED = {
    CORRELATION_ID: _ID,
    _REQUEST_ID: _ID,
    TRACEPARENT: _TRACEPARENT,
    IDEMPOTENCY_KEY: _KEY,
    TIMEOUT_MS: _WHOLE,
}
_SEEN = {
    b"x-correlation-id": CORRELATION_ID,
    b"x-request-id": _REQUEST_ID,
    b"traceparent": TRACEPARENT,
    b"idempotency-key": IDEMPOTENCY_KEY,
    b"timeout-ms": TIMEOUT_MS,
    b"authorization": AUTHORIZATION,
    b"x-api-key": "X-API-Key",
    b"cookie": "Cookie",
    b"content-type": "",
    b"content-length": "",
    b"accept": "",
}
_look = _SEEN.get
Headers = list[tuple[bytes, bytes]]
Admitted = tuple[dict[str, str], str, float | None, bytes, bytes, bytes]
"""Headers for the call's context, correlation id, timeout (s), content type, `Accept`, length; plain for speed."""


def admit(raw: Headers) -> Admitted:
    """Choose the headers that may enter; one that is malformed counts as not given, the first of two counts.

    A malformed `Idempotency-Key` is the empty one, which the handlers that heed keys refuse.
    """
    headers: dict[str, str] = {}
    content_type = accept = length = b""
    for name, value in raw:
        known = _look(name)
        if known is not None:
            if known:
                text = value.decode("latin-1")
                check = _CHECKED.get(known)
                if known not in headers and (check is None or check(text)):
                    headers[known] = text
                elif known == IDEMPOTENCY_KEY:
                    headers.setdefault(known, "")  # who counts on it must not be let in without
            elif name == b"accept":
                accept = accept + b"," + value if accept else value
            elif name == b"content-type":
                content_type = value
            else:
                length = value
    if not headers:
        return headers, create_correlation_id(), None, content_type, accept, length
    asked = headers.pop(_REQUEST_ID, None)
    correlation_id = headers.get(CORRELATION_ID) or asked or create_correlation_id()
    timeout_ms = headers.pop(TIMEOUT_MS, None)
    timeout_s = int(timeout_ms) / 1000 if timeout_ms else None
    return headers, correlation_id, timeout_s, content_type, accept, length


def correlation_of(scope: Any) -> str:
    """Return the id of a request that no route of ours serves, the same each time it is asked for."""
    known = scope.get("cliffracer.correlation_id")
    if known is None:
        known = scope["cliffracer.correlation_id"] = admit(scope["headers"])[1]
    return str(known)


def correlated(app: Any) -> Any:
    """Add the correlation id to what an application sends without one."""

    async def call(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            await app(scope, receive, send)
            return

        async def with_id(message: Any) -> None:
            if message["type"] == "http.response.start":
                headers = list(message.get("headers", ()))
                if all(name.lower() != CORRELATION_HEADER for name, _ in headers):
                    headers.append((CORRELATION_HEADER, correlation_of(scope).encode("ascii")))
                    message = {**message, "headers": headers}
            await send(message)

        await app(scope, receive, with_id)

    return call
