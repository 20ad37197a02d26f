"""The transport and the store in memory."""

from __future__ import annotations

import asyncio
import contextvars
import gc
import weakref

import pytest

from cliffracer_core.errors import (
    ConfigurationError,
    ConnectionError,
    DeadlineExceeded,
    InvalidHeader,
    MessageTooLarge,
    ValidationError,
)
from cliffracer_core.interfaces import DurableSubscription, DurableTransport, ServiceInfo, Transport
from cliffracer_core.memory import STORES, TRANSPORTS, MemoryBroker, MemoryStore, MemoryTransport, shared
from cliffracer_core.memory.store import MemoryKeys
from cliffracer_core.messages import Delivery, Message, SharedHeaders
from cliffracer_core.testing import Collector, StoreContract, TransportContract, eventually


class TestMemoryTransport(TransportContract):
    ack_wait_s = 0.3

    async def make_transport(self) -> Transport:
        return MemoryTransport("memory://contract")

    async def restart_server(self) -> None:
        shared(MemoryBroker, "contract").restart()


class TestMemoryStore(StoreContract):
    async def make_store(self) -> MemoryStore:
        return MemoryStore("memory://contract")


async def opened(url: str = "memory://") -> MemoryTransport:
    transport = MemoryTransport(url)
    await transport.open()
    return transport


async def put(transport: MemoryTransport, *message_ids: str) -> None:
    for message_id in message_ids:
        await transport.publish_durable(Message("order.a"), stream="ORDER", message_id=message_id, timeout_s=1)


def durable(**changes: object) -> DurableSubscription:
    wanted = DurableSubscription(stream="ORDER", pattern="order.>", durable="x.h", ack_wait_s=30)
    return DurableSubscription(**{**{name: getattr(wanted, name) for name in wanted.__struct_fields__}, **changes})


async def test_transports_meet_when_their_authority_is_the_same() -> None:
    """`memory://a` reaches `memory://a`, whatever its options, and not `memory://b` or `memory://`."""
    got = {url: Collector[Message]() for url in ("memory://a", "memory://a?max_payload=9", "memory://b", "memory://")}
    for url, collector in got.items():
        await (await opened(url)).subscribe("x", collector)
    sender = await opened("memory://a")
    await sender.publish(Message("x"))
    await got["memory://a"].at_least(1)
    assert [len(each.items) for each in got.values()] == [1, 1, 0, 0]


def test_loops_share_nothing() -> None:
    """What one event loop published, stored and kept is not there in the next."""

    async def fill() -> None:
        transport, store = await opened(), MemoryStore()
        await transport.publish_durable(Message("order.a"), stream="ORDER", message_id="1", timeout_s=1)
        await store.open()
        await store.put("key", b"x")

    async def look() -> tuple[int, object]:
        transport, store = await opened(), MemoryStore()
        await store.open()
        return len([each async for each in transport.browse("ORDER")]), await store.get("key")

    asyncio.run(fill())
    assert asyncio.run(look()) == (0, None)


def test_a_closed_loop_leaves_nothing_behind() -> None:
    """What a loop's services shared goes with it, also where deliveries were out and requests waited."""
    brokers: list[weakref.ref[MemoryBroker]] = []

    async def leave_things_open() -> None:
        transport = await opened()
        brokers.append(weakref.ref(transport.broker))
        await transport.consume(durable(), Collector[Delivery]())
        await transport.publish_durable(Message("order.a"), stream="ORDER", message_id="1", timeout_s=1)
        await transport.subscribe("x", Collector[Message]())
        asyncio.get_running_loop().create_task(transport.request(Message("x"), 60))
        await asyncio.sleep(0)

    asyncio.run(leave_things_open())
    asyncio.run(opened_and_closed())
    gc.collect()
    assert brokers[0]() is None


async def opened_and_closed() -> None:
    await (await opened()).close()


