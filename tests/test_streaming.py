"""Streamed replies: items in order, no further ahead than there is room for, and an end that both sides learn of."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncGenerator, AsyncIterator
from typing import Any, cast

import msgspec
import pytest

from cliffracer_core import (
    ClientProxy,
    CliffracerService,
    ConfigurationError,
    ConnectionError,
    DeadlineExceeded,
    EncodingError,
    InvalidHeader,
    MessageContext,
    MessagePattern,
    MessageTooLarge,
    Middleware,
    NoHandler,
    Overloaded,
    RPCError,
    ServiceConfig,
    ServiceError,
    Transport,
    ValidationError,
    client,
    current_context,
    get_correlation_id,
    handle_errors,
    hookimpl,
    rpc,
    with_correlation_id,
)
from cliffracer_core.caller import Caller
from cliffracer_core.interfaces import Call, Capabilities
from cliffracer_core.memory import MemoryTransport
from cliffracer_core.messages import MSGPACK, Message
from cliffracer_core.testing import Collector, eventually


class Row(msgspec.Struct):
    """For these tests."""

    number: int


class Torn(ServiceError, code="streaming_torn", status=409):
    """An error with a code of its own."""


class Source(CliffracerService):
    """A service with a generator, and what became of it."""

    def __init__(self, name: str, url: str, **values: Any) -> None:
        super().__init__(ServiceConfig(name, transport=url, **values))
        self.made = 0
        self.closed = asyncio.Event()
        self.closed_in_its_task = True
        self.proceed = asyncio.Event()
        self.proceed.set()

    @rpc
    async def count(self, n: int = 1_000_000, fail_after: int = -1) -> AsyncIterator[Row]:
        task = asyncio.current_task()
        try:
            for number in range(n):
                if number == fail_after:
                    raise Torn("the tape is torn", details={"number": number})
                await self.proceed.wait()
                self.made += 1
                yield Row(number)
        finally:
            await asyncio.sleep(0)
            self.closed_in_its_task &= asyncio.current_task() is task
            self.closed.set()

    @rpc
    async def single(self) -> str:
        return "one"

    @property
    def streams(self) -> int:
        listening = self.runtime.listening
        assert listening is not None
        return sum(len(each.streams) for each in listening._controls.values())

    async def ended(self) -> None:
        """Return when the generator is closed and its slot is free."""
        async with asyncio.timeout(10):
            await self.closed.wait()
        await eventually(lambda: self.streams == 0 and self.runtime.scope.idle)
        assert not self.runtime.scope.runs
        assert self.closed_in_its_task


@pytest.fixture
async def source(transport_url: str, name: str) -> AsyncIterator[Source]:
    """A running `Source` under `name`."""
    made = Source(name, transport_url)
    async with made:
        yield made


async def drop(items: AsyncIterator[Any], into: list[Any] | None = None) -> None:
    """Consume all, pausing after each so that the loop goes round; keep the items where a list is given."""
    async for item in items:
        await asyncio.sleep(0)
        if into is not None:
            into.append(item)


def boxes(caller: Caller) -> int:
    return sum(len(each.boxes) for each in caller._inboxes.values())


@pytest.mark.parametrize("window", [1, 2, 3, 64])
async def test_items_come_in_order_when_a_handler_yields(
    source: Source, caller: Caller, name: str, window: int
) -> None:
    """All items arrive, once each, in order and in their type, whatever the window."""
    items = [each async for each in caller.stream(name, "count", {"n": 300}, returns=Row, window=window)]
    assert items == [Row(number) for number in range(300)]
    await source.ended()
    assert boxes(caller) == 0


async def test_stream_ends_at_once_when_there_are_no_items(source: Source, caller: Caller, name: str) -> None:
    """A generator that yields nothing is a stream of no items."""
    assert [each async for each in caller.stream(name, "count", {"n": 0})] == []
    await source.ended()


async def test_producer_waits_when_its_consumer_is_slow(source: Source, caller: Caller, name: str) -> None:
    """The generator is at most `window` items ahead of what was taken, and goes on as items are taken."""
    items = caller.stream(name, "count", window=4)
    taken = 0
    async with contextlib.aclosing(items):
        async for _ in items:
            taken += 1
            await eventually(lambda ahead=taken: source.made > ahead)  # type: ignore[misc]  # mypy cannot infer it
            for _ in range(20):  # would be ahead by now if anything let it
                await caller.transport().flush()
                await source.caller.transport().flush()
            assert source.made <= taken + 4
            if taken == 12:
                break
    await source.ended()


async def test_generator_is_closed_when_the_consumer_breaks(source: Source, caller: Caller, name: str) -> None:
    """Leaving the loop closes the generator at the callee: its finally runs, its slot is free."""
    async for item in caller.stream(name, "count", returns=Row):
        if item.number == 3:
            break
    await source.ended()
    assert source.made < 200
    await eventually(lambda: boxes(caller) == 0)


async def test_generator_is_closed_when_the_consumer_is_cancelled(source: Source, caller: Caller, name: str) -> None:
    """A consumer that is cancelled while it waits for an item takes the generator with it, wherever that waits."""
    got = asyncio.Event()

    async def consume() -> None:
        async for _ in caller.stream(name, "count"):
            source.proceed.clear()
            got.set()

    task = asyncio.create_task(consume())
    await got.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await source.ended()
    assert boxes(caller) == 0


async def test_generator_is_closed_when_the_consumer_gives_up_before_the_first_item(
    transport_url: str, caller: Caller, name: str
) -> None:
    """A consumer that is cancelled while its call waits for a slot leaves nothing behind."""
    source = Source(name, transport_url, concurrency=1)
    async with source:
        first = caller.stream(name, "count", window=1)
        await anext(first)
        second = asyncio.create_task(anext(caller.stream(name, "count")))
        endpoint = source.runtime.handlers["count"]
        await eventually(lambda: len(endpoint.gate.waiting) == 1)
        second.cancel()
        with pytest.raises(asyncio.CancelledError):
            await second
        await first.aclose()
        await source.ended()
        assert boxes(caller) == 0


async def test_error_is_typed_when_the_generator_fails_midway(source: Source, caller: Caller, name: str) -> None:
    """The items before an error arrive, then the error as its own class."""
    got: list[Row] = []
    with with_correlation_id("stream-1"), pytest.raises(Torn, match="the tape is torn") as caught:
        await drop(caller.stream(name, "count", {"fail_after": 5}, returns=Row), got)
    assert got == [Row(number) for number in range(5)]
    assert caught.value.details == {"number": 5}
    assert (caught.value.service, caught.value.correlation_id) == (name, "stream-1")
    await source.ended()


async def test_error_is_masked_when_it_is_unexpected(
    transport_url: str, caller: Caller, name: str, caplog: pytest.LogCaptureFixture
) -> None:
    """An unexpected exception in a generator is `internal error` at the caller and a trace in the log."""
    service = CliffracerService(ServiceConfig(name, transport=transport_url))

    @service.rpc
    async def leak() -> AsyncIterator[int]:
        yield 1
        raise RuntimeError("secret")

    async with service:
        items = caller.stream(name, "leak")
        assert await anext(items) == 1
        with pytest.raises(ServiceError, match="internal error") as caught:
            await anext(items)
    assert "secret" not in str(caught.value)
    assert "secret" in caplog.text


@pytest.mark.parametrize(("value", "error"), [(object(), EncodingError), ("x" * 2_000_000, MessageTooLarge)])
async def test_error_is_typed_when_an_item_cannot_be_sent(
    transport_url: str, caller: Caller, name: str, value: object, error: type[ServiceError]
) -> None:
    """An item without an encoding, or too large, ends the stream with what was wrong."""
    service = CliffracerService(ServiceConfig(name, transport=transport_url))

    @service.rpc
    async def odd() -> AsyncIterator[Any]:
        yield 1
        yield value

    async with service:
        items = caller.stream(name, "odd")
        assert await anext(items) == 1
        with pytest.raises(error):
            await anext(items)


async def test_errors_before_the_first_item_are_those_of_a_call(source: Source, caller: Caller, name: str) -> None:
    """Nobody there, a wrong argument, a wrong window, a handler that does not stream: typed, before any item."""
    for service, method, arguments, expected in (
        ("nobody", "count", {}, NoHandler),
        (name, "count", {"n": "x"}, ValidationError),
        (name, "single", {}, RPCError),
    ):
        with pytest.raises(expected):
            await anext(caller.stream(service, method, arguments))
    with pytest.raises(RPCError, match="no stream; call it with call"):
        await anext(caller.stream(name, "single"))
    for window in (0, True, 10**9):
        with pytest.raises(ValidationError, match="window"):
            await anext(caller.stream(name, "count", window=window))
    with pytest.raises(ValidationError, match=r"streams its reply; call it with stream\(\)"):
        await caller.call(name, "count")
    assert boxes(caller) == 0


async def test_producer_is_cancelled_when_the_next_item_takes_too_long(
    source: Source, caller: Caller, name: str
) -> None:
    """A gap longer than the timeout ends the stream on both sides with DeadlineExceeded; a longer whole does not."""
    items = caller.stream(name, "count", returns=Row, timeout=0.3)
    await anext(items)
    for _ in range(8):  # 0.4 s in all, each gap well within its time
        await asyncio.sleep(0.05)
        await anext(items)
    source.proceed.clear()
    with pytest.raises(DeadlineExceeded):
        await drop(items)
    await source.ended()
    assert boxes(caller) == 0


async def test_consumer_is_told_in_time_when_the_producer_is_gone(raw: Transport, caller: Caller, name: str) -> None:
    """A producer that accepts and dies without a word costs the consumer one gap."""
    control = Collector[Message]()
    await raw.subscribe(f"{name}.control", control)
    sending: list[asyncio.Future[None]] = []

    def accept(request: Message) -> None:
        assert request.reply_to is not None
        body = msgspec.json.encode({"type": "stream", "control": f"{name}.control", "gap_ms": 1000})
        sending.append(asyncio.ensure_future(raw.publish(Message(request.reply_to, body))))

    await raw.subscribe(f"rpc.{name}.count", accept)
    with pytest.raises(DeadlineExceeded, match="no item of"):
        await anext(caller.stream(name, "count", timeout=0.2))
    assert (await control.until(lambda message: message.body == b"stop")).subject == f"{name}.control"


async def test_slow_consumer_keeps_its_stream_when_it_lives(source: Source, caller: Caller, name: str) -> None:
    """A consumer that takes longer than the gap over one item is not given up: it shows signs of life."""
    items = caller.stream(name, "count", {"n": 3}, returns=Row, timeout=0.5, window=1)
    got = [(await anext(items)).number]
    await asyncio.sleep(1.3)  # more than two gaps
    got += [item.number async for item in items]
    assert got == [0, 1, 2]


async def open_stream(raw: Transport, name: str, control: Collector[Message], **headers: str) -> Message:
    """Ask for a stream as another client would, with an inbox that nobody tends."""
    await raw.subscribe(f"{name}.inbox", control)
    wanted = {"Stream-To": f"{name}.inbox", "Stream-Window": "2", "Stream-Gap-Ms": "200"}
    wanted |= {key.replace("_", "-"): value for key, value in headers.items()}
    return await raw.request(Message(f"rpc.{name}.count", b"{}", wanted), 10)


async def test_generator_is_closed_when_its_consumer_died(
    source: Source, raw: Transport, name: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Without credits for one gap the producer gives its consumer up, and the generator does not hang."""
    seen = Collector[Message]()
    reply = await open_stream(raw, name, seen)
    assert msgspec.json.decode(reply.body)["type"] == "stream"
    assert [each.body for each in (await seen.at_least(2))[:2]] == [b'{"number":0}', b'{"number":1}']
    await source.ended()
    assert source.made == 2
    assert "its consumer was not heard of" in caplog.text


