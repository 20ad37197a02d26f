"""What the parts of the contract share: an application that does as its path says, and a server of it."""

from __future__ import annotations

import asyncio
import contextlib
import weakref
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from cliffracer_http.limits import BodyLimits, Limits
from cliffracer_http.servers import AsgiServer, ServerSettings

__all__ = ["GET", "Probe", "ServerSuite"]

GET = b"GET %s HTTP/1.1\r\nhost: test\r\n\r\n"


class Mark:
    """Lives as long as the scope of a request."""


class Probe:
    """An ASGI application; it counts what begins, ends and is cancelled, by path."""

    def __init__(self) -> None:
        self.began: Counter[str] = Counter()
        self.ended: Counter[str] = Counter()
        self.cancelled: Counter[str] = Counter()
        self.sizes: list[int] = []
        """Of bodies that came whole, to `/size`."""
        self.go = asyncio.Event()
        """What `/wait` and `/stream` wait for."""
        self.held: weakref.WeakSet[Mark] = weakref.WeakSet()
        """One for each request that something still refers to."""

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Serve as ASGI 3."""
        if scope["type"] == "lifespan":
            raise RuntimeError("a server of ours asks for no lifespan")
        path: str = scope["path"]
        scope["probe"] = mark = Mark()
        self.held.add(mark)
        self.began[path] += 1
        page: Callable[[Any, Any, Any], Awaitable[None]] = getattr(self, "on_" + path.strip("/"), self.on_)
        try:
            await page(scope, receive, send)
        except asyncio.CancelledError:
            self.cancelled[path] += 1
            raise
        self.ended[path] += 1

    async def on_(self, scope: Any, receive: Any, send: Any) -> None:
        """Answer with the path."""
        await answer(send, scope["path"].encode())

    async def on_wait(self, scope: Any, receive: Any, send: Any) -> None:
        """Answer when it may."""
        await self.go.wait()
        await answer(send, b"waited")

    async def on_gone(self, scope: Any, receive: Any, send: Any) -> None:
        """Wait for the client to go away."""
        while (await receive())["type"] != "http.disconnect":
            pass

    async def on_size(self, scope: Any, receive: Any, send: Any) -> None:
        """Read the body, and answer with its size."""
        size, more = 0, True
        while more:
            message = await receive()
            if message["type"] != "http.request":
                return
            size += len(message.get("body", b""))
            more = message.get("more_body", False)
        self.sizes.append(size)
        await answer(send, b"%d" % size)

    async def on_echo(self, scope: Any, receive: Any, send: Any) -> None:
        """Send back each part as it comes."""
        await start(send)
        more = True
        while more:
            message = await receive()
            if message["type"] != "http.request":
                return
            more = message.get("more_body", False)
            await send({"type": "http.response.body", "body": message.get("body", b""), "more_body": True})
        await send({"type": "http.response.body", "body": b""})

    async def on_stream(self, scope: Any, receive: Any, send: Any) -> None:
        """Send a part at once, and the other when it may."""
        await start(send)
        await send({"type": "http.response.body", "body": b"first", "more_body": True})
        await self.go.wait()
        await send({"type": "http.response.body", "body": b"second"})

    async def on_flood(self, scope: Any, receive: Any, send: Any) -> None:
        """Send without end."""
        await start(send)
        while True:
            await send({"type": "http.response.body", "body": bytes(65536), "more_body": True})
            await asyncio.sleep(0)

    async def on_inject(self, scope: Any, receive: Any, send: Any) -> None:
        """Try to send a header with a line break."""
        headers = [(b"content-length", b"0"), (b"x-bad", b"a\r\nset-cookie: stolen=1")]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": b""})

    async def on_fail(self, scope: Any, receive: Any, send: Any) -> None:
        """Raise."""
        raise RuntimeError("as it was told")

    async def on_socket(self, scope: Any, receive: Any, send: Any) -> None:
        """Be a websocket that sends back."""
        await receive()
        await send({"type": "websocket.accept"})
        while (message := await receive())["type"] == "websocket.receive":
            await send({"type": "websocket.send", "text": message["text"]})


async def start(send: Any) -> None:
    """Begin a response of unknown length."""
    await send({"type": "http.response.start", "status": 200, "headers": []})


async def answer(send: Any, body: bytes) -> None:
    """Send a whole response."""
    headers = [(b"content-length", b"%d" % len(body)), (b"content-type", b"text/plain")]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": body})


class ServerSuite:
    """Base of the parts; see `HttpServerContract`."""

    pytestmark = pytest.mark.asyncio(loop_scope="function")

    _opened: list[AsgiServer]
    probe: Probe

    def make_server(self) -> AsgiServer:
        """Return a new server, unstarted."""
        raise NotImplementedError(f"{type(self).__name__!r} has no make_server; write one")

    def certificate(self, folder: Path) -> tuple[str, str, str]:
        """Write a new certificate for `localhost`; return the paths of chain, key and of the authority's own."""
        raise NotImplementedError(f"{type(self).__name__!r} has no certificate; write one")

    @pytest_asyncio.fixture(autouse=True, loop_scope="function")
    async def _stop_what_was_started(self) -> AsyncIterator[None]:
        self._opened = []
        self.probe = Probe()
        yield
        self.probe.go.set()
        for server in self._opened:
            with contextlib.suppress(Exception):
                await server.stop(0.1)

    def needs(self, *names: str) -> None:
        """Skip the test where a capability is missing."""
        capabilities = self.make_server().capabilities
        for name in names:
            if not getattr(capabilities, name):
                pytest.skip(f"capability {name!r} is False")

    async def serve(self, app: Any = None, **settings: Any) -> tuple[AsgiServer, str]:
        """Start a server of the probe, and return it and its URL."""
        server = self.make_server()
        self._opened.append(server)
        urls = await server.start(app or self.probe, ServerSettings(**settings))
        return server, urls[0]

    async def serve_limited(self, *, body: BodyLimits | None = None, **limits: Any) -> str:
        """Start a server of the probe with `Limits` around it; return its URL."""
        _, url = await self.serve(Limits(self.probe, body, **limits))
        return url
