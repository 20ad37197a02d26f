"""An ASGI application that does what a test wants, and remembers what it saw."""

from __future__ import annotations

import asyncio
from typing import Any

__all__ = ["Probe"]

PART = b"x" * 65536


class Probe:
    """Each path is a behaviour; `seen` is what happened, in order."""

    def __init__(self) -> None:
        self.seen: list[str] = []
        self.release = asyncio.Event()
        """What `/wait` waits for."""
        self._changed = asyncio.Event()

    def note(self, what: str) -> None:
        """Remember."""
        self.seen.append(what)
        self._changed.set()

    async def has(self, what: str, within_s: float = 20.0) -> None:
        """Wait until something has been seen that begins so."""
        async with asyncio.timeout(within_s):
            while not any(each.startswith(what) for each in self.seen):
                self._changed.clear()
                await self._changed.wait()

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Serve as ASGI 3."""
        if scope["type"] == "websocket":
            await self._socket(receive, send)
            return
        name = scope["path"].strip("/")
        self.note(f"{name} begins")
        try:
            await getattr(self, f"_{name}")(scope, receive, send)
        except asyncio.CancelledError:
            self.note(f"{name} is cancelled")
            raise
        except Exception as error:
            self.note(f"{name} fails: {type(error).__name__}")
            raise
        self.note(f"{name} ends")

    async def _hello(self, scope: Any, receive: Any, send: Any) -> None:
        await _answer(send, b"hello")

    async def _query(self, scope: Any, receive: Any, send: Any) -> None:
        await _answer(send, scope["query_string"])

    async def _count(self, scope: Any, receive: Any, send: Any) -> None:
        """Read a body, and tell how long it was."""
        size, more = 0, True
        while more:
            message = await receive()
            if message["type"] == "http.disconnect":
                self.note("count is left")
                return
            size += len(message.get("body", b""))
            more = message.get("more_body", False)
        await _answer(send, b"%d" % size)

    async def _echo(self, scope: Any, receive: Any, send: Any) -> None:
        """Send each part of the body back as it comes."""
        await send({"type": "http.response.start", "status": 200, "headers": []})
        more = True
        while more:
            message = await receive()
            if message["type"] == "http.disconnect":
                return
            more = message.get("more_body", False)
            if message.get("body"):
                await send({"type": "http.response.body", "body": message["body"], "more_body": True})
        await send({"type": "http.response.body", "body": b""})

    async def _refuse(self, scope: Any, receive: Any, send: Any) -> None:
        """Answer without reading the body."""
        await _answer(send, b"too much", 413)

    async def _wait(self, scope: Any, receive: Any, send: Any) -> None:
        await self.release.wait()
        await _answer(send, b"waited")

    async def _stream(self, scope: Any, receive: Any, send: Any) -> None:
        """Send a part, wait, and send the rest."""
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"first", "more_body": True})
        await self.release.wait()
        await send({"type": "http.response.body", "body": b"last", "more_body": True})
        await send({"type": "http.response.body", "body": b""})

    async def _flood(self, scope: Any, receive: Any, send: Any) -> None:
        """Send more than any buffer holds."""
        await send({"type": "http.response.start", "status": 200, "headers": []})
        for _ in range(4096):
            await send({"type": "http.response.body", "body": PART, "more_body": True})
        await send({"type": "http.response.body", "body": b""})

    async def _leave(self, scope: Any, receive: Any, send: Any) -> None:
        """Wait until the client is gone."""
        while (await receive())["type"] != "http.disconnect":
            pass
        self.note("leave is left")

    async def _inject(self, scope: Any, receive: Any, send: Any) -> None:
        """Send a header that would be two."""
        headers = [(b"content-length", b"2"), (b"x-evil", b"a\r\nset-cookie: b=c")]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": b"ok"})

    async def _socket(self, receive: Any, send: Any) -> None:
        assert (await receive())["type"] == "websocket.connect"
        await send({"type": "websocket.accept"})
        self.note("socket opens")
        while (message := await receive())["type"] == "websocket.receive":
            if message.get("text") is not None:
                await send({"type": "websocket.send", "text": message["text"]})
            else:
                await send({"type": "websocket.send", "bytes": message["bytes"]})
        self.note(f"socket closes with {message.get('code')}")


async def _answer(send: Any, body: bytes, status: int = 200) -> None:
    headers = [(b"content-length", b"%d" % len(body)), (b"content-type", b"text/plain")]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
