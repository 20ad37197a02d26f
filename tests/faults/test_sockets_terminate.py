"""A service with websockets is ended by SIGTERM, on each server: its clients go on at another replica."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

import pytest
from cliffracer_nats import EmbeddedNats
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed

from cliffracer_core import ClientProxy
from cliffracer_core.testing import eventually

from .conftest import Start
from .forms import Form
from .test_sockets import Balancer, Poster, ports_of, reading

GRACE_S = 10.0
"""`shutdown_grace_s` as it is by default."""
BROKEN_OFF = 1006
"""What a client takes for the code where a connection ends without one."""


async def farewell(port: int, open: asyncio.Event) -> tuple[int, str]:
    """Be a client that speaks, and return code and reason with which its socket was closed."""
    async with connect(f"ws://127.0.0.1:{port}/connection/websocket") as socket:
        await socket.send('{"id":1,"connect":{}}')
        await socket.recv()
        open.set()
        try:
            while True:
                await socket.recv()
        except ConnectionClosed as closed:
            return (closed.rcvd.code, closed.rcvd.reason) if closed.rcvd else (BROKEN_OFF, "")


@pytest.mark.parametrize("server", ["uvicorn", "hypercorn", "granian"])
async def test_clients_are_sent_to_another_replica_when_theirs_is_terminated(
    server: str, proxy: ClientProxy, nats: EmbeddedNats, start: Start, form: Form, report: Callable[[str], None],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    """SIGTERM closes each socket with 1001 and a hint to resume, in time; what is posted meanwhile comes to all."""
    monkeypatch.setenv("SERVER", server)
    workers = await start("board", nats.url, 2)
    poster, took_s, number, moved = Poster(proxy), [0.0], 0, 0
    balancer = Balancer(list((await ports_of(proxy, workers)).values()))
    async with balancer.running() as address, reading(address, form.sockets) as readers:
        for turn in range(form.stops):
            ending, staying = workers
            port = (await ports_of(proxy, workers))[ending.pid]
            before = [len(each.subscribed) for each in readers]
            is_open = asyncio.Event()
            last = asyncio.create_task(farewell(port, is_open))
            await asyncio.wait_for(is_open.wait(), 10)
            for step in range(100):
                await poster.post(number)
                number += 1
                if step == 30:
                    begun = time.monotonic()
                    ending.terminate()
            assert await ending.ended() == 0
            took_s.append(time.monotonic() - begun)
            code, reason = await asyncio.wait_for(last, 10)
            assert (code, "connect again and resume" in reason) == (1001, True)
            assert not ending.errors
            await eventually(lambda: all(poster.confirmed <= set(each.numbers) for each in readers), 30)
            moved += sum(len(each.subscribed) > count for each, count in zip(readers, before, strict=True))
            workers = [staying]
            if turn < form.stops - 1:
                workers += await start("board", nats.url)
                balancer.ports = list((await ports_of(proxy, workers)).values())
    assert moved >= form.sockets // 2
    for each in readers:
        each.check(poster.confirmed)
        assert all(again.was_recovering and again.recovered for again in each.subscribed[1:])
    assert max(took_s) < GRACE_S
    report(
        f"{form.stops} times, {moved} sockets moved, {len(poster.confirmed)} notes to each of {len(readers)}; "
        f"the slowest stop took {max(took_s):.2f} s"
    )
