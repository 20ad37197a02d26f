"""A client of bare sockets, for what no decent client sends."""

from __future__ import annotations

import asyncio
import socket
import struct
from types import TracebackType

import msgspec

__all__ = ["Raw", "RawResponse"]

TIMEOUT_S = 10.0


class RawResponse(msgspec.Struct):
    """A response as it came."""

    status: int
    headers: dict[str, str]
    body: bytes


class Raw:
    """One connection; `async with Raw(url) as raw`."""

    def __init__(self, url: str) -> None:
        host, _, port = url.removeprefix("http://").rpartition(":")
        self._host, self._port = host, int(port)
        self.reader: asyncio.StreamReader
        self.writer: asyncio.StreamWriter

    async def __aenter__(self) -> Raw:
        self.reader, self.writer = await asyncio.open_connection(self._host, self._port)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.writer.transport.abort()

    async def send(self, *parts: bytes) -> None:
        """Write; ConnectionError where the server has ended the connection."""
        for part in parts:
            if self.writer.transport.is_closing():
                raise ConnectionError("the server has closed the connection")
            self.writer.write(part)
            await self.writer.drain()

    def reset(self) -> None:
        """End the connection with a TCP reset."""
        found = self.writer.get_extra_info("socket")
        found.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.writer.transport.abort()

    async def response(self, timeout_s: float = TIMEOUT_S) -> RawResponse:
        """Read one response.

        Raises:
            EOFError: the connection ended first.
            TimeoutError: it did not come.
        """
        async with asyncio.timeout(timeout_s):
            status, headers = await self.head()
            if headers.get("transfer-encoding") == "chunked":
                parts = []
                while part := await self.chunk():
                    parts.append(part)
                return RawResponse(status, headers, b"".join(parts))
            length = headers.get("content-length")
            body = await (self.reader.readexactly(int(length)) if length else self.reader.read())
            return RawResponse(status, headers, body)

    async def head(self) -> tuple[int, dict[str, str]]:
        """Read status and headers."""
        head = await self.reader.readuntil(b"\r\n\r\n")
        first, *lines = head.decode("latin-1").rstrip().split("\r\n")
        pairs = (line.partition(":") for line in lines)
        return int(first.split()[1]), {name.lower(): value.strip() for name, _, value in pairs}

    async def chunk(self) -> bytes:
        """Read one chunk of a chunked body; empty at its end."""
        size = int(await self.reader.readline(), 16)
        return (await self.reader.readexactly(size + 2))[:-2]

    async def ended(self, timeout_s: float = TIMEOUT_S) -> bytes:
        """Return what still comes until the server ends the connection; TimeoutError where it does not."""
        async with asyncio.timeout(timeout_s):
            try:
                return await self.reader.read()
            except ConnectionError:
                return b""