async def test_generator_is_closed_at_once_when_the_server_knows_its_consumer_is_gone(nats_url: str, name: str) -> None:
    """Where NATS says that nobody hears the items, the producer does not wait for the gap to end."""
    source = Source(name, nats_url)
    async with source, ClientProxy(nats_url) as proxy:
        nobody = {"Stream-To": f"{name}.nobody", "Stream-Window": "1", "Stream-Gap-Ms": "200000"}
        await proxy.caller.transport().request(Message(f"rpc.{name}.count", b"{}", nobody), 10)
        await source.ended()
    assert source.made == 1


async def test_wire_is_as_documented_when_another_client_consumes(source: Source, raw: Transport, name: str) -> None:
    """Credits are totals on the control subject; items are numbered; the end says how many there were."""
    seen = Collector[Message]()
    control = json.loads((await open_stream(raw, name, seen, Stream_Gap_Ms="10000")).body)["control"]
    await seen.at_least(2)
    await raw.publish(Message(control, b"4"))
    await raw.publish(Message(control, b"1"))  # late: takes nothing back
    items = await seen.at_least(4)
    assert [dict(each.headers or {}) for each in items] == [{"Stream-Seq": str(n)} for n in (1, 2, 3, 4)]
    assert {each.reply_to for each in items} == {control}
    await raw.publish(Message(control, b"stop"))
    await source.ended()
    assert source.made == 4


