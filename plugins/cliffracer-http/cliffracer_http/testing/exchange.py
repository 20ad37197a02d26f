"""Requests and responses, sockets, addresses."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest
import websockets

from cliffracer_core.errors import ConfigurationError, StartupError
from cliffracer_core.testing import eventually

from .raw import Raw
from .suite import GET, ServerSuite

__all__ = ["ExchangeContract"]

POST_WAIT = b"POST /wait HTTP/1.1\r\nhost: test\r\ncontent-length: 16000000\r\n\r\n"


class ExchangeContract(ServerSuite):
    """What works."""

    async def test_answers_when_start_has_returned(self) -> None:
        """The real port is told, and connections are accepted as soon as start returns."""
        _, url = await self.serve()
        async with httpx.AsyncClient(base_url=url) as client:
            response = await client.get("/hello")
        assert (response.status_code, response.text) == (200, "/hello")
        assert not url.endswith(":0")

    async def test_start_fails_when_the_port_is_taken(self) -> None:
        """A second server on one port is a StartupError that names the port and what to do."""
        _, url = await self.serve()
        port = int(url.rpartition(":")[2])
        with pytest.raises(StartupError, match=rf"{port}.*http.port"):
            await self.serve(port=port)

    async def test_two_servers_share_a_port_when_both_allow_it(self) -> None:
        """With reuse_port two servers listen on one port, and both answer when the other has stopped."""
        first, url = await self.serve(reuse_port=True)
        second, same = await self.serve(reuse_port=True, port=int(url.rpartition(":")[2]))
        assert same == url
        await first.stop(1)
        async with Raw(url) as raw:
            await raw.send(GET % b"/two")
            assert (await raw.response()).body == b"/two"
        await second.stop(1)

    async def test_streams_both_ways(self) -> None:
        """A part of a body reaches the application, and its answer the client, before the next part is sent."""
        _, url = await self.serve()
        async with Raw(url) as raw, asyncio.timeout(10):
            await raw.send(b"POST /echo HTTP/1.1\r\nhost: test\r\ntransfer-encoding: chunked\r\n\r\n")
            for part in (b"one", b"two", b"three"):
                await raw.send(b"%x\r\n%s\r\n" % (len(part), part))
                if part == b"one":
                    assert (await raw.head())[0] == 200
                assert await raw.chunk() == part
            await raw.send(b"0\r\n\r\n")
            assert await raw.chunk() == b""

    async def test_a_large_body_comes_whole(self) -> None:
        """Eight megabytes, sent by chunks, arrive to the byte."""
        _, url = await self.serve()

        async def body() -> AsyncIterator[bytes]:
            for _ in range(128):
                yield bytes(65536)

        async with httpx.AsyncClient(base_url=url, timeout=30) as client:
            assert (await client.post("/size", content=body())).text == str(128 * 65536)

    async def test_a_connection_serves_again_when_its_body_was_not_read(self) -> None:
        """A response that did not wait for the body reaches its client, and the next request is served."""
        _, url = await self.serve()
        async with httpx.AsyncClient(base_url=url, timeout=10) as client:
            for size in (10, 3_000_000, 10, 3_000_000, 10):
                response = await client.post("/unread", content=bytes(size))
                assert (response.status_code, response.text) == (200, "/unread")
            for _ in range(10):  # a form is sent in several small pieces
                response = await client.post("/unread", files={"file": bytes(10)})
                assert (response.status_code, response.text) == (200, "/unread")

    async def test_a_body_that_nobody_reads_holds_nothing(self) -> None:
        """A connection whose body filled all buffers before the response came ends like others."""
        server, url = await self.serve()
        async with Raw(url) as raw:
            sending = asyncio.create_task(raw.send(POST_WAIT, bytes(16_000_000)))
            await eventually(lambda: self.probe.began["/wait"] == 1)
            await asyncio.sleep(0.2)  # for the buffers to fill
            self.probe.go.set()
            await eventually(lambda: self.probe.ended["/wait"] == 1)
            await asyncio.wait([sending])
            sending.exception()
        async with asyncio.timeout(5):
            await server.stop(20)

    async def test_pipelined_requests_are_answered_in_order(self) -> None:
        """Requests sent at once on one connection are all answered, in their order."""
        _, url = await self.serve()
        async with Raw(url) as raw:
            await raw.send(b"".join(GET % b"/%d" % number for number in range(20)))
            assert [(await raw.response()).body for _ in range(20)] == [b"/%d" % number for number in range(20)]

    async def test_a_whole_url_is_answered_as_its_path(self) -> None:
        """As proxies are asked, which every server must understand (RFC 9112, section 3.2.2)."""
        _, url = await self.serve()
        async with Raw(url) as raw:
            await raw.send(GET % b"http://test/whole?x=1")
            assert (await raw.response()).body == b"/whole"

    async def test_sockets_work(self) -> None:
        """A websocket sends and receives, beside HTTP on one port."""
        self.needs("websockets")
        _, url = await self.serve()
        async with websockets.connect(url.replace("http", "ws", 1) + "/socket") as socket, asyncio.timeout(10):
            await socket.send("hello")
            assert await socket.recv() == "hello"
        await eventually(lambda: self.probe.ended["/socket"] == 1)

    async def test_listens_on_a_unix_socket(self, tmp_path: Path) -> None:
        """A path serves in place of a port; what a killed process left there is replaced, and stop removes it."""
        self.needs("unix_socket")
        path = tmp_path / "http.sock"
        abandoned = await asyncio.start_unix_server(lambda reader, writer: None, path)
        held = path.rename(tmp_path / "held")  # so that closing does not unlink it
        abandoned.close()
        held.rename(path)
        server, url = await self.serve(unix_socket=str(path))
        assert url == f"unix:{path}"
        async with httpx.AsyncClient(transport=httpx.AsyncHTTPTransport(uds=str(path))) as client:
            assert (await client.get("http://test/unix")).text == "/unix"
        with pytest.raises(StartupError, match=r"http\.unix_socket"):
            await self.serve(unix_socket=str(path))
        await server.stop(1)
        assert not path.exists()

    async def test_speaks_tls(self, tmp_path: Path) -> None:
        """With a certificate the server speaks TLS, and the URL says so."""
        self.needs("tls")
        chain, key, authority = self.certificate(tmp_path)
        _, url = await self.serve(host="localhost", tls_cert=chain, tls_key=key)
        assert url.startswith("https://")
        async with httpx.AsyncClient(base_url=url, verify=ssl.create_default_context(cafile=authority)) as client:
            assert (await client.get("/tls")).text == "/tls"

    async def test_takes_a_renewed_certificate(self, tmp_path: Path) -> None:
        """New connections get the certificate that lies there now; half a renewal changes nothing."""
        self.needs("tls", "tls_reload")
        (tmp_path / "new").mkdir()
        chain, key, authority = self.certificate(tmp_path)
        new_chain, new_key, new_authority = self.certificate(tmp_path / "new")
        _, url = await self.serve(host="localhost", tls_cert=chain, tls_key=key, tls_reload_s=0.02)

        async def trusted(by: str) -> bool:
            try:
                async with httpx.AsyncClient(verify=ssl.create_default_context(cafile=by)) as client:
                    return (await client.get(url)).status_code == 200
            except httpx.ConnectError:
                return False

        assert await trusted(authority)
        _copy(new_chain, chain)
        await asyncio.sleep(0.1)  # a change that must have no effect
        assert await trusted(authority)
        _copy(new_key, key)
        await eventually(lambda: trusted(new_authority))

    async def test_start_fails_when_a_certificate_cannot_be_read(self, tmp_path: Path) -> None:
        """A missing or broken certificate is a ConfigurationError that names it, and nothing listens."""
        self.needs("tls")
        broken = tmp_path / "broken.pem"
        broken.write_text("no certificate")
        for path in (str(tmp_path / "missing.pem"), str(broken)):
            with pytest.raises(ConfigurationError, match=r"tls_cert.*\.pem"):
                await self.serve(tls_cert=path, tls_key=path)
        with pytest.raises(ConfigurationError, match="both or neither"):
            await self.serve(tls_cert=str(broken))

    async def test_speaks_http2(self, tmp_path: Path) -> None:
        """Many requests run at once on one HTTP/2 connection; one whose body nobody reads holds up none."""
        self.needs("http2", "tls")
        chain, key, authority = self.certificate(tmp_path)
        _, url = await self.serve(host="localhost", tls_cert=chain, tls_key=key)
        context = ssl.create_default_context(cafile=authority)
        async with httpx.AsyncClient(base_url=url, http1=False, http2=True, verify=context, timeout=10) as client:
            assert (await client.get("/two")).http_version == "HTTP/2"
            for size in (10, 500_000, 3_000_000):
                assert (await client.post("/unread", content=bytes(size))).text == "/unread"
            assert (await client.post("/unread", files={"file": bytes(10)})).text == "/unread"
            unread = asyncio.create_task(client.post("/wait", content=bytes(2_000_000)))
            await eventually(lambda: self.probe.began["/wait"] == 1)
            await asyncio.sleep(0.2)  # for the buffers to fill
            assert (await client.get("/meanwhile")).text == "/meanwhile"
            self.probe.go.set()
            assert (await unread).text == "waited"
            self.probe.go.clear()
            waiting = [asyncio.create_task(client.get("/wait")) for _ in range(20)]
            await eventually(lambda: self.probe.began["/wait"] == 21)
            self.probe.go.set()
            assert [(await each).text for each in waiting] == ["waited"] * 20
            assert (await client.post("/size", content=bytes(500_000))).text == "500000"


def _copy(source: str, target: str) -> None:
    Path(target).write_bytes(Path(source).read_bytes())
