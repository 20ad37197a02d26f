"""Many sockets, a twentieth of which do not read: what the others notice of it."""

from __future__ import annotations

import asyncio
import base64
import os
import socket
import statistics
import time
from collections.abc import Callable, Sequence
from typing import Any, Self, cast
from urllib.parse import urlsplit

import msgspec
import pytest
from cliffracer_nats import EmbeddedNats

from cliffracer_core import ClientProxy
from cliffracer_core.testing import eventually

from .conftest import Start
from .forms import Form
from .workers.ticker import QUEUE, State

BYTES = 1_000
FILL_BYTES, FILLS = 300_000, 200
"""What is sent to those that do not read: 60 MB, of which their queues may hold a twelfth."""
GROWS_BY = 10 * 1024 * 1024


class Listener(asyncio.Protocol):
    """A websocket that notes which numbers came and how late, and does no more, so that figures are the service's."""

    def __init__(self) -> None:
        self.numbers: list[int] = []
        self.delays_s: list[float] = []
        self.gaps: list[int] = []
        self.open = asyncio.get_running_loop().create_future()
        self.lost = False
        self._transport: asyncio.Transport
        self._data = b""
        self._decode = msgspec.json.Decoder().decode

    @classmethod
    async def connect(cls, url: str, path: str) -> Self:
        address = urlsplit(url)
        found = socket.socket()
        found.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 32 * 1024)
        found.setblocking(False)
        loop = asyncio.get_running_loop()
        await loop.sock_connect(found, (address.hostname, address.port))
        _, listener = await loop.create_connection(cls, sock=found)
        key = base64.b64encode(os.urandom(16)).decode()
        listener._transport.write(
            f"GET {path} HTTP/1.1\r\nHost: {address.netloc}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            f"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {key}\r\n\r\n".encode()
        )
        await asyncio.wait_for(listener.open, 10)
        return listener

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)

    def connection_lost(self, exc: Exception | None) -> None:
        self.lost = True

    def data_received(self, data: bytes) -> None:
        data = self._data + data
        if not self.open.done():
            head, found, data = data.partition(b"\r\n\r\n")
            if not found:
                self._data = head
                return
            assert b" 101 " in head, head
            self.open.set_result(None)
        at, now = 0, time.monotonic()
        while (size := self._frame(data, at)) is not None:
            at += size
            message = self._decode(data[at - self._payload : at])
            if isinstance(message, dict):
                self.gaps.append(message["dropped"])
            elif message[0] >= 0:
                self.numbers.append(message[0])
                self.delays_s.append(now - message[1])
        self._data = data[at:]

    def _frame(self, data: bytes, at: int) -> int | None:
        """Return the size of the frame that begins here, None where it is not whole."""
        if len(data) < at + 2:
            return None
        short = data[at + 1]
        more = {126: 2, 127: 8}.get(short, 0)
        self._payload = int.from_bytes(data[at + 2 : at + 2 + more]) if more else short
        size = 2 + more + self._payload
        return size if len(data) >= at + size else None

    def pause(self) -> None:
        self._transport.pause_reading()

    def resume(self) -> None:
        self._transport.resume_reading()

    def close(self) -> None:
        self._transport.abort()


def p99(listeners: Sequence[Listener]) -> float:
    """Return the 99th percentile of the delays noted since the last time, in seconds."""
    delays = [delay for each in listeners for delay in each.delays_s]
    for each in listeners:
        each.delays_s.clear()
    return statistics.quantiles(delays, n=100)[-1]


class Ticks:
    """Has a worker send, and knows which numbers it has sent."""

    def __init__(self, proxy: ClientProxy, form: Form) -> None:
        self._proxy = proxy
        self._form = form
        self.sent = 0

    async def send(self, listeners: Sequence[Listener], count: int, pause_s: float) -> None:
        """Send to all, and wait until each of these has each message, in order."""
        request = {"first": self.sent, "count": count, "pause_s": pause_s, "size": BYTES}
        for each in listeners:
            each.numbers.clear()
        await self._proxy.send("ticker.tick", request)
        wanted = list(range(self.sent, self.sent + count))
        self.sent += count
        await eventually(lambda: all(len(each.numbers) >= count for each in listeners), 30)
        assert all(each.numbers == wanted for each in listeners)

    async def fill(self, group: str) -> int:
        """Send a large message to one group, and return how many sockets have lost one."""
        return int(await self._proxy.send("ticker.fill", {"group": group, "size": FILL_BYTES}))

    async def measure(self, listeners: Sequence[Listener]) -> float:
        """Return the 99th percentile of deliveries to these, in seconds."""
        await self.send(listeners, self._form.ticks // 5 + 1, self._form.tick_s)
        p99(listeners)
        await self.send(listeners, self._form.ticks, self._form.tick_s)
        return p99(listeners)

    async def state(self) -> State:
        found: Any = await self._proxy.send("ticker.state", {})
        return msgspec.convert(found, State)

    async def nobody_waits(self) -> None:
        async def none() -> bool:
            return not (await self.state()).stalled

        await eventually(none, 60)


@pytest.mark.parametrize("server", ["uvicorn", "hypercorn", "granian"])
async def test_others_get_everything_when_a_twentieth_does_not_read(
    server: str, proxy: ClientProxy, nats: EmbeddedNats, start: Start, form: Form, report: Callable[[str], None],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    """The rest get each message in order while the stalled stay stalled; the service's memory is bounded."""
    monkeypatch.setenv("SERVER", server)
    (worker,) = await start("ticker", nats.url)
    url = str(await proxy.send("ticker.where", {}))
    stuck = [await Listener.connect(url, "/ticks/stuck") for _ in range(form.listeners // 20)]
    rest = [await Listener.connect(url, "/ticks/rest") for _ in range(form.listeners - len(stuck))]
    ticks = Ticks(proxy, form)
    try:

        async def all_open() -> bool:
            return (await ticks.state()).open == form.listeners

        await eventually(all_open)
        calm = [await ticks.measure(rest)]
        for each in stuck:
            each.pause()

        async def all_stalled() -> bool:
            return await ticks.fill("stuck") == len(stuck)

        await eventually(all_stalled, 60)
        before = await ticks.state()
        with_stalled = await ticks.measure(rest)
        for _ in range(FILLS):
            await ticks.fill("stuck")
        after = await ticks.state()
        assert (after.open, after.stalled) == (form.listeners, len(stuck)), "they were to be stalled throughout"
        assert after.waiting <= QUEUE
        assert after.private - before.private < GROWS_BY
        for each in stuck:
            each.resume()
        await eventually(lambda: all(each.gaps for each in stuck), 60)
        await ticks.nobody_waits()
        calm.append(await ticks.measure([*rest, *stuck]))
        ratio = with_stalled / statistics.mean(calm)
        assert not form.bounds or ratio < 2, (calm, with_stalled)
        assert not any(each.lost for each in (*stuck, *rest))
        report(
            f"p99 {with_stalled * 1e3:.1f} ms with {len(stuck)} of {form.listeners} sockets stalled, "
            f"{calm[0] * 1e3:.1f} before and {calm[1] * 1e3:.1f} after ({ratio:.2f} x); "
            f"memory grew by {(after.private - before.private) / 1e6:.1f} MB"
        )
    finally:
        for each in (*stuck, *rest):
            each.close()
