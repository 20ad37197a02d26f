"""A client of HTTP/3 that does as it is told, also what no decent client does."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from types import TracebackType
from typing import Any
from urllib.parse import urlsplit

from aioquic.asyncio.protocol import QuicConnectionProtocol
from aioquic.h3.connection import H3_ALPN, ErrorCode, FrameType, H3Connection, H3Stream
from aioquic.h3.events import DataReceived, HeadersReceived
from aioquic.quic.configuration import QuicConfiguration
from aioquic.quic.connection import QuicConnection
from aioquic.quic.events import (
    ConnectionTerminated,
    ProtocolNegotiated,
    QuicEvent,
    StopSendingReceived,
    StreamReset,
)

from .raw import TIMEOUT_S, RawResponse

__all__ = ["Http3Client", "Http3Exchange"]


class Http3Exchange:
    """One request and what comes for it."""

    def __init__(self, client: Http3Client, stream_id: int) -> None:
        self._client = client
        self.stream_id = stream_id
        self.status = 0
        self.headers: dict[str, str] = {}
        self.body = bytearray()
        self.ended = False
        self.reset: int | None = None
        """The code with which the server ended it."""
        self.unwanted: int | None = None
        """The code with which the server would have no more of the body."""
        self.change = asyncio.Event()

    def send(self, data: bytes, *, last: bool = False) -> None:
        """Send a part of the body."""
        self._client.h3.send_data(self.stream_id, data, last)
        self._client.transmit()

    def cancel(self) -> None:
        """Want no answer."""
        self._client.quic.stop_stream(self.stream_id, ErrorCode.H3_REQUEST_CANCELLED)
        self._client.quic.reset_stream(self.stream_id, ErrorCode.H3_REQUEST_CANCELLED)
        self._client.transmit()

    async def until(self, met: Callable[[], bool], timeout_s: float = TIMEOUT_S) -> None:
        """Wait until something is so; ConnectionError where the connection ends first."""
        async with asyncio.timeout(timeout_s):
            while not met():
                if self._client.closed is not None:
                    raise ConnectionError(f"the server has closed the connection with {self._client.closed:#x}")
                self.change.clear()
                await self.change.wait()

    async def response(self, timeout_s: float = TIMEOUT_S) -> RawResponse:
        """Return the whole response; ConnectionError where it does not come whole."""
        await self.until(lambda: self.ended or self.reset is not None, timeout_s)
        if not self.ended:
            raise ConnectionError(f"the server has reset the request with {self.reset:#x}")
        return RawResponse(self.status, self.headers, bytes(self.body))


class _Protocol(QuicConnectionProtocol):
    client: Http3Client

    def quic_event_received(self, event: QuicEvent) -> None:
        self.client.take(event)


class _H3(H3Connection):
    goaway = False

    def _check_content_length(self, stream: H3Stream) -> None:
        """Check nothing: aioquic would refuse the length in the answer to a HEAD."""

    def _check_control_frame_type(self, frame_type: int) -> None:
        self.goaway = self.goaway or frame_type == FrameType.GOAWAY
        super()._check_control_frame_type(frame_type)


class Http3Client:
    """One connection; `async with Http3Client(url, authority) as client`.

    Args:
        url: of the server.
        authority: path of the certificate to trust.
        max_data: bytes that the server may send unread, of one response and in all.
        local: the address to ask from.
    """

    def __init__(self, url: str, authority: str, *, max_data: int = 1024 * 1024, local: str = "127.0.0.1") -> None:
        parts = urlsplit(url)
        self._address = parts.hostname or "", parts.port or 443
        self.authority = parts.netloc.encode()
        configuration = QuicConfiguration(
            is_client=True, alpn_protocols=H3_ALPN, server_name="localhost", cafile=authority, max_data=max_data,
            max_stream_data=max_data,
        )  # fmt: skip
        self.quic = QuicConnection(configuration=configuration)
        self.h3: _H3
        self.exchanges: dict[int, Http3Exchange] = {}
        self.closed: int | None = None
        """The code with which the server closed the connection."""
        self._local = local
        self._protocol = _Protocol(self.quic)
        self._protocol.client = self
        self._transport: asyncio.DatagramTransport

    async def __aenter__(self) -> Http3Client:
        loop = asyncio.get_running_loop()
        host = "127.0.0.1" if self._address[0] == "localhost" else self._address[0]
        self._transport, _ = await loop.create_datagram_endpoint(lambda: self._protocol, local_addr=(self._local, 0))
        self._protocol.connect((host, self._address[1]))
        try:
            async with asyncio.timeout(TIMEOUT_S):
                await self._protocol.wait_connected()
        except BaseException:
            self.vanish()
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.vanish(say=True)
        await asyncio.sleep(0)

    def vanish(self, *, say: bool = False) -> None:
        """End the connection; without saying so the server does not learn of it."""
        if self._transport.is_closing():
            return
        if say:
            self._protocol.close()
        timer = self._protocol._timer
        if timer is not None:
            timer.cancel()
        self._transport.close()

    @property
    def was_told(self) -> bool:
        """Whether the server has said that it takes no more requests."""
        return self.h3.goaway

    def take(self, event: QuicEvent) -> None:
        """Sort what comes."""
        if isinstance(event, ProtocolNegotiated):
            self.h3 = _H3(self.quic)
        elif isinstance(event, ConnectionTerminated):
            self.closed = event.error_code
        elif isinstance(event, StreamReset) and event.stream_id in self.exchanges:
            self.exchanges[event.stream_id].reset = event.error_code
        elif isinstance(event, StopSendingReceived) and event.stream_id in self.exchanges:
            self.exchanges[event.stream_id].unwanted = event.error_code
        for each in self.h3.handle_event(event) if hasattr(self, "h3") else ():
            if isinstance(each, HeadersReceived):
                exchange = self.exchanges[each.stream_id]
                pairs = [(name.decode(), value.decode()) for name, value in each.headers]
                exchange.headers |= {name: value for name, value in pairs if name[0] != ":"}
                exchange.status = int(dict(pairs).get(":status", 0)) or exchange.status
                exchange.ended = each.stream_ended
            elif isinstance(each, DataReceived):
                exchange = self.exchanges[each.stream_id]
                exchange.body += each.data
                exchange.ended = each.stream_ended
        for exchange in self.exchanges.values():
            exchange.change.set()

    def transmit(self) -> None:
        """Send what waits to be sent."""
        self._protocol.transmit()

    def open(
        self, method: str, path: str, *, headers: list[tuple[bytes, bytes]] | None = None, last: bool = True
    ) -> Http3Exchange:
        """Send the head of a request."""
        pseudo = [(b":method", method.encode()), (b":scheme", b"https"), (b":authority", self.authority)]
        return self.open_with([*pseudo, (b":path", path.encode()), *(headers or [])], last=last)

    def open_with(self, headers: list[tuple[bytes, bytes]], *, last: bool = True) -> Http3Exchange:
        """Send a head as it is given."""
        exchange = self._next()
        self.h3.send_headers(exchange.stream_id, headers, last)
        self.transmit()
        return exchange

    def open_raw(self, data: bytes) -> Http3Exchange:
        """Send bytes in place of a head."""
        exchange = self._next()
        self.quic.send_stream_data(exchange.stream_id, data)
        self.transmit()
        return exchange

    def _next(self) -> Http3Exchange:
        stream_id = self.quic.get_next_available_stream_id()
        exchange = self.exchanges[stream_id] = Http3Exchange(self, stream_id)
        return exchange

    async def get(self, path: str) -> RawResponse:
        """Send a request without a body, and return its response."""
        return await self.open("GET", path).response()

    async def post(self, path: str, body: bytes, **options: Any) -> RawResponse:
        """Send a request with a body, and return its response."""
        exchange = self.open("POST", path, last=False, **options)
        exchange.send(body, last=True)
        return await exchange.response()
