"""HTTP/3: what the other parts promise over TCP, over QUIC."""

from __future__ import annotations

import asyncio
import logging
import socket
import ssl
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest

from cliffracer_core.errors import ConfigurationError, StartupError
from cliffracer_core.testing import eventually
from cliffracer_http.limits import BodyLimits, Limits
from cliffracer_http.servers import h3_limits, http3
from cliffracer_http.servers.h3_limits import STREAM_WINDOW

from .h3_client import Http3Client
from .http3_suite import Http3Suite

__all__ = ["Http3Contract"]

REJECTED, EXCESSIVE_LOAD, NO_ERROR = 0x10B, 0x107, 0x100
PSEUDO = [(b":method", b"GET"), (b":scheme", b"https"), (b":authority", b"localhost"), (b":path", b"/odd")]
MALFORMED = {
    "no path": [PSEUDO[0], (b":authority", b"localhost")],
    "a path that is none": [*PSEUDO[:3], (b":path", b"odd")],
    "a space in the path": [*PSEUDO[:3], (b":path", b"/o dd")],
    "a method that is none": [(b":method", b"G T"), *PSEUDO[1:]],
    "a tunnel": [(b":method", b"CONNECT"), (b":authority", b"localhost")],
    "a websocket": [(b":method", b"CONNECT"), (b":protocol", b"websocket"), *PSEUDO[1:]],
    "two lengths": [*PSEUDO, (b"content-length", b"5"), (b"content-length", b"5")],
    "a length with an underscore": [*PSEUDO, (b"content-length", b"5_0")],
}


