"""Events: core events, and the policy of durable ones, the same on every transport.

A durable event is acknowledged after its handler returned, retried with growing pauses, and after its
last attempt stored in the dead-letter stream `DLQ_<service>` with its cause. Attempts are counted by
what the broker says it delivered, so that a handler that kills its process is counted too.
"""

from __future__ import annotations

import asyncio
import logging
import sys
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence

from .compiled import FATAL, Handler, stopped
from .context import MessageContext, create_correlation_id, enter_call, ids
from .deadletters import dead_letter, first_subject, unpacked, utc_now
from .endpoint import Endpoint
from .errors import CliffracerError, ServiceError, ValidationError, describe
from .handlers import EventOptions
from .interfaces import DurableTransport, MetricsSink, Transport
from .limits import Run
from .messages import CORRELATION_ID, ORIGINAL_MESSAGE_ID, Delivery, Message
from .scope import Scope, refused
from .subjects import compile_pattern, overlaps

__all__ = ["DurableEndpoint", "EventEndpoint", "Redriver"]

logger = logging.getLogger("cliffracer")

_NO_HEADERS: dict[str, str] = {}
_REMEMBERED = 4096  # failing events
_PLAIN = "its handler hears plain events, which come once"


class EventEndpoint(Endpoint[Message]):
    """Handle core events: at most once, dropped past the buffer, rejected ones kept as dead letters."""

    def __init__(
        self,
        handler: Handler,
        transport: Transport,
        options: EventOptions,
        *,
        buffer: int,
        sinks: Sequence[MetricsSink] = (),
    ) -> None:
        super().__init__(handler, buffer)
        self._sinks = sinks
        self.dropped = 0
        self.rejected = 0
        self._transport = transport
        self._options = options
        self._pattern = options.pattern
        self._timeout_s = options.timeout
        self._logged = 0.0
        self.on_message: Callable[[Message], None] = (
            self._take_event if overlaps(options.pattern, "rpc.>") else self.take
        )
        """Takes an event from the transport; never blocks."""

    def _take_event(self, message: Message) -> None:
        if not message.subject.startswith("rpc."):
            self.take(message)

    def _refuse(self, message: Message) -> None:
        self.dropped += 1
        for sink in self._sinks:
            sink.record("dropped", 1.0, {"handler": self.handler.name, "kind": "event"})
        now = time.monotonic()
        if now - self._logged > 1.0:
            self._logged = now
            logger.warning(
                "%s: %d events dropped, %d wait; raise 'concurrency' or make the event durable",
                self.handler.name, self.dropped, self._queue_size,
            )  # fmt: skip

    async def _serve(self, message: Message, run: Run, received: float | None) -> None:
        scope = self._scope
        headers = message.headers or _NO_HEADERS
        context = MessageContext(
            kind="event",
            service=scope.service,
            handler=self._name,
            subject=message.subject,
            pattern=self._pattern,
            body=message.body,
            headers=headers,
            correlation_id=headers.get(CORRELATION_ID) or ids.next(),
            deadline=None if self._timeout_s is None else time.monotonic() + self._timeout_s,
        )
        begun = False
        try:
            if scope.closing:  # from here as `scope.begin`
                raise refused(run)
            begun = True
            enter_call(context)
            if context.deadline is not None:
                run.deadline = context.deadline
                scope.deadlines.watch(context.deadline)
                if run.task is not None:
                    scope.register(run, run.task)
            elif run.task is not None:  # to enter it into a dictionary and take it out again costs three times as much
                scope.brief.append(run)
                if len(scope.brief) > scope.brief_limit:
                    scope.tidy()
            await self._chain(context)
        except asyncio.CancelledError:
            if begun:  # what never began is counted where the grace time ends
                logger.warning("%s", stopped(run, self.handler.name))
        except FATAL:
            raise
        except BaseException as error:
            if context.arguments is None and isinstance(error, ValidationError):
                await self._reject(message, context, error)
            else:
                _log_failure(self.handler, context, error)
        finally:
            run.over = True
            if run.key is None:
                run.task = None
            else:
                scope.end(run)
            if self._gate.waiting:
                self._gate.leave()
            else:
                self._gate.free += 1

    async def _reject(self, message: Message, context: MessageContext, error: ValidationError) -> None:
        self.rejected += 1
        logger.error("%s: event on %r rejected: %s", self.handler.name, message.subject, describe(error))
        if isinstance(self._transport, DurableTransport) and self._transport.capabilities.durable:
            message_id = f"{context.correlation_id}:{create_correlation_id()}"
            try:
                await dead_letter(self._transport, self.handler, message, message_id, 1, describe(error), final=_PLAIN)
            except CliffracerError as failure:
                logger.error("%s: the rejected event could not be kept: %s", self.handler.name, describe(failure))


