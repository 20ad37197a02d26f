"""A stop that loses nothing, and ends."""

from __future__ import annotations

import asyncio
import time

from .base import Base
from .probe import Probe
from .raw import Connection, request

__all__ = ["DrainingContract"]


class DrainingContract(Base):
    """Stop accepting, close what is idle, finish what runs, cut what is left."""

    async def test_a_stop_waits_for_what_runs(self, probe: Probe) -> None:
        """A request, and a stream, that began are answered whole; meanwhile nobody can connect."""
        async with self.serving(probe) as (url, server), Connection(url) as one, Connection(url) as two:
            await one.send(request("GET", "/wait"))
            await two.send(request("GET", "/stream"))
            await two.head()
            assert await two.chunk() == b"first"
            await probe.has("wait begins")
            stopping = asyncio.create_task(server.stop(10.0))
            await _refused(url)
            assert not stopping.done()
            probe.release.set()
            assert (await one.response()).body == b"waited"
            assert [await two.chunk(), await two.chunk()] == [b"last", b""]
            begun = time.monotonic()
            await stopping
            assert time.monotonic() - begun < 5

    async def test_a_stop_does_not_wait_for_idle_and_slow_clients(self, probe: Probe) -> None:
        """Connections without a running request are closed at once."""
        self.needs("prompt_stop")
        async with self.serving(probe) as (url, server):
            idle, fresh, slow = [await Connection(url).open() for _ in range(3)]
            await idle.get()
            await slow.send(b"GET /hello HTTP/1.1\r\nhost: ")
            begun = time.monotonic()
            await server.stop(8.0)
            assert time.monotonic() - begun < 4
            for each in (idle, fresh, slow):
                await each.closed(1)
                each.close()

    async def test_a_stop_closes_idle_connections(self, probe: Probe) -> None:
        """Keep-alive does not outlast the server."""
        async with self.serving(probe) as (url, server), Connection(url) as client:
            await client.get()
            begun = time.monotonic()
            await server.stop(8.0)
            assert time.monotonic() - begun < 4
            await client.closed(1)

    async def test_a_stop_is_bounded(self, probe: Probe) -> None:
        """What has not ended by the grace time is cancelled, and its client cut off."""
        async with self.serving(probe) as (url, server):
            client, reader = await Connection(url).open(), await Connection(url, buffer_bytes=1024).open()
            await client.send(request("GET", "/wait"))
            await reader.send(request("GET", "/flood"))
            await probe.has("wait begins")
            await probe.has("flood begins")
            begun = time.monotonic()
            await server.stop(0.5)
            assert 0.3 < time.monotonic() - begun < 4
            await probe.has("wait is cancelled", 1)
            if self.claims.cuts:
                await client.closed(2)
            client.close()
            reader.close()

    async def test_what_had_arrived_is_served(self, probe: Probe) -> None:
        """A request that was sent before the stop is answered, though nobody had read it yet."""
        async with self.serving(probe) as (url, server):
            clients = [await Connection(url).open() for _ in range(20)]
            for client in clients:
                client.writer.write(request("GET", "/hello"))
            await server.stop(5.0)
            assert [(await client.response()).body for client in clients] == [b"hello"] * 20
            for client in clients:
                client.close()

    async def test_open_websockets_do_not_hold_a_stop(self, probe: Probe) -> None:
        """They end with the grace time at the latest, and the application hears of it."""
        key = "AAAAAAAAAAAAAAAAAAAAAA=="
        upgrade = (
            "upgrade: websocket",
            "connection: upgrade",
            "sec-websocket-version: 13",
            f"sec-websocket-key: {key}",
        )
        async with self.serving(probe) as (url, server), Connection(url) as client:
            await client.send(request("GET", "/ws", *upgrade))
            await probe.has("socket opens")
            begun = time.monotonic()
            await server.stop(0.5)
            assert time.monotonic() - begun < 4
            if self.claims.cuts:
                await client.closed(2)


async def _refused(url: str) -> None:
    async with asyncio.timeout(5):
        while True:
            try:
                client = await Connection(url).open()
            except ConnectionError:
                return
            client.close()
            await asyncio.sleep(0.01)
