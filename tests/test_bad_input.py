"""Whatever comes in: a typed error at once to who sent it, and nothing else is disturbed."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Callable
from typing import Any
from urllib.parse import urlsplit

import msgspec
import pytest

from cliffracer_core import (
    CliffracerService,
    ConfigurationError,
    EncodingError,
    InvalidSubject,
    MessageContext,
    MessagePattern,
    ServiceConfig,
    Transport,
    event,
    rpc,
    validated_rpc,
)
from cliffracer_core.caller import Caller
from cliffracer_core.deadletters import dlq_stream
from cliffracer_core.interfaces import DurableTransport
from cliffracer_core.messages import Message
from cliffracer_core.testing import Collector, eventually

MSGPACK = {"Content-Type": "application/msgpack"}


class Tree(msgspec.Struct):
    """Nests without end."""

    children: list[Tree] = []


class Cat(msgspec.Struct):
    """One of a union."""

    lives: int


class Dog(msgspec.Struct):
    """The other; no tag tells them apart."""

    tail: bool


class Service(CliffracerService):
    """Takes what tests send, and has something to disturb."""

    def __init__(self, name: str, url: str) -> None:
        super().__init__(ServiceConfig(name, transport=url))
        self.release = asyncio.Event()
        self.begun = asyncio.Event()
        self.ran: list[str] = []
        self.heard: list[object] = []

    @rpc
    async def slow(self) -> str:
        self.begun.set()
        await self.release.wait()
        return "finished"

    @rpc
    async def ping(self) -> str:
        return "pong"

    @rpc
    async def take(self, count: int, name: str = "x", tree: Tree | None = None, number: float = 0.0) -> None:
        self.ran.append("take")

    @validated_rpc
    async def strict(self, count: int) -> None:
        self.ran.append("strict")

    @rpc
    async def remember(self, item: int, items: list[int] = [], seen: dict[str, int] = {}) -> list[int]:  # noqa: B006
        seen[str(item)] = item
        items.append(item)
        return [*items, len(seen)]


@pytest.fixture
async def service(transport_url: str, caller: Caller, name: str) -> AsyncIterator[Service]:
    """A service with a slow call in flight, which must finish whatever a test sends meanwhile."""
    service = Service(name, transport_url)

    @service.event(f"{name}.core")
    async def core(count: int, name: str = "x", tree: Tree | None = None, number: float = 0.0) -> None:
        service.heard.append(count)

    @service.event(f"{name}.kept", durable=True, retries=8, backoff_s=60)
    async def kept(count: int, name: str = "x", tree: Tree | None = None, number: float = 0.0) -> None:
        service.heard.append(count)

    async with service:
        slow = asyncio.create_task(caller.call(name, "slow", timeout=60))
        await asyncio.wait_for(service.begun.wait(), 10)
        yield service
        assert await asyncio.wait_for(caller.call(name, "ping", timeout=60), 10) == "pong"
        service.release.set()
        assert await asyncio.wait_for(slow, 10) == "finished"


def deep(depth: int, key: str = "children") -> bytes:
    return b'{"count": 1, "tree": ' + b'{"%s": [' % key.encode() * depth + b"]}" * depth + b"}"


BAD: list[tuple[str, bytes, dict[str, str] | None]] = [
    ("no json", b"{count: 1}", None),
    ("cut off", b'{"count": 1', None),
    ("trailing", b'{"count": 1} {"count": 2}', None),
    ("not utf-8", b"\xff\xfe\x00", None),
    ("not utf-8 in a string", b'{"count": 1, "name": "\xff"}', None),
    ("lone surrogate", rb'{"count": 1, "name": "\ud800"}', None),
    ("wrong type", b'{"count": "one"}', None),
    ("missing", b'{"name": "x"}', None),
    ("empty", b"", None),
    ("null argument", b'{"count": null}', None),
    ("array", b"[1]", None),
    ("text", b'"count"', None),
    ("nan", b'{"count": 1, "number": NaN}', None),
    ("infinity", b'{"count": 1, "number": Infinity}', None),
    ("too large a float", b'{"count": 1, "number": 1e999}', None),
    ("huge number", b'{"count": ' + b"9" * 5000 + b"}", None),
    ("deep arrays", b"[" * 100_000, None),
    ("deep objects", b'{"a":' * 100_000, None),
    ("deep struct", deep(20_000), None),
    ("deep unknown", deep(20_000, "other"), None),
    ("unknown type", b'{"count": 1}', {"Content-Type": "text/csv"}),
    ("empty type", b'{"count": 1}', {"Content-Type": "/"}),
    ("json as msgpack", b'{"count": "one"}', MSGPACK),
    ("msgpack wrong", b"\x81\xa5count\xa3one", MSGPACK),
    ("msgpack cut off", b"\x81\xa5count", MSGPACK),
    ("msgpack lies about length", b"\xdd\xff\xff\xff\xff", MSGPACK),
    ("msgpack deep", b"\x91" * 100_000, MSGPACK),
    ("msgpack not utf-8", b"\x82\xa5count\x01\xa4name\xa1\xff", MSGPACK),
]
IDS = [label for label, _, _ in BAD]


@pytest.mark.parametrize(("label", "body", "headers"), BAD, ids=IDS)
async def test_caller_gets_a_validation_error_when_a_body_is_bad(
    raw: Transport, service: Service, label: str, body: bytes, headers: dict[str, str] | None
) -> None:
    """A body that cannot become the arguments is refused with a typed error, at once, and the handler never runs."""
    reply = await asyncio.wait_for(raw.request(Message(f"rpc.{service.name}.take", body, headers), 60), 10)
    error = json.loads(reply.body)
    assert (error["type"], error["code"], error["service"]) == ("validation_error", 400, service.name)
    assert error["message"]
    assert len(error["message"]) < 1000
    assert service.ran == []


@pytest.mark.parametrize(("label", "body", "headers"), BAD, ids=IDS)
@pytest.mark.parametrize("durable", [False, True])
async def test_event_is_logged_and_parked_when_its_body_is_bad(
    raw: Transport, service: Service, label: str, body: bytes, headers: dict[str, str] | None, durable: bool,
    caplog: pytest.LogCaptureFixture,
) -> None:  # fmt: skip
    """An event whose body cannot become the arguments is logged and parked at once; the next one is heard."""
    assert isinstance(raw, DurableTransport)
    name = service.name
    subject = f"{name}.kept" if durable else f"{name}.core"
    for number, each in enumerate((Message(subject, body, headers), Message(subject, b'{"count": 7}'))):
        if durable:
            await raw.publish_durable(each, stream=name.upper(), message_id=str(number), timeout_s=10)
        else:
            await raw.publish(each)
    await eventually(lambda: service.heard == [7])

    async def parked() -> list[bytes]:
        return [each.message.body async for each in raw.browse(dlq_stream(name))]

    assert await eventually(parked) == [body]
    assert f"DLQ_{name}: validation_error" in caplog.text


async def test_field_is_named_when_an_argument_is_unknown(raw: Transport, service: Service) -> None:
    """`validated_rpc` refuses what its handler does not take; `rpc` ignores it."""
    body = b'{"count": 1, "extra": true}'
    refused = json.loads((await raw.request(Message(f"rpc.{service.name}.strict", body), 10)).body)
    assert refused["details"] == {"field": "extra"}
    assert (await raw.request(Message(f"rpc.{service.name}.take", body), 10)).body == b"null"
    assert service.ran == ["take"]


async def test_repeated_and_odd_keys_are_harmless_when_they_come(raw: Transport, service: Service) -> None:
    """Repeated keys, empty keys and escapes are JSON like any other."""
    for body in (b'{"count": 2, "count": 1}', b'{"": 1, "count": 1}', rb'{"c\u006funt": 1}', b' {"count":1}\n'):
        assert (await raw.request(Message(f"rpc.{service.name}.take", body), 10)).body == b"null"


async def test_default_stays_as_it_was_when_a_handler_changes_it(caller: Caller, service: Service) -> None:
    """A mutable default belongs to one call: what a handler does to it no other call sees."""
    for item in (1, 2):
        assert await caller.call(service.name, "remember", {"item": item}) == [item, 1]


@pytest.mark.parametrize("method", ["", "take all", "take\r\nPING", "*", ">", "take.", "a" * 3000, "a\x00b"])
async def test_nothing_is_sent_when_a_subject_is_bad(raw: Transport, service: Service, method: str) -> None:
    """A subject with a space, a control character, a wildcard or no token is refused by every way out."""
    message = Message(f"rpc.{service.name}.{method}", b"{}")
    with pytest.raises(InvalidSubject):
        await raw.publish(message)
    with pytest.raises(InvalidSubject):
        await raw.request(message, 10)
    with pytest.raises(InvalidSubject):
        await service.publish(message.subject)
    with pytest.raises(InvalidSubject):
        await service.rpc_call(service.name, method)


@pytest.mark.parametrize("pattern", ["", "user created", "user.", ".user", "a..b", "us*r", ">.a", "a\nb", 5, None])
async def test_declaration_fails_when_a_pattern_is_no_pattern(pattern: Any) -> None:
    """What is no pattern is refused where it is written."""
    decorators: list[Callable[[Any], object]] = [event, MessagePattern]
    for decorate in decorators:
        with pytest.raises(InvalidSubject):
            decorate(pattern)


async def test_start_fails_when_a_union_has_untagged_structs(transport_url: str, name: str) -> None:
    """Structs that cannot be told apart are refused at start, with what to write instead."""
    service = CliffracerService(ServiceConfig(name, transport=transport_url))

    @service.rpc
    async def feed(pet: Cat | Dog) -> None: ...

    with pytest.raises(ConfigurationError, match=r"'pet'.*tag Structs of a union with 'tag=True'"):
        await service.start()


@pytest.mark.parametrize("size", [10 * 2**20, 900 * 2**10])
async def test_large_body_is_refused_or_served_when_it_comes(
    raw: Transport, caller: Caller, service: Service, size: int
) -> None:
    """10 MB never leave the sender and cost nobody the connection; what fits is served."""
    call = caller.call(service.name, "take", {"count": 1, "name": "x" * size}, timeout=60)
    if size < 2**20:
        await asyncio.wait_for(call, 10)
        return
    with pytest.raises(Exception, match="bytes") as caught:
        await asyncio.wait_for(call, 10)
    assert getattr(caught.value, "code", "") == "message_too_large"


@pytest.mark.parametrize("value", [float("nan"), float("inf"), {"a": [float("-inf")]}, {(1, 2): 3}, object()])
async def test_sender_learns_when_an_argument_has_no_encoding(caller: Caller, service: Service, value: object) -> None:
    """What JSON cannot carry is refused before it is sent."""
    with pytest.raises(EncodingError):
        await caller.call(service.name, "take", {"count": 1, "number": value})


class Wire:
    """A NATS client of a few lines, which sends what no library would."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer

    @classmethod
    @contextlib.asynccontextmanager
    async def connected(cls, url: str) -> AsyncIterator[Wire]:
        parts = urlsplit(url)
        wire = cls(*await asyncio.open_connection(parts.hostname, parts.port))
        options = {"verbose": False, "headers": True, "auth_token": parts.username, "lang": "test", "version": "0"}
        await wire.reader.readline()
        wire.send(f"CONNECT {json.dumps(options)}\r\nSUB _INBOX.wire.* 1\r\nPING\r\n".encode())
        while await wire.reader.readline() != b"PONG\r\n":
            pass
        try:
            yield wire
        finally:
            wire.writer.close()
            await wire.writer.wait_closed()

    def send(self, data: bytes) -> None:
        self.writer.write(data)

    async def request(self, subject: str, headers: bytes, body: bytes) -> bytes:
        """Send with a header block as it is, and return the reply's head and body."""
        block = b"NATS/1.0\r\n" + headers + b"\r\n"
        self.send(b"HPUB %s _INBOX.wire.1 %d %d\r\n" % (subject.encode(), len(block), len(block) + len(body)))
        self.send(block + body + b"\r\n")
        async with asyncio.timeout(10):
            while (line := await self.reader.readline()).split(b" ")[0] not in (b"MSG", b"HMSG"):
                assert line, "the server closed the connection"
                if line == b"PING\r\n":
                    self.send(b"PONG\r\n")
            return await self.reader.readexactly(int(line.split()[-1]) + 2)


