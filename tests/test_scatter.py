"""Scatter-gather: one request to every replica, and what they answer, until enough came or it is time."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import msgspec
import pytest

from cliffracer_core import (
    ClientProxy,
    CliffracerService,
    DeadlineExceeded,
    EncodingError,
    InvalidSubject,
    MessageContext,
    MessagePattern,
    NoHandler,
    Overloaded,
    ReplicaReply,
    RPCError,
    ServiceConfig,
    ServiceError,
    Transport,
    ValidationError,
    rpc,
)
from cliffracer_core.caller import Caller
from cliffracer_core.messages import MSGPACK, Message
from cliffracer_core.testing import Collector, eventually


class Status(msgspec.Struct):
    """For these tests."""

    replica: int


class Broken(ServiceError, code="scatter_broken", status=409):
    """An error with a code of its own."""


class Replica(CliffracerService):
    """One of several; each may fail or wait in its own way."""

    def __init__(self, name: str, url: str, number: int, **values: Any) -> None:
        super().__init__(ServiceConfig(name, transport=url, **values))
        self.number = number
        self.error: Exception | None = None
        self.proceed = asyncio.Event()
        self.proceed.set()
        self.began = asyncio.Event()
        self.cut = asyncio.Event()

    @rpc
    async def status(self, delta: int = 0) -> Status:
        self.began.set()
        try:
            await self.proceed.wait()
        except asyncio.CancelledError:
            self.cut.set()
            raise
        if self.error is not None:
            raise self.error
        return Status(self.number + delta)

    @rpc
    async def numbers(self) -> AsyncIterator[int]:
        yield self.number


@pytest.fixture
async def replicas(transport_url: str, name: str) -> AsyncIterator[list[Replica]]:
    """Three running replicas of one service."""
    made = [Replica(name, transport_url, number) for number in range(3)]
    async with made[0], made[1], made[2]:
        yield made


def boxes(caller: Caller) -> int:
    return sum(len(each.boxes) for each in caller._inboxes.values())


async def test_every_replica_answers_when_all_are_called(replicas: list[Replica], caller: Caller, name: str) -> None:
    """Each replica answers once, with its id and a value of the type asked for."""
    replies = await caller.call_all(name, "status", {"delta": 10}, returns=Status, count=3, timeout=10)
    ids = {each.info.id: Status(each.number + 10) for each in replicas}
    assert {each.instance: each.result() for each in replies} == ids
    assert len(replies) == 3
    assert boxes(caller) == 0


async def test_collecting_ends_when_it_is_quiet(replicas: list[Replica], caller: Caller, name: str) -> None:
    """Without a count, a pause after a reply ends it, long before the deadline; the one left out is cancelled."""
    replicas[1].proceed.clear()
    async with asyncio.timeout(10):
        replies = await caller.call_all(name, "status", returns=Status, quiet_s=0.3, timeout=60)
        assert {each.value.replica for each in replies} == {0, 2}
        await replicas[1].cut.wait()
    assert boxes(caller) == 0


async def test_first_reply_has_the_whole_time_when_it_is_slow(
    replicas: list[Replica], caller: Caller, name: str
) -> None:
    """The quiet pause counts from the first reply on, not from the request."""
    for each in replicas:
        each.proceed.clear()
    call = asyncio.create_task(caller.call_all(name, "status", quiet_s=0.1, timeout=30))
    for each in replicas:
        await each.began.wait()
    done, _ = await asyncio.wait([call], timeout=0.3)
    assert not done
    for each in replicas:
        each.proceed.set()
    assert len(await call) == 3


async def test_collecting_ends_when_there_are_enough(replicas: list[Replica], caller: Caller, name: str) -> None:
    """With a count, it ends with that reply, and who has not answered is cancelled."""
    replicas[0].proceed.clear()
    replicas[1].proceed.clear()
    async with asyncio.timeout(10):
        replies = await caller.call_all(name, "status", returns=Status, count=1, quiet_s=None, timeout=60)
        assert [each.value.replica for each in replies] == [2]
        for each in replicas[:2]:
            if each.began.is_set():
                await each.cut.wait()
    await eventually(lambda: all(each.runtime.scope.idle for each in replicas))


async def test_collecting_ends_when_the_deadline_comes(replicas: list[Replica], caller: Caller, name: str) -> None:
    """At the deadline what came is the result; where nothing came, it is DeadlineExceeded."""
    replicas[0].proceed.clear()
    replies = await caller.call_all(name, "status", returns=Status, quiet_s=None, timeout=0.8)
    # a replica that met the deadline itself may still get its word in
    assert {each.value.replica for each in replies if each.error is None} == {1, 2}
    for each in replicas:
        each.proceed.clear()
    try:
        late = await caller.call_all(name, "status", quiet_s=None, timeout=0.3)
        assert all(isinstance(each.error, DeadlineExceeded) for each in late)
    except DeadlineExceeded:
        pass
    await eventually(lambda: all(each.runtime.scope.idle for each in replicas))
    assert boxes(caller) == 0


async def test_error_stands_beside_values_when_one_replica_fails(
    replicas: list[Replica], caller: Caller, name: str
) -> None:
    """What a replica raised is its reply, as its own class; the others' values are there all the same."""
    replicas[1].error = Broken("disk full", details={"free": 0})
    replies = await caller.call_all(name, "status", returns=Status, count=3, timeout=10)
    by_id = {each.instance: each for each in replies}
    failed = by_id.pop(replicas[1].info.id)
    assert isinstance(failed.error, Broken)
    assert (failed.error.details, failed.error.service, failed.value) == ({"free": 0}, name, None)
    with pytest.raises(Broken, match="disk full"):
        failed.result()
    assert {each.value.replica for each in by_id.values()} == {0, 2}


