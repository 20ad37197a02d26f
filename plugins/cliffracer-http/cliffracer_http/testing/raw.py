"""A client that says exactly the bytes it is told, well-formed or not."""

from __future__ import annotations

import asyncio
import ssl
from types import TracebackType
from typing import Self

import msgspec

__all__ = ["Connection", "Response"]

PATIENCE_S = 20.0


class Response(msgspec.Struct):
    """A response as it came."""

    status: int
    headers: list[tuple[str, str]]
    """Names in lower case."""
    body: bytes = b""

    def header(self, name: str) -> str | None:
        """Return the first of a name."""
        return next((value for known, value in self.headers if known == name), None)


class Connection:
    """One connection to a server.

    Args:
        url: `http://host:port`, `https://host:port` or `unix:path`.
        context: for TLS.
        buffer_bytes: how much is read ahead; less makes a client that reads nothing felt sooner.
    """

    def __init__(self, url: str, context: ssl.SSLContext | None = None, buffer_bytes: int = 2**16) -> None:
        self._url = url
        self._context = context
        self._buffer_bytes = buffer_bytes
        self.reader: asyncio.StreamReader
        self.writer: asyncio.StreamWriter

    async def open(self) -> Self:
        """Connect."""
        if self._url.startswith("unix:"):
            opened = await asyncio.open_unix_connection(self._url.removeprefix("unix:"), limit=self._buffer_bytes)
        else:
            host, port = self._url.partition("://")[2].rsplit(":", 1)
            opened = await asyncio.open_connection(
                host.strip("[]"), int(port), ssl=self._context, limit=self._buffer_bytes,
                server_hostname="localhost" if self._context else None,
            )  # fmt: skip
        self.reader, self.writer = opened
        return self

    async def __aenter__(self) -> Self:
        return await self.open()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Go away at once."""
        self.writer.transport.abort()

    async def send(self, *parts: bytes) -> None:
        """Send bytes."""
        for part in parts:
            self.writer.write(part)
        await self.writer.drain()

    async def head(self) -> Response:
        """Read a response's head."""
        async with asyncio.timeout(PATIENCE_S):
            status, *lines = (await self.reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")[:-2]
        pairs = [line.partition(":") for line in lines]
        return Response(int(status.split()[1]), [(name.lower(), value.strip()) for name, _, value in pairs])

    async def response(self) -> Response:
        """Read a response, by its Content-Length or chunk by chunk."""
        found = await self.head()
        async with asyncio.timeout(PATIENCE_S):
            if found.header("transfer-encoding") == "chunked":
                while part := await self.chunk():
                    found.body += part
            else:
                found.body = await self.reader.readexactly(int(found.header("content-length") or 0))
        return found

    async def chunk(self) -> bytes:
        """Read one chunk of a response's body; empty at its end."""
        async with asyncio.timeout(PATIENCE_S):
            size = int(await self.reader.readuntil(b"\r\n"), 16)
            return (await self.reader.readexactly(size + 2))[:-2]

    async def get(self, path: str = "/hello", *headers: str) -> Response:
        """Send a GET, and read the response."""
        await self.send(request("GET", path, *headers))
        return await self.response()

    async def closed(self, within_s: float = PATIENCE_S) -> bytes:
        """Return what still comes until the server closes; TimeoutError where it does not."""
        rest = b""
        async with asyncio.timeout(within_s):
            try:
                while part := await self.reader.read(2**16):
                    rest += part
            except ConnectionError:
                pass
        return rest


def request(method: str, path: str, *headers: str) -> bytes:
    """Write a request's head."""
    return "\r\n".join([f"{method} {path} HTTP/1.1", "host: localhost", *headers, "", ""]).encode("latin-1")
