"""Events: core ones, durable ones, their retries, dead letters and redrives."""

from __future__ import annotations

import asyncio
import functools
import json
import os
import re
import time
from collections.abc import Mapping, Sequence
from typing import Any, cast

import msgspec
import pytest

from cliffracer_core import (
    ClientProxy,
    CliffracerService,
    ConfigurationError,
    ConflictError,
    DeadlineExceeded,
    MessageContext,
    NotFoundError,
    NotStored,
    ServiceConfig,
    ServiceError,
    Transport,
    hookimpl,
    redrive,
)
from cliffracer_core.caller import Caller
from cliffracer_core.deadletters import DEAD, dlq_stream, unpacked
from cliffracer_core.interfaces import Capabilities, DurableTransport, ServiceInfo, TransportFactory
from cliffracer_core.memory import MemoryTransport
from cliffracer_core.messages import MSGPACK, Message, StoredMessage
from cliffracer_core.testing import Collector, eventually


class Order(msgspec.Struct):
    """For these tests."""

    id: int


class Failed(ServiceError, code="delivery_failed"):
    """For these tests."""


class Sink:
    """A plugin that counts what is dropped."""

    def __init__(self) -> None:
        self.dropped: list[Mapping[str, str]] = []

    def record(self, name: str, value: float, labels: Mapping[str, str]) -> None:
        if name == "dropped":
            self.dropped.append(labels)

    @hookimpl
    def cliffracer_register_metrics_sinks(self, service: ServiceInfo) -> Sequence[Sink]:
        return [self]


def service_for(name: str, url: str, **values: object) -> CliffracerService:
    return CliffracerService(ServiceConfig(name, transport=url, **values))


@pytest.fixture
def store(raw: Transport) -> DurableTransport:
    assert isinstance(raw, DurableTransport)
    return raw


async def stored(store: DurableTransport, stream: str) -> list[StoredMessage]:
    return [each async for each in store.browse(stream)]


async def dead_letters(store: DurableTransport, service: str, count: int = 1) -> list[StoredMessage]:
    """Wait for `count` dead letters of a service and return them."""

    async def enough() -> list[StoredMessage]:
        found = await stored(store, dlq_stream(service))
        return found if len(found) >= count else []

    return await eventually(enough)


def logged(caplog: pytest.LogCaptureFixture, text: str) -> bool:
    return text in caplog.text


def why(letter: StoredMessage, what: str) -> str:
    return (letter.message.headers or {})[DEAD + what]


async def test_each_handler_gets_an_event_once_when_replicas_share_it(
    transport_url: str, caller: Caller, name: str
) -> None:
    """An event reaches every handler of a service once, at one replica; a broadcast reaches every replica."""
    got: list[str] = []

    def replica() -> CliffracerService:
        service = service_for(name, transport_url)

        @service.event(f"{name}.*")
        async def one(id: int) -> None:
            got.append("one")

        @service.event(f"{name}.created")
        def two(order: Order, context: MessageContext) -> None:
            got.append(f"two {order.id} {context.kind} {context.subject} {context.pattern} {context.deadline}")

        @service.broadcast(f"{name}.created")
        async def all_hear() -> None:
            got.append("all")

        return service

    async with replica(), replica():
        await caller.publish(f"{name}.created", Order(7))
        await eventually(lambda: len(got) >= 4)
    assert sorted(got) == ["all", "all", "one", f"two 7 event {name}.created {name}.created None"]


async def test_request_is_no_event_when_a_pattern_could_match_it(name: str, caplog: pytest.LogCaptureFixture) -> None:
    """An event pattern that begins with `*` gets events, and never the requests that it matches."""
    service, got = service_for(name, "memory://"), list[str]()

    @service.event("*.created")
    async def on_created(context: MessageContext) -> None:
        got.append(context.subject)

    async with service:
        transport = service.runtime.transports["default"]
        await transport.publish(Message("rpc.created"))
        await transport.publish(Message(f"{name}.created"))
        await eventually(lambda: got)
    assert got == [f"{name}.created"]


