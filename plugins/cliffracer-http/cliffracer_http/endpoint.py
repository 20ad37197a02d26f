"""A route compiled into one callable: read, bind, call, encode, send."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import logging
import time
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from starlette.datastructures import FormData
from starlette.requests import Request
from starlette.responses import Response

from cliffracer_core import MessageContext
from cliffracer_core.errors import ConfigurationError, EncodingError
from cliffracer_core.interfaces import Entry
from cliffracer_core.messages import JSON

from .binding import compile_body, compile_parameters
from .bodies import limited, read_body, too_large
from .edge import CORRELATION_HEADER, admit
from .errors import ClientGone, NotAcceptable
from .etags import not_modified, quote
from .forms import compile_form
from .limits import BodyLimits, Exchange
from .model import SAFE, RouteModel
from .negotiation import choose
from .pieces import members_of
from .responses import Reply, is_response
from .shortcuts import Shortcut
from .streaming import ResponseBroken, pour
from .watch import Inbox, Watch

__all__ = ["REQUEST", "SCOPE", "Endpoint", "Fail", "compile_endpoint", "request_of", "respond"]

logger = logging.getLogger("cliffracer.http")

SCOPE = "http.scope"
"""Key in a context's `state` of the ASGI scope."""
REQUEST = "http.request"
"""Key in a context's `state` of the `Request`, where the handler asks for it."""

Endpoint = Callable[[Any, Any, Any, dict[str, str]], Awaitable[None]]
"""An ASGI application that is also given the values in the path."""
Fail = Callable[[Any, Any, Any, BaseException, str], Awaitable[None]]
"""Answer a failed request: scope, receive, send, error, correlation id."""


def compile_endpoint(
    model: RouteModel, entry: Entry, fail: Fail, app: Any, watch: Watch, pace: BodyLimits, *, timeout_s: float,
    max_body_bytes: int, memory_bytes: int, shortcuts: bool = False, head: bool = False,
) -> Endpoint:  # fmt: skip
    """Make the callable that serves a route.

    Args:
        model: the route.
        entry: the compiled handler.
        fail: answers for what goes wrong.
        app: what `request.app` is.
        watch: cancels a handler whose client goes away.
        pace: how slowly a body may come.
        timeout_s: what a request may take; a client may ask for less.
        max_body_bytes: larger bodies are refused.
        memory_bytes: larger files are kept on disk.
        shortcuts: `send` may be a `Shortcut`.
        head: send no body.
    """
    call = entry.call
    bind = compile_parameters(model)
    decode = None if model.body is None else compile_body(model.body)
    form = compile_form(model, memory_bytes) if model.form else None
    limit = model.max_body_bytes or max_body_bytes
    digits = len(str(limit))
    takes_body = decode is not None or form is not None
    allowed_s = model.timeout_s or timeout_s
    subject = model.where
    streams = model.streams
    none = not model.parameters
    wants_request = Request in model.injected.values()
    render = compile_reply(model, head=head)
    picky = model.method not in SAFE and _is_negotiated(model)
    current_task, loop = asyncio.current_task, watch.loop

    async def serve(scope: Any, receive: Any, send: Any, values: dict[str, Any]) -> None:
        headers, correlation_id, asked_s, content_type, accept, length = admit(scope["headers"])
        opened: FormData | None = None
        body: bytes | None = None
        inbox: Inbox | None = None
        task = current_task(loop)
        assert task is not None, "a request runs in a task"  # ASGI servers see to it
        watched = True
        try:
            state: dict[str, object] = {SCOPE: scope}
            if picky and accept not in _LIKE_JSON and choose(accept) is None:
                raise _not_acceptable(model)  # before anything is changed
            arguments = {} if none else values if bind is None else bind(scope, values)
            if takes_body and len(length) >= digits and int(length) > limit:
                raise too_large(limit)  # before the client has sent it in vain
            if decode is not None:
                message = await watch.first(task, receive)
                body = await read_body(message, lambda: Exchange(pace, scope, receive, send).receive, limit)
                if none:
                    arguments = decode(body, content_type)
                else:
                    arguments.update(decode(body, content_type))
            elif form is not None:
                receive = Exchange(pace, scope, receive, send).receive
                body = b""
                opened = await form(scope, receive, limit, content_type, arguments, state)
            if wants_request:
                if body is None:
                    receive = limited(Exchange(pace, scope, receive, send).receive, limit)
                inbox = Inbox(receive, body)
                scope["app"] = app
                state[REQUEST] = Request(scope, inbox, send)
            deadline = time.monotonic() + (allowed_s if asked_s is None else min(asked_s, allowed_s))
            context = MessageContext(
                kind="http",
                service=model.service,
                handler=model.handler,
                subject=subject,
                pattern=subject,
                headers=headers,
                correlation_id=correlation_id,
                deadline=None if streams else deadline,
                arguments=arguments,
                state=state,
            )
            watch.begin(task, receive if inbox is None else inbox.watch)
            if streams:
                settle = functools.partial(watch.end, task)
                await pour(model, call, context, accept, send, deadline, settle, head=head)
                return
            result = await call(context)
            watch.end(task)
            watched = False
            if isinstance(result, Response):
                await respond(result, scope, receive, send, correlation_id)
                return
            start, end = render(result, scope, correlation_id, accept)
            if shortcuts:
                while isinstance(send, Shortcut) and len(end["body"]) < send.below:
                    start["headers"] += send.extra
                    send = send.inner
            await send(start)
            await send(end)
        except ClientGone as error:
            with contextlib.suppress(OSError):
                await fail(scope, receive, send, error, correlation_id)
        except Exception as error:
            watch.end(task)
            await fail(scope, receive, send, error, correlation_id)
        except asyncio.CancelledError:
            if not watch.is_gone(task):
                raise
            task.uncancel()
            logger.info("%s: the client went away; correlation id %s", subject, correlation_id)
        finally:
            if watched:
                watch.end(task)
            if inbox is not None:
                inbox.close()
            if opened is not None:
                await opened.close()

    return serve