async def test_error_is_sent_when_the_producer_itself_sees_the_gap(source: Source, raw: Transport, name: str) -> None:
    """The producer keeps to the gap by its own clock, whatever the consumer does, and says so."""
    seen = Collector[Message]()
    source.proceed.clear()
    control = json.loads((await open_stream(raw, name, seen, Stream_Gap_Ms="300")).body)["control"]

    async def refused() -> bool:
        await raw.publish(Message(control, b"2"))  # alive
        return bool(seen.items)

    await eventually(refused)
    body = json.loads(seen.items[0].body)
    assert (body["type"], body["message"]) == (
        "deadline_exceeded",
        f"{name}.count gave no item within 0.3 s and was cancelled",
    )
    await source.ended()


async def test_stream_goes_on_when_the_time_of_its_request_is_over(source: Source, raw: Transport, name: str) -> None:
    """`Timeout-Ms` holds until the reply; after that the gap alone counts."""
    seen = Collector[Message]()
    reply = await open_stream(raw, name, seen, Stream_Gap_Ms="10000", Timeout_Ms="150")
    await seen.at_least(2)
    await asyncio.wait([asyncio.ensure_future(source.closed.wait())], timeout=0.4)
    await raw.publish(Message(json.loads(reply.body)["control"], b"3"))
    await seen.at_least(3)
    assert seen.items[2].body == b'{"number":2}'
    await raw.publish(Message(json.loads(reply.body)["control"], b"stop"))
    await source.ended()


