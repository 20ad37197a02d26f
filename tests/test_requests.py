"""Requests and replies: what a handler learns, what its caller gets back, and what errors become on the way."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
from collections.abc import Sequence
from typing import Any

import msgspec
import pytest

from cliffracer_core import (
    Cancelled,
    CliffracerService,
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
    hookimpl,
    with_correlation_id,
)
from cliffracer_core.caller import Caller
from cliffracer_core.messages import JSON, MSGPACK, Message
from cliffracer_core.requests import cancel_subject, on_cancel
from cliffracer_core.testing import Collector, eventually

MIB = 1024 * 1024


class Item(msgspec.Struct):
    """For these tests."""

    sku: str
    count: int = 1


class SoldOut(ServiceError, code="requests_sold_out", status=409, retryable=True):
    """An error with a code of its own."""


class Forgetful(ServiceError, code="requests_forgetful"):
    """An error whose constructor forgets its parent's."""

    def __init__(self, sku: str) -> None:
        self.sku = sku


class Panic(BaseException):
    """What a library written in Rust raises: no Exception."""


def service_for(name: str, url: str, **values: object) -> CliffracerService:
    return CliffracerService(ServiceConfig(name, transport=url, **values))


async def answer(raw: Transport, subject: str, body: bytes = b"", headers: dict[str, str] | None = None) -> Message:
    """Send as no client of ours would, and return the reply as it is."""
    return await raw.request(Message(subject, body, headers), 10)


def error_of(reply: Message) -> dict[str, Any]:
    """Return the body of an error reply, checked against its headers."""
    assert reply.headers is not None
    body: dict[str, Any] = json.loads(reply.body)
    assert reply.headers["Nats-Service-Error-Code"] == str(body["code"])
    assert reply.headers["Nats-Service-Error"]
    return body


async def test_reply_is_plain_json_when_a_request_is(transport_url: str, raw: Transport, name: str) -> None:
    """A JSON object goes in, the result comes out as JSON, without a wrapper and without a header."""
    service = service_for(name, transport_url)

    @service.rpc
    async def find(sku: str, count: int = 7) -> Item:
        return Item(sku, count)

    @service.rpc
    async def nothing() -> None: ...

    async with service:
        reply = await answer(raw, f"rpc.{name}.find", b'{"sku": "a", "unknown": true}')
        assert (json.loads(reply.body), reply.headers) == ({"sku": "a", "count": 7}, None)
        assert (await answer(raw, f"rpc.{name}.nothing")).body == b"null"


async def test_reply_is_messagepack_when_the_request_is(transport_url: str, raw: Transport, name: str) -> None:
    """A reply follows the request's encoding and names it; errors are JSON in any case."""
    service = service_for(name, transport_url)

    @service.rpc
    async def find(sku: str) -> bytes:
        if not sku:
            raise SoldOut("none left")
        return b"\x00\xff" + sku.encode()

    headers = {"Content-Type": "application/msgpack"}
    async with service:
        reply = await answer(raw, f"rpc.{name}.find", MSGPACK.encode({"sku": "a"}), headers)
        assert MSGPACK.decoder(bytes)(reply.body) == b"\x00\xffa"
        assert reply.headers == headers
        assert error_of(await answer(raw, f"rpc.{name}.find", MSGPACK.encode({"sku": ""}), headers))["code"] == 409


@pytest.mark.parametrize("content_type", ["application/json", "application/msgpack"])
async def test_types_come_back_when_both_sides_speak_one_encoding(
    transport_url: str, name: str, content_type: str
) -> None:
    """`content_type` of the caller decides the encoding both ways; results decode into the type asked for."""
    service = service_for(name, transport_url, content_type=content_type)
    seen: list[object] = []

    @service.rpc
    async def double(item: Item, context: MessageContext) -> Item:
        seen.append(context.headers.get("Content-Type"))
        return Item(item.sku, item.count * 2)

    async with service:
        caller = service.caller
        assert await caller.call(name, "double", {"item": Item("a", 2)}, returns=Item) == Item("a", 4)
        assert await caller.call(name, "double", {"item": {"sku": "b"}}) == {"sku": "b", "count": 2}
        with pytest.raises(RPCError, match="does not fit what is expected"):
            await caller.call(name, "double", {"item": Item("a")}, returns=list[int])
    announced = None if content_type == JSON.content_type else content_type
    assert seen == [announced] * 3