class Http3Contract(Http3Suite):
    """Requests over QUIC."""

    async def test_http3_answers_and_is_announced(self, tmp_path: Path) -> None:
        """Responses over TCP say where HTTP/3 is; there GET, HEAD and POST work, many at once on one connection."""
        _, url, authority = await self.serve3(tmp_path, host="localhost")
        port = urlsplit(url).port
        context = ssl.create_default_context(cafile=authority)
        for http2 in (False, True):
            async with httpx.AsyncClient(http1=not http2, http2=http2, verify=context) as tcp:
                assert (await tcp.get(url)).headers["alt-svc"] == f'h3=":{port}"; ma=3600'
        async with Http3Client(url, authority) as client:
            response = await client.get("/hello")
            assert (response.status, response.body, response.headers["content-type"]) == (200, b"/hello", "text/plain")
            assert "date" in response.headers
            assert (await client.open("HEAD", "/hello").response()).body == b""
            assert (await client.post("/size", bytes(1_000_000))).body == b"1000000"
            waiting = [client.open("GET", "/wait") for _ in range(100)]
            await eventually(lambda: self.probe.began["/wait"] == 100)
            self.probe.go.set()
            assert [(await each.response()).body for each in waiting] == [b"waited"] * 100

    async def test_http3_streams_both_ways(self, tmp_path: Path) -> None:
        """A part of a body reaches the application, and its answer the client, before the next part is sent."""
        _, url, authority = await self.serve3(tmp_path)
        async with Http3Client(url, authority) as client:
            exchange = client.open("POST", "/echo", last=False)
            for number, part in enumerate((b"one", b"two", b"three"), 1):
                exchange.send(part, last=number == 3)
                await exchange.until(lambda part=part: exchange.body.endswith(part))  # type: ignore[misc]  # bound now
            assert (await exchange.response()).body == b"onetwothree"
            trailed = client.open("POST", "/size", last=False)
            trailed.send(b"body")
            client.h3.send_headers(trailed.stream_id, [(b"x-trailer", b"1")], True)
            client.transmit()
            assert (await trailed.response()).body == b"4"

    async def test_http3_refuses_bodies_that_are_too_large(self, tmp_path: Path) -> None:
        """By their length or as they come they are 413, also while the client sends on; it is told to send no more."""
        _, url, authority = await self.serve3(tmp_path, Limits(self.probe, BodyLimits(1000)))
        async with Http3Client(url, authority) as client:
            told = client.open("POST", "/size", headers=[(b"content-length", b"1001")], last=False)
            assert (await told.response()).status == 413
            exchange = client.open("POST", "/size", last=False)
            exchange.send(bytes(1001))
            assert (await exchange.response()).headers["content-type"] == "application/problem+json"
            await exchange.until(lambda: exchange.unwanted == NO_ERROR)
            assert (await client.post("/unread", bytes(2_000_000))).body == b"/unread"
            assert (await client.post("/size", bytes(1000))).body == b"1000"

    async def test_http3_refuses_heads_that_are_too_large(self, tmp_path: Path) -> None:
        """A long head is 431, an endless one ends the connection; neither reaches the application."""
        limited = Limits(self.probe, max_headers=20)
        _, url, authority = await self.serve3(tmp_path, limited, max_header_bytes=16 * 1024)
        async with Http3Client(url, authority) as client:
            for headers in ([(b"x-long", b"a" * 16_500)], [(b"x-%d" % number, b"") for number in range(30)]):
                assert (await client.open("GET", "/long", headers=headers).response()).status == 431
            assert (await client.get("/short")).status == 200
            endless = client.open_raw(b"\x01\x80\x10\x00\x00" + bytes(20_000))
            with pytest.raises(ConnectionError, match=f"{EXCESSIVE_LOAD:#x}"):
                await endless.response()
        assert not self.probe.began["/long"]

    async def test_http3_refuses_what_is_malformed(self, tmp_path: Path) -> None:
        """A request without a path, a tunnel, two lengths: each is 400, and its connection goes on."""
        _, url, authority = await self.serve3(tmp_path)
        async with Http3Client(url, authority) as client:
            for name, headers in MALFORMED.items():
                assert (await client.open_with(headers, last=False).response()).status == 400, name
            assert (await client.get("/fine")).status == 200
        assert list(self.probe.began) == ["/fine"]

    async def test_http3_survives_applications_that_fail(
        self, tmp_path: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        """An exception before the response, or a header with a line break, is 500."""
        _, url, authority = await self.serve3(tmp_path)
        with caplog.at_level(logging.CRITICAL):
            async with Http3Client(url, authority) as client:
                for path in ("/fail", "/inject"):
                    response = await client.get(path)
                    assert (response.status, response.headers.get("set-cookie")) == (500, None)

    async def test_http3_gives_up_slow_heads_and_bodies(self, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
        """A head that is not complete in time, and a body of which no more comes, are 408; what is late is none."""
        limited = Limits(self.probe, BodyLimits(timeout_s=0.3))
        _, url, authority = await self.serve3(tmp_path, limited, header_timeout_s=0.3)
        async with Http3Client(url, authority) as client:
            late = client.open("POST", "/late", last=False)
            sender = client.quic._streams[late.stream_id].sender
            sender.reset = lambda *_, **__: None  # type: ignore[method-assign]  # it is told to send no more, and does
            assert (await late.response()).status == 200
            client.quic.send_stream_data(late.stream_id, b"\x00")  # part of a frame
            head, body = client.open_raw(b"\x01\x40\x64"), client.open("POST", "/size", last=False)
            body.send(b"x")
            assert [(await each.response()).status for each in (head, body)] == [408, 408]
        assert not caplog.records

    async def test_http3_closes_idle_connections_and_no_others(self, tmp_path: Path) -> None:
        """A connection without a request is closed in time; one whose request runs is not."""
        _, url, authority = await self.serve3(tmp_path, keep_alive_s=0.2, header_timeout_s=0.2)
        async with Http3Client(url, authority) as client, Http3Client(url, authority) as silent:
            waiting = client.open("GET", "/wait")
            await eventually(lambda: silent.closed == NO_ERROR)
            self.probe.go.set()
            assert (await waiting.response()).body == b"waited"
            await eventually(lambda: client.closed == NO_ERROR)

    async def test_http3_takes_no_more_of_a_body_than_is_read(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """What the application does not read waits at the client, for one request and for all of a connection."""
        for module in (h3_limits, http3):
            monkeypatch.setattr(module, "CONNECTION_WINDOW", 2 * STREAM_WINDOW)
        _, url, authority = await self.serve3(tmp_path)
        async with Http3Client(url, authority) as client:
            exchanges = [client.open("POST", "/wait", last=False) for _ in range(4)]
            streams = [client.quic._streams[each.stream_id].sender for each in exchanges]
            exchanges[0].send(bytes(400_000), last=True)
            await eventually(lambda: streams[0].highest_offset == STREAM_WINDOW)
            for each in exchanges[1:]:
                each.send(bytes(400_000), last=True)
            await eventually(lambda: client.quic._remote_max_data_used == 2 * STREAM_WINDOW)
            await asyncio.sleep(0.1)  # for more, which must not come
            assert client.quic._remote_max_data_used == 2 * STREAM_WINDOW
            assert max(each.highest_offset for each in streams) <= STREAM_WINDOW
            self.probe.go.set()
            assert {(await each.response()).body for each in exchanges} == {b"waited"}
            assert (await client.post("/size", bytes(500_000))).body == b"500000"

    async def test_http3_tells_the_application_when_the_client_goes_away(self, tmp_path: Path) -> None:
        """A request that is cancelled, and all of a connection that closes, end; others on it do not."""
        _, url, authority = await self.serve3(tmp_path)
        async with Http3Client(url, authority) as client:
            other = client.open("GET", "/wait")
            exchange = client.open("POST", "/gone", last=False)
            exchange.send(bytes(100))
            await eventually(lambda: self.probe.began["/gone"] == 1)
            exchange.cancel()
            await eventually(lambda: self.probe.ended["/gone"] == 1)
            self.probe.go.set()
            assert (await other.response()).body == b"waited"
            client.open("GET", "/gone")
            await eventually(lambda: self.probe.began["/gone"] == 2)
        await eventually(lambda: self.probe.ended["/gone"] == 2)

    async def test_http3_gives_up_a_client_that_reads_nothing(self, tmp_path: Path) -> None:
        """What a client does not take is not kept: the application waits, then the request is ended, and no other."""
        _, url, authority = await self.serve3(tmp_path, write_timeout_s=0.3)
        async with Http3Client(url, authority, max_data=30_000) as client, Http3Client(url, authority) as other:
            client.quic._write_connection_limits = lambda **_: None  # type: ignore[method-assign]  # it lets nothing in
            flood = client.open("GET", "/flood")
            await eventually(lambda: self.probe.began["/flood"] == 1)
            assert (await other.get("/other")).body == b"/other"
            with pytest.raises(ConnectionError, match="reset"):
                await flood.response()
            assert len(flood.body) < 35_000

    async def test_http3_needs_its_port_over_udp_too(self, tmp_path: Path) -> None:
        """A UDP port that another program has is a StartupError that says so, and nothing listens."""
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as other:
            with socket.socket() as free:
                free.bind(("127.0.0.1", 0))
                port = free.getsockname()[1]
                other.bind(("127.0.0.1", port))
            with pytest.raises(StartupError, match=rf"{port} over UDP.*http\.port"):
                await self.serve3(tmp_path, port=port)
        await self.serve3(tmp_path, port=port)

    async def test_http3_is_refused_where_it_cannot_be(self, tmp_path: Path) -> None:
        """Without TLS, on a Unix socket, on a shared port or by another server it is an error that says what to do."""
        chain, key, _ = self.certificate(tmp_path)
        tls: dict[str, Any] = {"tls_cert": chain, "tls_key": key}
        cases: list[tuple[dict[str, Any], str]] = [
            ({}, r"http\.tls_cert"),
            ({**tls, "unix_socket": str(tmp_path / "s")}, r"http\.port"),
            ({**tls, "reuse_port": True, "port": 1}, "one worker"),
        ]
        if not self.make_server().capabilities.http3:
            cases = [(tls, r"http\.server to 'hypercorn'")]
        for settings, remedy in cases:
            with pytest.raises(ConfigurationError, match=remedy):
                await self.serve(**settings, http3=True)
