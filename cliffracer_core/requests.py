"""Requests: from a message to a reply, and the caller who gives up."""

from __future__ import annotations

import asyncio
import logging
import math
import time
from collections.abc import Callable
from typing import Protocol

from .compiled import FATAL, Handler, stopped
from .context import MessageContext, enter_call, ids
from .endpoint import Endpoint
from .errors import (
    Cancelled,
    CliffracerError,
    DeadlineExceeded,
    EncodingError,
    ErrorBody,
    InvalidHeader,
    MessageTooLarge,
    describe,
    to_body,
)
from .limits import Run
from .messages import (
    CONTENT_TYPE,
    CORRELATION_ID,
    JSON,
    SERVICE_ERROR,
    SERVICE_ERROR_CODE,
    TIMEOUT_MS,
    Message,
    codec_for,
)
from .scope import Scope, refused
from .subjects import is_pattern

__all__ = [
    "ALL",
    "CANCEL",
    "QUEUE_GROUP",
    "Publisher",
    "RequestEndpoint",
    "cancel_subject",
    "error_message",
    "on_cancel",
    "uncancel",
]

logger = logging.getLogger("cliffracer")

QUEUE_GROUP = "q"
"""All requests share it, so that a request runs once even where two services claim one pattern."""
CANCEL = "$cancel"
ALL = "$all"
_GIVEN_UP = 4096  # tokens kept
_NO_HEADERS: dict[str, str] = {}


def cancel_subject(subject: str) -> str:
    """Return where a caller of `subject` says that it gave up: `rpc.<first token>.$cancel`."""
    first = subject.split(".")[1]
    return f"rpc.{'*' if first == '>' else first}.{CANCEL}"


def on_cancel(scope: Scope, message: Message) -> None:
    """Cancel the call whose reply token the message holds; one that has yet to begin here never does."""
    token = message.body.decode("utf-8", "replace")
    run = scope.runs.get(token)
    if run is not None:
        run.stop("caller")
        return
    scope.given_up[token] = time.monotonic()  # all replicas hear of it: most never had the call, or are done with it
    if len(scope.given_up) > _GIVEN_UP:
        del scope.given_up[next(iter(scope.given_up))]


class Publisher(Protocol):
    """The part of a transport that replies need."""

    async def publish(self, message: Message) -> None:
        """Send; see `Transport.publish`."""


