"""Clients that are slow, greedy or gone."""

from __future__ import annotations

import asyncio
import time

import pytest

from .base import Base
from .probe import Probe
from .raw import Connection, request

__all__ = ["LimitingContract"]


class LimitingContract(Base):
    """A server waits for nobody without bound, and keeps nothing without bound."""

    async def test_a_head_that_stalls_is_closed(self, probe: Probe) -> None:
        """Also where it drips, on a new connection and on one that has been used."""
        self.needs("header_timeout")
        served = self.serving(probe, header_timeout_s=0.5)
        async with served as (url, _), Connection(url) as client, Connection(url) as used:
            await used.get()
            begun = time.monotonic()
            dripping = [asyncio.create_task(_drip(each)) for each in (client, used)]
            for each in (client, used):
                rest = await each.closed()
                assert rest == b"" or rest.startswith(b"HTTP/1.1 408"), rest
            assert time.monotonic() - begun < 5
            for task in dripping:
                task.cancel()

    async def test_a_connection_that_says_nothing_is_closed(self, probe: Probe) -> None:
        """The time for a head runs from the start of the connection."""
        self.needs("silence_timeout")
        async with self.serving(probe, header_timeout_s=0.5) as (url, _), Connection(url) as client:
            assert await client.closed(5) == b""

    async def test_an_idle_connection_is_closed(self, probe: Probe) -> None:
        """After `keep_alive_s`, and not before."""
        self.needs("keep_alive_timeout")
        async with self.serving(probe, keep_alive_s=1.0) as (url, _), Connection(url) as client:
            await client.get()
            begun = time.monotonic()
            assert await client.closed(10) == b""
            assert time.monotonic() - begun > 0.5

    async def test_a_request_that_takes_its_time_is_left_alone(self, probe: Probe) -> None:
        """No limit for clients counts while an application works."""
        limits = {"keep_alive_s": 0.3, "header_timeout_s": 0.3, "body_timeout_s": 0.3, "send_timeout_s": 0.3}
        async with self.serving(probe, **limits) as (url, _), Connection(url) as client:
            await client.send(request("GET", "/wait"))
            await asyncio.sleep(1.5)
            probe.release.set()
            assert (await client.response()).body == b"waited"

    async def test_a_long_head_is_refused(self, probe: Probe) -> None:
        """With 431, whether it comes at once or endlessly; others are served."""
        self.needs("header_limit")
        async with self.serving(probe, max_header_bytes=16_384) as (url, _), Connection(url) as other:
            async with Connection(url) as client:
                await client.send(request("GET", "/hello", "x: " + "y" * 50_000))
                assert (await client.head()).status == 431
            async with Connection(url) as client:
                await client.send(b"GET /hello HTTP/1.1\r\n")
                try:
                    for _ in range(1000):
                        await client.send(b"x: " + b"y" * 1000 + b"\r\n")
                except ConnectionError:
                    pass
                rest = await client.closed()
                assert rest == b"" or rest.startswith(b"HTTP/1.1 431"), rest
            assert (await other.get()).body == b"hello"
            assert "hello begins" in probe.seen
            assert probe.seen.count("hello begins") == 1

    async def test_many_header_fields_are_refused(self, probe: Probe) -> None:
        """With 431."""
        async with self.serving(probe, max_headers=20) as (url, _), Connection(url) as client:
            found = await client.get("/hello", *[f"x{number}: y" for number in range(30)])
            assert found.status == 431
            assert (await client.get("/hello", *[f"x{number}: y" for number in range(10)])).status == 200

    @pytest.mark.parametrize("head", ["content-length: 10", "transfer-encoding: chunked"])
    async def test_a_body_that_stalls_ends_the_request(self, probe: Probe, head: str) -> None:
        """The application gets RequestTimeout, and the connection is closed."""
        async with self.serving(probe, body_timeout_s=0.5) as (url, _), Connection(url) as client:
            await client.send(request("POST", "/count", head), b"3\r\nabc" if "chunked" in head else b"abc")
            await probe.has("count fails: RequestTimeout", 5)
            await client.closed(10)

    async def test_an_early_answer_to_a_long_body_can_be_read(self, probe: Probe) -> None:
        """A client that sends first and reads then gets its answer."""
        async with self.serving(probe) as (url, _), Connection(url) as client:
            await client.send(request("POST", "/refuse", "content-length: 4000000"))
            try:
                await client.send(*[b"z" * 40_000] * 100)
            except ConnectionError:
                pass
            found = await client.response()
            assert (found.status, found.body) == (413, b"too much")

    async def test_an_unread_body_that_never_ends_is_cut(self, probe: Probe) -> None:
        """A client that has its answer may not hold the connection by sending on."""
        self.needs("header_timeout")
        async with self.serving(probe, body_timeout_s=1.0) as (url, _), Connection(url) as client:
            await client.send(request("POST", "/refuse", "content-length: 1000000000"))
            assert (await client.response()).status == 413
            dripping = asyncio.create_task(_drip(client))
            await client.closed(10)
            dripping.cancel()

    async def test_an_application_hears_that_its_client_is_gone(self, probe: Probe) -> None:
        """While it waits in `receive`: before, during and after the body."""
        async with self.serving(probe) as (url, _):
            async with Connection(url) as client:
                await client.send(request("GET", "/leave"))
                await probe.has("leave begins")
            await probe.has("leave is left", 10)
            async with Connection(url) as client:
                await client.send(request("POST", "/count", "content-length: 10"), b"abc")
                await probe.has("count begins")
            await probe.has("count is left", 10)

    async def test_a_client_that_reads_nothing_is_cut_off(self, probe: Probe) -> None:
        """What is sent to it waits for it, `send_timeout_s` long."""
        self.needs("send_timeout")
        async with self.serving(probe, send_timeout_s=1.0) as (url, _), Connection(url, buffer_bytes=1024) as client:
            await client.send(request("GET", "/flood"))
            await client.head()
            await probe.has("flood begins")
            async with asyncio.timeout(15):
                while not any(each.startswith("flood ") and each != "flood begins" for each in probe.seen):
                    await asyncio.sleep(0.02)


async def _drip(client: Connection) -> None:
    """Send a byte now and then, for ever."""
    try:
        await client.send(b"GET /hello HTTP/1.1\r\nx: ")
        while True:
            await client.send(b"a")
            await asyncio.sleep(0.1)
    except ConnectionError:
        pass
