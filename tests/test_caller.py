"""What goes out: calls, publishes, their headers and their chains."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
from collections.abc import AsyncIterator, Sequence
from typing import Any

import msgspec
import pytest

from cliffracer_core import (
    CliffracerService,
    ConfigurationError,
    EncodingError,
    InvalidHeader,
    InvalidSubject,
    MessageContext,
    MessageTooLarge,
    Middleware,
    NotStored,
    RPCError,
    ServiceConfig,
    ServiceError,
    Transport,
    ValidationError,
    hookimpl,
    set_correlation_id,
    with_correlation_id,
)
from cliffracer_core.caller import Caller
from cliffracer_core.interfaces import DurableTransport, Outgoing, OutgoingDeclaration, Send
from cliffracer_core.memory import MemoryTransport
from cliffracer_core.messages import MSGPACK, Message
from cliffracer_core.testing import Collector


class Known(ServiceError, code="caller_known", status=410):
    """An error the caller knows."""


@dataclasses.dataclass
class Point:
    """For these tests."""

    x: int
    y: int


class Signed:
    """A plugin that signs what goes out, and notes in which order its layers ran."""

    def __init__(self) -> None:
        self.ran: list[str] = []

    def layer(self, label: str) -> Any:
        def wrap(next: Send) -> Send:
            async def send(outgoing: Outgoing) -> object:
                self.ran.append(f"{label} {outgoing.kind} {outgoing.subject}")
                outgoing.headers["X-Signed"] = label
                return await next(outgoing)

            return send

        return wrap

    @hookimpl
    def cliffracer_register_outgoing(self, declaration: OutgoingDeclaration) -> Sequence[Middleware]:
        if declaration.kind == "publish":
            return [Middleware("shape", 0, self.layer("outbox"), "outbox")]
        return [
            Middleware("shape", 0, self.layer("inner"), "inner"),
            Middleware("observe", 0, self.layer("outer"), "outer"),
        ]


@pytest.fixture
async def replies(raw: Transport, name: str) -> AsyncIterator[list[Message]]:
    """A stub service under `name` that answers each request with the next message of a list."""
    waiting: list[Message] = []

    def answer(request: Message) -> None:
        assert request.reply_to is not None
        waiting[0].subject = request.reply_to
        sending.append(asyncio.ensure_future(raw.publish(waiting.pop(0))))

    sending: list[asyncio.Future[None]] = []
    subscription = await raw.subscribe(f"rpc.{name}.*", answer)
    yield waiting
    await asyncio.gather(*sending)
    await subscription.drain()


async def test_request_carries_only_what_it_needs_when_sent(
    transport_url: str, raw: Transport, caller: Caller, name: str
) -> None:
    """A first call sends its arguments and its time; a header that carries nothing is not sent."""
    requests = Collector[Message]()
    await raw.subscribe(f"rpc.{name}.find", requests)
    call = asyncio.create_task(caller.call(name, "find", {"a": 1}, timeout=5))
    keyed = asyncio.create_task(
        caller.call(name, "find", Point(1, 2), timeout=5, idempotency_key="once", headers={"X-Tenant": "acme"})
    )
    first, second = sorted(await requests.at_least(2), key=lambda each: len(each.headers or {}))
    assert first.body == b'{"a":1}'
    assert set(first.headers or {}) == {"Timeout-Ms"}
    assert 0 < int((first.headers or {})["Timeout-Ms"]) <= 5000
    assert second.body == b'{"x":1,"y":2}'
    assert (second.headers or {})["Idempotency-Key"] == "once"
    assert (second.headers or {})["X-Tenant"] == "acme"
    for each in (call, keyed):
        each.cancel()
    await asyncio.gather(call, keyed, return_exceptions=True)


async def test_calls_stay_apart_when_a_callee_changes_what_it_was_sent(
    transport_url: str, raw: Transport, caller: Caller, name: str
) -> None:
    """Calls with nothing to say but their time, the usual one, carry the same headers, whatever became of the last."""
    seen: list[dict[str, str]] = []

    def spoil(request: Message) -> None:
        headers: Any = request.headers
        seen.append(dict(headers))
        with contextlib.suppress(TypeError):
            headers["X-Spoilt"] = "yes"
        answering.append(asyncio.ensure_future(raw.publish(Message(str(request.reply_to), b"1"))))

    answering: list[asyncio.Future[None]] = []
    await raw.subscribe(f"rpc.{name}.find", spoil)
    for _ in range(3):
        assert await caller.call(name, "find") == 1
    await asyncio.gather(*answering)
    assert seen == [seen[0]] * 3
    assert set(seen[0]) == {"Timeout-Ms"}
    assert int(seen[0]["Timeout-Ms"]) > 0


async def test_event_has_no_header_when_nothing_is_to_be_said(
    transport_url: str, raw: Transport, caller: Caller, name: str
) -> None:
    """An event outside any call has no header at all; inside one it has the call's id."""
    events = Collector[Message]()
    await raw.subscribe(f"{name}.made", events)
    await caller.publish(f"{name}.made", None)
    async with with_correlation_id("made-1"):
        await caller.publish(f"{name}.made", {"id": 1})
    set_correlation_id(None)
    first, second = await events.at_least(2)
    assert (first.body, first.headers) == (b"null", None)
    assert (second.body, second.headers) == (b'{"id":1}', {"X-Correlation-ID": "made-1"})