@pytest.fixture
async def wire(nats_url: str) -> AsyncIterator[Wire]:
    async with Wire.connected(nats_url) as wire:
        yield wire


ODD_HEADERS = [
    b"Timeout-Ms: \xff\xfe\r\n",
    b"X-Correlation-ID: \xff\xfe\r\n",
    b"X-Correlation-ID: \x01\x02\x7f\r\n",
    b"X-Correlation-ID: " + b"x" * 50_000 + b"\r\n",
    b"X-Correlation-ID:\r\n",
    b"no colon at all\r\n",
    b"Content-Type: \xc3\x28\r\n",
    b"X-A: 1\rX-B: 2\r\n",
    b"\xff\xfe: x\r\n",
    b": empty name\r\n",
    b"Idempotency-Key: a\x00b\r\n",
    b"X-A: 1\r\n" * 3000,
    b"a(b): c\r\n",
    b"Nats-Msg-Id: a\x01b\r\n",
]


@pytest.mark.parametrize("transport_url", ["nats"], indirect=True)
@pytest.mark.parametrize("headers", ODD_HEADERS, ids=lambda each: repr(each[:24]))
async def test_request_is_answered_when_its_headers_are_odd(service: Service, wire: Wire, headers: bytes) -> None:
    """Header bytes that break every rule get an answer, a result or a typed error, and never silence."""
    for method, body in (("ping", b""), ("take", b"{")):
        answer = await wire.request(f"rpc.{service.name}.{method}", headers, body)
        assert b'"pong"' in answer or b"Nats-Service-Error-Code: 400" in answer


