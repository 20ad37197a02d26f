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

from .answers import compile_answer, is_negotiated, not_acceptable, refuses
from .binding import compile_body, compile_parameters
from .bodies import limited, read_body, too_large
from .edge import CORRELATION_HEADER, admit
from .errors import ClientGone
from .forms import compile_form
from .limits import BodyLimits, Exchange
from .model import SAFE, RouteModel
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
    max_body_bytes: int, memory_bytes: int, head: bool = False,
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
    answer = compile_answer(model, head=head)
    picky = model.method not in SAFE and is_negotiated(model)
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
            if picky and refuses(accept):
                raise not_acceptable(model)  # before anything is changed
            arguments = {} if none else values if bind is None else bind(scope, values)
            if takes_body and len(length) >= digits and int(length) > limit:
                raise too_large(limit)  # before the client has sent it in vain
            if decode is not None:
                message = await watch.first(task, receive)
                body = message.get("body", b"")
                if message.get("more_body", False) or message["type"] != "http.request" or len(body) > limit:
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
            rest = answer(result, scope, send, correlation_id, accept)
            if rest is not None:
                send, start, end = rest
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
