"""Durable streams in memory: stored messages, and consumers that keep their place."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextvars import Context
from heapq import heappop, heappush

import msgspec

from cliffracer_core.errors import ConnectionError
from cliffracer_core.interfaces import DurableSubscription
from cliffracer_core.messages import Delivery, Message, StoredMessage
from cliffracer_core.subjects import compile_pattern

__all__ = ["DUPLICATE_WINDOW_S", "Consumer", "MemoryDelivery", "Stream", "Subscriber"]

DUPLICATE_WINDOW_S = 120.0
"""Seconds during which a message id is stored once."""

Post = Callable[[Callable[[Delivery], None], Delivery], None]


class Stored(msgspec.Struct, frozen=True, eq=False):
    """A message at rest, with its id."""

    sequence: int
    message: Message
    message_id: str
    stored_at: float


class Stream:
    """The messages of some subjects, in order, and who consumes them.

    Args:
        name: as in `stream='NAME'`.
        subjects: patterns of what it takes.
        post: queues a callback as the broker does.
        context: timers run in it, so that none carries variables of whoever published or acknowledged.
    """

    def __init__(self, name: str, subjects: list[str], post: Post, context: Context) -> None:
        self.name = name
        self.subjects = subjects
        self.last = 0
        """The sequence number last given."""
        self.messages: dict[int, Stored] = {}
        self._matchers = [compile_pattern(subject) for subject in subjects]
        self._post = post
        self._context = context
        self._seen: dict[str, float] = {}
        self._consumers: dict[str, Consumer] = {}

    def takes(self, subject: str) -> bool:
        """Tell whether it stores what is published on a subject."""
        return any(matches(subject) for matches in self._matchers)

    def append(self, message: Message, message_id: str | None = None) -> None:
        """Store a message that nobody else will change, unless its id was seen within the duplicate window."""
        now = time.monotonic()
        if message_id is not None:
            while self._seen and next(iter(self._seen.values())) <= now - DUPLICATE_WINDOW_S:
                del self._seen[next(iter(self._seen))]
            if message_id in self._seen:
                return
            self._seen[message_id] = now
        self.last += 1
        known_as = message_id if message_id is not None else f"{self.name}:{self.last}"
        self.messages[self.last] = Stored(self.last, message, known_as, time.time())
        for consumer in self._consumers.values():
            consumer.pump()

    def browse(self, after: int) -> Iterator[StoredMessage]:
        """Yield copies of what it holds now past a sequence number."""
        for stored in [each for each in self.messages.values() if each.sequence > after]:
            yield StoredMessage(stored.sequence, _copy(stored.message), stored.stored_at)

    def delete(self, sequence: int) -> bool:
        """Remove one message; False where it was gone."""
        return self.messages.pop(sequence, None) is not None

    def consume(self, wanted: DurableSubscription, on_delivery: Callable[[Delivery], None]) -> Subscriber:
        """Join the consumer of that name; its latest subscriber's pattern and ack wait hold for all."""
        consumer = self._consumers.get(wanted.durable)
        if consumer is None:
            consumer = self._consumers[wanted.durable] = Consumer(self, self._post, self._context)
        return consumer.join(wanted, on_delivery)

    def restart(self) -> None:
        """Deliver again what was out."""
        for consumer in self._consumers.values():
            consumer.give_back_all()


class Subscriber:
    """One `consume` of one transport."""

    def __init__(self, consumer: Consumer, max_in_flight: int, on_delivery: Callable[[Delivery], None]) -> None:
        self.consumer = consumer
        self.max_in_flight = max_in_flight
        self.on_delivery = on_delivery
        self.out: set[MemoryDelivery] = set()
        self.disconnected = False

    def leave(self) -> None:
        """Take no more; what is out can still be acked."""
        self.consumer.leave(self)

    def disconnect(self) -> None:
        """Take no more, and give back what is out, as the broker does when a connection ends."""
        self.leave()
        self.disconnected = True
        self.consumer.give_back(self.out)


class MemoryDelivery:
    """See `Delivery`."""

    def __init__(self, subscriber: Subscriber, stored: Stored, attempt: int, expires: asyncio.TimerHandle) -> None:
        self.message = _copy(stored.message)
        self.attempt = attempt
        self.message_id = stored.message_id
        self.sequence = stored.sequence
        self.subscriber = subscriber
        self.expires = expires

    async def ack(self) -> None:
        """Finish it, even where the ack wait is over: the work is done.

        Raises:
            ConnectionError: the transport is closed; the message comes again.
        """
        self._consumer().finish(self.sequence)

    async def nak(self, delay_s: float = 0.0) -> None:
        """Give it back for `delay_s` seconds; nothing where it ended already.

        Raises:
            ConnectionError: the transport is closed; the message comes again.
        """
        self._consumer().give_back([self], delay_s)

    async def in_progress(self) -> None:
        """Restart the ack wait; nothing where it ended already.

        Raises:
            ConnectionError: the transport is closed; the message comes again.
        """
        self._consumer().extend(self)

    def _consumer(self) -> Consumer:
        if self.subscriber.disconnected:
            raise ConnectionError(f"delivery of {self.message_id!r}: its transport is closed; the message comes again")
        return self.subscriber.consumer


