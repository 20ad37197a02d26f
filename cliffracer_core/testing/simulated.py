"""The memory transport and its broker with a network between them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextvars import Context
from typing import Any

from cliffracer_core.errors import CliffracerError, ConnectionError, NotStored
from cliffracer_core.interfaces import DurableSubscription
from cliffracer_core.memory import MemoryBroker, MemoryTransport
from cliffracer_core.memory.broker import copy_message
from cliffracer_core.memory.streams import MemoryDelivery
from cliffracer_core.memory.transport import MemorySubscription
from cliffracer_core.messages import Delivery, Message

from .network import Network, Way, describe_message
from .virtual_time import PROCESS

__all__ = ["SimulatedBroker", "SimulatedDelivery", "SimulatedTransport"]

_CONNECT_S = 5.0  # as the contract of `Transport.open` says


class SimulatedBroker(MemoryBroker):
    """A broker whose messages travel over a `Network`."""

    def __init__(self, network: Network) -> None:
        super().__init__()
        self._network = network
        network.brokers.append(self)

    def post(self, receive: Callable[[Any], None], what: object) -> None:
        """Send a message or a delivery to the transport that receives it."""
        inlet = getattr(receive, "__self__", None)
        if not isinstance(inlet, Inlet):
            super().post(receive, what)
        elif isinstance(what, MemoryDelivery):
            self._post_delivery(inlet, what)
        elif isinstance(what, Message):
            transport, message = inlet.transport, what
            about = describe_message("message", message)
            self._network.carry(transport, transport.inward, about, lambda: inlet.receive(message))

    def _post_delivery(self, inlet: Inlet, delivery: MemoryDelivery) -> None:
        transport, consumer = inlet.transport, delivery.subscriber.consumer
        about = f"{describe_message('delivery', delivery.message)} attempt {delivery.attempt}"
        self._network.carry(
            transport, transport.inward, about,
            lambda: inlet.receive(SimulatedDelivery(transport, delivery)),
            again=lambda: consumer.give_back([delivery]),
        )  # fmt: skip

    async def settle(self) -> None:
        """Return when all that is on its way now has arrived or was lost."""
        await self._network.settle()


class Inlet:
    """Where one subscription of a transport takes messages in, in the context of its process."""

    def __init__(self, transport: SimulatedTransport, callback: Callable[[Any], None]) -> None:
        self.transport = transport
        self._callback = callback
        self._context = Context()
        self._context.run(PROCESS.set, transport.process)

    def receive(self, what: object) -> None:
        """Hand over."""
        self._context.copy().run(self._callback, what)


class SimulatedDelivery:
    """A delivery whose acknowledgement travels too; see `Delivery`."""

    def __init__(self, transport: SimulatedTransport, delivery: MemoryDelivery) -> None:
        self.message = delivery.message
        self.attempt = delivery.attempt
        self.message_id = delivery.message_id
        self._delivery = delivery
        self._consumer = delivery.subscriber.consumer
        self._transport = transport

    async def ack(self) -> None:
        """Send the acknowledgement; raises ConnectionError where the connection ended since."""
        self._send("ack", lambda: self._consumer.finish(self._delivery.sequence))

    async def nak(self, delay_s: float = 0.0) -> None:
        """Send it back for `delay_s` seconds; raises ConnectionError where the connection ended since."""
        self._send("nak", lambda: self._consumer.give_back([self._delivery], delay_s))

    async def in_progress(self) -> None:
        """Send that work goes on; raises ConnectionError where the connection ended since."""
        self._send("in_progress", lambda: self._consumer.extend(self._delivery))

    def _send(self, kind: str, effect: Callable[[], None]) -> None:
        transport = self._transport
        if self._delivery.subscriber.disconnected:
            raise ConnectionError(f"delivery of {self.message_id!r}: its connection ended; the message comes again")
        about = f"{kind} {self.message.subject} attempt {self.attempt}"
        transport.network.carry(transport, transport.outward, about, effect)


class SimulatedTransport(MemoryTransport):
    """A memory transport whose connection can break, and comes back by itself.

    While it is broken, publishing and requests fail with ConnectionError (NotStored where durable), and
    subscribing waits until it is back.

    Args:
        network: what it is connected to.
        url: as that of `MemoryTransport`.
    """

    def __init__(self, network: Network, url: str) -> None:
        super().__init__(url)
        self.network = network
        self.process = PROCESS.get()
        self.name = "test" if self.process is None else self.process.name
        self.epoch = 0
        self.inward, self.outward = Way(), Way()
        self._again: dict[MemorySubscription, Callable[[], Callable[[], None]]] = {}
        self._online = asyncio.Event()
        self._back_at = 0.0

    @property
    def connected(self) -> bool:
        """Whether it is open and not broken."""
        return self._broker is not None and self._online.is_set()

    async def open(self) -> None:
        """Connect. Raises ConnectionError where the server is down for 5 s."""
        loop = asyncio.get_running_loop()
        down_s = self.network.server_up_at - loop.time()
        if down_s > 0:
            await asyncio.sleep(min(down_s, _CONNECT_S))
            if self.network.server_up_at > loop.time():
                raise ConnectionError(f"transport {self._url!r}: the server did not answer within {_CONNECT_S:g} s")
        await super().open()
        self._online.set()
        self.network.connections[self] = None

    async def close(self) -> None:
        """As `MemoryTransport.close`."""
        await super().close()
        self.network.connections.pop(self, None)

    async def flush(self) -> None:
        """Return when all that is on its way has arrived; raises ConnectionError."""
        self._require()
        await self.broker.settle()

    def cut(self, for_s: float) -> None:
        """Lose the connection, and what is on its way over it, for so many seconds."""
        if self._broker is None:
            return
        loop = asyncio.get_running_loop()
        self.network.note("disconnect", self.name, f"for {for_s:.3f} s")
        self._lose()
        self._back_at = max(self._back_at, loop.time() + for_s)
        loop.call_at(self._back_at, self._reconnect, self.epoch, context=self._broker.context)

    def _lose(self) -> None:
        self.epoch += 1
        self._online.clear()
        self.inward, self.outward = Way(), Way()
        for subscription in self._subscriptions:
            subscription.stop()
        for subscriber in self._subscribers:
            subscriber.disconnect()
        self._subscribers.clear()

    def _reconnect(self, epoch: int) -> None:
        if epoch != self.epoch or self._broker is None:
            return
        self.network.note("reconnect", self.name)
        self._online.set()
        if not self._closing:
            for subscription in self._subscriptions:
                subscription.stop = self._again[subscription]()

    def abort(self) -> None:
        """End as the connection of a killed process ends: nothing is handed over, sent or settled any more."""
        if self._broker is not None:
            self._lose()
            self._broker = None
            self._disconnect()
            self.network.connections.pop(self, None)

    def _require(self) -> None:
        if not self.connected and self.broker:
            raise ConnectionError(f"transport {self._url!r} is not connected; it reconnects by itself: try again")

    def _leave_safe(self) -> MemoryBroker:
        """Return the broker, after what may have broken on the way to it. Raises ConnectionError."""
        self._require()
        self.network.break_something(self)
        self._require()
        return self.broker

    async def publish(self, message: Message) -> None:
        """Send to whoever listens; a reply travels to the transport that waits for it."""
        broker = self._leave_safe()
        future = broker.replies.get(message.subject)
        asker = next((each for each in self.network.connections if self._waits(each, message.subject)), None)
        if future is None or asker is None:
            await super().publish(message)
            return
        self._check(message)
        reply = copy_message(message)

        def arrive() -> None:
            if not future.done():
                future.set_result(reply)

        self.network.carry(asker, asker.inward, describe_message("reply", message), arrive)

    @staticmethod
    def _waits(connection: object, token: str) -> bool:
        return isinstance(connection, SimulatedTransport) and connection.waits(token)

    async def request(self, message: Message, timeout_s: float) -> Message:
        """Send and return the first reply."""
        self._leave_safe()
        return await super().request(message, timeout_s)

    async def publish_durable(self, message: Message, *, stream: str, message_id: str, timeout_s: float) -> None:
        """Store; both the message and its confirmation travel, and a lost one is `NotStored` when the time is up."""
        broker = self.broker
        self._check_durable(message, message_id)
        copy, about = copy_message(message), describe_message("store", message)
        confirmed: asyncio.Future[CliffracerError | None] = asyncio.get_running_loop().create_future()

        def confirm(outcome: CliffracerError | None) -> None:
            if not confirmed.done():
                confirmed.set_result(outcome)

        def store() -> None:
            outcome: CliffracerError | None = None
            try:
                self._store(broker, copy, stream, message_id)
            except CliffracerError as error:
                outcome = error
            self.network.carry(self, self.inward, about.replace("store", "stored", 1), lambda: confirm(outcome))

        try:
            self._leave_safe()
        except ConnectionError as error:
            raise NotStored(f"message on {message.subject!r} was not stored: {error}") from error
        self.network.carry(self, self.outward, about, store)
        try:
            async with asyncio.timeout(timeout_s):
                outcome = await confirmed
        except TimeoutError:
            raise NotStored(
                f"message on {message.subject!r}: no confirmation within {timeout_s:g} s; "
                f"publish again under the same message id"
            ) from None
        if outcome is not None:
            raise outcome

    async def subscribe(
        self, pattern: str, on_message: Callable[[Message], None], *, queue: str | None = None
    ) -> MemorySubscription:
        """Listen, as soon as it is connected."""
        await self._online.wait()
        inlet = Inlet(self, on_message)
        subscription = await super().subscribe(pattern, inlet.receive, queue=queue)

        def again() -> Callable[[], None]:
            broker = self.broker
            listener = broker.subscribe(pattern, inlet.receive, queue)
            return lambda: broker.unsubscribe(listener)

        self._again[subscription] = again
        return subscription

    async def consume(
        self, subscription: DurableSubscription, on_delivery: Callable[[Delivery], None]
    ) -> MemorySubscription:
        """Receive what a stream holds, as soon as it is connected."""
        await self._online.wait()
        inlet = Inlet(self, on_delivery)
        made = await super().consume(subscription, inlet.receive)

        def again() -> Callable[[], None]:
            stream = self.broker.ensure_stream(subscription.stream, subscription.pattern)
            subscriber = stream.consume(subscription, inlet.receive)
            self._subscribers.append(subscriber)
            return subscriber.leave

        self._again[made] = again
        return made