async def test_reply_is_an_error_when_its_type_is_another(replicas: list[Replica], caller: Caller, name: str) -> None:
    """A value that does not fit what is expected is that replica's error."""
    replies = await caller.call_all(name, "status", returns=int, count=3, timeout=10)
    assert [type(each.error) for each in replies] == [RPCError] * 3


async def test_call_fails_at_once_when_no_replica_is_there(transport_url: str, caller: Caller, name: str) -> None:
    """Nobody there is NoHandler at once, and nothing is left behind."""
    async with asyncio.timeout(10):
        with pytest.raises(NoHandler):
            await caller.call_all(name, "status", timeout=3600)
    assert boxes(caller) == 0


@pytest.mark.parametrize("method", ["nothing", "numbers"])
async def test_replica_says_so_when_it_has_no_such_method(
    replicas: list[Replica], caller: Caller, name: str, method: str
) -> None:
    """A method that replicas lack, or that streams, is NoHandler from each of them."""
    replies = await caller.call_all(name, method, count=3, timeout=10)
    assert [type(each.error) for each in replies] == [NoHandler] * 3
    assert {each.instance for each in replies} == {each.info.id for each in replicas}


async def test_replica_says_so_when_it_is_overloaded(transport_url: str, caller: Caller, name: str) -> None:
    """Limits hold for these calls, too: one gate for a handler, however it is called."""
    replica = Replica(name, transport_url, 0, concurrency=1, queue_size=0)
    async with replica:
        replica.proceed.clear()
        busy = asyncio.create_task(caller.call(name, "status"))
        await replica.began.wait()
        (reply,) = await caller.call_all(name, "status", count=1, timeout=10)
        assert isinstance(reply.error, Overloaded)
        replica.proceed.set()
        await busy


async def test_replicas_are_cancelled_when_the_caller_is(replicas: list[Replica], caller: Caller, name: str) -> None:
    """A caller that is cancelled takes the handlers of all replicas with it."""
    for each in replicas:
        each.proceed.clear()
    call = asyncio.create_task(caller.call_all(name, "status", timeout=60))
    async with asyncio.timeout(10):
        for each in replicas:
            await each.began.wait()
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call
        for each in replicas:
            await each.cut.wait()
    assert boxes(caller) == 0


async def test_call_is_refused_when_it_cannot_be_sent(replicas: list[Replica], caller: Caller, name: str) -> None:
    """What cannot be sent is an error before anything is."""
    with pytest.raises(InvalidSubject):
        await caller.call_all(name, "a.b")
    with pytest.raises(EncodingError):
        await caller.call_all(name, "status", {"delta": object()})
    with pytest.raises(ValidationError):
        await caller.call_all(name, "status", timeout=-1)
    with pytest.raises(ValidationError, match="count"):
        await caller.call_all(name, "status", count=0)
    assert boxes(caller) == 0


async def test_proxy_asks_all_by_pattern(transport_url: str, replicas: list[Replica], name: str) -> None:
    """A script asks by `<service>.<method>`; another form of pattern is refused."""
    async with ClientProxy(transport_url) as proxy:
        replies = await proxy.call_all(f"{name}.status", {"delta": 5}, returns=Status, count=3, timeout=10)
        assert sorted(each.value.replica for each in replies) == [5, 6, 7]
        for pattern in (name, f"{name}.a.b", f"{name}.*"):
            with pytest.raises(InvalidSubject):
                await proxy.call_all(pattern)


async def test_any_client_can_ask_all_when_it_takes_many_replies(
    replicas: list[Replica], raw: Transport, name: str
) -> None:
    """Without our header replicas answer the reply subject itself, so `nats request --replies` works."""
    seen = Collector[Message]()
    await raw.subscribe(f"{name}.answers", seen)
    await raw.publish(Message(f"rpc.{name}.$all.status", b"{}", None, f"{name}.answers"))
    answers = await seen.at_least(3)
    assert sorted(json.loads(each.body)["replica"] for each in answers) == [0, 1, 2]
    assert {(each.headers or {})["X-Instance-ID"] for each in answers} == {each.info.id for each in replicas}


async def test_pattern_handler_stays_out_when_all_are_called(transport_url: str, caller: Caller, name: str) -> None:
    """A handler under a wildcard does not take what is meant for all replicas of a service."""
    seen: list[str] = []

    class Spy(CliffracerService):
        @MessagePattern(f"{name}.>")
        async def spy(self, context: MessageContext) -> None:
            seen.append(context.subject)

    async with Spy(ServiceConfig(f"{name}-spy", transport=transport_url)), Replica(name, transport_url, 7):
        replies = await caller.call_all(name, "status", returns=Status, timeout=10)
        assert [each.value for each in replies] == [Status(7)]
    assert seen == []


async def test_values_are_messagepack_when_the_request_is(
    transport_url: str, replicas: list[Replica], name: str
) -> None:
    """Replies follow the request's encoding."""
    async with CliffracerService(ServiceConfig("c", transport=transport_url, content_type=MSGPACK.content_type)) as own:
        replies: list[ReplicaReply] = await own.caller.call_all(name, "status", returns=Status, count=3, timeout=10)
    assert {each.result().replica for each in replies} == {0, 1, 2}


async def test_one_replica_answers_when_called_as_ever(replicas: list[Replica], caller: Caller, name: str) -> None:
    """A plain call still runs at one replica alone."""
    assert isinstance(await caller.call(name, "status", returns=Status), Status)
    assert sum(each.began.is_set() for each in replicas) == 1