class Consumer:
    """A place in a stream, kept under a durable name, and the subscribers that share it."""

    def __init__(self, stream: Stream, post: Post, context: Context) -> None:
        self._stream = stream
        self._post = post
        self._context = context
        self._matches: Callable[[str], bool] = bool
        self._ack_wait_s = 30.0
        self._next = 1
        self._subscribers: deque[Subscriber] = deque()
        self._attempts: dict[int, int] = {}  # of what was delivered and not acked
        self._out: dict[int, MemoryDelivery] = {}
        self._again: list[int] = []  # a heap of sequence numbers to deliver again

    def join(self, wanted: DurableSubscription, on_delivery: Callable[[Delivery], None]) -> Subscriber:
        """Add a subscriber."""
        self._matches = compile_pattern(wanted.pattern)
        self._ack_wait_s = wanted.ack_wait_s
        subscriber = Subscriber(self, wanted.max_in_flight, on_delivery)
        self._subscribers.append(subscriber)
        self.pump()
        return subscriber

    def leave(self, subscriber: Subscriber) -> None:
        """Remove a subscriber; what it has out stays out."""
        if subscriber in self._subscribers:
            self._subscribers.remove(subscriber)

    def pump(self) -> None:
        """Deliver as much as there is and the subscribers have room for, in turn."""
        while (subscriber := self._subscriber_with_room()) and (stored := self._take()):
            attempt = self._attempts[stored.sequence] = self._attempts.get(stored.sequence, 0) + 1
            delivery = MemoryDelivery(subscriber, stored, attempt, self._start_ack_wait(stored.sequence))
            self._out[stored.sequence] = delivery
            subscriber.out.add(delivery)
            self._post(subscriber.on_delivery, delivery)

    def finish(self, sequence: int) -> None:
        """Deliver a message no more."""
        self._attempts.pop(sequence, None)
        self._end(self._out.get(sequence))
        self.pump()

    def give_back(self, deliveries: set[MemoryDelivery] | list[MemoryDelivery], delay_s: float = 0.0) -> None:
        """Deliver again, after `delay_s` seconds, those that are still out."""
        for delivery in list(deliveries):
            if self._end(delivery):
                if delay_s > 0:
                    again, loop = self._deliver_again, asyncio.get_running_loop()
                    loop.call_later(delay_s, again, delivery.sequence, context=self._context)
                else:
                    heappush(self._again, delivery.sequence)
        self.pump()

    def give_back_all(self) -> None:
        """Deliver again all that is out."""
        self.give_back(list(self._out.values()))

    def extend(self, delivery: MemoryDelivery) -> None:
        """Restart the ack wait of a delivery that is still out."""
        if self._out.get(delivery.sequence) is delivery:
            delivery.expires.cancel()
            delivery.expires = self._start_ack_wait(delivery.sequence)

    def _subscriber_with_room(self) -> Subscriber | None:
        for _ in range(len(self._subscribers)):
            subscriber = self._subscribers[0]
            self._subscribers.rotate(-1)
            if len(subscriber.out) < subscriber.max_in_flight:
                return subscriber
        return None

    def _take(self) -> Stored | None:
        messages = self._stream.messages
        while self._again:
            sequence = heappop(self._again)
            if sequence in self._attempts:  # not acked meanwhile
                if sequence in messages:
                    return messages[sequence]
                del self._attempts[sequence]
        while self._next <= self._stream.last:
            stored = messages.get(self._next)
            self._next += 1
            if stored is not None and self._matches(stored.message.subject):
                return stored
        return None

    def _start_ack_wait(self, sequence: int) -> asyncio.TimerHandle:
        loop = asyncio.get_running_loop()
        return loop.call_later(self._ack_wait_s, self._expire, sequence, context=self._context)

    def _expire(self, sequence: int) -> None:
        self.give_back([self._out[sequence]])

    def _deliver_again(self, sequence: int) -> None:
        heappush(self._again, sequence)
        self.pump()

    def _end(self, delivery: MemoryDelivery | None) -> bool:
        if delivery is None or self._out.get(delivery.sequence) is not delivery:
            return False
        del self._out[delivery.sequence]
        delivery.expires.cancel()
        delivery.subscriber.out.discard(delivery)
        return True


def _copy(message: Message) -> Message:
    return Message(message.subject, message.body, dict(message.headers) if message.headers else None, message.reply_to)