@pytest.mark.parametrize("transport_url", ["nats"], indirect=True)
@pytest.mark.parametrize("headers", ODD_HEADERS, ids=lambda each: repr(each[:24]))
async def test_dead_letter_is_stored_when_its_headers_are_odd(
    raw: Transport, service: Service, wire: Wire, headers: bytes
) -> None:
    """An event with headers that we would never send is parked like any other, and not retried for good."""
    assert isinstance(raw, DurableTransport)
    subject = f"{service.name}.kept"
    stored = await wire.request(subject, headers, b"{")
    assert b'"stream"' in stored

    async def parked() -> list[bytes]:
        return [each.message.body async for each in raw.browse(dlq_stream(service.name))]

    assert await eventually(parked) == [b"{"]


@pytest.mark.parametrize("transport_url", ["nats"], indirect=True)
async def test_service_goes_on_when_a_reply_subject_is_odd(raw: Transport, service: Service, wire: Wire) -> None:
    """A request whose reply subject leads nowhere, or to a request, costs nobody anything."""
    subject = f"rpc.{service.name}.ping"
    heard = Collector[Message]()
    await raw.subscribe(f"{service.name}.heard", heard)
    for reply_to in (f"{service.name}.nobody", subject, f"{service.name}..x", f"{service.name}.heard", "\xff"):
        wire.send(f"PUB {subject} {reply_to} 2\r\n{{}}\r\n".encode("latin-1"))
    assert (await heard.at_least(1))[0].body == b'"pong"'


async def test_context_is_given_when_a_body_claims_to_be_one(raw: Transport, transport_url: str, name: str) -> None:
    """A sender cannot pass what the service injects: a `context` in the body is an unknown argument."""
    service = CliffracerService(ServiceConfig(name, transport=transport_url))

    @service.rpc
    async def who(context: MessageContext) -> str:
        return context.service

    @service.validated_rpc
    async def who_strict(context: MessageContext) -> str:
        return context.service

    body = b'{"context": {"service": "evil"}}'
    async with service:
        assert (await raw.request(Message(f"rpc.{name}.who", body), 10)).body == json.dumps(name).encode()
        refused = json.loads((await raw.request(Message(f"rpc.{name}.who_strict", body), 10)).body)
        assert refused["details"] == {"field": "context"}