async def test_handler_learns_of_its_call_when_it_takes_a_context(
    transport_url: str, caller: Caller, name: str
) -> None:
    """A `MessageContext` has the call's id, subject, pattern, headers, reply token, body, arguments and deadline."""
    service, seen = service_for(name, transport_url), list[MessageContext]()

    @service.handler(MessagePattern(f"{name}.item.*", timeout=5))
    async def find(data: Any, context: MessageContext) -> str:
        seen.append(context)
        return context.correlation_id

    async with service:
        headers = {"X-Tenant": "acme"}
        async with with_correlation_id("ctx-1"):
            assert await caller.request(f"rpc.{name}.item.get", {"a": 1}, headers=headers, timeout=5) == "ctx-1"
    (context,) = seen
    assert (context.kind, context.service, context.handler) == ("rpc", name, "find")
    assert (context.subject, context.pattern) == (f"rpc.{name}.item.get", f"rpc.{name}.item.*")
    assert (context.headers["X-Tenant"], context.body) == ("acme", b'{"a":1}')
    assert context.arguments == {"data": {"a": 1}}
    assert context.reply_to
    assert (context.attempt, context.message_id, context.identity) == (1, None, None)
    assert context.deadline is not None


async def test_correlation_id_crosses_hops_when_services_call_on(transport_url: str, caller: Caller, name: str) -> None:
    """One id goes through every call and event of a chain; a call without one gets a new one at its first hop."""
    front, back = service_for(f"{name}-front", transport_url), service_for(f"{name}-back", transport_url)
    heard: asyncio.Queue[str] = asyncio.Queue()

    @front.rpc
    async def ask(context: MessageContext) -> list[str]:
        return [context.correlation_id, *await front.rpc_call(f"{name}-back", "tell")]

    @back.rpc
    async def tell(context: MessageContext) -> list[str]:
        await back.publish(f"{name}.told", {})
        return [context.correlation_id]

    @front.event(f"{name}.told")
    async def on_told(context: MessageContext) -> None:
        heard.put_nowait(context.correlation_id)

    async with back, front:
        async with with_correlation_id("hop-1"):
            assert await caller.call(f"{name}-front", "ask") == ["hop-1", "hop-1"]
        assert await asyncio.wait_for(heard.get(), 10) == "hop-1"
        first, second = [await caller.call(f"{name}-front", "ask") for _ in range(2)]
    assert len(set(first)) == len(set(second)) == 1
    assert first[0]
    assert first != second


async def test_own_error_comes_back_as_its_class_when_the_caller_knows_it(
    transport_url: str, raw: Transport, caller: Caller, name: str
) -> None:
    """A service's error class crosses the wire with message, details, status, service and correlation id."""
    service = service_for(name, transport_url)

    @service.rpc
    async def buy(sku: str) -> None:
        raise SoldOut(f"{sku} is sold out", details={"sku": sku})

    async with service:
        with pytest.raises(SoldOut, match="^tea is sold out$") as caught:
            async with with_correlation_id("sold-1"):
                await caller.call(name, "buy", {"sku": "tea"})
        assert caught.value.details == {"sku": "tea"}
        assert (caught.value.service, caught.value.correlation_id) == (name, "sold-1")
        body = error_of(await answer(raw, f"rpc.{name}.buy", b'{"sku": "tea"}', {"X-Correlation-ID": "sold-2"}))
        assert body == {
            "type": "requests_sold_out", "message": "tea is sold out", "code": 409, "retryable": True,
            "details": {"sku": "tea"}, "service": name, "correlation_id": "sold-2",
        }  # fmt: skip