async def test_chain_wraps_what_is_sent_when_a_plugin_registers_outgoing(
    transport_url: str, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Calls and publishes go through the layers registered for their kind, in order, and `explain` shows them."""
    if transport_url == "memory://":
        monkeypatch.setenv("CLIFFRACER_PLUGINS", "")
    signed, got = Signed(), Collector[dict[str, str]]()
    service = CliffracerService(ServiceConfig(name, transport=transport_url), plugins={"signed": signed})

    @service.rpc
    async def look(context: MessageContext) -> str:
        return context.headers["X-Signed"]

    @service.event(f"{name}.made")
    async def on_made(context: MessageContext) -> None:
        got(dict(context.headers))

    async with service:
        assert await service.rpc_call(name, "look") == "inner"
        await service.publish(f"{name}.made")
        assert (await got.at_least(1))[0]["X-Signed"] == "outbox"
        chains = await service.explain("look")
    assert signed.ran == [
        f"outer call rpc.{name}.look", f"inner call rpc.{name}.look", f"outbox publish {name}.made",
    ]  # fmt: skip
    assert chains["call"] == ["observe signed:outer", "shape signed:inner", "encode"]
    assert chains["publish"] == ["shape signed:outbox", "encode"]


@pytest.mark.parametrize(
    ("send", "error"),
    [
        (lambda caller: caller.call("a b", "find"), InvalidSubject),
        (lambda caller: caller.call("users", "find.all"), InvalidSubject),
        (lambda caller: caller.call("users", ""), InvalidSubject),
        (lambda caller: caller.call("*", "find"), InvalidSubject),
        (lambda caller: caller.publish("user created", {}), InvalidSubject),
        (lambda caller: caller.publish("user.*", {}), InvalidSubject),
        (lambda caller: caller.publish("user\r\nPUB x 1", {}), InvalidSubject),
        (lambda caller: caller.publish("", {}), InvalidSubject),
        (lambda caller: caller.publish("user.made", {}, headers={"X-A": "b\r\nX-C: d"}), InvalidHeader),
        (lambda caller: caller.publish("user.made", {}, headers={"X A": "b"}), InvalidHeader),
        (lambda caller: caller.publish("user.made", {}, durable=True, message_id="a\nb"), InvalidHeader),
        (lambda caller: caller.request("rpc.users.find", {}, headers={"X-A\n": ""}), InvalidHeader),
        (lambda caller: caller.request("rpc.users.find all", {}), InvalidSubject),
        (lambda caller: caller.publish("user.made", object()), EncodingError),
        (lambda caller: caller.publish("user.made", float("nan")), EncodingError),
        (lambda caller: caller.publish("user.made", "x" * 2**21), MessageTooLarge),
        (lambda caller: caller.publish("user.made", {}, timeout=-1), ValidationError),
    ],
)  # fmt: skip
async def test_nothing_is_sent_when_a_message_is_invalid(
    transport_url: str, caller: Caller, send: Any, error: type[Exception]
) -> None:
    """What must not go out is refused where it is sent, with a typed error."""
    with pytest.raises(error):
        await send(caller)


async def test_too_large_request_is_refused_when_somebody_serves(transport_url: str, caller: Caller, name: str) -> None:
    """A request past what the transport carries fails at its sender, and the service does not notice."""
    service = CliffracerService(ServiceConfig(name, transport=transport_url))

    @service.rpc
    async def size(text: str) -> int:
        return len(text)

    async with service:
        with pytest.raises(MessageTooLarge):
            await asyncio.wait_for(caller.call(name, "size", {"text": "x" * 10 * 2**20}, timeout=60), 10)
        assert await caller.call(name, "size", {"text": "abc"}) == 3


async def test_transport_is_named_when_it_is_not_configured(caller: Caller, transport_url: str) -> None:
    """An unknown transport is a `ConfigurationError` with those there are."""
    with pytest.raises(ConfigurationError, match=r"'kafka' is not configured; known are \['default'\]"):
        await caller.publish("user.made", {}, transport="kafka")
    with pytest.raises(ConfigurationError, match="'kafka'"):
        await caller.call("users", "find", transport="kafka")


async def test_content_type_is_refused_when_it_is_unknown() -> None:
    """A caller cannot be made for an encoding that is not there."""
    with pytest.raises(ConfigurationError, match="'content_type' is 'text/xml'; use one of application/json"):
        Caller("x", {}, timeout_s=1, content_type="text/xml")


async def test_durable_publish_is_stored_once_when_its_id_repeats(
    transport_url: str, raw: Transport, caller: Caller, name: str
) -> None:
    """When `publish(durable=True)` returns the event is stored, under its id once, in the stream that is named."""
    assert isinstance(raw, DurableTransport)
    for _ in range(2):
        await caller.publish(f"{name}.made", {"id": 1}, durable=True, message_id="one")
    await caller.publish(f"{name}.made", {"id": 2}, durable=True)
    stored = [each.message.body async for each in raw.browse(name.upper())]
    assert stored == [b'{"id":1}', b'{"id":2}']
    await caller.publish(f"{name}x.made", {}, durable=True, stream=f"{name}_OWN")
    assert [each.message.body async for each in raw.browse(f"{name}_OWN")] == [b"{}"]


async def test_durable_publish_fails_when_no_stream_may_take_it(transport_url: str, caller: Caller, name: str) -> None:
    """An event that no stream takes is `NotStored`, with the reason."""
    await caller.publish(f"{name}.made", {}, durable=True)
    with pytest.raises(NotStored):
        await caller.publish(f"{name}.other", {}, durable=True, stream=f"{name}_OTHER")


@pytest.mark.parametrize(
    ("reply", "returns", "message"),
    [
        (Message("", b"{not json"), None, "does not fit"),
        (Message("", b"\xff"), None, "does not fit"),
        (Message("", b'"text"'), int, "does not fit"),
        (Message("", MSGPACK.encode("text"), {"Content-Type": "application/msgpack"}), int, "does not fit"),
        (Message("", b"1", {"Content-Type": "text/csv"}), None, "text/csv"),
    ],
)
async def test_reply_is_an_rpc_error_when_it_cannot_be_decoded(
    caller: Caller, name: str, replies: list[Message], reply: Message, returns: Any, message: str
) -> None:
    """A reply that is not what was asked for is the callee's failure, never a `ValidationError` of the caller's own."""
    replies.append(msgspec.structs.replace(reply))
    with pytest.raises(RPCError, match=message) as caught:
        await caller.call(name, "find", returns=returns, timeout=10)
    assert type(caught.value) is RPCError


@pytest.mark.parametrize(
    ("headers", "body", "error", "status"),
    [
        ({"Nats-Service-Error": "went wrong", "Nats-Service-Error-Code": "503"}, b"", RPCError, "503"),
        ({"Nats-Service-Error": "went wrong"}, b"plain text", RPCError, ""),
        ({"Nats-Service-Error-Code": "many"}, b"[1, 2]", RPCError, "many"),
        ({"Nats-Service-Error-Code": "9" * 6000}, b"[" * 9000, RPCError, "9" * 6000),
        ({"Nats-Service-Error": "no"}, b'{"type": "caller_known", "message": "gone", "code": 410}', Known, None),
        ({"Nats-Service-Error": "no"}, b'{"type": "who_knows", "message": "gone", "code": 1}', RPCError, None),
    ],
)
async def test_error_reply_is_typed_when_any_service_sends_it(
    caller: Caller, name: str, replies: list[Message], headers: dict[str, str], body: bytes, error: type[RPCError],
    status: str | None,
) -> None:  # fmt: skip
    """An error of ADR-32 becomes an `RPCError` that names the service, a registered one its own class."""
    replies.append(Message("", body, headers))
    with pytest.raises(error) as caught:
        await caller.call(name, "find", timeout=10)
    assert type(caught.value) is error
    assert caught.value.service == name
    if status is not None:
        assert caught.value.details == {"code": status}
        assert str(caught.value).startswith(f"rpc.{name}.find answered: ")


async def test_empty_reply_is_none_when_a_foreign_service_sends_it(
    caller: Caller, name: str, replies: list[Message]
) -> None:
    """A service of another framework may answer with an empty body."""
    replies.append(Message("", b""))
    assert await caller.call(name, "find", timeout=10) is None


async def test_nothing_more_is_sent_when_the_connection_is_gone(name: str) -> None:
    """A caller that gives up while its transport closes is cancelled, and raises nothing else."""
    transport = MemoryTransport()
    await transport.open()
    caller = Caller(name, {"default": transport}, timeout_s=5)
    requests = Collector[Message]()
    await transport.subscribe(f"rpc.{name}.find", requests)
    call = asyncio.create_task(caller.call(name, "find"))
    await requests.at_least(1)
    await transport.close()
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call