async def test_core_events_are_dropped_and_counted_when_the_buffer_is_full(
    transport_url: str, caller: Caller, name: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Past `concurrency` and `event_buffer` an event is dropped; log and metrics count them, one line for many."""
    sink, release, got = Sink(), asyncio.Event(), list[int]()
    config = ServiceConfig(name, transport=transport_url, concurrency=1, event_buffer=2)
    service = CliffracerService(config, plugins={"sink": sink})

    @service.event(f"{name}.made")
    async def slow(id: int) -> None:
        got.append(id)
        await release.wait()

    async with service:
        gate = service.runtime.handlers["slow"].gate
        for number in range(8):
            await caller.publish(f"{name}.made", {"id": number})
        await eventually(lambda: "events dropped" in caplog.text and len(gate.waiting) == 2)
        runtime: Any = service.runtime
        endpoint = runtime.listening.endpoints[0]
        await eventually(lambda: endpoint.dropped == 5)
        release.set()
        await eventually(lambda: got == [0, 1, 2])
    assert sink.dropped == [{"handler": f"{name}.slow", "kind": "event"}] * 5
    assert len(re.findall("events dropped", caplog.text)) == 1
    assert f"{name}.slow: 1 events dropped, 2 wait" in caplog.text


async def test_core_event_is_logged_and_kept_when_it_is_rejected(
    transport_url: str, store: DurableTransport, name: str, caplog: pytest.LogCaptureFixture
) -> None:
    """An event whose body does not fit is logged and stored as a dead letter; the handler serves the next one."""
    service, got = service_for(name, transport_url), list[int]()

    @service.event(f"{name}.made")
    async def on_made(order: Order) -> None:
        got.append(order.id)

    async with service:
        headers = {"Authorization": "Bearer secret", "X-Tenant": "acme", "X-Correlation-ID": "rejected-1"}
        for body in (b"{not json", b"\xff\xfe", b'{"id": "seven"}'):
            await store.publish(Message(f"{name}.made", body, headers))
        letters = await dead_letters(store, name, 3)
        await store.publish(Message(f"{name}.made", b'{"id": 7}'))
        await eventually(lambda: got == [7])
        with pytest.raises(ConflictError, match=r"cannot be redriven: its handler hears plain events"):
            await redrive(store, name, letters[0].sequence)
        assert len(await stored(store, dlq_stream(name))) == 3
    assert [each.message.body for each in letters] == [b"{not json", b"\xff\xfe", b'{"id": "seven"}']
    for each in letters:
        assert each.message.subject == f"dlq.{name}.on_made"
        assert why(each, "Cause").startswith("validation_error: ")
        assert (why(each, "Attempts"), why(each, "Handler"), why(each, "Subject")) == ("1", "on_made", f"{name}.made")
        sent = each.message.headers or {}
        assert (sent["X-Tenant"], sent["X-Correlation-ID"]) == ("acme", "rejected-1")
        assert "Authorization" not in sent
        assert "secret" not in json.dumps(dict(sent))
    assert caplog.text.count("rejected: validation_error") == 3


async def test_core_event_is_logged_when_its_handler_fails(
    transport_url: str, caller: Caller, store: DurableTransport, name: str, caplog: pytest.LogCaptureFixture
) -> None:
    """What a core handler raises, its deadline included, is in the log; nothing is retried or stored."""
    service = service_for(name, transport_url)

    @service.event(f"{name}.made", timeout=0.1)
    async def on_made(kind: str) -> None:
        match kind:
            case "own":
                raise Failed("for a reason")
            case "unknown":
                raise KeyError("unexpected")
            case "exit":
                raise SystemExit(2)
            case _:
                await asyncio.Event().wait()

    async with service:
        for kind in ("own", "unknown", "exit", "hang"):
            await caller.publish(f"{name}.made", {"kind": kind})
        for text in ("delivery_failed: for a reason", "KeyError: 'unexpected'", "SystemExit: 2", "past its deadline"):
            await eventually(functools.partial(logged, caplog, text))
    assert await stored(store, dlq_stream(name)) == []


async def test_durable_event_is_acked_when_its_handler_returns(
    transport_url: str, caller: Caller, store: DurableTransport, name: str
) -> None:
    """An event published before the service ran is delivered, once, and not again after a restart."""
    service, got = service_for(name, transport_url), asyncio.Queue[MessageContext]()

    @service.event(f"{name}.made", durable=True)
    async def on_made(order: Order, context: MessageContext) -> None:
        got.put_nowait(context)

    await caller.publish(f"{name}.made", Order(1), durable=True, message_id=f"{name}-1")
    async with service:
        context = await asyncio.wait_for(got.get(), 10)
        assert (context.attempt, context.message_id, context.kind) == (1, f"{name}-1", "event")
        assert (context.subject, context.deadline, context.reply_to) == (f"{name}.made", None, None)
        assert context.arguments == {"order": Order(1)}
    async with service:
        await caller.publish(f"{name}.made", Order(2), durable=True)
        context = await asyncio.wait_for(got.get(), 10)
        assert context.arguments == {"order": Order(2)}
        assert context.correlation_id
    assert got.empty()


async def test_durable_event_is_retried_when_its_handler_fails(
    transport_url: str, caller: Caller, store: DurableTransport, name: str, caplog: pytest.LogCaptureFixture
) -> None:
    """A failed event comes again after a pause, with its attempt counted, until it succeeds."""
    service, attempts, times = service_for(name, transport_url), list[int](), list[float]()
    done = asyncio.Event()

    @service.event(f"{name}.made", durable=True, retries=4, backoff_s=0.1)
    async def on_made(order: Order, context: MessageContext) -> None:
        attempts.append(context.attempt)
        times.append(time.monotonic())
        if context.attempt < 3:
            raise (Failed("not yet"), KeyError("not yet"))[context.attempt - 1]
        done.set()

    async with service:
        async with asyncio.timeout(10):
            await caller.publish(f"{name}.made", Order(1), durable=True)
            await done.wait()
    assert attempts == [1, 2, 3]
    assert times[1] - times[0] >= 0.05
    assert times[2] - times[1] >= 0.1
    assert "failed on attempt 1" in caplog.text
    assert await stored(store, dlq_stream(name)) == []


async def test_event_is_dead_lettered_when_every_attempt_failed(
    transport_url: str, caller: Caller, store: DurableTransport, name: str
) -> None:
    """After its last attempt an event is stored with cause, attempts, handler, subject and id, without credentials."""
    service, attempts = service_for(name, transport_url), list[int]()

    @service.event(f"{name}.made", durable=True, retries=2, backoff_s=0.01)
    async def on_made(order: Order, context: MessageContext) -> None:
        attempts.append(context.attempt)
        raise (Failed("never"), KeyError("a key"))[order.id]

    headers = {"Authorization": "Bearer secret", "X-API-Key": "secret", "traceparent": "00-aa-bb-01"}
    async with service:
        for number in range(2):
            await caller.publish(
                f"{name}.made", Order(number), durable=True, message_id=f"{name}-{number}", headers=headers
            )
        letters = sorted(await dead_letters(store, name, 2), key=lambda each: each.message.body)
    assert sorted(attempts) == [1, 1, 2, 2, 3, 3]
    for number, letter in enumerate(letters):
        sent = dict(letter.message.headers or {})
        assert letter.message.body == b'{"id":%d}' % number
        assert why(letter, "Cause") == ("delivery_failed: never", "KeyError: 'a key'")[number]
        assert (why(letter, "Attempts"), why(letter, "Handler")) == ("3", "on_made")
        assert why(letter, "Subject") == f"{name}.made"
        assert time.strptime(why(letter, "Failed-At"), "%Y-%m-%dT%H:%M:%SZ")
        assert (sent["X-Original-Message-ID"], sent["traceparent"]) == (f"{name}-{number}", "00-aa-bb-01")
        assert "secret" not in json.dumps(sent)


@pytest.mark.parametrize(
    ("body", "headers"),
    [
        (b"{", None),
        (b"\xff", None),
        (b'{"id": "x"}', None),
        (b'{"id": 1}', {"Content-Type": "text/csv"}),
        (b"[" * 5000, None),
    ],
)
async def test_event_is_dead_lettered_at_once_when_it_cannot_be_decoded(
    transport_url: str, store: DurableTransport, name: str, body: bytes, headers: dict[str, str] | None
) -> None:
    """No retry can help a body that does not fit: one attempt, then the dead-letter stream, and the next event runs."""
    service, got = service_for(name, transport_url), asyncio.Queue[int]()

    @service.event(f"{name}.made", durable=True, retries=9, backoff_s=60)
    async def on_made(order: Order) -> None:
        got.put_nowait(order.id)

    async with service:
        for number, each in enumerate((Message(f"{name}.made", body, headers), Message(f"{name}.made", b'{"id": 2}'))):
            await store.publish_durable(each, stream=name.upper(), message_id=f"{name}-{number}", timeout_s=5)
        assert await asyncio.wait_for(got.get(), 10) == 2
        (letter,) = await dead_letters(store, name)
    assert why(letter, "Attempts") == "1"
    assert why(letter, "Cause").startswith("validation_error")
    assert letter.message.body == body


async def test_own_validation_error_is_retried_when_a_handler_raises_it(
    transport_url: str, caller: Caller, name: str
) -> None:
    """Only arguments that do not fit are hopeless; what a running handler raises is retried."""
    service, done = service_for(name, transport_url), asyncio.Event()

    @service.event(f"{name}.made", durable=True, backoff_s=0.01)
    async def on_made(order: Order, context: MessageContext) -> None:
        if context.attempt == 1:
            msgspec.convert({"id": "x"}, Order)
        done.set()

    async with service:
        await caller.publish(f"{name}.made", Order(1), durable=True)
        await asyncio.wait_for(done.wait(), 10)


async def test_event_is_renewed_when_its_handler_outlasts_the_ack_wait(
    transport_url: str, caller: Caller, name: str
) -> None:
    """A handler that runs for several ack waits keeps its event: it is delivered once."""
    service, attempts, ended = service_for(name, transport_url), list[int](), asyncio.Event()

    @service.event(f"{name}.made", durable=True, ack_wait_s=0.8)
    async def on_made(order: Order, context: MessageContext) -> None:
        attempts.append(context.attempt)
        if order.id == 1:
            await asyncio.sleep(2.0)  # more than two ack waits
        ended.set()

    async with service:
        await caller.publish(f"{name}.made", Order(1), durable=True)
        await asyncio.wait_for(ended.wait(), 10)
        await caller.publish(f"{name}.made", Order(2), durable=True)
        await eventually(lambda: len(attempts) == 2)
    assert attempts == [1, 1]


async def test_event_is_renewed_when_it_waits_for_a_slot(transport_url: str, caller: Caller, name: str) -> None:
    """An event that waits longer than the ack wait because its handler is busy is not taken for lost."""
    service, attempts = service_for(name, transport_url), list[tuple[int, int]]()

    @service.event(f"{name}.made", durable=True, ack_wait_s=0.7, concurrency=1)
    async def on_made(order: Order, context: MessageContext) -> None:
        attempts.append((order.id, context.attempt))
        await asyncio.sleep(0.5)

    async with service:
        for number in range(3):
            await caller.publish(f"{name}.made", Order(number), durable=True)
        await eventually(lambda: len(attempts) == 3)
    assert attempts == [(0, 1), (1, 1), (2, 1)]


@pytest.mark.parametrize("how", ["deadline", "cancelled", "exit"])
async def test_attempt_counts_when_a_handler_is_cut(
    transport_url: str, caller: Caller, store: DurableTransport, name: str, how: str
) -> None:
    """A handler past its `timeout`, or one that ends itself oddly, has failed: it is retried, then dead-lettered."""
    service, attempts = service_for(name, transport_url), list[int]()

    @service.event(f"{name}.made", durable=True, retries=1, backoff_s=0.01, timeout=0.1)
    async def on_made(order: Order, context: MessageContext) -> None:
        attempts.append(context.attempt)
        match how:
            case "deadline":
                await asyncio.Event().wait()
            case "cancelled":
                raise asyncio.CancelledError
            case _:
                raise SystemExit(1)

    async with service:
        await caller.publish(f"{name}.made", Order(1), durable=True)
        (letter,) = await dead_letters(store, name)
    assert attempts == [1, 2]
    cause = {"deadline": DeadlineExceeded.code, "cancelled": "cancelled", "exit": "SystemExit"}[how]
    assert why(letter, "Cause").startswith(cause)
    assert why(letter, "Attempts") == "2"


async def test_event_comes_again_when_a_stop_cuts_its_handler(
    transport_url: str, caller: Caller, store: DurableTransport, name: str
) -> None:
    """A handler cut by the end of the grace time has its event delivered again to the next who serves it."""
    service, attempts = service_for(name, transport_url, shutdown_grace_s=1.5), list[int]()

    @service.event(f"{name}.made", durable=True, retries=1)
    async def on_made(order: Order, context: MessageContext) -> None:
        attempts.append(context.attempt)
        if context.attempt == 1:
            await asyncio.Event().wait()

    await service.start()
    await caller.publish(f"{name}.made", Order(0), durable=True)
    await eventually(lambda: attempts == [1])
    await asyncio.wait_for(service.stop(), 10)
    async with service:
        await eventually(lambda: attempts == [1, 2])
    assert await stored(store, dlq_stream(name)) == []


async def test_redrive_reaches_the_failed_handler_alone_when_two_had_the_event(
    transport_url: str, caller: Caller, store: DurableTransport, name: str
) -> None:
    """A redriven event goes once to the handler that failed, as it was first published; its dead letter is gone."""
    service, seen, broken = service_for(name, transport_url), list[tuple[str, MessageContext]](), True

    @service.event(f"{name}.*", durable=True, retries=0)
    async def fragile(order: Order, context: MessageContext) -> None:
        seen.append(("fragile", context))
        if broken:
            raise Failed("broken")

    @service.event(f"{name}.made", durable=True)
    async def sound(order: Order, context: MessageContext) -> None:
        seen.append(("sound", context))

    async with service:
        await caller.publish(f"{name}.made", Order(1), durable=True, message_id=f"{name}-1")
        (letter,) = await dead_letters(store, name)
        await eventually(lambda: len(seen) == 2)
        broken = False
        both = await asyncio.gather(
            redrive(store, name, letter.sequence), redrive(store, name, letter.sequence), return_exceptions=True
        )
        new_id = next(each for each in both if isinstance(each, str))
        await eventually(lambda: len(seen) == 3)
        await eventually(lambda: service.runtime.scope.idle)
        redriven = [
            each for each in await stored(store, dlq_stream(name)) if each.message.subject.startswith("redrive.")
        ]
        assert [(each.message.headers or {})["X-Original-Message-ID"] for each in redriven] == [f"{name}-1"]
        with pytest.raises(NotFoundError, match=f"holds no dead letter {letter.sequence}"):
            await redrive(store, name, letter.sequence)
    handler, context = seen[-1]
    assert handler == "fragile"
    assert (context.message_id, context.subject, context.attempt) == (f"{name}-1", f"{name}.made", 1)
    assert context.pattern == f"{name}.*"
    assert new_id.startswith("redrive:")
    assert [each for each in await stored(store, dlq_stream(name)) if each.message.subject.startswith("dlq.")] == []


async def test_event_is_a_dead_letter_again_when_its_redrive_fails(
    transport_url: str, caller: Caller, store: DurableTransport, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A redriven event that fails again is dead-lettered again, under its first id, subject and time of failure."""
    service = service_for(name, transport_url)

    @service.event(f"{name}.made", durable=True, retries=0)
    async def fragile(order: Order, context: MessageContext) -> None:
        raise Failed(f"attempt on {context.subject}")

    async def letters() -> list[StoredMessage]:
        return [each for each in await stored(store, dlq_stream(name)) if each.message.subject.startswith("dlq.")]

    async with service:
        await caller.publish(f"{name}.made", Order(1), durable=True, message_id=f"{name}-1")
        (first,) = await eventually(letters)
        assert why(first, "First-Failed-At") == why(first, "Failed-At")
        monkeypatch.setattr(time, "strftime", lambda *_: "2100-01-01T00:00:00Z")
        await redrive(store, name, first.sequence)
        (second,) = await eventually(letters)
    assert second.sequence > first.sequence
    assert why(second, "First-Failed-At") == why(first, "Failed-At") < why(second, "Failed-At")
    assert (second.message.headers or {})["X-Original-Message-ID"] == f"{name}-1"
    assert why(second, "Subject") == f"{name}.made"


async def test_redrive_finds_the_event_when_a_handler_has_two(
    transport_url: str, caller: Caller, store: DurableTransport, name: str
) -> None:
    """A handler of two durable events gets a redriven one under the options of that event."""
    service, seen, broken = service_for(name, transport_url), list[tuple[str, float]](), True

    @service.event(f"{name}.paid", durable=True, retries=0, timeout=50, queue=f"{name}-paid")
    @service.event(f"{name}.made.*", durable=True, retries=0, timeout=20)
    async def fragile(order: Order, context: MessageContext) -> None:
        if broken:
            raise Failed("broken")
        seen.append((context.pattern, round(context.remaining_s() or 0)))

    async with service:
        for subject in (f"{name}.made.x", f"{name}.paid"):
            await caller.publish(subject, Order(1), durable=True, message_id=subject)
        letters = await dead_letters(store, name, 2)
        broken = False
        for letter in letters:
            await redrive(store, name, letter.sequence)
        await eventually(lambda: len(seen) == 2)
    assert sorted(seen) == [(f"{name}.made.*", 20), (f"{name}.paid", 50)]


@pytest.mark.parametrize("compressible", [True, False])
async def test_dead_letter_is_stored_when_it_leaves_no_room_for_why(
    nats_url: str, name: str, compressible: bool
) -> None:
    """An event as large as the server takes is kept whole, compressed, and comes back; or cut, and says so."""
    broken, got = True, list[object]()
    service = service_for(name, nats_url, content_type=MSGPACK.content_type)

    @service.event(f"{name}.made", durable=True, retries=0)
    async def fragile(payload: object) -> None:
        if broken:
            raise Failed("broken")
        got.append(payload)

    async with service:
        raw = cast(DurableTransport, service.runtime.transports["default"])
        size = raw.capabilities.max_payload or 0
        payload = (bytes if compressible else os.urandom)(size - 400)
        body = msgspec.msgpack.encode(payload)
        await service.publish(f"{name}.made", payload, durable=True)
        (letter,) = await dead_letters(raw, name)
        assert why(letter, "Bytes") == str(len(body))
        broken = False
        if compressible:
            assert unpacked(letter.message) == body
            await redrive(raw, name, letter.sequence)
            await eventually(lambda: got == [payload])
        else:
            assert letter.message.body == body[: len(body) // 2]
            with pytest.raises(ConflictError, match=rf"was cut; publish the event again on '{name}\.made'"):
                await redrive(raw, name, letter.sequence)
            assert len(await stored(raw, dlq_stream(name))) == 1


async def test_redrive_is_refused_when_there_is_no_such_dead_letter(
    transport_url: str, store: DurableTransport, name: str
) -> None:
    """A number that names no dead letter, in a stream or without one, is `NotFoundError`, and nothing is sent."""
    with pytest.raises(NotFoundError):
        await redrive(store, name, 1)
    redriven = Message(f"redrive.{name}.gone", b"{}")
    await store.publish_durable(redriven, stream=dlq_stream(name), message_id=name, timeout_s=5)
    with pytest.raises(NotFoundError):
        await redrive(store, name, 1)
    assert len(await stored(store, dlq_stream(name))) == 1


async def test_redriven_event_waits_when_its_handler_is_gone(
    transport_url: str, store: DurableTransport, name: str, caplog: pytest.LogCaptureFixture
) -> None:
    """An event redriven to a handler that no longer exists stays stored, and the log names the handler."""
    service = service_for(name, transport_url)

    @service.event(f"{name}.made", durable=True)
    async def on_made(order: Order) -> None: ...

    async with service:
        redriven = Message(f"redrive.{name}.gone", b"{}")
        await store.publish_durable(redriven, stream=dlq_stream(name), message_id=name, timeout_s=5)
        await eventually(lambda: "'gone', which this service does not have" in caplog.text)
        assert len(await stored(store, dlq_stream(name))) == 1


async def test_publish_fails_when_the_transport_does_not_store(name: str) -> None:
    """`publish(durable=True)` on a transport without streams is `NotStored`, and says what to do."""
    async with without_streams(name) as service:
        with pytest.raises(NotStored, match="cannot store"):
            await service.publish(f"{name}.made", {}, durable=True)
        await service.publish(f"{name}.made", {})


async def test_start_fails_when_a_durable_handler_stands_on_a_transport_that_cannot(name: str) -> None:
    """A durable handler where nothing is stored is refused at start, by name, and not found out later."""
    service = without_streams(name)

    @service.event(f"{name}.made", durable=True)
    async def on_made(order: Order) -> None: ...

    with pytest.raises(ConfigurationError, match=f"'{name}.on_made' needs durable, which transport 'default' lacks"):
        await service.start()


async def test_rejected_event_is_in_the_log_alone_when_nothing_stores_it(
    name: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Without a stream a rejected core event is logged, and the service goes on."""
    service, got = without_streams(name), list[int]()

    @service.event(f"{name}.made")
    async def on_made(order: Order) -> None:
        got.append(order.id)

    async with service:
        await service.publish(f"{name}.made", {"id": "x"})
        await service.publish(f"{name}.made", {"id": 1})
        await eventually(lambda: got == [1])
    assert f"{name}.on_made: event on '{name}.made' rejected: validation_error" in caplog.text


class Broken(MemoryTransport):
    """In memory, with a broker that fails where a test says so."""

    def __init__(self, url: str, *, stores: bool = True) -> None:
        super().__init__("memory://" + url.partition("://")[2])
        self.stores = stores
        self.full = False

    @property
    def capabilities(self) -> Capabilities:
        return msgspec.structs.replace(super().capabilities, durable=self.stores)

    async def publish_durable(self, message: Message, *, stream: str, message_id: str, timeout_s: float) -> None:
        if self.full:
            raise NotStored("the disk is full")
        await super().publish_durable(message, stream=stream, message_id=message_id, timeout_s=timeout_s)


class BrokenPlugin:
    """Offers `broken://` and `storeless://`, and keeps what it made."""

    def __init__(self) -> None:
        self.made: list[Broken] = []

    def make(self, url: str, service: ServiceInfo) -> Broken:
        self.made.append(Broken(url, stores=url.startswith("broken")))
        return self.made[-1]

    @hookimpl
    def cliffracer_register_transports(self) -> Sequence[TransportFactory]:
        return [TransportFactory(schemes=("broken", "storeless"), create=self.make)]


def without_streams(name: str) -> CliffracerService:
    return CliffracerService(ServiceConfig(name, transport="storeless://"), plugins={"broken": BrokenPlugin()})


@pytest.fixture
def broken() -> BrokenPlugin:
    return BrokenPlugin()


async def test_event_is_not_lost_when_no_dead_letter_can_be_stored(
    name: str, broken: BrokenPlugin, caplog: pytest.LogCaptureFixture
) -> None:
    """An event whose dead letter cannot be stored comes again until one can."""
    service = CliffracerService(ServiceConfig(name, transport="broken://"), plugins={"broken": broken})
    attempts: list[int] = []

    @service.event(f"{name}.made", durable=True, retries=0, backoff_s=0.01, max_backoff_s=0.02)
    async def on_made(order: Order, context: MessageContext) -> None:
        attempts.append(context.attempt)
        raise Failed("broken")

    async with service:
        (transport,) = broken.made
        await service.publish(f"{name}.made", Order(1), durable=True)
        transport.full = True
        await eventually(lambda: caplog.text.count("no dead letter could be stored: not_stored: the disk is full") > 1)
        transport.full = False
        (letter,) = await dead_letters(transport, name)
    assert why(letter, "Subject") == f"{name}.made"
    assert attempts[0] == 1


async def test_rejected_core_event_is_logged_when_no_dead_letter_can_be_stored(
    name: str, broken: BrokenPlugin, caplog: pytest.LogCaptureFixture
) -> None:
    """A rejected core event that cannot be kept is at least in the log."""
    service = CliffracerService(ServiceConfig(name, transport="broken://"), plugins={"broken": broken})

    @service.event(f"{name}.made")
    async def on_made(order: Order) -> None: ...

    async with service:
        broken.made[0].full = True
        await service.publish(f"{name}.made", {})
        await eventually(lambda: "the rejected event could not be kept: not_stored: the disk is full" in caplog.text)


async def test_event_comes_again_when_its_ack_is_lost(
    transport_url: str, name: str, caplog: pytest.LogCaptureFixture
) -> None:
    """A handler that finished while the connection was gone has its event delivered again: at least once."""
    service, begun, release, got = service_for(name, transport_url), asyncio.Event(), asyncio.Event(), list[int]()

    @service.event(f"{name}.made", durable=True, ack_wait_s=0.6)
    async def on_made(order: Order, context: MessageContext) -> None:
        got.append(context.attempt)
        begun.set()
        await release.wait()

    await service.start()
    await service.publish(f"{name}.made", Order(1), durable=True)
    await asyncio.wait_for(begun.wait(), 10)
    await service.runtime.transports["default"].close()
    await eventually(lambda: "in_progress could not be sent" in caplog.text)
    release.set()
    await eventually(lambda: "the event will come again" in caplog.text)
    await service.stop()
    async with service:
        await eventually(lambda: len(got) == 2)
    assert got == [1, 2]


async def test_stream_is_shared_when_a_proxy_publishes_what_a_service_consumes(
    transport_url: str, caller: Caller, name: str
) -> None:
    """`ClientProxy.emit(durable=True)` reaches a durable handler of a service that starts later."""
    service, got = service_for(name, transport_url), Collector[int]()

    @service.event(f"{name}.made", durable=True)
    async def on_made(order: Order) -> None:
        got(order.id)

    async with ClientProxy(transport_url) as proxy:
        await proxy.emit(f"{name}.made", Order(5), durable=True)
    async with service:
        assert await got.at_least(1) == [5]