async def test_error_is_masked_when_it_was_not_expected(
    transport_url: str, caller: Caller, name: str, caplog: pytest.LogCaptureFixture
) -> None:
    """The caller of a handler that breaks gets an id to quote; the trace and message stay in the log."""
    service = service_for(name, transport_url)

    @service.rpc
    async def find() -> None:
        raise KeyError("the password is swordfish")

    async with service:
        with pytest.raises(ServiceError, match="^internal error; correlation id masked-1$") as caught:
            async with with_correlation_id("masked-1"):
                await caller.call(name, "find")
    assert type(caught.value) is ServiceError
    assert caught.value.details == {"type": "internal_error"}
    (record,) = [each for each in caplog.records if each.name == "cliffracer" and each.levelno == logging.ERROR]
    assert f"{name}.find failed; correlation id masked-1" in record.getMessage()
    assert record.exc_info is not None
    assert "swordfish" in str(record.exc_info[1])


@pytest.mark.parametrize("threaded", [False, True])
@pytest.mark.parametrize(
    ("raised", "expected", "message"),
    [
        (SystemExit(3), ServiceError, "internal error"),
        (StopIteration(1), ServiceError, "internal error"),
        (Panic("rust"), ServiceError, "internal error"),
        (asyncio.CancelledError(), Cancelled, "was cancelled"),
        (Forgetful("a"), Forgetful, "requests_forgetful"),
        (ServiceError(KeyError("a")), ServiceError, "'a'"),  # type: ignore[arg-type]  # what a hasty author writes
    ],
)
async def test_caller_learns_at_once_when_a_handler_raises_something_odd(
    transport_url: str, caller: Caller, name: str, raised: BaseException, expected: type[Exception], message: str,
    threaded: bool,
) -> None:  # fmt: skip
    """Whatever a handler raises becomes a typed error at its caller, never a timeout, and the service goes on."""
    service = service_for(name, transport_url)

    def odd() -> None:
        raise raised

    async def odd_too() -> None:
        raise raised

    service.rpc(odd)
    service.rpc(odd_too)

    @service.rpc
    async def ping() -> str:
        return "pong"

    async with service:
        with pytest.raises(expected, match=message):
            await asyncio.wait_for(caller.call(name, "odd" if threaded else "odd_too", timeout=60), 10)
        assert await caller.call(name, "ping") == "pong"


@pytest.mark.parametrize(
    "result", [object(), float("nan"), {"deep": [float("inf")]}, {1j}, "\ud800"], ids=lambda each: repr(each)[:12]
)
async def test_caller_learns_at_once_when_a_result_cannot_be_encoded(
    transport_url: str, caller: Caller, name: str, result: object
) -> None:
    """What has no encoding is an `EncodingError` at the caller."""
    service = service_for(name, transport_url)

    @service.rpc
    async def give() -> Any:
        return result

    async with service:
        with pytest.raises(EncodingError):
            await asyncio.wait_for(caller.call(name, "give", timeout=60), 10)


async def test_caller_learns_at_once_when_a_result_contains_itself(
    transport_url: str, caller: Caller, name: str
) -> None:
    """A circle in a result is an `EncodingError` at the caller."""
    service = service_for(name, transport_url)

    @service.rpc
    async def give() -> list[Any]:
        circle: list[Any] = []
        circle.append(circle)
        return circle

    async with service:
        with pytest.raises(EncodingError, match="contains itself"):
            await asyncio.wait_for(caller.call(name, "give", timeout=60), 10)


async def test_caller_learns_at_once_when_a_reply_is_too_large(transport_url: str, caller: Caller, name: str) -> None:
    """A result past what the transport carries is `MessageTooLarge` at the caller."""
    service = service_for(name, transport_url)

    @service.rpc
    async def give(size: int) -> str:
        return "x" * size

    async with service:
        with pytest.raises(MessageTooLarge, match=f"{name}.give: its result is too large"):
            await asyncio.wait_for(caller.call(name, "give", {"size": 2 * MIB}, timeout=60), 10)
        assert await caller.call(name, "give", {"size": 3}) == "xxx"


