"""Functions registered for messages, as handlers of a service that runs."""

from __future__ import annotations

import asyncio
import contextlib
import json
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from typing import Any

import pytest
from cliffracer_websocket import RealTimeStreamProcessor, WebSocket, websocket
from msgspec import Struct
from websockets.asyncio.client import connect

from cliffracer_core import (
    AuthorizationError,
    CliffracerService,
    ConfigurationError,
    MessageContext,
    ServiceConfig,
    ServiceInfo,
    hookimpl,
)
from cliffracer_core.handlers import Declaration, mark
from cliffracer_core.interfaces import Call, Middleware


class Sum(Struct):
    a: int
    b: int


class Gate:
    """A plugin that sees every call, and refuses those of one handler."""

    def __init__(self) -> None:
        self.seen: list[tuple[str, str, str | None]] = []

    @hookimpl
    def cliffracer_register_middleware(self, declaration: Declaration, service: ServiceInfo) -> Sequence[Middleware]:
        def watch(next: Call) -> Call:
            def call(context: MessageContext) -> Awaitable[object]:
                self.seen.append((declaration.where, context.kind, context.correlation_id))
                return next(context)

            return call

        def refuse(next: Call) -> Call:
            async def call(context: MessageContext) -> object:
                raise AuthorizationError("not for you")

            return call

        layers = [Middleware("observe", 0, watch, "watch")]
        if declaration.name == "stream.secret":
            layers.append(Middleware("guard", 0, refuse, "refuse"))
        return layers


class Desk(CliffracerService):
    name = "desk"
    stream = RealTimeStreamProcessor()
    http: Any
    begun: asyncio.Event
    release: asyncio.Event

    @websocket("/desk")
    async def open(self, websocket: WebSocket) -> None:
        await self.stream.add_connection(websocket.id, websocket)

    async def hold(self, message: Any) -> str:
        self.begun.set()
        await self.release.wait()
        return "released"


@contextlib.asynccontextmanager
async def desk(**kernel: Any) -> AsyncIterator[tuple[Desk, Gate, Callable[[], Any]]]:
    gate = Gate()
    service = Desk(ServiceConfig("desk", http={"port": 0, "server": "uvicorn"}, **kernel), plugins={"gate": gate})
    service.begun, service.release = asyncio.Event(), asyncio.Event()
    async with service, asyncio.timeout(20):
        address = service.http.url.replace("http", "ws") + "/desk"
        headers = {"X-Correlation-ID": "c-1"}
        yield service, gate, lambda: connect(address, additional_headers=headers)


async def ask(socket: Any, type: str, **fields: Any) -> Any:
    await socket.send(json.dumps({"type": type, **fields}))
    return json.loads(await socket.recv())


async def test_processor_goes_through_the_chain_when_its_service_runs() -> None:
    """Middleware sees each message under the handler's name, as it sees every other call, and may refuse it."""
    async with desk() as (service, gate, open):
        service.stream.register_processor("sum", lambda sum: sum["a"] + sum["b"])
        service.stream.register_processor("secret", lambda message: "told")
        async with open() as socket:
            assert await ask(socket, "sum", a=1, b=2) == 3
            assert (await ask(socket, "secret"))["error"]["type"] == "permission_denied"
            assert await ask(socket, "sum", a=2, b=2) == 4
        calls = [each for each in gate.seen if each[0].startswith("desk.stream.")]
        assert calls == [(f"desk.stream.{name}", "websocket", "c-1") for name in ("sum", "secret", "sum")]


async def test_processor_is_given_what_is_injected_when_its_service_runs() -> None:
    """Parameters of injectable types are given, as to any handler; one that is not async has a thread of its own."""
    threads: list[int] = []

    async def told(message: Sum, client_id: str, context: MessageContext) -> list[Any]:
        return [message.a, bool(client_id), context.handler, context.deadline is not None]

    def blocking(message: Sum) -> int:
        threads.append(threading.get_ident())
        return message.a * message.b

    async with desk() as (service, _, open):
        service.stream.register_processor("told", told)
        service.stream.register_processor("times", blocking)
        async with open() as socket:
            assert await ask(socket, "told", a=1, b=2) == [1, True, "stream.told", True]
            assert await ask(socket, "times", a=3, b=4) == 12
    assert threads
    assert threads[0] != threading.get_ident()


async def test_processor_is_cut_when_it_runs_past_the_deadline() -> None:
    """A message has the deadline of a call; the socket stays, and the client is told."""
    async with desk(timeout=0.2) as (service, _, open):
        service.stream.register_processor("hold", service.hold)
        async with open() as socket:
            assert (await ask(socket, "hold"))["error"]["type"] == "deadline_exceeded"
            service.release.set()
            assert await ask(socket, "hold") == "released"


async def test_processor_is_limited_when_too_many_messages_come() -> None:
    """The service's concurrency limit holds for it too: a message past it is answered at once."""
    async with desk(concurrency=1, queue_size=0) as (service, _, open):
        service.stream.register_processor("hold", service.hold)
        async with open() as one, open() as two:
            await one.send('{"type": "hold"}')
            await service.begun.wait()
            answer = await ask(two, "hold")
            assert answer["error"]["type"] == "overloaded"
            service.release.set()
            assert json.loads(await one.recv()) == "released"


async def test_processor_is_refused_when_nothing_gives_a_parameter() -> None:
    """Found where it is registered, or at start where that was before; alone, with the first message."""

    async def odd(message: Sum, other: int) -> None: ...

    async def marked(message: Sum) -> None: ...

    async with desk() as (service, _, _):
        with pytest.raises(ConfigurationError, match="processor 'odd': nothing gives parameter 'other'"):
            service.stream.register_processor("odd", odd)
        with pytest.raises(ConfigurationError, match="is marked 'requires_auth', which plugin 'auth' honours"):
            service.stream.register_processor("marked", mark(marked, "auth", "requires_auth"))
    processor = RealTimeStreamProcessor()
    processor.register_processor("odd", odd)
    with pytest.raises(ConfigurationError, match="wants 'other', which only a service gives"):
        await processor.incoming.handle("c", b'{"type":"odd","a":1,"b":2}')

    class Early(Desk):
        stream = processor

    with pytest.raises(ConfigurationError, match="processor 'odd': nothing gives parameter 'other'"):
        async with Early(ServiceConfig("early", http={"port": 0})):
            pass


async def test_processor_is_replaced_when_another_is_registered_for_its_type() -> None:
    """The newer one gets the messages; registering the same one again, as each connection may, costs nothing."""
    async with desk() as (service, _, open):
        scope = service.runtime.scope
        service.stream.register_processor("say", lambda message: "old")
        service.stream.register_processor("say", service.hold)
        gates = len(scope.gates)
        for _ in range(5):
            service.stream.register_processor("say", service.hold)
            service.stream.register_processor("sing", lambda message: "la")
        assert len(scope.gates) == gates + 1
        service.release.set()
        async with open() as socket:
            assert await ask(socket, "say") == "released"
            assert await ask(socket, "sing") == "la"
