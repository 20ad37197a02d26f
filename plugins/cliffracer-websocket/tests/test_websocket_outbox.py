from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import Any

import pytest
from cliffracer_websocket.outbox import Event, Outbox, OutboxLimits, push_all
from cliffracer_websocket.publication import PLAIN

from cliffracer_core.testing import eventually


def text(value: object) -> Event:
    return {"type": "websocket.send", "text": str(value)}


class Client:
    """The far end of an ASGI `send`: it takes events at once, or when it is let."""

    def __init__(self, **limits: Any) -> None:
        self.got: list[Event] = []
        self.reads = asyncio.Event()
        self.reads.set()
        self.stalled: set[Outbox] = set()
        self.outbox = Outbox(self.send, OutboxLimits(**limits), self.notice, self.stalled)

    async def send(self, event: Event) -> None:
        await self.reads.wait()
        self.got.append(event)

    @staticmethod
    def notice(lost: dict[str, int]) -> Iterable[Event]:
        return PLAIN.notice(lost)

    @property
    def texts(self) -> list[str]:
        return [each["text"] for each in self.got if "text" in each]

    async def catch_up(self) -> list[str]:
        self.reads.set()
        await self.outbox.drained()
        return self.texts


async def test_event_is_sent_at_once_without_a_task_when_the_client_reads() -> None:
    """A client that keeps up costs no task and no queue."""
    client = Client()
    before = len(asyncio.all_tasks())
    client.outbox.push(text(1))
    assert client.texts == ["1"]
    assert len(asyncio.all_tasks()) == before
    assert client.stalled == set()


async def test_order_is_kept_when_a_client_falls_behind_and_catches_up() -> None:
    """What waits goes out first, in the order it was pushed; then nothing waits any more."""
    client = Client()
    client.reads.clear()
    for number in range(20):
        client.outbox.push(text(number))
    assert client.texts == []
    assert client.stalled == {client.outbox}
    assert await client.catch_up() == [str(number) for number in range(20)]
    client.outbox.push(text("after"))
    assert client.texts[-1] == "after"
    assert client.stalled == set()


async def test_slow_client_delays_nobody_when_all_are_sent_to() -> None:
    """While one does not read, the others get everything before the broadcast returns."""
    slow, fast = Client(messages=4), [Client() for _ in range(5)]
    slow.reads.clear()
    boxes = [slow.outbox, *(each.outbox for each in fast)]
    for number in range(100):
        push_all(boxes, text(number), "g")
        assert all(each.texts[-1] == str(number) for each in fast)
    assert slow.texts == []
    await slow.catch_up()


async def test_broadcast_shares_one_event_when_many_get_it() -> None:
    """A frame is encoded once: each `send` gets the same object."""
    clients = [Client() for _ in range(3)]
    event = text("x")
    push_all([each.outbox for each in clients], event)
    assert all(each.got[0] is event for each in clients)


async def test_oldest_is_dropped_and_the_gap_told_when_the_queue_is_full() -> None:
    """Policy `drop_oldest`: the latest stay, and a notice before them says how many are gone, and of what."""
    client = Client(messages=3)
    client.reads.clear()
    for number in range(10):
        client.outbox.push(text(number), "room")
    assert client.outbox.waiting == 3
    texts = await client.catch_up()
    assert texts == ["0", '{"type":"gap","dropped":6,"groups":{"room":6}}', "7", "8", "9"]
    assert client.outbox.dropped == 6


async def test_latest_of_a_key_stays_when_the_policy_conflates() -> None:
    """Policy `conflate`: a later message takes the place of a waiting one of its key, and no gap is told."""
    client = Client(policy="conflate", messages=3)
    client.reads.clear()
    client.outbox.push(text("first"), "prices")
    for number in range(50):
        client.outbox.push(text(f"a{number}"), "prices", "a")
        client.outbox.push(text(f"b{number}"), "prices", "b")
    assert await client.catch_up() == ["first", "a49", "b49"]
    assert client.outbox.dropped == 0


async def test_latest_of_a_key_outlives_older_messages_when_the_queue_overflows() -> None:
    """What is dropped is the oldest message, though a newer one may stand in an older place."""
    client = Client(policy="conflate", messages=3)
    client.reads.clear()
    client.outbox.push(text("first"))
    for number in range(10):
        client.outbox.push(text(f"price {number}"), "g", "price")
        client.outbox.push(text(f"news {number}"), "g")
    gap = '{"type":"gap","dropped":8,"groups":{"g":8}}'
    assert await client.catch_up() == ["first", gap, "price 9", "news 8", "news 9"]