@pytest.mark.parametrize(
    "error",
    [
        SoldOut("x" * (2 * MIB)),
        SoldOut("large", details={"rows": "x" * (2 * MIB)}),
        SoldOut("no encoding", details={"lock": asyncio.Lock}),
        SoldOut("lone \ud800 surrogate"),
        SoldOut("two\r\nlines: and more"),
        SoldOut("\n"),
    ],
    ids=["long", "large details", "unencodable details", "surrogate", "lines", "empty line"],
)
async def test_caller_gets_the_error_when_it_cannot_be_sent_as_it_is(
    transport_url: str, raw: Transport, caller: Caller, name: str, error: SoldOut
) -> None:
    """An error too large or without encoding reaches the caller shortened, under its own class."""
    service = service_for(name, transport_url)

    @service.rpc
    async def buy() -> None:
        raise error

    async with service:
        with pytest.raises(SoldOut) as caught:
            await asyncio.wait_for(caller.call(name, "buy", timeout=60), 10)
        assert caught.value.message[:1] == error.message[:1]
        assert "\n" not in (await answer(raw, f"rpc.{name}.buy")).headers["Nats-Service-Error"]  # type: ignore[index]  # an error has headers


async def test_request_is_overloaded_at_once_when_slots_and_queue_are_full(
    transport_url: str, raw: Transport, caller: Caller, name: str
) -> None:
    """Past `concurrency` and `queue_size` a request is refused at once, and what was accepted is answered."""
    service, release = service_for(name, transport_url, concurrency=2, queue_size=3), asyncio.Event()

    @service.rpc
    async def work() -> str:
        await release.wait()
        return "done"

    async with service:
        accepted = [asyncio.create_task(caller.call(name, "work", timeout=60)) for _ in range(5)]
        gate = service.runtime.handlers["work"].gate
        await eventually(lambda: gate.running == 2 and len(gate.waiting) == 3)
        with pytest.raises(Overloaded, match=f"{name}.work runs 2 calls and 3 wait; try later") as caught:
            await asyncio.wait_for(caller.call(name, "work", timeout=60), 10)
        assert caught.value.retryable
        await raw.publish(Message(f"rpc.{name}.work"))  # nobody to refuse
        release.set()
        assert await asyncio.gather(*accepted) == ["done"] * 5


async def test_no_handler_is_raised_at_once_when_nobody_serves(transport_url: str, caller: Caller, name: str) -> None:
    """A call to a service, or a method, that is not there fails at once and says so."""
    async with service_for(name, transport_url) as service:
        with pytest.raises(NoHandler, match=f"'rpc.{name}.missing'") as caught:
            await asyncio.wait_for(caller.call(name, "missing", timeout=60), 10)
        with pytest.raises(NoHandler):
            await asyncio.wait_for(service.caller.call(f"{name}-gone", "missing", timeout=60), 10)
    assert (caught.value.retryable, caught.value.service) == (True, None)


async def test_handler_runs_when_nobody_wants_the_reply(
    transport_url: str, raw: Transport, name: str, caplog: pytest.LogCaptureFixture
) -> None:
    """A request published without a reply subject runs; its error is in the log alone."""
    service, ran = service_for(name, transport_url), asyncio.Event()

    @service.rpc
    async def work(fail: bool = False) -> None:
        if fail:
            ran.set()
            raise KeyError("unseen")

    async with service:
        await raw.publish(Message(f"rpc.{name}.work"))
        await raw.publish(Message(f"rpc.{name}.work", b'{"fail": true}'))
        await asyncio.wait_for(ran.wait(), 10)
        await eventually(lambda: f"{name}.work failed" in caplog.text)


@pytest.mark.parametrize("fail", [False, True])
async def test_service_goes_on_when_a_reply_cannot_be_sent(
    transport_url: str, raw: Transport, caller: Caller, name: str, fail: bool, caplog: pytest.LogCaptureFixture
) -> None:
    """A reply or an error that the connection does not take is logged, and the next call is answered."""
    service, begun, release = service_for(name, transport_url), asyncio.Event(), asyncio.Event()

    @service.rpc
    async def work() -> None:
        begun.set()
        await release.wait()
        if fail:
            raise SoldOut("no")

    await service.start()
    waiting = asyncio.create_task(caller.call(name, "work", timeout=60))
    await asyncio.wait_for(begun.wait(), 10)
    await service.runtime.transports["default"].close()
    release.set()
    what = "error" if fail else "reply"
    await eventually(lambda: f"the {what} could not be sent" in caplog.text)
    waiting.cancel()
    await service.stop()
    async with service:
        expected = pytest.raises(SoldOut) if fail else contextlib.nullcontext()
        with expected:
            await caller.call(name, "work")


