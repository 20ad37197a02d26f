from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager

import pytest
from cliffracer_nats import EmbeddedNats, NatsTransport, consumer
from cliffracer_nats.delivery import read_ack_subject

from cliffracer_core.errors import ConfigurationError, NotStored
from cliffracer_core.interfaces import DurableSubscription
from cliffracer_core.messages import Delivery, Message
from cliffracer_core.testing import Collector, eventually


@asynccontextmanager
async def connected(server: EmbeddedNats) -> AsyncIterator[NatsTransport]:
    transport = NatsTransport(server.url)
    await transport.open()
    try:
        yield transport
    finally:
        await transport.close()


def orders(pattern: str = "order.>", *, max_in_flight: int = 100, ack_wait_s: float = 30) -> DurableSubscription:
    return DurableSubscription(
        stream="ORDER", pattern=pattern, durable="shop.take", max_in_flight=max_in_flight, ack_wait_s=ack_wait_s
    )


async def publish(transport: NatsTransport, body: bytes, *, timeout_s: float = 30) -> None:
    await transport.publish_durable(
        Message("order.created", body), stream="ORDER", message_id=body.decode(), timeout_s=timeout_s
    )


class Worker:
    """Acks what it gets, from tasks, and keeps the bodies."""

    def __init__(self) -> None:
        self.bodies: set[bytes] = set()
        self.tasks: set[asyncio.Task[None]] = set()

    def __call__(self, delivery: Delivery) -> None:
        self.bodies.add(delivery.message.body)
        task = asyncio.create_task(delivery.ack())
        self.tasks.add(task)
        task.add_done_callback(self.tasks.discard)


async def test_all_durable_events_arrive_when_the_server_is_killed_on_the_way(own_nats: EmbeddedNats) -> None:
    """Of 1,000 events, published and consumed while the server dies twice by kill -9, none is lost."""
    async with connected(own_nats) as sender, connected(own_nats) as receiver:
        worker, sent = Worker(), Collector[int]()
        await receiver.consume(orders(ack_wait_s=1), worker)

        async def send(numbers: range) -> None:
            for number in numbers:
                await publish(sender, b"%d" % number)
                sent(number)

        sending = [asyncio.create_task(send(range(start, 1000, 10))) for start in range(10)]
        for count in (300, 600):
            await sent.at_least(count, 30)
            await asyncio.to_thread(own_nats.kill)
            await asyncio.to_thread(own_nats.start)
        await asyncio.gather(*sending)
        await eventually(lambda: len(worker.bodies) == 1000, 30)
        stored = [each.message.body async for each in sender.browse("ORDER")]
        assert sorted(map(int, stored)) == list(range(1000))


async def test_delivery_goes_on_when_an_idle_consumer_is_deleted(
    own_nats: EmbeddedNats, caplog: pytest.LogCaptureFixture
) -> None:
    """A consumer deleted behind our back is made again, with a log line."""
    async with connected(own_nats) as transport:
        worker = Worker()
        await transport.consume(orders(), worker)
        await publish(transport, b"1")
        await eventually(lambda: worker.bodies == {b"1"})
        await transport.jetstream.ask("CONSUMER.DELETE.ORDER.shop-take")
        await publish(transport, b"2")
        await eventually(lambda: worker.bodies == {b"1", b"2"})
        assert "making it again" in caplog.text


async def test_delivery_goes_on_when_the_stream_is_deleted(own_nats: EmbeddedNats) -> None:
    """A stream deleted behind our back is made again by whoever comes first."""
    async with connected(own_nats) as transport:
        worker = Worker()
        await transport.consume(orders(), worker)
        await publish(transport, b"1")
        await eventually(lambda: worker.bodies == {b"1"})
        await transport.jetstream.ask("STREAM.DELETE.ORDER")
        await publish(transport, b"2")
        await eventually(lambda: worker.bodies == {b"1", b"2"}, 30)