class DurableEndpoint(Endpoint[Delivery]):
    """Handle durable events: ack, retry with backoff, dead letter."""

    def __init__(self, handler: Handler, transport: DurableTransport, options: EventOptions) -> None:
        super().__init__(handler, sys.maxsize)
        self.options = options
        self._attempts = options.retries + 1
        self._transport = transport
        self._pattern = options.pattern
        self._timeout_s = options.timeout
        self._failures: dict[str, str] = {}  # by message id, when it failed first
        self.on_delivery = self.take
        """Takes a delivery from the transport; never blocks. It is kept alive from here until it is over."""

    def _queued(self, delivery: Delivery) -> None:
        """Tell the broker, while it waits or runs, three times per ack wait that work on it goes on."""
        self._scope.timers.add(delivery, _Renewal(delivery, self._scope, self.options.ack_wait_s / 3))

    def _waits(self, delivery: Delivery, run: Run, task: asyncio.Task[object]) -> None:
        self._scope.register(run, task)
        if delivery not in self._scope.timers.entries:
            self._queued(delivery)

    async def _serve(self, delivery: Delivery, run: Run, received: float | None) -> None:
        scope, message = self._scope, delivery.message
        headers, message_id = message.headers, delivery.message_id
        context = MessageContext(
            kind="event",
            service=scope.service,
            handler=self._name,
            subject=message.subject,
            pattern=self._pattern,
            body=message.body,
            headers=_NO_HEADERS,
            correlation_id=message_id,
            deadline=None if self._timeout_s is None else time.monotonic() + self._timeout_s,
            attempt=delivery.attempt,
            message_id=message_id,
        )
        if headers:
            _add_headers(context, message, headers)
        try:
            if context.attempt > self._attempts:
                raise _Exhausted(f"no attempt of {self._attempts} came to an end; its process died")
            try:
                if scope.closing:  # from here as `scope.begin`
                    raise refused(run)
                enter_call(context)
                if context.deadline is not None:
                    run.deadline = context.deadline
                    scope.deadlines.watch(context.deadline)
                if run.task is not None:
                    self._waits(delivery, run, run.task)
                await self._chain(context)
            finally:
                run.over = True
                if run.task is not None:
                    scope.end(run)
        except asyncio.CancelledError:
            if run.reason == "shutdown":
                await self._settle(delivery.nak())
            else:
                await self._failed(delivery, context, stopped(run, self.handler.name))
        except FATAL:
            raise
        except BaseException as error:
            await self._failed(delivery, context, error)
        else:
            try:
                await delivery.ack()
            except CliffracerError as error:
                self._unsettled(error)
        finally:
            if not run.over:
                scope.end(run)
            if delivery in scope.timers.entries:
                scope.timers.discard(delivery)
            if self._gate.waiting:
                self._gate.leave()
            else:
                self._gate.free += 1

    async def _failed(self, delivery: Delivery, context: MessageContext, error: BaseException) -> None:
        failed_at, failures = utc_now(), self._failures
        if delivery.attempt == 1 or delivery.message_id not in failures:  # else its attempts were elsewhere
            failures[delivery.message_id] = failed_at
            if len(failures) > _REMEMBERED:
                del failures[next(iter(failures))]
        final = delivery.attempt > self.options.retries
        if not final and not (context.arguments is None and isinstance(error, ValidationError)):
            _log_failure(self.handler, context, error)
            await self._settle(delivery.nak(self._pause_s(delivery.attempt)))
            return
        if not isinstance(error, CliffracerError):
            _log_failure(self.handler, context, error)
        try:
            cause = describe(error)
            attempts = delivery.attempt - isinstance(error, _Exhausted)
            await dead_letter(
                self._transport, self.handler, delivery.message, delivery.message_id, attempts, cause,
                first_failed_at=failures.get(delivery.message_id),
            )  # fmt: skip
        except CliffracerError as failure:
            logger.error("%s: no dead letter could be stored: %s", self.handler.name, describe(failure))
            await self._settle(delivery.nak(self._pause_s(delivery.attempt)))
        else:
            failures.pop(delivery.message_id, None)
            await self._settle(delivery.ack())

    async def _settle(self, settling: Awaitable[None]) -> None:
        try:
            await settling
        except CliffracerError as error:
            self._unsettled(error)

    def _unsettled(self, error: CliffracerError) -> None:
        logger.warning("%s: %s; the event will come again", self.handler.name, describe(error))

    def _pause_s(self, attempt: int) -> float:
        import random  # with the first failure, not with the kernel

        pause = min(self.options.backoff_s * float(1 << min(attempt - 1, 30)), self.options.max_backoff_s)
        return pause * random.uniform(0.5, 1.0)