async def test_handler_is_cancelled_when_its_caller_gives_up(transport_url: str, caller: Caller, name: str) -> None:
    """A caller that is cancelled cancels its handler, and through it the handler's own call, on every transport."""
    front, back = service_for(f"{name}-front", transport_url), service_for(f"{name}-back", transport_url)
    begun, ended = asyncio.Event(), asyncio.Queue[str]()

    @front.rpc
    async def ask() -> None:
        try:
            await front.caller.call(f"{name}-back", "hang", timeout=60)
        except asyncio.CancelledError:
            ended.put_nowait("front")
            raise

    @back.handler(MessagePattern(f"{name}-back.hang"))
    async def hang() -> None:
        begun.set()
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            ended.put_nowait("back")
            raise

    @back.rpc
    async def ping() -> str:
        return "pong"

    async with back, front:
        call = asyncio.create_task(caller.call(f"{name}-front", "ask", timeout=60))
        await asyncio.wait_for(begun.wait(), 10)
        call.cancel()
        assert {await asyncio.wait_for(ended.get(), 10) for _ in range(2)} == {"front", "back"}
        with pytest.raises(asyncio.CancelledError):
            await call
        assert await caller.call(f"{name}-back", "ping") == "pong"


async def test_call_never_runs_when_its_caller_gives_up_in_the_queue(
    transport_url: str, caller: Caller, name: str
) -> None:
    """A request whose caller gave up while it waited for a slot costs no work; the next one runs."""
    service, release, ran = service_for(name, transport_url, concurrency=1), asyncio.Event(), list[int]()

    @service.rpc
    async def work(number: int) -> int:
        ran.append(number)
        await release.wait()
        return number

    async with service:
        calls = [asyncio.create_task(caller.call(name, "work", {"number": each}, timeout=60)) for each in range(3)]
        gate = service.runtime.handlers["work"].gate
        await eventually(lambda: len(gate.waiting) == 2)
        calls[1].cancel()
        await eventually(lambda: service.runtime.scope.given_up)
        release.set()
        assert (await calls[0], await calls[2]) == (0, 2)
    assert ran == [0, 2]


async def test_tokens_do_not_pile_up_when_many_callers_give_up(name: str) -> None:
    """A service that hears of many calls it never had remembers a bounded number of them."""
    async with service_for(name, "memory://") as service:
        scope = service.runtime.scope
        for number in range(5000):
            on_cancel(scope, Message(f"rpc.{name}.$cancel", f"_INBOX.{number}".encode()))
        assert len(scope.given_up) < 5000
        assert "_INBOX.4999" in scope.given_up


async def test_only_that_call_is_cancelled_when_one_caller_gives_up(
    transport_url: str, raw: Transport, caller: Caller, name: str
) -> None:
    """Giving up reaches the one call it names; an unknown or broken token reaches none."""
    service, begun, release = service_for(name, transport_url), list[int](), asyncio.Event()

    @service.rpc
    async def hang(number: int) -> int:
        begun.append(number)
        await release.wait()
        return number

    async with service:
        calls = [asyncio.create_task(caller.call(name, "hang", {"number": each}, timeout=60)) for each in range(3)]
        await eventually(lambda: len(begun) == 3)
        for body in (b"_INBOX.unknown", b"", b"\xff\xfe"):
            await raw.publish(Message(cancel_subject(f"rpc.{name}.hang"), body))
        calls[1].cancel()
        gate = service.runtime.handlers["hang"].gate
        await eventually(lambda: gate.running == 2)
        release.set()
        assert (await calls[0], await calls[2]) == (0, 2)