async def test_delivery_never_happens_inside_publish() -> None:
    """A callback runs in a later turn of the loop, in order, and not in the publisher's context."""
    transport, seen = await opened(), []
    variable = contextvars.ContextVar("variable", default="none")
    variable.set("publisher's")
    await transport.subscribe("x", lambda message: seen.append((message.body, variable.get())))
    await transport.publish(Message("x", b"1"))
    await transport.publish(Message("x", b"2"))
    assert seen == []
    await asyncio.sleep(0)
    assert seen == [(b"1", "none"), (b"2", "none")]


async def test_others_get_their_turn_when_a_callback_publishes_to_itself() -> None:
    """What a callback publishes at once, as eager tasks do, waits for the loop's next turn."""
    transport, count = await opened(), 0

    def again(message: Message) -> None:
        nonlocal count
        count += 1
        if count < 100:
            with pytest.raises(StopIteration):  # which ends a coroutine that never waits
                transport.publish(Message("x")).send(None)

    await transport.subscribe("x", again)
    await transport.publish(Message("x"))
    for turn in range(1, 4):
        await asyncio.sleep(0)
        assert count == turn
    await eventually(lambda: count == 100)


async def test_others_are_served_when_a_callback_fails() -> None:
    """A callback that raises is reported to the loop and costs no other subscriber its message."""
    transport, got, reported = await opened(), Collector[Message](), []

    def fail(message: Message) -> None:
        raise RuntimeError("broken callback")

    asyncio.get_running_loop().set_exception_handler(lambda loop, context: reported.append(context["exception"]))
    await transport.subscribe("x", fail)
    await transport.subscribe("x", got)
    await transport.publish(Message("x"))
    await got.at_least(1)
    assert [str(each) for each in reported] == ["broken callback"]


async def test_max_payload_comes_from_the_url() -> None:
    """The URL sets the limit of its own transport; 1 MiB without."""
    small, normal = await opened("memory://?max_payload=3"), await opened()
    assert small.capabilities.max_payload == 3
    assert normal.capabilities.max_payload == 1024 * 1024
    await small.publish(Message("x", b"123"))
    with pytest.raises(MessageTooLarge, match="4 bytes on 'x' exceeds 3 bytes"):
        await small.publish(Message("x", b"1234"))
    await normal.publish(Message("x", b"1234"))


@pytest.mark.parametrize(
    "url",
    [
        "memory:///bus",
        "memory://a?max=1",
        "memory://?max_payload=-1",
        "memory://?max_payload=",
        "nats://a",
        "memory://a#b",
    ],
)
def test_a_url_is_refused_when_it_says_something_unknown(url: str) -> None:
    """A URL that would be understood only in part is an error that names it."""
    with pytest.raises(ConfigurationError) as caught:
        MemoryTransport(url)
    assert repr(url) in str(caught.value)


def test_factories_make_what_they_promise() -> None:
    """The kernel's built-in plugin gets one factory for transports and one for stores."""
    service = ServiceInfo(name="x", version="1")
    transport = TRANSPORTS[0].create("memory://a", service)
    assert TRANSPORTS[0].schemes == STORES[0].schemes == ("memory",)
    assert isinstance(transport, DurableTransport)
    assert isinstance(STORES[0].create("memory://a", service), MemoryStore)
    with pytest.raises(ConfigurationError):
        STORES[0].create("memory://a?max_payload=1", service)


async def test_restart_loses_core_messages_and_keeps_durable_ones() -> None:
    """A restart drops what was on its way, keeps subscriptions and streams, and delivers unacked ones again."""
    transport, plain, out = await opened(), Collector[Message](), Collector[Delivery]()
    await transport.subscribe("x", plain)
    await transport.consume(durable(), out)
    await transport.publish_durable(Message("order.a", b"1"), stream="ORDER", message_id="1", timeout_s=1)
    (first,) = await out.at_least(1)
    await transport.publish(Message("x", b"lost"))
    transport.broker.restart()
    await transport.publish(Message("x", b"kept"))
    assert [each.body for each in await plain.at_least(1)] == [b"kept"]
    second = (await out.at_least(2))[1]
    assert (first.attempt, second.attempt) == (1, 2)