class RequestEndpoint(Endpoint[Message]):
    """Answer the requests of one subject or pattern with a compiled handler.

    Args:
        handler: what to run.
        transport: what to answer on.
        subject: where it listens, below `rpc.`.
        timeout_s: the time a call has where its caller sets none.
        queue_size: requests that may wait for a slot; past it they are answered `Overloaded`.
    """

    def __init__(
        self, handler: Handler, transport: Publisher, subject: str, *, timeout_s: float, queue_size: int
    ) -> None:
        super().__init__(handler, queue_size)
        self.subject = subject
        self._transport = transport
        self._publish = transport.publish
        self._timeout_s = timeout_s
        self.on_message: Callable[[Message], None] = self._take_own if is_pattern(subject) else self.take
        """Takes a request from the transport; never blocks."""

    def _take_own(self, message: Message) -> None:
        if not (message.subject.endswith(CANCEL) or f".{ALL}." in message.subject):
            self.take(message)

    def _refuse(self, message: Message) -> None:
        self._scope.spawn(self._fail(message, self.handler.overloaded(self._queue_size), None))

    def _waits(self, message: Message, run: Run, task: asyncio.Task[object]) -> None:
        self._scope.register(run, task, message.reply_to)

    async def _serve(self, message: Message, run: Run, received: float | None) -> None:
        scope, reply_to = self._scope, message.reply_to
        context: MessageContext | None = None
        answered = False
        try:
            context = self._context(message, received)
            try:
                if scope.closing:  # from here as `scope.begin`
                    raise refused(run)
                enter_call(context)
                run.deadline = deadline = context.deadline or math.inf  # a request always has one
                if deadline < scope.deadlines.next_at:
                    scope.deadlines.watch(deadline)
                if run.task is not None:
                    scope.register(run, run.task, reply_to)
                result = await self._chain(context)
            finally:
                run.over = True
                if run.task is not None:
                    scope.end(run)
            if reply_to is not None:
                codec, headers = JSON, None
                if CONTENT_TYPE in context.headers:
                    codec = codec_for(message.headers)
                    headers = None if codec is JSON else {CONTENT_TYPE: codec.content_type}
                try:
                    body = codec.encode_quickly(result)
                except Exception:
                    body = b"null"  # which the codec looks at, to say in words of ours what is wrong
                if body.find(b"null") >= 0:
                    body = codec.encode(result)
                answered = True
                await self._publish(Message(reply_to, body, headers))
        except asyncio.CancelledError:
            uncancel()
            await self._fail(message, stopped(run, self.handler.name), context)
        except FATAL:
            raise
        except BaseException as error:
            failure = self._unsendable(error) if answered else error
            if failure is not None:
                await self._fail(message, failure, context)
        finally:
            if not run.over:
                scope.end(run)
            if self._gate.waiting:
                self._gate.leave()
            else:
                self._gate.free += 1

    def _unsendable(self, error: BaseException) -> BaseException | None:
        """Say what to tell the caller when its reply could not be sent; None where it cannot be reached."""
        if isinstance(error, MessageTooLarge):
            return MessageTooLarge(f"{self.handler.name}: its result is too large: {error}")
        if isinstance(error, EncodingError) or not isinstance(error, CliffracerError):
            return error
        logger.warning("%s: the reply could not be sent: %s", self.handler.name, describe(error))
        return None

    def _context(self, message: Message, received: float | None) -> MessageContext:
        headers = message.headers or _NO_HEADERS
        now = time.monotonic()
        if received is None:
            received = now
        scope = self._scope
        timeout_s = self._timeout_s
        if TIMEOUT_MS in headers:
            try:
                timeout_s = int(headers[TIMEOUT_MS]) / 1000
            except (ValueError, OverflowError):
                raise InvalidHeader(f"header {TIMEOUT_MS!r} is not a whole number of milliseconds") from None
            if timeout_s > scope.max_timeout_s:
                timeout_s = scope.max_timeout_s
        deadline = received + timeout_s
        if deadline <= now:
            raise DeadlineExceeded(f"{self.handler.name}: the time was up before the call began")
        if scope.given_up and scope.given_up.get(message.reply_to or "", 0.0) >= received:
            raise Cancelled(f"{self.handler.name}: its caller gave up before the call began")
        return MessageContext(
            kind="rpc",
            service=scope.service,
            handler=self._name,
            subject=message.subject,
            pattern=self.subject,
            body=message.body,
            headers=headers,
            reply_to=message.reply_to,
            correlation_id=headers.get(CORRELATION_ID) or ids.next(),
            deadline=deadline,
        )

    async def _fail(
        self, message: Message, error: BaseException, context: MessageContext | None, origin: str | None = None
    ) -> None:
        correlation_id = context.correlation_id if context else (message.headers or _NO_HEADERS).get(CORRELATION_ID)
        if not isinstance(error, CliffracerError):
            logger.error("%s failed; correlation id %s", self.handler.name, correlation_id, exc_info=error)
        if message.reply_to is None:
            return
        body = to_body(error, self._scope.service, correlation_id)
        try:
            try:
                await self._transport.publish(error_message(message.reply_to, body, origin))
            except (EncodingError, MessageTooLarge):
                short = _one_line(body.message)
                id = None if correlation_id is None else _one_line(correlation_id)
                body = ErrorBody(body.type, short, body.code, body.retryable, {}, body.service, id)
                await self._transport.publish(error_message(message.reply_to, body, origin))
        except CliffracerError as failure:
            logger.warning("%s: the error could not be sent: %s", self.handler.name, describe(failure))


def error_message(reply_to: str, body: ErrorBody, origin: str | None = None) -> Message:
    """Make an error reply; `origin` is its own reply subject, as messages of a stream have one."""
    headers = {SERVICE_ERROR: _one_line(body.message), SERVICE_ERROR_CODE: str(body.code)}
    return Message(reply_to, JSON.encode(body), headers, origin)


def _one_line(text: str) -> str:
    line = "".join(each if each.isprintable() else " " for each in text[:300]).strip()
    return line or "error"


def uncancel() -> None:
    """Take back the cancellation that was turned into a reply, so that timeouts work while replying."""
    task = asyncio.current_task()
    if task is not None:
        task.uncancel()
