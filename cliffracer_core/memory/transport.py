"""The transport over a broker in memory."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping

import msgspec

from cliffracer_core.deadlines import Deadlines
from cliffracer_core.errors import (
    CliffracerError,
    ConfigurationError,
    ConnectionError,
    DeadlineExceeded,
    MessageTooLarge,
    NoHandler,
    NotStored,
)
from cliffracer_core.interfaces import Capabilities, DurableSubscription
from cliffracer_core.messages import Delivery, Message, SharedHeaders, StoredMessage, validate_headers
from cliffracer_core.subjects import validate_pattern, validate_subject

from .broker import MemoryBroker, copy_message
from .shared import parse_url, shared
from .streams import Subscriber

__all__ = ["DEFAULT_MAX_PAYLOAD", "MemoryTransport"]

DEFAULT_MAX_PAYLOAD = 1024 * 1024
"""Bytes, as NATS's default."""


class Waiting(msgspec.Struct, eq=False):
    """A request that has no reply yet; `deadline` is a point on the loop's clock."""

    deadline: float
    future: asyncio.Future[Message]
    subject: str
    timeout_s: float

    def expire(self) -> None:
        """Fail it because its time is over."""
        text = f"request on {self.subject!r}: no reply within {self.timeout_s:g} s"
        self.fail(DeadlineExceeded(f"{text}; give it more time, or look why the handler is slow"))

    def fail(self, error: CliffracerError) -> None:
        """Raise `error` where it is awaited."""
        if not self.future.done():
            self.future.set_exception(error)


class MemorySubscription:
    """See `Subscription`.

    Args:
        broker: where it is.
        stop: ends it there.
        forget: tells the transport that it ended.
    """

    def __init__(
        self, broker: MemoryBroker, stop: Callable[[], None], forget: Callable[[MemorySubscription], None]
    ) -> None:
        self._broker = broker
        self._forget = forget
        self.stop = stop

    async def drain(self) -> None:
        """Stop listening; when this returns, all that had arrived has been handed over."""
        self.stop()
        self._forget(self)
        await self._broker.settle()