@pytest.mark.parametrize("header", ["Stream-Window", "Stream-Gap-Ms"])
@pytest.mark.parametrize("value", ["0", "x", "1.5", "9" * 30])
async def test_request_is_refused_when_a_stream_header_is_wrong(
    source: Source, raw: Transport, name: str, header: str, value: str
) -> None:
    """A header that is no whole number above 0 is named, and the generator never runs."""
    reply = await open_stream(raw, name, Collector(), **{header: value})
    assert json.loads(reply.body)["type"] == InvalidHeader.code
    assert source.made == 0


async def test_lost_item_is_an_error_when_numbers_do_not_follow(raw: Transport, caller: Caller, name: str) -> None:
    """A consumer never skips an item in silence, nor one that was the last."""
    for headers in ({"Stream-Seq": "4"}, {"Stream-End": "3"}):
        control, sending = f"{name}.control", list[asyncio.Task[None]]()

        async def answer(request: Message, last: dict[str, str] = headers, control: str = control) -> None:
            to = (request.headers or {})["Stream-To"]
            body = msgspec.json.encode({"type": "stream", "control": control, "gap_ms": 1000})
            await raw.publish(Message(cast(str, request.reply_to), body))
            await raw.publish(Message(to, b"9", {"Stream-Seq": "1"}, "an.other.attempt"))  # not of this stream
            await raw.publish(Message(to, b"1", {"Stream-Seq": "1"}, control))
            await raw.publish(Message(to, b"1", {"Stream-Seq": "1"}, control))  # twice: taken once
            await raw.publish(Message(to, b"2", {"Stream-Seq": "2"}, control))
            await raw.publish(Message(to, b"", last, control))

        subscription = await raw.subscribe(
            f"rpc.{name}.count",
            lambda message, answer=answer, sending=sending: sending.append(asyncio.create_task(answer(message))),  # type: ignore[misc]
        )
        items = caller.stream(name, "count")
        assert [await anext(items), await anext(items)] == [1, 2]
        with pytest.raises(ConnectionError, match="lost items"):
            await anext(items)
        await asyncio.gather(*sending)
        await subscription.drain()


