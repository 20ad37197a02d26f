"""What a handler may return beside plain values: `Reply`, `Event`, and Starlette's responses."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec
from starlette.requests import Request
from starlette.responses import HTMLResponse, PlainTextResponse, RedirectResponse, Response, StreamingResponse

from cliffracer_core.errors import EncodingError
from cliffracer_core.messages import JSON, validate_headers

from .files import FileResponse

__all__ = [
    "Event",
    "FileResponse",
    "HTMLResponse",
    "PlainTextResponse",
    "RedirectResponse",
    "Reply",
    "Request",
    "Response",
]
__all__ += ["StreamingResponse", "encode_event", "is_response"]


class Reply(msgspec.Struct, frozen=True):
    """A value, encoded as any result is, with a status and headers of its own.

    Raises:
        InvalidHeader: a header's name or value could not stand in one line.
    """

    value: Any = None
    status_code: int | None = None
    """None is the route's."""
    headers: Mapping[str, str] = {}
    etag: str | None = None
    """A version of the value, unquoted; a client that has it gets 304 and no body."""

    def __post_init__(self) -> None:
        validate_headers(self.headers)


class Event(msgspec.Struct, frozen=True, kw_only=True):
    """A server-sent event; what a generator yields for a `text/event-stream`.

    A client that reconnects sends the last `id` in the header `Last-Event-ID`.
    """

    data: Any = None
    """A `str` is sent as it is, line by line, anything else as JSON."""
    event: str | None = None
    id: str | None = None
    retry_ms: int | None = None
    """How long a client waits before it reconnects."""
    comment: str | None = None


def encode_event(item: Any) -> bytes:
    """Encode one event (WHATWG HTML, section 9.2); any value but an `Event` is the data of one.

    Raises:
        EncodingError: a name or id has a line break, or the data has no encoding.
    """
    event = item if isinstance(item, Event) else Event(data=item)
    lines = [f": {line}" for line in (event.comment or "").splitlines()]
    for name in ("event", "id"):
        value = getattr(event, name)
        if value is not None:
            if any(each in value for each in "\r\n\0"):
                raise EncodingError(f"the {name!r} of an event has a line break; leave it out")
            lines.append(f"{name}: {value}")
    if event.retry_ms is not None:
        lines.append(f"retry: {event.retry_ms}")
    if event.data is not None or not lines:
        text = event.data if isinstance(event.data, str) else JSON.encode(event.data).decode()
        lines += [f"data: {line}" for line in _lines(text)]
    return "\n".join([*lines, "", ""]).encode()


def _lines(text: str) -> list[str]:
    return text.replace("\r\n", "\n").replace("\r", "\n").split("\n")


def is_response(hint: Any, *kinds: type) -> bool:
    """Tell whether a type is a response that a handler makes itself, of one of these kinds."""
    return isinstance(hint, type) and issubclass(hint, kinds or (Response, Reply))
