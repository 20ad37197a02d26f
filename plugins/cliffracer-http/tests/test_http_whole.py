from __future__ import annotations

import asyncio
import contextlib
import re
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
from cliffracer_http import get, post
from cliffracer_http.servers import ServerSettings, make_server
from cliffracer_http.servers.uvicorn_replies import _Reply

from cliffracer_core import CliffracerService, ServiceConfig

CONVERSATIONS = {
    "keep-alive": [b"GET /a HTTP/1.1\r\nHost: x\r\n\r\n"] * 2,
    "pipelined": [b"GET /a HTTP/1.1\r\nHost: x\r\n\r\nGET /b HTTP/1.1\r\nHost: x\r\n\r\n"],
    "told to close": [b"GET /a HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"],
    "HTTP/1.0": [b"GET /a HTTP/1.0\r\n\r\n"],
    "a body": [b"POST /a HTTP/1.1\r\nHost: x\r\nContent-Length: 4\r\n\r\nabcd"],
    "a body that nobody reads": [b"POST /unread HTTP/1.1\r\nHost: x\r\nContent-Length: 4\r\n\r\nabcd"],
    "a body that is waited for": [b"POST /a HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: 0\r\n\r\n"],
    "a body that nobody waits for": [
        b"POST /unread HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: 4\r\n\r\nabcd"
    ],
}
LAST = b"GET /last HTTP/1.1\r\nHost: x\r\nX-Correlation-ID: last\r\nConnection: close\r\n\r\n"
DATE = re.compile(rb"date: [^\r]*")


@contextlib.asynccontextmanager
async def serving(app: Any) -> AsyncIterator[int]:
    server = make_server("uvicorn")
    [url] = await server.start(app, ServerSettings())
    try:
        yield int(url.rpartition(":")[2])
    finally:
        await server.stop(1.0)


def echo(respond: Callable[[Any, bytes, bytes], Any]) -> Any:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        body = b"" if scope["path"] == "/unread" else (await receive())["body"]
        body = scope["path"].encode() + body
        await respond(send, b"content-length: %d\r\nx-one: 1\r\n" % len(body), body)
        assert (await receive())["type"] == "http.disconnect"

    return app


async def at_once(send: Any, lines: bytes, body: bytes) -> None:
    assert send.whole(200, lines, body)
    assert not send.whole(200, lines, body), "there is a response already"


async def by_messages(send: Any, lines: bytes, body: bytes) -> None:
    headers = [tuple(line.split(b": ")) for line in lines.split(b"\r\n") if line]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": body})


async def talk(port: int, requests: list[bytes]) -> bytes:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    received = b""
    async with asyncio.timeout(10):
        for request in requests:
            writer.write(request)
            received += await reader.readuntil(b"\r\n\r\n")
        with contextlib.suppress(ConnectionError):
            writer.write(LAST)
            received += await reader.read()
    writer.close()
    return DATE.sub(b"date", received)


@pytest.mark.parametrize("requests", CONVERSATIONS.values(), ids=CONVERSATIONS)
async def test_whole_response_is_the_same_bytes(requests: list[bytes]) -> None:
    """What a client gets, response by response, and when the connection ends, does not tell which way was taken."""
    heard = []
    for way in (at_once, by_messages):
        async with serving(echo(way)) as port:
            heard.append(await talk(port, requests))
    assert heard[0] == heard[1]
    assert heard[0].startswith(b"HTTP/1.1 ")
    assert heard[0].count(b"x-one: 1") >= 1


async def test_whole_response_waits_for_a_client_that_is_behind() -> None:
    """One that reads nothing is given no more than its buffers hold; when it reads, it has all, in order."""
    size, count = 1_000_000, 20
    taken: list[bool] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        body = scope["path"][1:].zfill(2).encode() * (size // 2)
        lines = b"content-length: %d\r\n" % size
        taken.append(send.whole(200, lines, body))
        if not taken[-1]:
            await by_messages(send, lines, body)

    async with serving(app) as port:
        reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=1024)
        writer.write(b"".join(b"GET /%d HTTP/1.1\r\nHost: x\r\n\r\n" % number for number in range(count)))
        async with asyncio.timeout(20):
            while False not in taken:
                await asyncio.sleep(0.01)
            assert len(taken) < count
            for number in range(count):
                await reader.readuntil(b"\r\n\r\n")
                assert await reader.readexactly(size) == b"%02d" % number * (size // 2)
        writer.close()


async def test_whole_response_is_refused_when_the_client_is_gone() -> None:
    """As ASGI's `send`, it does nothing then; it says so."""
    came, taken = asyncio.Event(), asyncio.get_running_loop().create_future()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        came.set()
        assert (await receive())["type"] == "http.disconnect"
        taken.set_result(send.whole(200, b"content-length: 1\r\n", b"x"))

    async with serving(app) as port, asyncio.timeout(10):
        _, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        await came.wait()
        writer.close()
        assert await taken is False


async def test_whole_response_ends_the_wait_of_who_watches_the_client() -> None:
    """Somebody who waits in `receive` hears that the request is over."""
    heard = asyncio.get_running_loop().create_future()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        watching = asyncio.create_task(receive())
        await asyncio.sleep(0)
        assert send.whole(200, b"content-length: 1\r\n", b"x")
        heard.set_result(await watching)

    async with serving(app) as port, asyncio.timeout(10):
        _, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        assert (await heard)["type"] == "http.disconnect"
        writer.close()


class Shop(CliffracerService):
    @get("/items/{number}")
    async def item(self, number: int) -> dict[str, int]:
        return {"number": number}

    @post("/items", status_code=201)
    async def add(self, name: str) -> dict[str, str]:
        return {"name": name}


@pytest.mark.parametrize("http", [{}, {"cors": {"origins": ["https://a.example"]}, "compression": True}])
async def test_routes_answer_alike_when_no_response_is_taken_whole(
    http: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Through a service, with middlewares in front and without: JSON of a GET and a POST, HEAD, an error."""
    body = b'{"name":"nut"}'
    requests = [
        b"GET /items/7 HTTP/1.1\r\nHost: x\r\nX-Correlation-ID: one\r\n\r\n",
        b"POST /items HTTP/1.1\r\nHost: x\r\nX-Correlation-ID: two\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body),
        b"HEAD /items/7 HTTP/1.1\r\nHost: x\r\nX-Correlation-ID: three\r\n\r\n",
        b"GET /items/x HTTP/1.1\r\nHost: x\r\nX-Correlation-ID: four\r\n\r\n",
    ]
    config = ServiceConfig("shop", http={"port": 0, "server": "uvicorn", **http})
    whole, sent = _Reply.whole, []

    def counting(send: _Reply, *response: Any) -> bool:
        sent.append(whole(send, *response))
        return sent[-1]

    async def answers() -> list[bytes]:
        service: Any = Shop(config)
        async with service:
            port = int(service.http.url.rpartition(":")[2])
            heard = b"".join([await talk(port, [each]) for each in requests])
        return sorted(heard.split(b"\r\n"))  # CORS's header may stand elsewhere

    monkeypatch.setattr(_Reply, "whole", counting)
    at_once = await answers()
    assert sent == [True, True], "the GET and the POST"
    monkeypatch.setattr(_Reply, "whole", lambda *response: False)
    assert await answers() == at_once
    assert at_once.count(b"vary: Origin") == (8 if http else 0)
