"""HTTP/3 that ends, is renewed, or is attacked."""

from __future__ import annotations

import asyncio
import os
import socket
import time
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from cliffracer_core.testing import eventually
from cliffracer_http.servers import http3

from .exchange import _copy
from .h3_client import Http3Client
from .http3 import NO_ERROR, REJECTED
from .http3_suite import Http3Suite

__all__ = ["Http3EndingContract"]


class Http3EndingContract(Http3Suite):
    """The end of requests and connections over QUIC."""

    async def test_http3_finishes_what_runs_when_it_stops(self, tmp_path: Path) -> None:
        """Clients are told; what runs is answered whole, what comes then is rejected, and idle ones are closed."""
        server, url, authority = await self.serve3(tmp_path)
        async with Http3Client(url, authority) as client, Http3Client(url, authority) as idle:
            running, stream = client.open("GET", "/wait"), client.open("GET", "/stream")
            part = client.open_raw(b"\x01\x40")
            await eventually(lambda: self.probe.began.total() == 2)
            await idle.get("/idle")
            stopping = asyncio.create_task(server.stop(10))
            await eventually(lambda: client.was_told and idle.closed == NO_ERROR)
            late = client.open("GET", "/late")
            for each in (part, late):
                with pytest.raises(ConnectionError, match=f"{REJECTED:#x}"):
                    await each.response()
            assert not stopping.done()
            self.probe.go.set()
            assert (await running.response()).body == b"waited"
            assert (await stream.response()).body == b"firstsecond"
            await asyncio.wait_for(stopping, 5)
            await eventually(lambda: client.closed == NO_ERROR)
        assert not self.probe.began["/late"]
        _, again, _ = await self.serve3(tmp_path, port=int(url.rpartition(":")[2]))
        assert again == url

    @pytest.mark.parametrize("path", ["/wait", "/flood"])
    async def test_http3_ends_with_the_grace_time(self, tmp_path: Path, path: str) -> None:
        """What still runs then is cancelled, also where the client is gone without a word."""
        server, url, authority = await self.serve3(tmp_path)
        async with Http3Client(url, authority, max_data=30_000) as client:
            client.open("GET", path)
            await eventually(lambda: self.probe.began[path] == 1)
            client.vanish()
            began = time.monotonic()
            await server.stop(0.3)
            assert 0.2 < time.monotonic() - began < 4
            await eventually(lambda: self.probe.cancelled[path] + self.probe.ended[path] == 1)

    async def test_http3_answers_each_request_that_began_when_it_stops_under_load(self, tmp_path: Path) -> None:
        """Clients that ask on and on get all the answers that were begun for them."""
        answers = 0

        async def ask(client: Http3Client) -> None:
            nonlocal answers
            try:
                while True:
                    assert (await client.get("/busy")).body == b"/busy"
                    answers += 1
            except ConnectionError:
                return

        server, url, authority = await self.serve3(tmp_path)
        clients = [await Http3Client(url, authority).__aenter__() for _ in range(4)]
        asking = [asyncio.create_task(ask(client)) for client in clients for _ in range(4)]
        await eventually(lambda: answers > 100)
        await server.stop(5)
        await asyncio.wait_for(asyncio.gather(*asking), 10)
        for client in clients:
            await client.__aexit__(None, None, None)
        assert self.probe.began["/busy"] == answers

    async def test_http3_takes_a_renewed_certificate(self, tmp_path: Path) -> None:
        """New connections get the certificate that lies there now; those that are there go on."""
        (tmp_path / "new").mkdir()
        chain, key, new = self.certificate(tmp_path / "new")
        _, url, old = await self.serve3(tmp_path, tls_reload_s=0.02)
        async with Http3Client(url, old) as client:
            for name, source in (("chain.pem", chain), ("key.pem", key)):
                _copy(source, str(tmp_path / name))

            async def trusted() -> bool:
                try:
                    async with Http3Client(url, new) as other:
                        return (await other.get("/new")).status == 200
                except ConnectionError:
                    return False

            await eventually(trusted)
            assert (await client.get("/old")).status == 200

    async def test_http3_serves_others_while_it_gets_garbage(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Noise and a thousand handshakes that are never finished hold little, and end; others are served meanwhile."""
        server, url, authority = await self.serve3(tmp_path, header_timeout_s=0.5)
        address = ("127.0.0.1", urlsplit(url).port or 0)
        first = bytes.fromhex("c00000000108")  # a long head, version 1, and the length of an id
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as noise:
            for number in range(1000):
                hello = first + os.urandom(8) + b"\x00\x00\x44\x9d" + os.urandom(1200)
                odd = [b"\x00", b"\xc0", os.urandom(60), b"\xff" * 1200, b"\xc0" + bytes(1199), hello[:100]]
                for each in (hello, odd[number % len(odd)]):
                    noise.sendto(each, address)
                if number % 50 == 0:
                    await asyncio.sleep(0.005)
            ours: Any = getattr(server, "_http3")  # noqa: B009 # of no public server
            assert 0 < len(ours.opening) <= 64
            monkeypatch.setattr(http3, "_OPENING_UNPROVED", 1)  # from now on new ones must prove their address
            async with Http3Client(url, authority, local="127.0.0.2") as client:
                assert (await client.get("/other")).status == 200
                assert client.quic._retry_count == 1
        await eventually(lambda: not ours.opening)