async def test_consumer_gets_an_error_when_the_service_stops(
    transport_url: str, caller: Caller, name: str, caplog: pytest.LogCaptureFixture
) -> None:
    """A stream still under way at the end of the grace time ends with Overloaded, and its generator is closed."""
    source = Source(name, transport_url, shutdown_grace_s=1.5)  # a fifth of it is left to tell the consumer
    await source.start()
    items = caller.stream(name, "count", window=2)
    await anext(items)
    stopping = asyncio.create_task(source.stop())
    with pytest.raises(Overloaded, match="its service stops"):
        await drop(items)
    await stopping
    assert source.closed.is_set()


async def test_stream_comes_to_its_end_when_the_service_stops_in_time(
    transport_url: str, caller: Caller, name: str
) -> None:
    """Within the grace time a stream that was accepted is finished."""
    source = Source(name, transport_url)
    await source.start()
    items = caller.stream(name, "count", {"n": 50}, returns=Row, window=2)
    await anext(items)
    stopping = asyncio.create_task(source.stop())
    assert [item.number async for item in items] == list(range(1, 50))
    await stopping


async def test_consumer_gets_an_error_when_its_transport_closes(source: Source, transport_url: str, name: str) -> None:
    """A consumer whose own connection is closed under it does not wait for the gap to end."""
    proxy = ClientProxy(transport_url)
    items = proxy.stream(f"{name}.count", timeout=1.5, window=1)
    await anext(items)
    source.proceed.clear()
    rest = asyncio.create_task(drop(items))
    (inbox,) = proxy.caller._inboxes.values()
    (box,) = inbox.boxes.values()
    await eventually(lambda: box._waiter is not None and not box._waiter.done())
    await proxy.close()
    with pytest.raises(ConnectionError):
        await rest
    await source.ended()


async def test_slot_is_taken_while_a_stream_runs(transport_url: str, caller: Caller, name: str) -> None:
    """A stream counts against the handler's concurrency until it ends."""
    source = Source(name, transport_url, concurrency=1, queue_size=0)
    async with source:
        items = caller.stream(name, "count", window=1)
        await anext(items)
        with pytest.raises(Overloaded):
            await anext(caller.stream(name, "count"))
        await items.aclose()
        await source.ended()
        assert [each async for each in caller.stream(name, "count", {"n": 1}, returns=Row)] == [Row(0)]


class Layers:
    """A plugin whose layers note what they see."""

    def __init__(self) -> None:
        self.seen: list[str] = []

    @hookimpl
    def cliffracer_register_middleware(self) -> list[Middleware]:
        def wrap(next: Call) -> Call:
            async def call(context: MessageContext) -> object:
                self.seen.append("before")
                try:
                    return await next(context)
                finally:
                    self.seen.append("after")

            return call

        return [Middleware("observe", 0, wrap, "note")]


async def test_layers_wrap_the_whole_stream_when_there_are_some(transport_url: str, caller: Caller, name: str) -> None:
    """The generator runs inside the chain, in the task and context of its call, deadline of the gap included."""
    layers = Layers()
    service = CliffracerService(ServiceConfig(name, transport=transport_url), plugins={"layers": layers})
    tasks: list[object] = []
    deadlines: list[float | None] = []

    @service.rpc
    async def watch(context: MessageContext) -> AsyncIterator[str | None]:
        for _ in range(3):
            assert current_context() is context
            assert 0 < (context.remaining_s() or 0) <= 5
            tasks.append(asyncio.current_task())
            deadlines.append(context.deadline)
            layers.seen.append("item")
            yield get_correlation_id()

    async with service:
        with with_correlation_id("abc"):
            got = [each async for each in caller.stream(name, "watch", timeout=5)]
        await eventually(lambda: layers.seen[-1] == "after")
    assert got == ["abc"] * 3
    assert layers.seen == ["before", "item", "item", "item", "after"]
    assert len(set(tasks)) == 1
    assert len(set(deadlines)) == 3  # each item has the whole gap