@pytest.mark.parametrize(
    ("transport_url", "pattern"),
    # the wildest in memory alone: on the shared server they would take every test's requests
    [("memory", "*.hang"), ("memory", ">"), ("memory", "{name}.>"), ("nats", "{name}.>"), ("nats", "{name}.*")],
    indirect=["transport_url"],
)
async def test_giving_up_is_no_request_when_a_pattern_matches_it(
    transport_url: str, caller: Caller, name: str, pattern: str
) -> None:
    """A handler of a wide pattern is cancelled by `$cancel` too, and never called with it."""
    seen: list[str] = []

    class Watch:
        @hookimpl
        def cliffracer_register_middleware(self) -> Sequence[Middleware]:
            def wrap(next: Any) -> Any:
                async def call(context: MessageContext) -> object:
                    seen.append(context.subject)
                    return await next(context)

                return call

            return [Middleware("observe", 0, wrap)]

    service = CliffracerService(ServiceConfig(name, transport=transport_url), plugins={"watch": Watch()})
    begun, cancelled = asyncio.Event(), asyncio.Event()

    @service.handler(MessagePattern(pattern.format(name=name)))
    async def hang() -> None:
        begun.set()
        try:
            await asyncio.sleep(60)
        finally:
            cancelled.set()

    async with service:
        call = asyncio.create_task(caller.call(name, "hang", timeout=60))
        await asyncio.wait_for(begun.wait(), 10)
        call.cancel()
        await asyncio.wait_for(cancelled.wait(), 10)
        await eventually(lambda: service.runtime.handlers["hang"].gate.idle)
    assert seen == [f"rpc.{name}.hang"]


async def test_two_calls_are_kept_apart_when_they_share_a_reply_subject(
    transport_url: str, raw: Transport, name: str
) -> None:
    """A client that uses one inbox for many requests, as some do, gets an answer to each."""
    service, replies, both = service_for(name, transport_url), Collector[Message](), asyncio.Barrier(2)

    @service.rpc
    async def echo(number: int) -> int:
        await both.wait()
        return number

    async with service:
        await raw.subscribe(f"{name}.inbox", replies)
        for number in (1, 2):
            await raw.publish(Message(f"rpc.{name}.echo", b'{"number":%d}' % number, None, f"{name}.inbox"))
        assert sorted(each.body for each in await replies.at_least(2)) == [b"1", b"2"]


async def test_error_names_the_header_when_a_timeout_is_no_number(
    transport_url: str, raw: Transport, name: str
) -> None:
    """A `Timeout-Ms` that cannot be read is refused, and the handler does not run."""
    service, ran = service_for(name, transport_url), list[str]()

    @service.rpc
    async def work() -> str:
        ran.append("work")
        return "done"

    async with service:
        for value in ("soon", "1.5", "nan", "0x10", "9" * 400):
            body = error_of(await answer(raw, f"rpc.{name}.work", b"", {"Timeout-Ms": value, "X-Correlation-ID": "t"}))
            assert (body["type"], body["correlation_id"]) == (InvalidHeader.code, "t")
            assert "Timeout-Ms" in body["message"]
        for value in ("0", "-5"):
            body = error_of(await answer(raw, f"rpc.{name}.work", b"", {"Timeout-Ms": value}))
            assert body["type"] == DeadlineExceeded.code
        assert ran == []
        assert (await answer(raw, f"rpc.{name}.work", b"", {"Timeout-Ms": "5000"})).body == b'"done"'


async def test_wrong_argument_is_named_when_it_is_refused(transport_url: str, caller: Caller, name: str) -> None:
    """A wrong, missing or unwanted argument is a `ValidationError` with its field; the handler never runs."""
    service, ran = service_for(name, transport_url), list[str]()

    @service.rpc
    async def buy(item: Item, note: str = "") -> None:
        ran.append(item.sku)

    @service.validated_rpc
    async def strict(sku: str) -> None:
        ran.append(sku)

    async with service:
        for method, arguments, field in (
            ("buy", {"item": {"sku": 5}}, "item.sku"),
            ("buy", {}, "item"),
            ("buy", {"item": {"sku": "a"}, "note": None}, "note"),
            ("strict", {"sku": "a", "extra": 1}, "extra"),
        ):
            with pytest.raises(ValidationError) as caught:
                await caller.call(name, method, arguments)
            assert caught.value.details == {"field": field}
        await caller.call(name, "buy", {"item": {"sku": "tea"}, "extra": 1})
    assert ran == ["tea"]