async def test_a_publish_is_stored_when_the_stream_was_deleted(own_nats: EmbeddedNats) -> None:
    """A stream deleted behind our back is made again by a publish, also where a plain subscriber hears it."""
    async with connected(own_nats) as transport:
        await publish(transport, b"1")
        await transport.jetstream.ask("STREAM.DELETE.ORDER")
        await publish(transport, b"2")
        await transport.jetstream.ask("STREAM.DELETE.ORDER")
        await transport.subscribe("order.*", Collector[Message]())
        await publish(transport, b"3")
        assert [each.message.body async for each in transport.browse("ORDER")] == [b"3"]


async def test_delivery_goes_on_when_the_server_was_frozen(own_nats: EmbeddedNats) -> None:
    """A server that stands still for a while delivers what was published meanwhile."""
    async with connected(own_nats) as transport:
        worker = Worker()
        await transport.consume(orders(), worker)
        own_nats.pause()
        publishing = asyncio.create_task(publish(transport, b"1"))
        done, _ = await asyncio.wait({publishing}, timeout=0.2)
        assert not done
        own_nats.resume()
        await publishing
        await eventually(lambda: worker.bodies == {b"1"})


async def test_a_lost_pull_is_asked_for_again(own_nats: EmbeddedNats, monkeypatch: pytest.MonkeyPatch) -> None:
    """A pull the server never saw is noticed by the missing heartbeat, and delivery goes on."""
    monkeypatch.setattr("cliffracer_nats.consumer.SILENCE_S", 0.3)
    async with connected(own_nats) as transport:
        lost = 0
        publish_really = transport.wire.publish

        async def lose_first_pull(message: Message) -> None:
            nonlocal lost
            if ".MSG.NEXT." in message.subject and not lost:
                lost += 1
                return
            await publish_really(message)

        monkeypatch.setattr(transport.wire, "publish", lose_first_pull)
        worker = Worker()
        await publish(transport, b"1")
        await transport.consume(orders(), worker)
        await eventually(lambda: worker.bodies == {b"1"})
        assert lost == 1


