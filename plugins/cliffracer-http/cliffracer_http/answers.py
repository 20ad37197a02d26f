"""What a handler returns, made into a response."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from cliffracer_core.messages import JSON

from .edge import CORRELATION_HEADER
from .errors import NotAcceptable
from .etags import not_modified, quote
from .model import RouteModel
from .negotiation import choose
from .responses import Reply
from .servers.whole import WholeSend
from .shortcuts import Shortcut

__all__ = ["Answer", "Rest", "compile_answer"]

Rest = tuple[Any, dict[str, Any], dict[str, Any]]
"""A `send`, and the two messages to give to it."""
Answer = Callable[[Any, Any, Any, str, bytes], Rest | None]
"""Take a handler's result, the scope, `send`, the correlation id and `Accept`; send the response, or return what is
left to do."""

_JSON_TYPE = (b"content-type", b"application/json")
_LENGTHS = tuple((b"content-length", b"%d" % size) for size in range(2048))
_LIKE_JSON = (b"", b"*/*", b"application/json")
_LINES = b"content-type: application/json\r\ncontent-length: %d\r\n" + CORRELATION_HEADER + b": %b\r\n"


def compile_answer(model: RouteModel, *, head: bool) -> Answer:
    """Make the function that answers with a handler's result.

    Args:
        model: the route.
        head: send no body.
    """
    status = model.status_code
    quickly, encode = JSON.encode_quickly, JSON.encode
    answer_any = _compile_any(model, head=head)
    if model.without_body or head or model.media_type is not None:
        return answer_any

    def answer(result: Any, scope: Any, send: Any, correlation_id: str, accept: bytes) -> Rest | None:
        if accept not in _LIKE_JSON or isinstance(result, Reply):
            return answer_any(result, scope, send, correlation_id, accept)
        try:
            body = quickly(result)
            if body.find(b"null") >= 0:
                body = encode(result)  # looks whether that was no number
        except Exception:
            body = encode(result)  # says in words of ours what is wrong
        size = len(body)
        correlation = correlation_id.encode("ascii")
        lines = _LINES % (size, correlation)
        through = send
        while isinstance(through, Shortcut) and size < through.below:
            lines += through.lines
            through = through.inner
        if isinstance(through, WholeSend) and through.whole(status, lines, body):
            return None
        headers = [_JSON_TYPE, _length(size), (CORRELATION_HEADER, correlation)]
        while send is not through:
            headers += send.extra
            send = send.inner
        return send, *_messages(status, headers, body)

    return answer


def _compile_any(model: RouteModel, *, head: bool) -> Answer:
    status = model.status_code
    media_type = None if model.media_type is None else (b"content-type", model.media_type.encode("ascii"))
    json_type = media_type or _JSON_TYPE

    def answer(result: Any, scope: Any, send: Any, correlation_id: str, accept: bytes) -> Rest:
        code = status
        extra: list[tuple[bytes, bytes]] = []
        correlation = (CORRELATION_HEADER, correlation_id.encode("ascii"))
        if isinstance(result, Reply):
            code, extra = result.status_code or status, _extra(result)
            if result.etag is not None and code == 200 and not_modified(scope, result.etag):
                code = 304
            result = result.value
        if model.without_body or code in (204, 205, 304):
            return send, *_messages(code, [correlation, *extra], b"")
        if media_type is not None and isinstance(result, str | bytes):
            body, kind = (result.encode() if isinstance(result, str) else result), media_type
        elif accept in _LIKE_JSON:
            body, kind = JSON.encode(result), json_type
        else:
            codec = choose(accept)
            if codec is None:
                raise NotAcceptable(f"{model.where} sends 'application/json' or 'application/msgpack'; accept one")
            body, kind = codec.encode(result), (b"content-type", codec.content_type.encode("ascii"))
        headers = [kind, _length(len(body)), correlation, *extra]
        return send, *_messages(code, headers, b"" if head else body)

    return answer


def _messages(status: int, headers: list[tuple[bytes, bytes]], body: bytes) -> tuple[dict[str, Any], dict[str, Any]]:
    return (
        {"type": "http.response.start", "status": status, "headers": headers},
        {"type": "http.response.body", "body": body},
    )


def _length(size: int) -> tuple[bytes, bytes]:
    return _LENGTHS[size] if size < 2048 else (b"content-length", b"%d" % size)


def _extra(reply: Reply) -> list[tuple[bytes, bytes]]:
    given = [(name.lower().encode("ascii"), value.encode("latin-1")) for name, value in reply.headers.items()]
    if reply.etag is not None:
        given.append((b"etag", quote(reply.etag)))
    return given
