"""A service is ended by SIGTERM under HTTP load, on each server."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import socket
import time
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import httpx
import pytest
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed

from cliffracer_core.testing import eventually

from .forms import Form
from .processes import Worker
from .records import Records
from .workers.web import PARTS

GRACE_S = 10.0
"""`shutdown_grace_s` as it is by default."""
KEEP_ALIVE, SLOW, STREAMS, UPLOADS, SOCKETS = 16, 8, 4, 2, 8
WARM = 100
"""Answers before each SIGTERM."""


def right(kind: str, id: str, text: str) -> bool:
    """Tell whether a response is whole."""
    if kind == "stream":
        return text == f"{id}\n" * PARTS
    return bool(json.loads(text) == (f"{id} 20" if kind == "upload" else id))


class Crowd:
    """Clients of all kinds, each on a connection of its own which it keeps."""

    def __init__(self, url: str, round: int) -> None:
        self._url = url
        self._ids = (f"{round}-{number}" for number in itertools.count())
        self.answered: dict[str, str] = {}
        """Kind by id, of requests whose response came whole."""
        self.wrong: list[str] = []
        self.unanswered = 0
        self.talked = 0
        """Messages that sockets got an answer to."""
        self.closed: list[tuple[int, str]] = []
        """With which code and reason, as sockets were told."""
        self._changed = asyncio.Event()

    @contextlib.asynccontextmanager
    async def calling(self) -> AsyncIterator[None]:
        """Call until the server is gone."""
        kinds = ["quick"] * KEEP_ALIVE + ["slow"] * SLOW + ["stream"] * STREAMS + ["upload"] * UPLOADS
        tasks = [asyncio.create_task(self._call(kind)) for kind in kinds]
        try:
            yield
            await asyncio.wait_for(asyncio.gather(*tasks), 30)
        finally:
            for task in tasks:
                task.cancel()

    @contextlib.asynccontextmanager
    async def talking(self) -> AsyncIterator[None]:
        """Keep sockets open, each with an answer to what it said, until the server closes them."""
        tasks = [asyncio.create_task(self._talk()) for _ in range(SOCKETS)]
        try:
            await eventually(lambda: self.talked >= 2 * SOCKETS, 30)
            yield
            await asyncio.wait_for(asyncio.gather(*tasks), 30)
        finally:
            for task in tasks:
                task.cancel()

    async def _talk(self) -> None:
        async with connect(f"{self._url.replace('http', 'ws', 1)}/echo") as socket:
            for id in itertools.count():
                try:
                    await socket.send(json.dumps({"message": f"{id}"}))
                    if json.loads(await socket.recv()) != f"{id}":
                        self.wrong.append(f"socket {id}")
                except ConnectionClosed as closed:
                    self.closed.append((closed.rcvd.code, closed.rcvd.reason) if closed.rcvd else (1006, ""))
                    return
                self.talked += 1
                await asyncio.sleep(0.01)

    async def more(self, count: int) -> None:
        """Wait for so many answers."""
        wanted = len(self.answered) + count
        async with asyncio.timeout(60):
            while len(self.answered) < wanted:
                self._changed.clear()
                await self._changed.wait()

    async def _call(self, kind: str) -> None:
        async with httpx.AsyncClient(base_url=self._url, timeout=30) as client:
            for id in self._ids:
                try:
                    await self._ask(client, kind, id)
                except httpx.ConnectError:
                    return
                except httpx.TransportError:
                    self.unanswered += 1  # a connection that was idle may close as the request sets out

    async def _ask(self, client: httpx.AsyncClient, kind: str, id: str) -> None:
        if kind == "upload":
            response = await client.post(f"/upload/{id}", content=dripping())
        else:
            response = await client.get(f"/{kind}/{id}")
        if response.status_code == 503:
            self.unanswered += 1  # refused, and said so
        elif response.status_code == 200 and right(kind, id, response.text):
            self.answered[id] = kind
            self._changed.set()
        else:
            self.wrong.append(f"{kind} {id}: {response.status_code} {response.text[:200]}")


async def dripping() -> AsyncIterator[bytes]:
    """Send 20 bytes in a fifth of a second."""
    for _ in range(4):
        yield b"12345"
        await asyncio.sleep(0.05)


def check_closed(closed: list[tuple[int, str]], server: str) -> None:
    """Each socket was told that the service stops, and to resume."""
    assert len(closed) == SOCKETS
    assert {code for code, _ in closed} == {1001}, server
    assert all("resume" in reason for _, reason in closed)


@contextlib.contextmanager
def idlers(port: int) -> Iterator[None]:
    """Connections that say nothing, or half a head."""
    with contextlib.ExitStack() as stack:
        for said in (b"", b"", b"GET /quick/never HTTP/1.1\r\nhost: ", b"GET "):
            client = stack.enter_context(socket.create_connection(("127.0.0.1", port)))
            client.sendall(said)
        yield


@pytest.mark.parametrize("server", ["hypercorn", "uvicorn", "granian"])
async def test_no_accepted_request_is_lost_when_it_is_terminated(
    server: str, unused_tcp_port: int, tmp_path: Path, records: Records, form: Form, report: Callable[[str], None]
) -> None:
    """Each request that a handler began is answered whole; the end comes within the grace time, with code 0."""
    environment = {
        "CLIFFRACER_TRANSPORT": "memory://", "LEDGER": str(records.path), "CLIFFRACER_HTTP__SERVER": server,
        "CLIFFRACER_HTTP__PORT": str(unused_tcp_port),
    }  # fmt: skip
    answered: dict[str, str] = {}
    unanswered, longest_s = 0, 0.0
    for round in range(form.terminations):
        worker = await Worker.start("web", tmp_path / f"web-{round}.err", environment)
        try:
            await worker.until(ready=True)
            crowd = Crowd(f"http://127.0.0.1:{unused_tcp_port}", round)
            with idlers(unused_tcp_port):
                async with crowd.talking(), crowd.calling():
                    await crowd.more(WARM)
                    worker.terminate()
                    begun = time.monotonic()
                    assert await worker.ended() == 0
                    longest_s = max(longest_s, time.monotonic() - begun)
        finally:
            await worker.close()
        assert crowd.wrong == []
        assert worker.errors == ""  # a request that was cut would stand there
        check_closed(crowd.closed, server)
        answered |= crowd.answered
        unanswered += crowd.unanswered
    began = {id: kind for kind in ("quick", "slow", "stream", "upload") for id in records.times(kind, "began")}
    lost = {id: kind for id, kind in began.items() if answered.get(id) != kind}
    assert lost == {}
    assert answered.keys() == began.keys()
    assert longest_s < GRACE_S
    report(
        f"{form.terminations} SIGTERMs, {len(answered)} requests begun and answered whole, {unanswered} refused or not "
        f"accepted, {form.terminations * SOCKETS} sockets closed; the longest end took {longest_s:.1f} s"
    )