def _add_headers(context: MessageContext, message: Message, headers: Mapping[str, str]) -> None:
    """Add what a delivery's headers say: those of an event that was redriven name what it was at first."""
    context.headers = headers
    context.subject = first_subject(message)
    context.message_id = headers.get(ORIGINAL_MESSAGE_ID) or context.message_id
    context.correlation_id = headers.get(CORRELATION_ID) or context.message_id or ""


class _Exhausted(ServiceError, code="attempts_exhausted"):
    """Every attempt ended with the process that made it."""


class _Renewal:
    """Tells the broker three times per ack wait that work on a delivery goes on."""

    def __init__(self, delivery: Delivery, scope: Scope, every_s: float) -> None:
        self._delivery = delivery
        self._scope = scope
        self._every_s = every_s
        self.deadline = scope.loop.time() + every_s

    def expire(self) -> None:
        """Tell it once more."""
        self.deadline = self._scope.loop.time() + self._every_s
        self._scope.spawn(self._progress())

    async def _progress(self) -> None:
        try:
            await self._delivery.in_progress()
        except CliffracerError as error:
            logger.warning("in_progress could not be sent: %s", describe(error))


class Redriver:
    """Hand redriven dead letters of a service to the handler that failed.

    Args:
        endpoints: the durable events of each handler, by its name.
    """

    def __init__(self, endpoints: Mapping[str, Sequence[DurableEndpoint]]) -> None:
        self._endpoints = endpoints

    def on_delivery(self, delivery: Delivery) -> None:
        """Take one; a handler that is gone keeps it in the stream, retried slowly, and is named in the log."""
        name = delivery.message.subject.rpartition(".")[2]
        endpoints = self._endpoints.get(name)
        if endpoints is None:
            logger.error("redriven event for handler %r, which this service does not have; it waits", name)
            scope = next(iter(self._endpoints.values()))[0].handler.scope
            scope.spawn(delivery.nak(60.0))
            return
        subject = first_subject(delivery.message)
        delivery.message.body = unpacked(delivery.message)
        takers = (each for each in endpoints if compile_pattern(each.options.pattern)(subject))
        next(takers, endpoints[0]).on_delivery(delivery)


def _log_failure(handler: Handler, context: MessageContext, error: BaseException) -> None:
    logger.error(
        "%s: event on %r failed on attempt %d; correlation id %s: %s",
        handler.name, context.subject, context.attempt, context.correlation_id, describe(error),
        exc_info=None if isinstance(error, CliffracerError) else error,
    )  # fmt: skip