async def test_replaced_message_takes_no_room_when_the_policy_conflates() -> None:
    """What waits is counted, not what was replaced; a last message that is longer counts as long as it is."""
    client = Client(policy="conflate", bytes=1000)
    client.reads.clear()
    client.outbox.push(text("first"))
    client.outbox.push(text("y" * 200), "g", "other")
    for _ in range(50):
        client.outbox.push(text("x" * 300), "g", "k")
    assert (client.outbox.waiting, client.outbox.dropped) == (2, 0)
    client.outbox.push(text("x" * 900), "g", "k")
    client.outbox.push(text("z"), "g")
    assert client.outbox.dropped == 1
    assert await client.catch_up() == ["first", '{"type":"gap","dropped":1,"groups":{"g":1}}', "x" * 900, "z"]


async def test_same_key_of_two_groups_is_two_when_the_policy_conflates() -> None:
    """A key belongs to its group."""
    client = Client(policy="conflate")
    client.reads.clear()
    client.outbox.push(text(0))
    client.outbox.push(text(1), "one", "k")
    client.outbox.push(text(2), "two", "k")
    assert await client.catch_up() == ["0", "1", "2"]


async def test_socket_is_closed_with_1013_when_the_policy_disconnects() -> None:
    """Policy `disconnect`: what waits is let go, the close frame says why, and nothing follows."""
    client = Client(policy="disconnect", messages=3)
    client.reads.clear()
    for number in range(10):
        client.outbox.push(text(number))
    assert client.outbox.closed
    assert await client.catch_up() == ["0"]
    assert client.got[-1]["type"] == "websocket.close"
    assert client.got[-1]["code"] == 1013


async def test_queue_is_bounded_in_bytes_when_messages_are_long() -> None:
    """Few long messages are too much as well as many short ones."""
    client = Client(messages=1000, bytes=1000)
    client.reads.clear()
    for _ in range(50):
        client.outbox.push(text("x" * 300))
    assert client.outbox.waiting == 3
    await client.catch_up()


async def test_nothing_is_sent_when_the_outbox_is_closed() -> None:
    """After the close frame there is silence."""
    client = Client()
    client.outbox.close(1000, "done")
    client.outbox.push(text("late"))
    push_all([client.outbox], text("later"))
    assert [each["type"] for each in client.got] == ["websocket.close"]


async def test_outbox_closes_when_the_server_refuses_an_event() -> None:
    """A send that fails, at once or later, ends this client and no other."""

    async def broken(event: Event) -> None:
        raise RuntimeError("gone")

    async def broken_later(event: Event) -> None:
        await asyncio.sleep(0)
        raise RuntimeError("gone")

    for send in (broken, broken_later):
        outbox = Outbox(send, OutboxLimits(), PLAIN.notice, set())
        other = Client()
        push_all([outbox, other.outbox], text(1))
        await outbox.drained()
        assert outbox.closed
        assert other.texts == ["1"]


async def test_awaitable_that_is_no_coroutine_is_sent_too() -> None:
    """A server whose `send` returns a future is served as well."""
    got: list[Event] = []
    loop = asyncio.get_running_loop()

    def send(event: Event) -> asyncio.Future[None]:
        got.append(event)
        future = loop.create_future()
        loop.call_soon(future.set_result, None)
        return future

    outbox = Outbox(send, OutboxLimits(), PLAIN.notice, set())
    outbox.push(text(1))
    outbox.push(text(2))
    await outbox.drained()
    assert [each["text"] for each in got] == ["1", "2"]


async def test_waiting_send_sees_the_cancellation_when_it_is_forgotten() -> None:
    """Forgetting a client cancels the send it waits in, which cleans up as any coroutine does."""
    cleaned = asyncio.Event()

    async def send(event: Event) -> None:
        try:
            await asyncio.Event().wait()
        finally:
            cleaned.set()

    stalled: set[Outbox] = set()
    outbox = Outbox(send, OutboxLimits(), PLAIN.notice, stalled)
    outbox.push(text(1))
    outbox.push(text(2))
    await asyncio.sleep(0)
    outbox.forget()
    await eventually(cleaned.is_set)
    await outbox.drained()
    assert stalled == set()
    assert outbox.waiting == 0


@pytest.mark.parametrize("group", ["a", "b"])
async def test_messages_of_one_group_go_when_it_is_discarded(group: str) -> None:
    """Letting go of a group leaves what waits of others."""
    client = Client()
    client.reads.clear()
    client.outbox.push(text("in the air"))
    for name in ("a", "b", "a"):
        client.outbox.push(text(name), name)
    assert client.outbox.discard(group) == {"a": 2, "b": 1}[group]
    assert group not in await client.catch_up()