async def test_pulls_that_ran_out_are_counted_off_when_others_are_open(
    own_nats: EmbeddedNats, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Several pulls are open and each may end unfilled: afterwards all slots are asked for again, and no more."""
    monkeypatch.setattr("cliffracer_nats.consumer.EXPIRES_S", 1.0)
    monkeypatch.setattr("cliffracer_nats.consumer.HEARTBEAT_S", 0.4)
    consumer._pull_request.cache_clear()
    try:
        async with connected(own_nats) as transport:
            got = Collector[Delivery]()
            subscription = await transport.consume(orders(max_in_flight=8, ack_wait_s=60), got)
            pulling = subscription._inner  # type: ignore[attr-defined]  # the consumer, whose count is looked at
            for number in range(3):  # uses up some of the first pull, so that a second one is opened beside it
                await publish(transport, b"%d" % number)
            deliveries = await got.at_least(3)
            await wait_for_statuses(pulling, "100", 1)  # so that the pulls end one after the other
            for delivery in deliveries:
                await delivery.ack()
            await wait_for_statuses(pulling, "408", 3)
            for number in range(20):
                await publish(transport, b"%d" % (number + 3))
            await got.at_least(11)
            await settled(transport)
            assert len(got.items) == 11  # 3 acked and 8 out: neither a slot lost nor one too many
            while len(got.items) < 23:
                for delivery in list(got.items):
                    await delivery.ack()
                await got.at_least(len(got.items) + 1)
            assert {each.message.body for each in got.items} == {b"%d" % number for number in range(23)}
    finally:
        consumer._pull_request.cache_clear()


async def wait_for_statuses(pulling: consumer.PullConsumer, status: str, count: int) -> None:
    """Wait until the server has sent a status so often."""
    heard, on_status = 0, pulling._on_status

    def listen(headers: Mapping[str, str], subject: str) -> None:
        nonlocal heard
        on_status(headers, subject)
        heard += headers["Status"] == status

    pulling._on_status = listen  # type: ignore[method-assign]  # still does what it did
    await eventually(lambda: heard >= count)


async def settled(transport: NatsTransport) -> None:
    """Wait until what the server had to say has been said."""
    for _ in range(3):
        await transport.flush()


async def test_a_slot_is_free_again_when_a_delivery_was_never_ended(own_nats: EmbeddedNats) -> None:
    """A delivery neither acked nor nacked holds its slot no longer than its ack wait."""
    async with connected(own_nats) as transport:
        got = Collector[Delivery]()
        await transport.consume(orders(max_in_flight=1, ack_wait_s=1), got)
        await publish(transport, b"1")
        assert [each.attempt for each in (await got.at_least(2))[:2]] == [1, 2]


async def test_nothing_is_prefetched_beyond_the_slots(own_nats: EmbeddedNats) -> None:
    """The server has handed out no more than can be started at once."""
    async with connected(own_nats) as transport:
        got = Collector[Delivery]()
        for number in range(20):
            await publish(transport, b"%d" % number)
        await transport.consume(orders(max_in_flight=3), got)
        await got.at_least(3)
        await transport.flush()
        info = await transport.jetstream.ask("CONSUMER.INFO.ORDER.shop-take")
        assert (info["num_ack_pending"], info["num_pending"]) == (3, 17)
        assert info["config"]["max_deliver"] == -1


async def test_replicas_that_start_at_once_both_succeed(own_nats: EmbeddedNats) -> None:
    """Many replicas making one stream and one consumer at once do not get into each other's way."""
    async with connected(own_nats) as one, connected(own_nats) as other:
        worker = Worker()
        await asyncio.gather(*(each.consume(orders(), worker) for each in (one, other) * 10))
        await publish(one, b"1")
        await eventually(lambda: worker.bodies == {b"1"})


async def test_a_consumer_is_brought_up_to_date_when_its_declaration_changed(own_nats: EmbeddedNats) -> None:
    """Another pattern or ack wait under one durable name changes the consumer and keeps its place."""
    async with connected(own_nats) as transport:
        first, second = Worker(), Worker()
        subscription = await transport.consume(orders("order.*"), first)
        await publish(transport, b"1")
        await eventually(lambda: first.bodies == {b"1"})
        await subscription.drain()
        await transport.flush()
        await transport.consume(orders("order.>", ack_wait_s=7), second)
        await publish(transport, b"2")
        await eventually(lambda: b"2" in second.bodies)
        config = (await transport.jetstream.ask("CONSUMER.INFO.ORDER.shop-take"))["config"]
        assert (config["filter_subject"], config["ack_wait"]) == ("order.>", 7_000_000_000)
        assert second.bodies == {b"2"}


async def test_consume_is_refused_when_the_name_belongs_to_a_push_consumer(own_nats: EmbeddedNats) -> None:
    """A consumer of another kind is not taken over."""
    async with connected(own_nats) as transport:
        await publish(transport, b"1")
        config = {"durable_name": "shop-take", "deliver_subject": "somewhere", "ack_policy": "none"}
        body = {"stream_name": "ORDER", "config": config}
        await transport.jetstream.ask("CONSUMER.DURABLE.CREATE.ORDER.shop-take", body)
        with pytest.raises(ConfigurationError, match="push consumer.*nats consumer rm ORDER shop-take"):
            await transport.consume(orders(), Worker())


async def test_consume_is_refused_when_the_stream_does_not_cover_the_pattern(own_nats: EmbeddedNats) -> None:
    """A stream that takes part of a pattern is refused, with its subjects, the pattern, and a remedy."""
    async with connected(own_nats) as transport:
        await transport.jetstream.ask("STREAM.CREATE.ORDER", {"name": "ORDER", "subjects": ["order.created"]})
        with pytest.raises(ConfigurationError, match=r"'ORDER' takes \['order.created'\].*'order.>'; narrow"):
            await transport.consume(orders(), Worker())
        message = Message("order.gone")
        with pytest.raises(NotStored, match="does not cover 'order.gone'"):
            await transport.publish_durable(message, stream="ORDER", message_id="1", timeout_s=10)


async def test_open_is_refused_when_a_stream_would_answer_requests(own_nats: EmbeddedNats) -> None:
    """A stream of the account over `rpc.>` stops the start; one that appears later stops its consumer."""
    async with connected(own_nats) as transport:
        await transport.jetstream.ask("STREAM.CREATE.ALL", {"name": "ALL", "subjects": ["rpc.*.audit"]})
        with pytest.raises(ConfigurationError, match=r"'ALL' takes 'rpc\.\*\.audit', which overlaps 'rpc.>'"):
            await NatsTransport(own_nats.url).open()
        wanted = DurableSubscription(stream="ALL", pattern="rpc.*.audit", durable="shop.all")
        with pytest.raises(ConfigurationError, match="would answer requests"):
            await transport.consume(wanted, Worker())


async def test_a_stream_is_refused_when_another_takes_its_subjects(own_nats: EmbeddedNats) -> None:
    """Where the subjects belong to another stream the error names it, publishing and consuming."""
    async with connected(own_nats) as transport:
        await transport.jetstream.ask("STREAM.CREATE.EVENTS", {"name": "EVENTS", "subjects": ["order.>"]})
        with pytest.raises(ConfigurationError, match="stream='EVENTS'"):
            await transport.consume(orders(), Worker())
        with pytest.raises(NotStored, match="stream='EVENTS'"):
            await publish(transport, b"1")


async def test_durable_work_is_refused_when_the_server_has_no_jetstream() -> None:
    """Without JetStream the capability is off, consuming is a ConfigurationError, publishing NotStored at once."""
    from cliffracer_nats import embedded_nats

    with embedded_nats(jetstream=False) as server:
        async with connected(server) as transport:
            assert not transport.capabilities.durable
            with pytest.raises(ConfigurationError, match="has no JetStream"):
                await transport.consume(orders(), Worker())
            async with asyncio.timeout(10):
                with pytest.raises(NotStored, match="there is no JetStream"):
                    await publish(transport, b"1", timeout_s=3600)


async def test_a_publish_is_not_stored_when_the_server_stays_away(own_nats: EmbeddedNats) -> None:
    """Without confirmation in time a durable publish is NotStored."""
    async with connected(own_nats) as transport:
        await publish(transport, b"1")
        own_nats.kill()
        async with asyncio.timeout(10):
            with pytest.raises(NotStored, match="not confirmed by stream 'ORDER' within 0.5 s"):
                await publish(transport, b"2", timeout_s=0.5)


async def test_a_subscription_that_is_drained_leaves_its_messages_to_others(own_nats: EmbeddedNats) -> None:
    """After a drain every new message goes to the subscribers that stay, and none waits for its ack wait."""
    async with connected(own_nats) as one, connected(own_nats) as other:
        first, second = Worker(), Worker()
        subscription = await one.consume(orders(), first)
        await other.consume(orders(), second)
        await subscription.drain()
        for number in range(50):
            await publish(one, b"%d" % number)
        await eventually(lambda: len(second.bodies) == 50)
        assert first.bodies == set()


@pytest.mark.parametrize(
    "subject",
    [
        "$JS.ACK.ORDER.shop-take.3.17.21.1700000000123456789.5",
        "$JS.ACK.hub.ACCHASH.ORDER.shop-take.3.17.21.1700000000123456789.5.rnd",
    ],
)
def test_both_forms_of_ack_subject_are_read(subject: str) -> None:
    """Nine and twelve tokens give the same facts."""
    assert read_ack_subject(subject.encode()) == (3, "ORDER:17")


async def test_the_publishers_id_goes_before_one_made_of_the_stream(own_nats: EmbeddedNats) -> None:
    """A message published without an id has one all the same."""
    async with connected(own_nats) as transport:
        got = Collector[Delivery]()
        await transport.consume(orders(), got)
        await publish(transport, b"mine")
        await transport.publish(Message("order.created", b"x"))
        await got.at_least(2)
        assert [each.message_id for each in got.items] == ["mine", "ORDER:2"]


@pytest.mark.parametrize("subject", [b"", b"order.made", b"$JS.ACK.ORDER.take.1.2.3.4.5.6", b"$JS.ACK.O.t.x.1.1.1.1"])
def test_an_ack_subject_is_refused_when_it_is_none(subject: bytes) -> None:
    """Anything else is a ValueError."""
    with pytest.raises(ValueError, match="no ack subject|invalid literal"):
        read_ack_subject(subject)