class MemoryTransport:
    """Reach all others on this event loop that have the same URL authority.

    Args:
        url: `memory://` or `memory://name`, with `?max_payload=<bytes>` where 1 MiB does not fit.

    Raises:
        ConfigurationError: the URL has another form.
    """

    def __init__(self, url: str = "memory://") -> None:
        self._url = url
        self._authority, options = parse_url(url, ("max_payload",))
        limit = options.get("max_payload", str(DEFAULT_MAX_PAYLOAD))
        if not limit.isascii() or not limit.isdigit():
            raise ConfigurationError(f"url {url!r} has max_payload {limit!r}; write a number of bytes")
        self._max_payload = int(limit)
        self._broker: MemoryBroker | None = None
        self._closing = False
        self._subscriptions: dict[MemorySubscription, None] = {}
        self._subscribers: list[Subscriber] = []
        self._deadlines: Deadlines[Waiting] | None = None
        self._checked: Mapping[str, str] | None = None
        """Headers that were in order the last time, and cannot change."""

    @property
    def capabilities(self) -> Capabilities:
        """All there are."""
        return Capabilities(durable=True, max_payload=self._max_payload)

    @property
    def connected(self) -> bool:
        """Whether it is open."""
        return self._broker is not None

    @property
    def broker(self) -> MemoryBroker:
        """What it is connected to.

        Raises:
            ConnectionError: nothing, since it is not open.
        """
        if self._broker is None:
            raise ConnectionError(f"transport {self._url!r} is not open; call open() first, and nothing after close()")
        return self._broker

    async def open(self) -> None:
        """Find the broker of the running loop and this URL's authority, or make it."""
        if self._broker is None:
            self._broker = shared(MemoryBroker, self._authority)
            self._closing = False

    async def close(self) -> None:
        """Drain: hand over what has arrived, fail requests that wait, give back unacked deliveries."""
        broker = self._broker
        if broker is None or self._closing:
            return
        self._closing = True
        try:
            for subscription in list(self._subscriptions):
                subscription.stop()
            await broker.settle()
        finally:
            self._broker = None
            self._disconnect()

    def _disconnect(self) -> None:
        self._subscriptions.clear()
        for subscriber in self._subscribers:
            subscriber.disconnect()
        self._subscribers.clear()
        if self._deadlines is not None:
            for waiting in self._deadlines.entries.values():
                text = f"request on {waiting.subject!r}: the transport was closed; open it and send again"
                waiting.fail(ConnectionError(text))
            self._deadlines.close()
            self._deadlines = None

    async def flush(self) -> None:
        """Do nothing: the broker has each message as soon as it is published.

        Raises:
            ConnectionError: closed.
        """
        _ = self.broker

    async def publish(self, message: Message) -> None:
        """Send to whoever listens; see `Transport`."""
        broker = self._broker or self.broker
        if message.headers is not None or len(message.body) > self._max_payload:
            self._check(message)
        future = broker.replies.get(message.subject)
        if future is not None:
            if not future.done():
                future.set_result(copy_message(message))
            return
        route = broker.route(message.subject)
        if message.reply_to is not None and message.reply_to not in broker.replies:
            validate_subject(message.reply_to)
        broker.deliver(message, route)
        if route.stream is not None:
            route.stream.append(copy_message(message))

    async def request(self, message: Message, timeout_s: float) -> Message:
        """Send and return the first reply; see `Transport`."""
        broker = self._broker or self.broker
        if (message.headers is not self._checked and message.headers) or len(message.body) > self._max_payload:
            self._check(message)
            if type(message.headers) is SharedHeaders:
                self._checked = message.headers
        route = broker.routes.get(message.subject) or broker.route(message.subject)
        if not route.everyone and not route.groups:
            raise NoHandler(f"nobody listens on {message.subject!r}; start the service, or check the name")
        loop = broker.loop
        deadlines = self._deadlines
        if deadlines is None:
            deadlines = self._deadlines = Deadlines(loop)
        deadline = loop.time() + timeout_s
        future: asyncio.Future[Message] = loop.create_future()
        token = message.reply_to = broker.new_inbox()
        broker.replies[token] = future
        waiting = deadlines.entries
        waiting[token] = Waiting(deadline, future, message.subject, timeout_s)
        if deadline < deadlines.next_at:
            deadlines.watch(deadline)
        broker.deliver(message, route)
        try:
            return await future
        finally:
            del broker.replies[token]
            waiting.pop(token, None)

    def waits(self, token: str) -> bool:
        """Whether a request waits for a reply on `token`."""
        return self._deadlines is not None and token in self._deadlines.entries

    async def subscribe(
        self, pattern: str, on_message: Callable[[Message], None], *, queue: str | None = None
    ) -> MemorySubscription:
        """Listen; see `Transport`."""
        broker = self._accepting()
        validate_pattern(pattern)
        if queue is not None:
            validate_subject(queue)
        listener = broker.subscribe(pattern, on_message, queue)
        return self._remember(broker, lambda: broker.unsubscribe(listener))

    async def publish_durable(self, message: Message, *, stream: str, message_id: str, timeout_s: float) -> None:
        """Store, and send to plain subscribers too; see `DurableTransport`."""
        broker = self.broker
        self._check_durable(message, message_id)
        self._store(broker, message, stream, message_id)

    def _check_durable(self, message: Message, message_id: str) -> None:
        self._check(message)
        validate_subject(message.subject)
        validate_headers({"message-id": message_id})

    def _store(self, broker: MemoryBroker, message: Message, stream: str, message_id: str) -> None:
        try:
            taker = broker.ensure_stream(stream, message.subject)
        except ConfigurationError as error:
            raise NotStored(f"message on {message.subject!r} was not stored: {error}") from error
        taker.append(copy_message(message), message_id)
        broker.deliver(message, broker.route(message.subject))

    async def consume(
        self, subscription: DurableSubscription, on_delivery: Callable[[Delivery], None]
    ) -> MemorySubscription:
        """Receive what a stream holds; see `DurableTransport`."""
        broker = self._accepting()
        validate_pattern(subscription.pattern)
        stream = broker.ensure_stream(subscription.stream, subscription.pattern)
        subscriber = stream.consume(subscription, on_delivery)
        self._subscribers.append(subscriber)
        return self._remember(broker, subscriber.leave)

    async def browse(self, stream: str, *, after: int = 0) -> AsyncIterator[StoredMessage]:
        """Yield what a stream holds now; see `DurableTransport`."""
        known = self.broker.streams.get(stream)
        if known is not None:
            for stored in known.browse(after):
                yield stored

    async def delete(self, stream: str, sequence: int) -> bool:
        """Remove a stored message; see `DurableTransport`."""
        known = self.broker.streams.get(stream)
        return known is not None and known.delete(sequence)

    def _accepting(self) -> MemoryBroker:
        if self._closing:
            raise ConnectionError(f"transport {self._url!r} is closing or closed; it takes no more subscriptions")
        return self.broker

    def _remember(self, broker: MemoryBroker, stop: Callable[[], None]) -> MemorySubscription:
        subscription = MemorySubscription(broker, stop, lambda ended: self._subscriptions.pop(ended, None))
        self._subscriptions[subscription] = None
        return subscription

    def _check(self, message: Message) -> None:
        if message.headers:
            validate_headers(message.headers)
        if len(message.body) > self._max_payload:
            raise MessageTooLarge(
                f"body of {len(message.body)} bytes on {message.subject!r} exceeds {self._max_payload} bytes; "
                f"send less, or a reference to where the data is"
            )
