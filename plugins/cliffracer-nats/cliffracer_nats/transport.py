"""`NatsTransport`: core NATS, and durable messages where the server has JetStream."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine
from typing import Any

from cliffracer_core.errors import ConfigurationError, ConnectionError
from cliffracer_core.interfaces import Capabilities, DurableSubscription, ServiceInfo, Subscription
from cliffracer_core.messages import Delivery, Message, StoredMessage
from cliffracer_core.subjects import validate_pattern

from .connection import Connection
from .consumer import PullConsumer
from .jetstream import JetStream
from .settings import NatsSettings, parse_url
from .streams import Streams
from .wire import Listening, Wire

__all__ = ["NatsTransport"]


class NatsTransport:
    """See `cliffracer_core.interfaces.DurableTransport`.

    While disconnected up to `buffer_bytes` of what is published are kept.

    Args:
        url: as in `parse_url`.
        settings: the section `nats`; defaults without it.
        name: the connection's name in the server's monitoring.
    """

    publish: Callable[[Message], Coroutine[Any, Any, None]]
    """Sends once; see `Wire.publish`."""
    request: Callable[[Message, float], Coroutine[Any, Any, Message]]
    """Sends and returns the first reply; see `Replies.request`."""

    def __init__(self, url: str = "", settings: NatsSettings | None = None, *, name: str = "") -> None:
        self.settings = parse_url(url, settings or NatsSettings())
        self.connection = Connection(self.settings, "transport 'nats'", name)
        self.wire = Wire(self.connection)
        self.publish = self.wire.publish
        self.request = self.wire.replies.request
        self.jetstream = JetStream(self.wire)
        self.streams = Streams(self.jetstream)
        self._durable = False
        self._listening: set[_Subscribed] = set()

    @classmethod
    def create(cls, url: str, service: ServiceInfo) -> NatsTransport:
        """Make one for a service, with its section `nats` where there is one; no I/O."""
        settings = service.settings.get("nats")
        return cls(url, settings if isinstance(settings, NatsSettings) else None, name=service.name)

    @property
    def capabilities(self) -> Capabilities:
        """What it can do; `durable` where the server and this account have JetStream."""
        client = self.connection.client
        return Capabilities(durable=self._durable, max_payload=client.max_payload if client else None)

    @property
    def connected(self) -> bool:
        """Whether the server is there just now."""
        return self.connection.connected

    async def open(self) -> None:
        """Connect, and refuse streams that would answer requests.

        Raises:
            ConnectionError: no server within `connect_timeout_s` seconds, or it refused the credentials.
            ConfigurationError: a stream takes subjects below `rpc.`.
        """
        await self.wire.open()
        try:
            self._durable = await self.jetstream.available()
            if self._durable:
                await self.streams.check_streams()
        except BaseException:
            await self.wire.close()
            raise

    async def close(self) -> None:
        """Hand over and send what is buffered, then disconnect; the reply inbox goes last."""
        client = self.connection.client
        if client is not None and not client.is_closed:
            await asyncio.gather(*(each.drain() for each in tuple(self._listening)), return_exceptions=True)
        await self.wire.close()

    async def flush(self) -> None:
        """Return when the server has taken all that was published before.

        Raises:
            ConnectionError: it has not within `flush_timeout_s` seconds.
        """
        await self.connection.flush()

    async def subscribe(
        self, pattern: str, on_message: Callable[[Message], None], *, queue: str | None = None
    ) -> Subscription:
        """Listen; of the subscribers in one `queue` one gets each message. Active when this returns.

        While disconnected it returns at once and becomes active with the reconnect.
        """
        validate_pattern(pattern)
        if queue is not None:
            validate_pattern(queue)
        subscribed = _Subscribed(await self.wire.listen(pattern, on_message, queue or ""), self._listening)
        if self.connection.connected:
            await self.connection.flush()
        return subscribed

    async def publish_durable(self, message: Message, *, stream: str, message_id: str, timeout_s: float) -> None:
        """Store a message and return once JetStream has confirmed it; the stream is created where missing.

        Raises:
            NotStored: no confirmation within `timeout_s` seconds, or no stream takes the subject.
        """
        await self.streams.publish(message, stream=stream, message_id=message_id, timeout_s=timeout_s)

    async def consume(self, subscription: DurableSubscription, on_delivery: Callable[[Delivery], None]) -> Subscription:
        """Receive each message of the stream at least once, shared among all consumers of one name.

        Raises:
            ConfigurationError: no JetStream; the stream does not cover the pattern, or overlaps `rpc.>`.
        """
        validate_pattern(subscription.pattern)
        if not self._durable:
            raise ConfigurationError(
                f"{self.connection.label}: {self.settings.url!r} has no JetStream, which durable handlers need; "
                "start nats-server with -js, or enable it for this account"
            )
        consumer = PullConsumer(self.wire, self.streams, subscription, on_delivery)
        await consumer.start()
        return _Subscribed(consumer, self._listening)

    def browse(self, stream: str, *, after: int = 0) -> AsyncIterator[StoredMessage]:
        """Yield what a stream holds, oldest first, past `after`; nothing where there is no such stream."""
        return self.streams.browse(stream, after)

    async def delete(self, stream: str, sequence: int) -> bool:
        """Remove one stored message; False where it was gone already."""
        return await self.streams.delete(stream, sequence)


class _Subscribed:
    """A subscription that `close` drains if nobody did before."""

    def __init__(self, inner: Listening | PullConsumer, open_ones: set[_Subscribed]) -> None:
        self._inner = inner
        self._open_ones = open_ones
        open_ones.add(self)

    async def drain(self) -> None:
        """Stop listening; when this returns, all that had arrived has been handed over."""
        if self in self._open_ones:
            self._open_ones.discard(self)
            try:
                await self._inner.drain()
            except ConnectionError:  # closed: nothing arrives any more
                return