Rendered = tuple[dict[str, Any], dict[str, Any]]
Render = Callable[[Any, Any, str, bytes], Rendered]
_LIKE_JSON = (b"", b"*/*", b"application/json")
_JSON_TYPE = (b"content-type", b"application/json")
_LENGTHS = tuple((b"content-length", b"%d" % size) for size in range(2048))


def compile_reply(model: RouteModel, *, head: bool) -> Render:
    """Make the function that turns a handler's result into the two messages of its response."""
    status = model.status_code
    media_type = None if model.media_type is None else (b"content-type", model.media_type.encode("ascii"))
    json_type = media_type or _JSON_TYPE
    bodiless = model.without_body
    encode_json, quickly = JSON.encode, JSON.encode_quickly
    usual = not (bodiless or head) and media_type is None

    def render(result: Any, scope: Any, correlation_id: str, accept: bytes) -> Rendered:
        if not usual or accept not in _LIKE_JSON or isinstance(result, Reply):
            return render_any(result, scope, correlation_id, accept)
        try:
            body = quickly(result)
            if body.find(b"null") >= 0:
                body = encode_json(result)  # looks whether that was no number
        except Exception:
            body = encode_json(result)  # says in words of ours what is wrong
        size = len(body)
        headers = [
            _JSON_TYPE,
            _LENGTHS[size] if size < 2048 else (b"content-length", b"%d" % size),
            (CORRELATION_HEADER, correlation_id.encode("ascii")),
        ]
        return (
            {"type": "http.response.start", "status": status, "headers": headers},
            {"type": "http.response.body", "body": body},
        )

    def render_any(result: Any, scope: Any, correlation_id: str, accept: bytes) -> Rendered:
        code = status
        extra: list[tuple[bytes, bytes]] = []
        correlation = (CORRELATION_HEADER, correlation_id.encode("ascii"))
        if isinstance(result, Reply):
            code, extra = result.status_code or status, _extra(result)
            if result.etag is not None and code == 200 and not_modified(scope, result.etag):
                code = 304
            result = result.value
        if bodiless or code in (204, 205, 304):
            return _messages(code, [correlation, *extra], b"")
        if media_type is not None and isinstance(result, str | bytes):
            body, kind = (result.encode() if isinstance(result, str) else result), media_type
        elif accept in _LIKE_JSON:
            body, kind = encode_json(result), json_type
        else:
            codec = choose(accept)
            if codec is None:
                raise _not_acceptable(model)
            body, kind = codec.encode(result), (b"content-type", codec.content_type.encode("ascii"))
        size = len(body)
        length = _LENGTHS[size] if size < 2048 else (b"content-length", b"%d" % size)
        headers = [kind, length, correlation, *extra]
        return _messages(code, headers, b"" if head else body)

    return render


def _is_negotiated(model: RouteModel) -> bool:
    """Tell whether a route's success is a value, and so JSON or MessagePack, whatever the handler does."""
    fixed = model.streams or model.without_body or model.media_type is not None
    return not fixed and not any(each is Any or is_response(each) for each in members_of(model.returns))


def _not_acceptable(model: RouteModel) -> NotAcceptable:
    return NotAcceptable(f"{model.where} sends 'application/json' or 'application/msgpack'; accept one")


def _messages(status: int, headers: list[tuple[bytes, bytes]], body: bytes) -> Rendered:
    return (
        {"type": "http.response.start", "status": status, "headers": headers},
        {"type": "http.response.body", "body": body},
    )


def _extra(reply: Reply) -> list[tuple[bytes, bytes]]:
    given = [(name.lower().encode("ascii"), value.encode("latin-1")) for name, value in reply.headers.items()]
    if reply.etag is not None:
        given.append((b"etag", quote(reply.etag)))
    return given


async def respond(response: Response, scope: Any, receive: Any, send: Any, correlation_id: str) -> None:
    """Send a response that a handler made itself.

    Raises:
        ResponseBroken: it failed after it began.
    """
    started = False

    async def watched(message: Any) -> None:
        nonlocal started
        if not started:
            if any(b"\n" in value or b"\r" in value for _, value in message.get("headers", ())):
                raise EncodingError("a header of the response has a line break; leave it out")
            started = True
            headers = [*message.get("headers", ()), (CORRELATION_HEADER, correlation_id.encode("ascii"))]
            message = {**message, "headers": headers}  # the response may be sent again, to another request
        await send(message)

    try:
        await response(scope, receive, watched)
    except Exception as error:
        if not started:
            raise
        raise ResponseBroken(f"{scope['method']} {scope['path']}: the response failed after it began") from error


def request_of(context: MessageContext) -> Request:
    """Give a handler the request. Raises ConfigurationError outside HTTP."""
    found: Mapping[str, object] = context.state
    request = found.get(REQUEST)
    if not isinstance(request, Request):
        raise ConfigurationError(
            f"{context.service}.{context.handler} asks for the HTTP request, and was called by {context.kind!r}; "
            f"give {context.kind!r} a handler of its own"
        )
    return request