async def test_drain_returns_when_a_restart_comes_between() -> None:
    """A drain that waits for messages which a restart loses does not hang."""
    transport, got = await opened(), Collector[Message]()
    subscription = await transport.subscribe("x", got)
    draining = asyncio.create_task(subscription.drain())
    asyncio.get_running_loop().call_soon(transport.broker.restart)
    await transport.publish(Message("x"))
    await asyncio.wait_for(draining, 10)
    assert got.items == []


async def test_a_late_ack_counts_when_the_message_waits_to_come_again() -> None:
    """A message that was given back and not yet delivered again is not, once its late ack comes."""
    transport, out, after = await opened(), Collector[Delivery](), Collector[Delivery]()
    subscription = await transport.consume(durable(), out)
    await put(transport, "1")
    (late,) = await out.at_least(1)
    await subscription.drain()
    transport.broker.restart()
    await late.ack()
    await put(transport, "2")
    await transport.consume(durable(), after)
    assert [each.message_id for each in await after.at_least(1)] == ["2"]


async def test_a_deleted_message_holds_up_nobody() -> None:
    """A message deleted while it was out does not come again, and the next one does."""
    transport, out = await opened(), Collector[Delivery]()
    await transport.consume(durable(max_in_flight=1), out)
    await put(transport, "1", "2")
    (first,) = await out.at_least(1)
    assert await transport.delete("ORDER", 1)
    await first.nak()
    assert [each.message_id for each in await out.at_least(2)] == ["1", "2"]


async def test_a_delivery_is_unaffected_when_an_earlier_one_was_changed() -> None:
    """What a handler does to a message stays with that delivery."""
    transport, out = await opened(), Collector[Delivery]()
    await transport.consume(durable(), out)
    message = Message("order.a", b"x", {"X-One": "1"})
    await transport.publish_durable(message, stream="ORDER", message_id="1", timeout_s=1)
    (first,) = await out.at_least(1)
    assert isinstance(first.message.headers, dict)
    first.message.headers["X-One"] = "changed"
    first.message.body = b"changed"
    await first.nak()
    second = (await out.at_least(2))[1].message
    (stored,) = [each.message async for each in transport.browse("ORDER")]
    for each in (second, stored):
        assert (each.body, each.headers) == (b"x", {"X-One": "1"})


async def test_a_late_ack_is_an_ack_and_a_late_nak_is_nothing() -> None:
    """An ack counts although the message is out again; a nak of an earlier delivery does not disturb the later."""
    transport, out = await opened(), Collector[Delivery]()
    await transport.consume(durable(), out)
    await put(transport, "1", "2")
    await out.at_least(2)
    transport.broker.restart()
    await out.at_least(4)
    await out.items[0].ack()
    await out.items[1].nak()
    await out.items[1].in_progress()
    await asyncio.sleep(0)
    assert len(out.items) == 4
    transport.broker.restart()
    assert [(each.message_id, each.attempt) for each in (await out.at_least(5))[4:]] == [("2", 3)]
    await asyncio.sleep(0)
    assert len(out.items) == 5


async def test_closing_gives_back_deliveries_at_once() -> None:
    """What a closed transport had out goes to another subscriber without waiting for the ack wait."""
    first, second, out, next_out = await opened(), await opened(), Collector[Delivery](), Collector[Delivery]()
    await first.consume(durable(), out)
    await second.publish_durable(Message("order.a"), stream="ORDER", message_id="1", timeout_s=1)
    await out.at_least(1)
    await first.close()
    await second.consume(durable(), next_out)
    assert (await next_out.at_least(1))[0].attempt == 2


async def test_a_consumer_takes_the_pattern_of_its_latest_subscriber() -> None:
    """A service that comes back with another pattern under the same name gets what that matches."""
    transport, out = await opened(), Collector[Delivery]()
    await (await transport.consume(durable(pattern="order.a"), Collector[Delivery]())).drain()
    await transport.consume(durable(pattern="order.b"), out)
    for subject in ("order.a", "order.b"):
        await transport.publish_durable(Message(subject), stream="ORDER", message_id=subject, timeout_s=1)
    assert [each.message.subject for each in await out.at_least(1)] == ["order.b"]


