"""Websockets with history while a replica is killed, and while the NATS server is away."""

from __future__ import annotations

import asyncio
import contextlib
import signal
from collections.abc import AsyncIterator, Callable
from typing import Any

from centrifuge import Client, SubscriptionEventHandler
from cliffracer_nats import EmbeddedNats

from cliffracer_core import ClientProxy, CliffracerError
from cliffracer_core.testing import eventually

from .conftest import Start
from .forms import Form
from .processes import Worker


class Reader(SubscriptionEventHandler):  # type: ignore[misc]  # the SDK has no types
    """One client of the room, by the published Python SDK."""

    def __init__(self, address: str) -> None:
        self.numbers: list[int] = []
        self.offsets: list[int] = []
        self.subscribed: list[Any] = []
        self.client: Any = Client(address, proxy=None, min_reconnect_delay=0.02, max_reconnect_delay=0.2)
        self._subscription: Any = self.client.new_subscription("room", self)

    async def open(self) -> None:
        await self.client.connect()
        await self._subscription.subscribe()
        await self._subscription.ready(10)

    async def on_subscribed(self, ctx: Any) -> None:
        self.subscribed.append(ctx)

    async def on_publication(self, ctx: Any) -> None:
        self.numbers.append(ctx.pub.data)
        self.offsets.append(ctx.pub.offset)

    def check(self, confirmed: set[int]) -> None:
        """Each note that was confirmed came, none out of its place or twice."""
        assert set(self.numbers) >= confirmed
        assert self.offsets == sorted(set(self.offsets))


class Balancer:
    """A port behind which one of several servers is: what a load balancer is to clients."""

    def __init__(self, ports: list[int]) -> None:
        self.ports = ports
        self._next = 0
        self._tasks: set[asyncio.Task[None]] = set()

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[str]:
        server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        try:
            yield f"ws://127.0.0.1:{server.sockets[0].getsockname()[1]}/connection/websocket"
        finally:
            server.close()
            for task in list(self._tasks):
                task.cancel()
            await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        for _ in self.ports:
            self._next += 1
            try:
                far = await asyncio.open_connection("127.0.0.1", self.ports[self._next % len(self.ports)])
            except OSError:
                continue
            for source, target in ((reader, far[1]), (far[0], writer)):
                task = asyncio.create_task(self._copy(source, target))
                self._tasks.add(task)
                task.add_done_callback(self._tasks.discard)
            return
        writer.close()

    async def _copy(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while data := await reader.read(65536):
                writer.write(data)
        except OSError:
            pass
        finally:
            writer.close()


class Poster:
    """Posts notes one after the other, each until it is confirmed."""

    def __init__(self, proxy: ClientProxy) -> None:
        self.confirmed: set[int] = set()
        self.failures: list[CliffracerError] = []
        self._proxy = proxy

    async def post(self, number: int) -> None:
        while number not in self.confirmed:
            try:
                self.confirmed.add(await self._proxy.send("board.post", {"number": number}))
            except CliffracerError as error:
                self.failures.append(error)
                await asyncio.sleep(0.02)


async def ports_of(proxy: ClientProxy, workers: list[Worker]) -> dict[int, int]:
    """Return the port of each worker by process id."""
    found: dict[int, int] = {}

    async def all_found() -> bool:
        pid, url = await proxy.send("board.where", {})
        found[pid] = int(url.rpartition(":")[2])
        return len(found) == len(workers)

    await eventually(all_found, 30)
    return found


@contextlib.asynccontextmanager
async def reading(address: str, count: int) -> AsyncIterator[list[Reader]]:
    readers = [Reader(address) for _ in range(count)]
    for each in readers:
        await each.open()
    try:
        yield readers
    finally:
        for each in readers:
            await each.client.disconnect()


async def test_clients_resume_without_a_gap_when_their_replica_is_killed(
    proxy: ClientProxy, nats: EmbeddedNats, start: Start, form: Form, report: Callable[[str], None]
) -> None:
    """Clients of a killed replica come back at the other one and miss nothing."""
    killed, survivor = workers = await start("board", nats.url, 2)
    ports = await ports_of(proxy, workers)
    poster = Poster(proxy)
    async with (
        Balancer([ports[killed.pid], ports[survivor.pid]]).running() as address,
        reading(address, form.sockets) as readers,
    ):
        for number in range(300):
            await poster.post(number)
            if number == 100:
                killed.kill()
                assert await killed.ended() == -signal.SIGKILL
        await eventually(lambda: all(poster.confirmed <= set(each.numbers) for each in readers), 30)
    moved = [each for each in readers if len(each.subscribed) > 1]
    assert len(moved) == form.sockets // 2, "the killed replica had another share of the sockets"
    for each in readers:
        each.check(poster.confirmed)
        assert all(again.was_recovering and again.recovered for again in each.subscribed[1:])
    report(f"{len(moved)} of {len(readers)} sockets moved, {len(poster.confirmed)} notes to each")


async def test_sockets_stay_and_nothing_is_lost_when_the_broker_is_away(
    proxy: ClientProxy, nats: EmbeddedNats, start: Start, form: Form, report: Callable[[str], None]
) -> None:
    """An outage of the broker closes no socket; what was confirmed before and after comes to each once."""
    workers = await start("board", nats.url, 2)
    ports = await ports_of(proxy, workers)
    poster = Poster(proxy)
    async with Balancer(list(ports.values())).running() as address, reading(address, form.sockets) as readers:
        for number in range(100):
            await poster.post(number)
        await asyncio.to_thread(nats.stop)
        for each in workers:
            await each.until(ready=False, timeout_s=10)
        away = asyncio.create_task(poster.post(100))
        await asyncio.sleep(form.outage_s)
        assert 100 not in poster.confirmed, "it was confirmed though nobody was there to store it"
        await asyncio.to_thread(nats.start)
        for each in workers:
            await each.until(ready=True, timeout_s=30)
        await away
        for number in range(101, 200):
            await poster.post(number)
        await eventually(lambda: all(poster.confirmed <= set(each.numbers) for each in readers), 30)
    for each in readers:
        each.check(poster.confirmed)
        assert len(each.subscribed) == 1, "its socket was closed"
    report(f"{len(readers)} sockets stayed open for {form.outage_s:g} s, {len(poster.confirmed)} notes to each")
