"""Clients that are slow, silent or gone."""

from __future__ import annotations

import asyncio
import contextlib
import gc

from cliffracer_core.testing import eventually
from cliffracer_http.limits import BodyLimits

from .raw import Raw
from .suite import GET, ServerSuite

__all__ = ["PatienceContract"]

POST = b"POST /size HTTP/1.1\r\nhost: test\r\ncontent-length: 100\r\n\r\n"


class PatienceContract(ServerSuite):
    """How long the server waits."""

    async def test_a_slow_head_is_given_up(self) -> None:
        """A head that comes byte by byte for too long ends the connection, though bytes keep coming."""
        self.needs("header_timeout")
        _, url = await self.serve(header_timeout_s=0.4)
        async with Raw(url) as raw:
            await raw.send(b"GET / HTTP/1.1\r\n")
            dripping = asyncio.create_task(_drip(raw, b"x-a: 1\r\n", 0.025))
            answer = await raw.ended()
            dripping.cancel()
            await asyncio.wait([dripping])
        assert not answer or answer.split()[1] == b"408"

    async def test_a_slow_second_head_is_given_up(self) -> None:
        """The same holds for the next request on a connection."""
        self.needs("header_timeout")
        _, url = await self.serve(header_timeout_s=0.4)
        async with Raw(url) as raw:
            await raw.send(GET % b"/one")
            assert (await raw.response()).body == b"/one"
            await raw.send(b"GET /two HTTP/1.1\r\nhost: t")
            answer = await raw.ended()
        assert not answer or answer.split()[1] == b"408"

    async def test_a_silent_connection_is_closed(self) -> None:
        """A connection on which nothing ever comes is closed."""
        self.needs("header_timeout")
        _, url = await self.serve(header_timeout_s=0.4, keep_alive_s=0.4)
        async with Raw(url) as raw:
            answer = await raw.ended()
        assert not answer or answer.split()[1] == b"408"

    async def test_an_idle_connection_is_closed(self) -> None:
        """A connection is closed when no next request comes in time, and not before."""
        self.needs("keep_alive_timeout")
        _, url = await self.serve(keep_alive_s=0.5)
        async with Raw(url) as raw:
            for _ in range(3):
                await raw.send(GET % b"/again")
                assert (await raw.response()).body == b"/again"
                await asyncio.sleep(0.2)
            assert await raw.ended() == b""

    async def test_a_request_may_run_for_longer_than_any_idle_time(self) -> None:
        """The times for heads and idle connections do not touch a request that runs."""
        _, url = await self.serve(keep_alive_s=0.1, header_timeout_s=0.1)
        async with Raw(url) as raw:
            await raw.send(GET % b"/wait")
            await asyncio.sleep(0.5)
            self.probe.go.set()
            assert (await raw.response()).body == b"waited"

    async def test_a_stalled_body_is_given_up(self) -> None:
        """A body of which no more comes is 408, and the application is told."""
        url = await self.serve_limited(body=BodyLimits(timeout_s=0.3))
        async with Raw(url) as raw:
            await raw.send(POST, b"x")
            assert (await raw.response()).status == 408
            assert not await raw.ended()

    async def test_a_trickling_body_is_given_up(self) -> None:
        """A body that comes byte by byte, each in time, is 408 too."""
        url = await self.serve_limited(body=BodyLimits(timeout_s=0.5, min_rate=100))
        async with Raw(url) as raw:
            await raw.send(POST)

            sending = asyncio.create_task(_drip(raw, b"x", 0.1))
            try:
                assert (await raw.response()).status == 408
            finally:
                sending.cancel()
                await asyncio.wait([sending])

    async def test_a_slow_body_is_taken_when_it_keeps_the_pace(self) -> None:
        """A body that takes longer than the time for one part is taken whole."""
        url = await self.serve_limited(body=BodyLimits(timeout_s=0.6, min_rate=50))
        async with Raw(url) as raw:
            await raw.send(POST)
            for _ in range(10):
                await raw.send(b"x" * 10)
                await asyncio.sleep(0.1)
            assert (await raw.response()).body == b"100"

    async def test_a_request_is_given_up_when_its_deadline_has_passed(self) -> None:
        """An application that answers nothing is cancelled, and the client gets 504; a stream may take its time."""
        url = await self.serve_limited(timeout_s=0.3)
        async with Raw(url) as raw, Raw(url) as stream:
            await stream.send(GET % b"/stream")
            assert (await stream.head())[0] == 200
            await raw.send(GET % b"/wait")
            assert (await raw.response()).status == 504
            assert self.probe.cancelled["/wait"] == 1
            await asyncio.sleep(0.5)
            self.probe.go.set()
            assert [await stream.chunk() for _ in range(3)] == [b"first", b"second", b""]

    async def test_the_application_is_told_when_the_client_goes_away(self) -> None:
        """A client that closes is told of by `receive`, without and with a body sent."""
        _, url = await self.serve()
        for request in (GET % b"/gone", POST.replace(b"/size", b"/gone") + bytes(100)):
            self.probe.began.clear()
            self.probe.ended.clear()
            async with Raw(url) as raw:
                await raw.send(request)
                await eventually(lambda: self.probe.began["/gone"] == 1)
            await eventually(lambda: self.probe.ended["/gone"] == 1)

    async def test_a_connection_that_was_reset_is_forgotten(self) -> None:
        """Nothing of an idle or busy connection is kept once its client has reset it, however long idle ones may be."""
        _, url = await self.serve(keep_alive_s=600)
        async with Raw(url) as idle, Raw(url) as busy:
            await idle.send(GET % b"/idle")
            await idle.response()
            await busy.send(GET % b"/gone")
            await eventually(lambda: self.probe.began["/gone"] == 1)
            idle.reset()
            busy.reset()
            await eventually(self._holds_nothing)

    def _holds_nothing(self) -> bool:
        gc.collect()
        return not self.probe.held

    async def test_a_client_that_reads_nothing_is_cut_off(self) -> None:
        """What a client does not read is not kept: the application waits, then the connection is cut."""
        self.needs("write_timeout")
        _, url = await self.serve(write_timeout_s=0.5)
        async with Raw(url) as raw:
            raw.writer.transport.pause_reading()  # type: ignore[attr-defined]  # a transport of sockets can
            await raw.send(GET % b"/flood")
            await eventually(lambda: self.probe.began["/flood"] == 1)
            async with Raw(url) as other:
                await other.send(GET % b"/other")
                assert (await other.response()).body == b"/other"
            await asyncio.sleep(1.2)  # the write timeout, generously
            raw.writer.transport.resume_reading()  # type: ignore[attr-defined]  # as above
            await raw.ended(20)  # what lay in buffers, then the end


async def _drip(raw: Raw, part: bytes, pause_s: float) -> None:
    """Send a part again and again until the connection ends."""
    with contextlib.suppress(ConnectionError):
        while True:
            await raw.send(part)
            await asyncio.sleep(pause_s)
