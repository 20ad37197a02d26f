"""The transport contract: draining, closing, and a server that goes away and comes back."""

from __future__ import annotations

import asyncio
import contextlib

import pytest

from cliffracer_core.errors import ConnectionError
from cliffracer_core.messages import Delivery, Message
from cliffracer_core.subjects import stream_name

from .requests import replier
from .suite import OFFLINE, TransportSuite, durable_on, store
from .waiting import Collector, eventually, unique

__all__ = ["LifecycleContract"]


class LifecycleContract(TransportSuite):
    """Beginning, end, and what happens between two connections."""

    async def test_connected_follows_open_and_close(self) -> None:
        """A transport is connected from open to close, and closing again does nothing."""
        transport = await self.make_transport()
        states = [transport.connected]
        for step in (transport.open, transport.close, transport.close):
            await step()
            states.append(transport.connected)
        assert states == [False, True, False, False]

    async def test_close_is_safe_when_it_never_opened(self) -> None:
        """Closing what was never open is no error."""
        transport = await self.make_transport()
        await transport.close()
        assert not transport.connected

    async def test_nothing_is_sent_when_it_is_closed(self) -> None:
        """A closed transport refuses work with ConnectionError instead of losing it."""
        transport, subject = await self.connect(), f"{unique()}.a"
        await transport.close()
        with pytest.raises(ConnectionError):
            await transport.publish(Message(subject))
        with pytest.raises(ConnectionError):
            await transport.subscribe(subject, Collector[Message]())
        if transport.capabilities.request:
            with pytest.raises(ConnectionError):
                await transport.request(Message(subject), 1)

    async def test_drain_hands_over_what_had_arrived(self) -> None:
        """When drain returns, the callback has had all that had arrived, and it gets nothing after."""
        sender, receiver = await self.connect(), await self.connect()
        got, after = Collector[Message](), Collector[Message]()
        subject = f"{unique()}.a"
        subscription = await receiver.subscribe(subject, got)
        for number in range(500):
            await sender.publish(Message(subject, b"%d" % number))
        await sender.flush()
        await receiver.flush()
        await subscription.drain()
        assert [int(each.body) for each in got.items] == list(range(500))
        await receiver.subscribe(subject, after)
        await sender.publish(Message(subject, b"after"))
        await after.at_least(1)
        assert len(got.items) == 500

    async def test_drain_is_safe_to_repeat(self) -> None:
        """Draining twice, or after the transport closed, is no error."""
        transport = await self.connect()
        subscription = await transport.subscribe(f"{unique()}.a", Collector[Message]())
        await subscription.drain()
        await subscription.drain()
        await transport.close()
        await subscription.drain()

    async def test_close_hands_over_what_had_arrived(self) -> None:
        """When close returns, callbacks have had all that had arrived, and they get nothing after."""
        sender, receiver, got = await self.connect(), await self.connect(), Collector[Message]()
        subject = f"{unique()}.a"
        await receiver.subscribe(subject, got)
        for number in range(500):
            await sender.publish(Message(subject, b"%d" % number))
        await sender.flush()
        await receiver.flush()
        await receiver.close()
        assert [int(each.body) for each in got.items] == list(range(500))
        await sender.publish(Message(subject, b"after"))
        await sender.flush()
        assert len(got.items) == 500

    async def test_close_sends_what_was_published(self) -> None:
        """What was published before close arrives, without a flush."""
        sender, receiver, got = await self.connect(), await self.connect(), Collector[Message]()
        subject = f"{unique()}.a"
        await receiver.subscribe(subject, got)
        for number in range(500):
            await sender.publish(Message(subject, b"%d" % number))
        await sender.close()
        assert [int(each.body) for each in await got.at_least(500)] == list(range(500))

    async def test_subscriptions_return_when_the_server_restarts(self) -> None:
        """After the server restarted, what listened listens again, and each message comes once."""
        sender, receiver, token = await self.connect(), await self.connect(), unique()
        plain, grouped = Collector[Message](), Collector[Message]()
        await receiver.subscribe(f"{token}.*", plain)
        await receiver.subscribe(f"{token}.*", grouped, queue="q")
        await self.restart()

        async def both_heard() -> bool:
            with contextlib.suppress(ConnectionError):
                await sender.publish(Message(f"{token}.probe"))
            return bool(plain.items and grouped.items)

        await eventually(both_heard, 30)
        await eventually(lambda: sender.connected and receiver.connected)
        await sender.publish(Message(f"{token}.once"))
        await sender.publish(Message(f"{token}.end"))
        for got in (plain, grouped):
            await got.until(lambda each: each.subject == f"{token}.end")
            assert sum(each.subject == f"{token}.once" for each in got.items) == 1

    async def test_requests_work_when_the_server_restarted(self) -> None:
        """After the server restarted, requests are answered again."""
        caller, service = await self.connect("request"), await self.connect()
        tasks: set[asyncio.Task[None]] = set()
        subject = f"rpc.{unique()}.a"
        await service.subscribe(subject, replier(service, lambda message: b"yes", tasks), queue="q")
        await self.restart()

        async def answered() -> bool:
            try:
                return (await caller.request(Message(subject), 0.5)).body == b"yes"
            except OFFLINE:
                return False

        assert await eventually(answered, 30)

    async def test_durable_messages_survive_when_the_server_restarts(self) -> None:
        """What was stored and not acked before a restart comes after it, what was acked does not."""
        transport, token, got = await self.connect_durable(), unique(), Collector[Delivery]()
        await store(transport, f"{token}.a", [b"acked", b"open"])
        await transport.consume(durable_on(token, ack_wait_s=self.ack_wait_s), got)
        acked, _ = await got.at_least(2)
        assert acked.message.body == b"acked"
        await acked.ack()
        await transport.flush()
        await self.restart()
        deliveries = await got.at_least(3, 30)
        assert deliveries[2].message.body == b"open"
        assert deliveries[2].attempt > 1
        await deliveries[2].ack()

        message = Message(f"{token}.a", b"new")

        async def stored() -> bool:
            try:
                await transport.publish_durable(message, stream=stream_name(token), message_id="new", timeout_s=1)
            except OFFLINE:
                return False
            return True

        await eventually(stored, 30)
        await got.until(lambda each: each.message.body == b"new", 30)
        assert [each.message.body for each in got.items].count(b"acked") == 1
