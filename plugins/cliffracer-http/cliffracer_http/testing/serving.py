"""Addresses, requests and responses."""

from __future__ import annotations

import asyncio
import base64
import os
import ssl
from pathlib import Path

import pytest

from cliffracer_core.errors import ConfigurationError, StartupError
from cliffracer_http.servers import bind, server_for
from cliffracer_http.settings import HttpSettings

from .base import Base, make_certificate
from .probe import Probe
from .raw import Connection, request

__all__ = ["ServingContract"]


class ServingContract(Base):
    """A server listens where it should, and speaks HTTP."""

    def test_says_what_it_can(self) -> None:
        """What a server lacks is declared, and only that."""
        assert server_for(HttpSettings(server=self.kind)).capabilities == self.claims  # type: ignore[arg-type]  # text

    async def test_answers_when_start_returns(self, probe: Probe) -> None:
        """Port 0 becomes a real one, and connections are accepted there."""
        async with self.serving(probe) as (url, _), Connection(url) as client:
            found = await client.get()
        assert not url.endswith(":0")
        assert (found.status, found.body, found.header("content-type")) == (200, b"hello", "text/plain")

    async def test_a_port_that_is_taken_is_said_at_start(self, probe: Probe) -> None:
        """The error names the address and the setting."""
        async with self.serving(probe) as (url, _):
            port = int(url.rsplit(":", 1)[1])
            with pytest.raises(StartupError, match=rf"127\.0\.0\.1:{port}.*http\.port"):
                bind(HttpSettings(port=port))

    async def test_stops_twice_and_starts_again_on_its_port(self, probe: Probe) -> None:
        """After a stop nobody listens, and another may."""
        async with self.serving(probe) as (url, server):
            async with Connection(url) as client:
                await client.get()
            await server.stop(1.0)
            await server.stop(1.0)
            with pytest.raises(ConnectionRefusedError):
                await Connection(url).open()
        async with self.serving(probe, port=int(url.rsplit(":", 1)[1])) as (again, _), Connection(again) as client:
            assert (await client.get()).body == b"hello"

    async def test_a_unix_socket(self, probe: Probe, tmp_path: Path) -> None:
        """A socket file that was left behind is taken over, one in use is not."""
        path = str(tmp_path / "s")
        for _ in range(2):
            async with self.serving(probe, unix_socket=path) as (url, _), Connection(url) as client:
                assert url == f"unix:{path}"
                assert (await client.get()).body == b"hello"
                with pytest.raises(StartupError, match=r"http\.unix_socket"):
                    bind(HttpSettings(unix_socket=path))

    async def test_tls(self, probe: Probe, tmp_path: Path) -> None:
        """Requests come over TLS, and the scope says so."""
        certificate, key = make_certificate(tmp_path, "one")
        context = ssl.create_default_context(cafile=certificate)
        async with self.serving(probe, tls_cert=certificate, tls_key=key) as (url, _):
            assert url.startswith("https://")
            async with Connection(url, context) as client:
                assert (await client.get()).body == b"hello"

    async def test_a_new_certificate_is_taken_without_a_restart(self, probe: Probe, tmp_path: Path) -> None:
        """New connections get what is on disk; a broken file changes nothing."""
        self.needs("tls_reload")
        certificate, key = make_certificate(tmp_path, "one")
        async with self.serving(probe, tls_cert=certificate, tls_key=key) as (url, _):
            before = await _certificate(url)
            _spoil(certificate)
            await asyncio.sleep(1.5)  # it looks every second, and must not take this
            assert await _certificate(url) == before
            (tmp_path / "new").mkdir()
            for new, old in zip(make_certificate(tmp_path / "new", "one"), (certificate, key), strict=True):
                os.replace(new, old)
            async with asyncio.timeout(20):
                while await _certificate(url) == before:
                    await asyncio.sleep(0.05)

    async def test_a_certificate_that_cannot_be_read_is_said_at_start(self, probe: Probe, tmp_path: Path) -> None:
        """The error names file and setting."""
        certificate, _ = make_certificate(tmp_path, "one")
        _, other = make_certificate(tmp_path, "two")
        for key in (str(tmp_path / "missing"), other):
            with pytest.raises(ConfigurationError, match=r"http\.tls_key"):
                async with self.serving(probe, tls_cert=certificate, tls_key=key):
                    pass

    async def test_keeps_connections_alive(self, probe: Probe) -> None:
        """One connection, many requests, and a body between."""
        async with self.serving(probe) as (url, _), Connection(url) as client:
            for _ in range(3):
                assert (await client.get("/query?a=b")).body == b"a=b"
                await client.send(request("POST", "/count", "content-length: 3"), b"abc")
                assert (await client.response()).body == b"3"

    async def test_answers_pipelined_requests_in_order(self, probe: Probe) -> None:
        """Requests that come at once are answered one after another."""
        async with self.serving(probe) as (url, _), Connection(url) as client:
            await client.send(b"".join(request("GET", f"/query?{number}") for number in range(5)))
            assert [(await client.response()).body for _ in range(5)] == [b"0", b"1", b"2", b"3", b"4"]

    async def test_reads_a_long_body(self, probe: Probe) -> None:
        """All of it comes, whether its length is said or it comes in chunks."""
        part = b"y" * 100_000
        async with self.serving(probe) as (url, _), Connection(url) as client:
            await client.send(request("POST", "/count", f"content-length: {30 * len(part)}"), *[part] * 30)
            assert (await client.response()).body == b"%d" % (30 * len(part))
            await client.send(request("POST", "/count", "transfer-encoding: chunked"))
            await client.send(*[b"%x\r\n%s\r\n" % (len(part), part)] * 30, b"0\r\n\r\n")
            assert (await client.response()).body == b"%d" % (30 * len(part))

    async def test_streams_both_ways_at_once(self, probe: Probe) -> None:
        """A part of the response comes before the next part of the request is sent."""
        async with self.serving(probe) as (url, _), Connection(url) as client:
            await client.send(request("POST", "/echo", "transfer-encoding: chunked"))
            await client.send(b"3\r\none\r\n")
            head = await client.head()
            assert head.header("transfer-encoding") == "chunked"
            assert await client.chunk() == b"one"
            await client.send(b"3\r\ntwo\r\n")
            assert await client.chunk() == b"two"
            await client.send(b"0\r\n\r\n")
            assert await client.chunk() == b""

    async def test_a_long_response_is_whole(self, probe: Probe) -> None:
        """A slow reader gets every byte."""
        async with self.serving(probe) as (url, _), Connection(url, buffer_bytes=4096) as client:
            await client.send(request("GET", "/flood"))
            await client.head()
            size = 0
            while part := await client.chunk():
                size += len(part)
        assert size == 4096 * 65536

    async def test_expects_100_continue(self, probe: Probe) -> None:
        """A client that asks first is told to go on."""
        async with self.serving(probe) as (url, _), Connection(url) as client:
            await client.send(request("POST", "/count", "content-length: 3", "expect: 100-continue"))
            assert (await client.head()).status == 100
            await client.send(b"abc")
            assert (await client.response()).body == b"3"

    async def test_websockets(self, probe: Probe) -> None:
        """Messages go both ways, and the application hears why the client left."""
        key = base64.b64encode(bytes(16)).decode()
        upgrade = (
            "upgrade: websocket",
            "connection: upgrade",
            "sec-websocket-version: 13",
            f"sec-websocket-key: {key}",
        )
        async with self.serving(probe) as (url, _), Connection(url) as client:
            await client.send(request("GET", "/ws", *upgrade))
            assert (await client.head()).status == 101
            await client.send(b"\x81\x82\0\0\0\0hi")  # text, masked with zeros
            assert await client.reader.readexactly(4) == b"\x81\x02hi"
            await client.send(b"\x88\x82\0\0\0\0\x03\xe9")  # close, 1001
            await probe.has("socket closes")
            assert not self.claims.close_codes or probe.seen[-1] == "socket closes with 1001", probe.seen
            assert (await client.closed()).startswith(b"\x88")

    async def test_a_header_cannot_be_injected(self, probe: Probe) -> None:
        """A header with a line break in it never becomes two."""
        async with self.serving(probe) as (url, _), Connection(url) as client:
            await client.send(request("GET", "/inject", "connection: close"))
            assert b"\nset-cookie" not in (await client.closed()).lower()

    @pytest.mark.parametrize(
        "bad",
        [
            b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n",
            b"/hello HTTP/1.1\r\nhost: a\r\n\r\n",
            b"GET /hello HTTP/1.1\r\nbad header: x\r\nhost: a\r\n\r\n",
            b"GET /hello HTTP/1.1\r\nhost: a\r\nx: \0\r\n\r\n",
            b"POST /count HTTP/1.1\r\nhost: a\r\ncontent-length: -1\r\n\r\n",
            b"POST /count HTTP/1.1\r\nhost: a\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\nab",
            b"POST /count HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n",
        ],
        ids=["tls", "no method", "space in name", "nul", "negative", "two lengths", "chunk size"],
    )
    async def test_a_malformed_request_ends_its_connection_alone(self, probe: Probe, bad: bytes) -> None:
        """It is answered with 4xx or not at all; others are served."""
        served = self.serving(probe, body_timeout_s=0.5, header_timeout_s=0.5)
        async with served as (url, _), Connection(url) as client, Connection(url) as other:
            await client.send(bad)
            rest = await client.closed()
            assert rest == b"" or rest.startswith((b"HTTP/1.1 4", b"HTTP/1.0 4", b"HTTP/1.1 500")), rest
            assert b"hello" not in rest
            assert (await other.get()).body == b"hello"


def _spoil(path: str) -> None:
    Path(path).write_text("no certificate")


async def _certificate(url: str) -> bytes:
    """Return what a new connection is shown."""
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    async with Connection(url, context) as client:
        found = client.writer.get_extra_info("ssl_object").getpeercert(binary_form=True)
        assert isinstance(found, bytes)
        return found
