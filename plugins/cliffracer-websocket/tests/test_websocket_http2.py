"""Websockets over HTTP/2 (RFC 8441), which Hypercorn speaks."""

from __future__ import annotations

import asyncio
import struct
from typing import Any

from cliffracer_websocket import WebSocket, websocket
from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.events import DataReceived, RemoteSettingsChanged, ResponseReceived, StreamEnded

from cliffracer_core import CliffracerService, ServiceConfig


class Quiet(CliffracerService):
    name = "quiet"
    http: Any

    @websocket("/listen")
    async def listen(self, websocket: WebSocket) -> None:
        await websocket.send_text("hello")
        while True:
            await websocket.receive_text()


async def exchange(url: str) -> tuple[dict[bytes, bytes], bytes]:
    """Open a socket, answer nothing, and return the response's headers and all that came until the stream ended."""
    host, _, port = url.removeprefix("http://").partition(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    connection, headers, data = H2Connection(H2Configuration(header_encoding=None)), {}, b""
    connection.initiate_connection()
    request = [
        (":method", "CONNECT"), (":protocol", "websocket"), (":scheme", "http"), (":path", "/listen"),
        (":authority", host), ("sec-websocket-version", "13"), ("sec-websocket-extensions", "permessage-deflate"),
    ]  # fmt: skip
    asked = ended = False
    while not ended:
        writer.write(connection.data_to_send())
        for event in connection.receive_data(await reader.read(65536)):
            if isinstance(event, RemoteSettingsChanged) and not asked:  # with them it allows CONNECT for websockets
                asked = True
                connection.send_headers(1, request)
            elif isinstance(event, ResponseReceived):
                headers = dict(event.headers)
            elif isinstance(event, DataReceived):
                data += event.data
            ended = ended or isinstance(event, StreamEnded)
    writer.close()
    await writer.wait_closed()
    return headers, data


async def test_socket_over_http2_is_pinged_and_not_compressed() -> None:
    """A client that answers no ping is closed with 1011, and compression is not taken, as over HTTP/1.1."""
    settings = {"ping_interval_s": 0.1, "ping_timeout_s": 0.2}
    config = ServiceConfig("quiet", http={"port": 0, "server": "hypercorn"}, websocket=settings)
    async with Quiet(config) as service, asyncio.timeout(10):
        headers, data = await exchange(service.http.url)
        assert headers[b":status"] == b"200"
        assert b"sec-websocket-extensions" not in headers
        assert data.startswith(b"\x81\x05hello\x89\x00\x88"), "a text, a ping, and a close frame"
        assert struct.unpack("!H", data[11:13]) == (1011,)