async def test_requests_leave_nothing_behind() -> None:
    """However a request ends, its reply token is forgotten."""
    transport = await opened()
    await transport.subscribe("x", Collector[Message]())
    with pytest.raises(DeadlineExceeded, match=r"request on 'x': no reply within 0\.01 s"):
        await transport.request(Message("x"), 0.01)
    cancelled = asyncio.create_task(transport.request(Message("x"), 60))
    await asyncio.sleep(0)
    assert len(transport.broker.replies) == 1
    cancelled.cancel()
    await asyncio.gather(cancelled, return_exceptions=True)
    assert transport.broker.replies == {}
    broker = transport.broker
    waiting = asyncio.create_task(transport.request(Message("x"), 60))
    await asyncio.sleep(0)
    await transport.close()
    with pytest.raises(ConnectionError, match="was closed"):
        await waiting
    assert broker.replies == {}


async def test_headers_are_refused_each_time_when_they_are_shared() -> None:
    """Those that cannot change are looked at once where they are in order, and again where they are not."""
    transport = await opened()
    await transport.subscribe("x", Collector[Message]())
    for _ in range(2):
        with pytest.raises(InvalidHeader):
            await transport.request(Message("x", headers=SharedHeaders({"A": "1\r\n2"})), 1)
    good, bad = SharedHeaders({"A": "1"}), {"A": "1\r\n2"}
    for headers in (good, good, bad):
        refused = pytest.raises(InvalidHeader if headers is bad else DeadlineExceeded)
        with refused:
            await transport.request(Message("x", headers=headers), 0.01)


async def test_a_transport_can_be_opened_again() -> None:
    """After a close it opens again, with no subscription left from before."""
    transport, before, after = await opened(), Collector[Message](), Collector[Message]()
    await transport.subscribe("x", before)
    await transport.close()
    await transport.open()
    await transport.subscribe("x", after)
    await transport.publish(Message("x"))
    await after.at_least(1)
    assert before.items == []


async def test_subjects_with_ids_do_not_pile_up() -> None:
    """The cache of subjects is bounded, and messages still arrive past the bound."""
    transport, got = await opened(), Collector[Message]()
    await transport.subscribe("x.*", got)
    for number in range(10_050):
        await transport.publish(Message(f"x.{number}"))
    await got.at_least(10_050)
    assert len(transport.broker.routes) <= 10_000


async def test_bodies_and_values_are_bytes_of_their_own() -> None:
    """A bytearray is copied when it is given, and a number is refused rather than taken for a length."""
    transport, store, got = await opened(), MemoryStore(), Collector[Message]()
    await transport.subscribe("x", got)
    await store.open()
    buffer = bytearray(b"before")
    await transport.publish(Message("x", buffer))  # type: ignore[arg-type]  # what a careless caller may do
    await store.put("key", buffer)  # type: ignore[arg-type]  # as above
    buffer[:] = b"after!"
    assert [each.body for each in await got.at_least(1)] == [b"before"]
    assert (await store.get("key") or (b"",))[0] == b"before"
    with pytest.raises(TypeError):
        await store.put("key", 5)  # type: ignore[arg-type]  # as above


@pytest.mark.parametrize("ttl_s", [0, -1, float("nan")])
async def test_a_time_to_live_is_refused_when_it_is_no_time(ttl_s: float) -> None:
    """A TTL that is not above 0 is an error, not a value that never was."""
    store = MemoryStore()
    await store.open()
    with pytest.raises(ValidationError):
        await store.put("key", b"x", ttl_s=ttl_s)
    with pytest.raises(ValidationError):
        await store.acquire("key", "me", ttl_s=ttl_s)


async def test_values_are_forgotten_when_expired_and_never_read() -> None:
    """Keys that nobody asks for again do not pile up."""
    store = MemoryStore("memory://")
    await store.open()
    for number in range(100):
        await store.put(f"{number}", b"x", ttl_s=0.001)
    await asyncio.sleep(0.01)
    await store.put("last", b"x")
    assert list(shared(MemoryKeys, "").values) == ["last"]