async def test_stream_fails_when_an_error_handler_answers_in_its_place(
    transport_url: str, caller: Caller, name: str
) -> None:
    """What answers in place of a generator does not make a stream look complete."""
    source = Source(name, transport_url)
    source.error_handler(Torn)(lambda error: "fine")
    async with source:
        with pytest.raises(ServiceError, match="answered in place of the stream"):
            await drop(caller.stream(name, "count", {"fail_after": 1}))


async def test_items_are_messagepack_when_the_request_is(transport_url: str, source: Source, name: str) -> None:
    """Items follow the request's encoding."""
    async with CliffracerService(ServiceConfig("c", transport=transport_url, content_type=MSGPACK.content_type)) as own:
        assert [each async for each in own.caller.stream(name, "count", {"n": 2}, returns=Row)] == [Row(0), Row(1)]


class Numbers(CliffracerService):
    """A service for typed clients."""

    @rpc
    async def up_to(self, n: int) -> AsyncIterator[Row]:
        """Count."""
        for number in range(n):
            yield Row(number)

    @MessagePattern("numbers.*.down")
    async def down(self, data: dict[str, int]) -> AsyncGenerator[int, None]:
        for number in reversed(range(data["n"])):
            yield number


async def test_items_have_their_type_when_a_typed_client_streams(transport_url: str, caller: Caller, name: str) -> None:
    """A typed client gives what the class declares, to mypy and at run time; so does a proxy by pattern."""
    numbers = Numbers(ServiceConfig("numbers", transport=transport_url))
    async with numbers, ClientProxy(transport_url) as proxy:
        total = 0
        async for row in client(Numbers, proxy.caller, timeout=5).up_to(n=4):
            total += row.number
        assert total == 6
        assert [each async for each in proxy.stream("numbers.x.down", {"n": 3}, returns=int)] == [2, 1, 0]


async def test_many_streams_run_side_by_side(source: Source, caller: Caller, name: str) -> None:
    """Streams of one caller do not mix."""

    async def one(n: int) -> list[int]:
        return [row.number async for row in caller.stream(name, "count", {"n": n}, returns=Row, window=3)]

    got = await asyncio.gather(*(one(n) for n in range(40)))
    assert got == [list(range(n)) for n in range(40)]
    await source.ended()
    assert boxes(caller) == 0


class Blind(MemoryTransport):
    """A transport that carries requests and little else."""

    @property
    def capabilities(self) -> Capabilities:
        return Capabilities(fanout=False, ordered=False)


async def test_start_fails_when_the_transport_cannot_stream(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A generator on a transport without ordered publish and subscribe fails at start, with what is lacking."""
    monkeypatch.setattr(MemoryTransport, "capabilities", Blind.capabilities)
    with pytest.raises(ConfigurationError, match=r"count' needs fanout, ordered, which transport 'default' lacks"):
        await Source(name, "memory://").start()


async def test_start_fails_when_a_generator_cannot_be_served(name: str) -> None:
    """A generator under @event, or under @handle_errors, fails at start, with what to do instead."""

    async def items(payload: dict[str, int]) -> AsyncIterator[int]:
        yield 1

    service = CliffracerService(ServiceConfig(name))
    service.event(f"{name}.created")(items)
    with pytest.raises(ConfigurationError, match="an event has no reply to stream"):
        await service.start()

    async def others() -> AsyncIterator[int]:
        yield 1

    service = CliffracerService(ServiceConfig(name))
    service.rpc(handle_errors(Torn, default=[])(others))
    with pytest.raises(ConfigurationError, match="catch the errors inside the generator"):
        await service.start()


async def test_nothing_is_subscribed_when_nothing_streams(name: str) -> None:
    """A service without a generator has no control subject."""
    service = CliffracerService(ServiceConfig(name))

    @service.rpc
    async def plain() -> None: ...

    async with service:
        assert service.runtime.listening is not None
        assert service.runtime.listening._controls == {}


async def test_entry_point_is_told_when_it_invokes_a_generator(source: Source) -> None:
    """A kind of call that cannot carry a stream gets an error that says so."""
    with pytest.raises(ServiceError, match="which this kind of call cannot carry"):
        await source.runtime.handlers["count"].invoke(kind="timer", arguments={})
