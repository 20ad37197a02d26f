"""A client that goes away: what it had started ends, through to the services that were called."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Annotated, Any

import httpx
import pytest
from cliffracer_http import Body, Request, StreamingResponse, get, post
from cliffracer_http.watch import Inbox

from cliffracer_core import CliffracerService, ServiceConfig, rpc
from cliffracer_core.testing import unique


class Log:
    """What happened, and a way to wait for it."""

    def __init__(self) -> None:
        self.events: list[str] = []
        self.changed = asyncio.Event()

    def add(self, event: str) -> None:
        self.events.append(event)
        self.changed.set()

    async def has(self, event: str) -> None:
        async with asyncio.timeout(10):
            while event not in self.events:
                self.changed.clear()
                await self.changed.wait()

    @contextlib.asynccontextmanager
    async def around(self, name: str) -> AsyncIterator[None]:
        self.add(f"{name} begins")
        try:
            yield
        except asyncio.CancelledError:
            self.add(f"{name} is cancelled")
            raise
        else:
            self.add(f"{name} ends")


class Backend(CliffracerService):
    log: Log

    @rpc
    async def slow(self) -> None:
        async with self.log.around("backend"):
            await asyncio.sleep(60)


class Front(CliffracerService):
    log: Log
    backend = ""

    @get("/call")
    async def call(self) -> None:
        async with self.log.around("call"):
            await self.rpc_call(self.backend, "slow")

    @post("/body")
    async def body(self, blob: Annotated[bytes, Body()]) -> None:
        async with self.log.around("body"):
            await asyncio.sleep(60)

    @get("/request")
    async def request(self, request: Request) -> None:
        async with self.log.around("request"):
            await asyncio.sleep(60)

    @post("/reads")
    async def reads(self, request: Request) -> int:
        await asyncio.sleep(0.3)  # the watch has looked meanwhile
        size = len(await request.body())
        async with self.log.around(f"reads {size}"):
            await asyncio.sleep(60 if size > 2 else 0)
        return size

    @get("/stream")
    async def stream(self) -> AsyncIterator[int]:
        async with self.log.around("stream"):
            number = 0
            while True:
                yield number
                number += 1
                await asyncio.sleep(0.01)

    @get("/silent")
    async def silent(self) -> AsyncIterator[int]:
        async with self.log.around("silent"):
            yield 1
            await asyncio.sleep(60)

    @get("/response")
    async def response(self) -> StreamingResponse:
        async def parts() -> AsyncIterator[bytes]:
            async with self.log.around("response"):
                while True:
                    yield b"x"
                    await asyncio.sleep(0.01)

        return StreamingResponse(parts())

    @get("/quick/{seconds}")
    async def quick(self, seconds: float) -> float:
        await asyncio.sleep(seconds)
        return seconds


@pytest.fixture
def log() -> Log:
    made = Front.log = Backend.log = Log()
    return made


async def leave(client: httpx.AsyncClient, log: Log, method: str, path: str, begins: str, **options: Any) -> None:
    """Ask on a connection of its own, and close it when the handler has begun."""
    async with httpx.AsyncClient(base_url=client.base_url) as own:
        task = asyncio.create_task(own.request(method, path, **options))
        await log.has(begins)
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


@pytest.mark.parametrize("server", ["uvicorn", "hypercorn", "granian"])
@pytest.mark.parametrize(
    ("method", "path", "name", "options"),
    [
        ("POST", "/body", "body", {"content": b"x" * 100_000}),
        ("GET", "/request", "request", {}),
        ("POST", "/reads", "reads 5", {"content": b"12345"}),
        ("GET", "/stream", "stream", {}),
        ("GET", "/silent", "silent", {}),
        ("GET", "/response", "response", {}),
    ],
)
async def test_handler_is_cancelled_when_its_client_goes_away(
    serve: Any, log: Log, server: str, method: str, path: str, name: str, options: dict[str, Any]
) -> None:
    """With a body, with the request at hand, with a body read late, streaming, streaming nothing, and a response."""
    client: httpx.AsyncClient = await serve(Front, http={"server": server})
    await leave(client, log, method, path, f"{name} begins", **options)
    await log.has(f"{name} is cancelled")
    assert (await client.get("/quick/0")).status_code == 200


async def test_call_is_cancelled_when_the_client_of_its_caller_goes_away(serve: Any, log: Log, nats_url: str) -> None:
    """Over the broker, in the service that was called."""
    async with Backend(ServiceConfig(unique(), transport=nats_url)) as backend:
        Front.backend = backend.name
        client: httpx.AsyncClient = await serve(Front, transport=nats_url)
        await leave(client, log, "GET", "/call", "backend begins")
        await log.has("backend is cancelled")
        await log.has("call is cancelled")


async def test_others_are_served_when_clients_go_away(serve: Any, log: Log) -> None:
    """A hundred that leave disturb none that stay, however long those take."""
    client: httpx.AsyncClient = await serve(Front)
    staying = [asyncio.create_task(client.get(f"/quick/{seconds}")) for seconds in (0.05, 0.15, 0.25, 0.5)]
    async with httpx.AsyncClient(base_url=client.base_url, limits=httpx.Limits(max_connections=100)) as leaving:
        tasks = [asyncio.create_task(leaving.get("/request")) for _ in range(100)]
        async with asyncio.timeout(10):
            while log.events.count("request begins") < 100:
                await asyncio.sleep(0.01)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    async with asyncio.timeout(10):
        while log.events.count("request is cancelled") < 100:
            await asyncio.sleep(0.01)
    assert [(await task).json() for task in staying] == [0.05, 0.15, 0.25, 0.5]


async def test_connection_is_used_again_when_slow_requests_follow_each_other(serve: Any, log: Log) -> None:
    """The watch of one request never takes what belongs to the next on its connection."""
    client: httpx.AsyncClient = await serve(Front)
    for _ in range(3):
        assert (await client.get("/quick/0.25")).json() == 0.25
        assert (await client.post("/reads", content=b"ab")).json() == 2
    assert log.events.count("reads 2 ends") == 3


async def test_handler_gets_every_message_once_when_the_watch_reads_too(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whether the watch has read first, or waits as the handler does, parts come once and in order."""
    monkeypatch.setattr("cliffracer_http.watch.PERIOD_S", 0.001)
    messages: asyncio.Queue[Any] = asyncio.Queue()
    asked = asyncio.Event()

    async def receive() -> Any:
        asked.set()
        return await messages.get()

    async def watching() -> str:
        while (await inbox.watch())["type"] != "http.disconnect":
            pass
        return "gone"

    inbox = Inbox(receive)
    watcher = asyncio.create_task(watching())
    seen: list[bytes] = []
    async with asyncio.timeout(10):
        for number in range(6):
            await asked.wait()  # the watch waits for the next message
            asked.clear()
            reader = asyncio.create_task(inbox()) if number % 2 else None
            await asyncio.sleep(0)
            messages.put_nowait({"type": "http.request", "body": b"%d" % number, "more_body": number < 5})
            if reader is None:
                while not messages.empty():
                    await asyncio.sleep(0)
            seen.append((await (reader or inbox()))["body"])
        assert seen == [b"0", b"1", b"2", b"3", b"4", b"5"]
        messages.put_nowait({"type": "http.disconnect"})
        assert await watcher == "gone"
        assert (await inbox())["type"] == "http.disconnect"
    inbox.close()


async def test_one_part_is_read_ahead_when_the_handler_does_not_read(monkeypatch: pytest.MonkeyPatch) -> None:
    """The watch fills no memory with a body that nobody wants; the server goes on holding the client back."""
    monkeypatch.setattr("cliffracer_http.watch.PERIOD_S", 0.001)
    messages: asyncio.Queue[Any] = asyncio.Queue()
    for number in range(5):
        messages.put_nowait({"type": "http.request", "body": b"%d" % number, "more_body": True})
    inbox = Inbox(messages.get)
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.2):
            await inbox.watch()
    assert messages.qsize() == 4
    assert (await inbox())["body"] == b"0"
    inbox.close()
