"""The transport contract: messages that are kept until they are acknowledged."""

from __future__ import annotations

import asyncio

from cliffracer_core.messages import Delivery, Message

from .suite import TransportSuite, durable_on, store
from .waiting import Collector, eventually, unique

__all__ = ["DurableContract"]


class DurableContract(TransportSuite):
    """Delivery, acknowledgement, redelivery."""

    async def test_a_stored_message_is_delivered(self) -> None:
        """A durable message comes as it was published: subject, body, headers, id, as attempt 1."""
        sender, receiver, token = await self.connect_durable(), await self.connect_durable(), unique()
        got = Collector[Delivery]()
        await receiver.consume(durable_on(token), got)
        message = Message(f"{token}.a", b"\x00body", {"X-One": "Grüße"})
        await sender.publish_durable(message, stream=durable_on(token).stream, message_id=f"{token}-1", timeout_s=10)
        (delivery,) = await got.at_least(1)
        assert (delivery.message.subject, delivery.message.body) == (f"{token}.a", b"\x00body")
        assert type(delivery.message.body) is bytes
        assert (delivery.message.headers or {}).get("X-One") == "Grüße"
        assert (delivery.attempt, delivery.message_id) == (1, f"{token}-1")
        await delivery.ack()

    async def test_messages_wait_when_no_consumer_exists_yet(self) -> None:
        """A consumer whose name is new begins with the oldest message, in order."""
        transport, token, got = await self.connect_durable(), unique(), Collector[Delivery]()
        await store(transport, f"{token}.a", [b"%d" % number for number in range(20)])
        await transport.consume(durable_on(token), got)
        assert [int(each.message.body) for each in await got.at_least(20)] == list(range(20))

    async def test_a_consumer_gets_only_its_pattern(self) -> None:
        """Of the stream a consumer gets what its pattern matches; an exact first token is in the stream too."""
        transport, token = await self.connect_durable(), unique()
        wild, exact, bare = Collector[Delivery](), Collector[Delivery](), Collector[Delivery]()
        for subject in (token, f"{token}.a", f"{token}.b", f"{token}.a.c"):
            await store(transport, subject, [b"x"])
        await transport.consume(durable_on(token, f"{token}.*", name="wild"), wild)
        await transport.consume(durable_on(token, f"{token}.a", name="exact"), exact)
        await transport.consume(durable_on(token, token, name="bare"), bare)
        await store(transport, f"{token}.a", [b"end"])
        await store(transport, token, [b"end"])
        for got in (wild, exact, bare):
            await got.until(lambda each: each.message.body == b"end")
        assert {each.message.subject for each in wild.items} == {f"{token}.a", f"{token}.b"}
        assert {each.message.subject for each in exact.items} == {f"{token}.a"}
        assert {each.message.subject for each in bare.items} == {token}

    async def test_each_name_gets_every_message(self) -> None:
        """Consumers of different names do not share: each gets all."""
        transport, token = await self.connect_durable(), unique()
        collectors = [Collector[Delivery]() for _ in range(2)]
        for number, got in enumerate(collectors):
            await transport.consume(durable_on(token, name=f"h{number}"), got)
        await store(transport, f"{token}.a", [b"1", b"2", b"3"])
        for got in collectors:
            assert [each.message.body for each in await got.at_least(3)] == [b"1", b"2", b"3"]

    async def test_subscribers_of_one_name_share(self) -> None:
        """Two subscribers of one name share its messages: each message goes to one, and neither gets them all."""
        sender, token = await self.connect_durable(), unique()
        collectors = [Collector[Delivery]() for _ in range(2)]
        for got in collectors:
            transport = await self.connect_durable()
            await transport.consume(durable_on(token, max_in_flight=1), got)
        await store(sender, f"{token}.a", [b"%d" % number for number in range(20)])
        (first,), (second,) = await collectors[0].at_least(1), await collectors[1].at_least(1)
        assert first.message.body != second.message.body

        async def work(got: Collector[Delivery]) -> None:
            done = 0
            while sum(len(each.items) for each in collectors) < 20 or done < len(got.items):
                if done < len(got.items):
                    await got.items[done].ack()
                    done += 1
                await asyncio.sleep(0.001)

        async with asyncio.timeout(30):
            await asyncio.gather(*(work(got) for got in collectors))
        bodies = [int(each.message.body) for got in collectors for each in got.items]
        assert sorted(bodies) == list(range(20))

    async def test_no_more_are_out_than_max_in_flight(self) -> None:
        """At most `max_in_flight` deliveries are out at one subscriber; each ack lets another come."""
        transport, token, got = await self.connect_durable(), unique(), Collector[Delivery]()
        await store(transport, f"{token}.a", [b"%d" % number for number in range(12)])
        await transport.consume(durable_on(token, max_in_flight=3), got)
        for acked in range(12):
            await got.at_least(acked + 1)
            assert len(got.items) - acked <= 3
            await got.items[acked].ack()
        assert [int(each.message.body) for each in got.items] == list(range(12))

    async def test_an_acked_message_never_comes_again(self) -> None:
        """After its ack a message is not delivered again, while one left alone is, when the ack wait is over."""
        transport, token, got = await self.connect_durable(), unique(), Collector[Delivery]()
        await store(transport, f"{token}.a", [b"acked", b"left"])
        await transport.consume(durable_on(token, ack_wait_s=self.ack_wait_s), got)
        acked, left = await got.at_least(2)
        assert (acked.message.body, left.message.body) == (b"acked", b"left")
        await acked.ack()
        deliveries = await got.at_least(4, 30)
        assert [each.message.body for each in deliveries[2:4]] == [b"left", b"left"]
        assert [each.attempt for each in deliveries[2:4]] == [2, 3]
        await deliveries[-1].ack()

    async def test_a_nacked_message_comes_again_after_its_delay(self) -> None:
        """A nacked message comes again, at once or no sooner than its delay, with a higher attempt."""
        transport, token, got = await self.connect_durable(), unique(), Collector[Delivery]()
        await transport.consume(durable_on(token, max_in_flight=1), got)
        await store(transport, f"{token}.a", [b"x"])
        (first,) = await got.at_least(1)
        await first.nak()
        second = (await got.at_least(2))[1]
        loop = asyncio.get_running_loop()
        given_back = loop.time()
        await second.nak(0.5)
        third = (await got.at_least(3))[2]
        assert loop.time() - given_back > 0.45
        assert [each.attempt for each in got.items] == [1, 2, 3]
        assert {each.message_id for each in got.items} == {f"{token}.a:x"}
        await third.ack()

    async def test_a_delayed_message_does_not_hold_up_others(self) -> None:
        """While a nacked message waits out its delay, others are delivered, also with max_in_flight 1."""
        transport, token, got = await self.connect_durable(), unique(), Collector[Delivery]()
        await transport.consume(durable_on(token, max_in_flight=1), got)
        await store(transport, f"{token}.a", [b"delayed", b"next"])
        await (await got.at_least(1))[0].nak(60)
        following = (await got.at_least(2))[1]
        assert following.message.body == b"next"
        await following.ack()

    async def test_in_progress_keeps_a_message_from_coming_again(self) -> None:
        """A message whose work goes on is not delivered again, however often another's ack wait is over."""
        transport, token, got = await self.connect_durable(), unique(), Collector[Delivery]()
        await store(transport, f"{token}.a", [b"working", b"left"])
        await transport.consume(durable_on(token, ack_wait_s=self.ack_wait_s), got)
        working, _ = await got.at_least(2)
        assert working.message.body == b"working"

        async def left_came_three_times() -> bool:
            await working.in_progress()
            return sum(each.message.body == b"left" for each in got.items) >= 3

        await eventually(left_came_three_times, 30)
        await working.ack()
        assert sum(each.message.body == b"working" for each in got.items) == 1

    async def test_a_consumer_keeps_its_place_when_it_returns(self) -> None:
        """A consumer that comes back goes on where it was, with what was published meanwhile."""
        sender, first, token = await self.connect_durable(), await self.connect_durable(), unique()
        before, after = Collector[Delivery](), Collector[Delivery]()
        await first.consume(durable_on(token), before)
        await store(sender, f"{token}.a", [b"1", b"2"])
        for delivery in await before.at_least(2):
            await delivery.ack()
        await first.close()
        await store(sender, f"{token}.a", [b"3", b"4"])
        await (await self.connect_durable()).consume(durable_on(token), after)
        assert [each.message.body for each in await after.at_least(2)] == [b"3", b"4"]
        assert [each.attempt for each in after.items] == [1, 1]

    async def test_an_unacked_message_comes_again_when_its_consumer_is_gone(self) -> None:
        """What a consumer left behind goes to the next, and what the first had counts as an attempt."""
        sender, token = await self.connect_durable(), unique()
        await store(sender, f"{token}.a", [b"x"])
        for attempt in (1, 2, 3):
            transport, got = await self.connect_durable(), Collector[Delivery]()
            await transport.consume(durable_on(token, ack_wait_s=self.ack_wait_s), got)
            delivery = (await got.at_least(1, 30))[0]
            assert (delivery.message.body, delivery.attempt) == (b"x", attempt)
            await transport.close()

    async def test_a_drained_consumer_hands_over_and_can_still_ack(self) -> None:
        """When drain returns nothing more comes, and what is out can be acked."""
        transport, token = await self.connect_durable(), unique()
        got, others = Collector[Delivery](), Collector[Delivery]()
        subscription = await transport.consume(durable_on(token, ack_wait_s=self.ack_wait_s), got)
        await store(transport, f"{token}.a", [b"1"])
        (delivery,) = await got.at_least(1)
        await subscription.drain()
        await subscription.drain()
        await store(transport, f"{token}.a", [b"2"])
        await delivery.ack()
        await transport.flush()
        await transport.consume(durable_on(token, ack_wait_s=self.ack_wait_s), others)
        await others.at_least(2, 30)  # the second came again: the ack wait of both is over
        assert {each.message.body for each in others.items} == {b"2"}
        assert [each.message.body for each in got.items] == [b"1"]
