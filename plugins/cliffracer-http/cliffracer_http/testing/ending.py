"""The end: what runs is finished, what is idle is closed, and all is over in time."""

from __future__ import annotations

import asyncio
import time

import pytest

from cliffracer_core.testing import eventually

from .raw import Raw
from .suite import GET, ServerSuite

__all__ = ["EndingContract"]


class EndingContract(ServerSuite):
    """Stopping."""

    async def test_running_requests_are_finished(self) -> None:
        """Requests that run when it stops are answered; the connection is closed thereafter."""
        server, url = await self.serve()
        async with Raw(url) as raw, Raw(url) as stream:
            await raw.send(GET % b"/wait")
            await stream.send(GET % b"/stream")
            await eventually(lambda: self.probe.began.total() == 2)
            stopping = asyncio.create_task(server.stop(10))
            await eventually(lambda: _refuses(url))
            assert not stopping.done()
            self.probe.go.set()
            assert (await raw.response()).body == b"waited"
            assert (await stream.response()).body == b"firstsecond"
            await asyncio.wait_for(stopping, 5)
            assert await raw.ended() == b""

    async def test_a_request_that_was_sent_is_answered(self) -> None:
        """Requests on the wire when it stops, on new and on idle connections, are answered."""
        server, url = await self.serve()
        async with Raw(url) as idle:
            await idle.send(GET % b"/first")
            await idle.response()
            fresh = [await Raw(url).__aenter__() for _ in range(10)]
            for raw in (*fresh, idle):
                await raw.send(GET % b"/late")
            await server.stop(5)
            for raw in (*fresh, idle):
                assert (await raw.response()).body == b"/late"
                await raw.__aexit__(None, None, None)

    async def test_idle_and_slow_connections_do_not_delay_the_end(self) -> None:
        """The end does not wait for connections that are silent, idle or in the middle of a head."""
        server, url = await self.serve(header_timeout_s=5)
        async with Raw(url) as silent, Raw(url) as idle, Raw(url) as slow:
            await idle.send(GET % b"/idle")
            await idle.response()
            await slow.send(b"GET /slow HTTP/1.1\r\nhost: t")
            await eventually(lambda: self.probe.ended["/idle"] == 1)
            began = time.monotonic()
            await server.stop(20)
            assert time.monotonic() - began < 4
            for raw in (silent, idle, slow):
                await raw.ended()

    @pytest.mark.parametrize("path", [b"/wait", b"/stream", b"/flood"])
    async def test_the_grace_time_is_the_end(self, path: bytes) -> None:
        """What still runs after the grace time is cancelled and cut, also where the client reads nothing."""
        server, url = await self.serve()
        name = path.decode()
        async with Raw(url) as raw:
            if path == b"/flood":
                raw.writer.transport.pause_reading()  # type: ignore[attr-defined]  # a transport of sockets can
            await raw.send(GET % path)
            await eventually(lambda: self.probe.began[name] == 1)
            began = time.monotonic()
            await server.stop(0.5)
            assert 0.4 < time.monotonic() - began < 5
            await eventually(lambda: self.probe.cancelled[name] + self.probe.ended[name] == 1)

    async def test_a_body_that_stalls_does_not_outlast_the_grace_time(self) -> None:
        """A request whose body never comes is cut at the end of the grace time."""
        server, url = await self.serve()
        async with Raw(url) as raw:
            await raw.send(b"POST /size HTTP/1.1\r\nhost: test\r\ncontent-length: 100\r\n\r\nx")
            await eventually(lambda: self.probe.began["/size"] == 1)
            began = time.monotonic()
            await server.stop(0.5)
            assert time.monotonic() - began < 5
            await raw.ended()

    async def test_stop_is_safe_twice_and_before_start(self) -> None:
        """Stopping what does not run is no error, and a stopped port can be listened on again."""
        await self.make_server().stop(1)
        server, url = await self.serve()
        await server.stop(1)
        await server.stop(1)
        _, again = await self.serve(port=int(url.rpartition(":")[2]))
        assert again == url


async def _refuses(url: str) -> bool:
    try:
        async with Raw(url):
            return False
    except OSError:
        return True
