"""The kernel's promises under faults that a seed chooses: what holds must hold on every seed.

Rerun one with `--simulation-seed=N`, and many more with `--simulation-seeds=1000`.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable

import pytest

from cliffracer_core import (
    ClientProxy,
    CliffracerError,
    CliffracerService,
    ConnectionError,
    DeadlineExceeded,
    MessageContext,
    NoHandler,
    ServiceConfig,
    event,
    rpc,
)
from cliffracer_core.deadletters import dlq_stream, redrive
from cliffracer_core.errors import NotStored
from cliffracer_core.interfaces import DurableTransport
from cliffracer_core.memory import MemoryStore
from cliffracer_core.messages import TIMEOUT_MS, StoredMessage
from cliffracer_core.testing import Faults, Simulation

HOUR_S = 3600.0
HARSH = Faults(drop=0.05, delay_s=(0.0, 2.0), duplicate=0.05, reorder=0.1, disconnect=0.01, restart=0.005)
LATE = Faults(delay_s=(0.0, 0.5), reorder=0.3)


async def emit(proxy: ClientProxy, subject: str, number: int) -> None:
    """Publish until it is stored, always under one message id."""
    while True:
        try:
            await proxy.caller.publish(
                subject, {"number": number}, durable=True, message_id=f"{subject}-{number}", timeout=5.0
            )
            return
        except NotStored:
            await asyncio.sleep(0.5)


async def start(simulation: Simulation, make: Callable[[], CliffracerService]) -> CliffracerService:
    """Start a service, and again where the server was away, as whatever supervises a process does."""
    while True:
        try:
            return await simulation.start(make())
        except ConnectionError:
            await asyncio.sleep(1.0)


async def dead_letters(proxy: ClientProxy, service: str) -> list[StoredMessage]:
    transport = proxy.caller.transport()
    assert isinstance(transport, DurableTransport)
    return [each async for each in transport.browse(dlq_stream(service))]


class Ledger(CliffracerService):
    """Writes down each durable event it handled, if it lives long enough."""

    def __init__(self, book: Counter[int], *, work_s: float = 0.5) -> None:
        super().__init__()
        self.book = book
        self.work_s = work_s

    @event("entry.made", durable=True, retries=10_000, ack_wait_s=15.0, max_backoff_s=10.0)
    async def write(self, number: int) -> None:
        await asyncio.sleep(self.work_s)
        self.book[number] += 1


@pytest.mark.simulation(seeds=15, faults=HARSH)
async def test_durable_events_are_all_handled_when_everything_fails(simulation: Simulation) -> None:
    """Whatever was confirmed is handled, through killed replicas, restarts, lost messages and lost acks."""
    book: Counter[int] = Counter()
    replicas = [await start(simulation, lambda: Ledger(book)) for _ in range(2)]

    async def kill_now_and_then() -> None:
        for _ in range(6):
            await asyncio.sleep(simulation.random.uniform(0.5, 5.0))
            place = simulation.random.randrange(2)
            simulation.crash(replicas[place])
            await asyncio.sleep(simulation.random.uniform(0.0, 2.0))
            replicas[place] = await start(simulation, lambda: Ledger(book))

    async with ClientProxy("memory://") as proxy:
        async with asyncio.TaskGroup() as group:
            group.create_task(kill_now_and_then())
            for number in range(40):
                group.create_task(emit(proxy, "entry.made", number))
        await simulation.until(lambda: len(book) == 40, HOUR_S)
        assert await dead_letters(proxy, "ledger") == []


@pytest.mark.simulation(seeds=10, faults=HARSH)
async def test_failing_events_become_dead_letters_when_everything_fails(simulation: Simulation) -> None:
    """An event whose handler always fails ends as one dead letter with its cause; none vanishes, none stays."""
    service = CliffracerService(ServiceConfig("failing"))
    attempts: Counter[int] = Counter()

    @service.event("bad.news", durable=True, retries=3, backoff_s=1.0, ack_wait_s=15.0)
    async def fail(number: int) -> None:
        attempts[number] += 1
        raise ValueError("no good")

    await start(simulation, lambda: service)
    async with ClientProxy("memory://") as proxy:
        async with asyncio.TaskGroup() as group:
            for number in range(10):
                group.create_task(emit(proxy, "bad.news", number))

        async def all_dead() -> bool:
            return len(await dead_letters(proxy, "failing")) == 10

        await simulation.until(all_dead, HOUR_S)
        simulation.faults = Faults()
        await asyncio.sleep(HOUR_S)
        letters = await dead_letters(proxy, "failing")
        assert sorted(each.message.body for each in letters) == sorted(b'{"number":%d}' % n for n in range(10))
        assert {(each.message.headers or {})["X-Dead-Letter-Handler"] for each in letters} == {"fail"}


@pytest.mark.simulation(seeds=10, faults=LATE, limit_s=HOUR_S)
async def test_event_that_kills_its_process_becomes_a_dead_letter(simulation: Simulation) -> None:
    """A service that dies on each attempt at an event leaves a dead letter, and the next one goes on living."""
    made: list[CliffracerService] = []

    class Fragile(CliffracerService):
        @event("poison.given", durable=True, retries=2, ack_wait_s=5.0)
        async def drink(self) -> None:
            simulation.crash(self)
            await asyncio.sleep(1)

    async with ClientProxy("memory://") as proxy:
        await emit(proxy, "poison.given", 1)
        for _ in range(4):
            made.append(await start(simulation, Fragile))
            await asyncio.sleep(30)
        (letter,) = await dead_letters(proxy, "fragile")
        headers = letter.message.headers or {}
        assert headers["X-Dead-Letter-Attempts"] == "3"
        assert "process died" in headers["X-Dead-Letter-Cause"]
        assert [each.ready for each in made[3:]] == [True]


@pytest.mark.simulation(seeds=5)
async def test_pauses_between_attempts_grow(simulation: Simulation) -> None:
    """Attempts follow each other after `backoff_s` doubled each time, by half of it less at most, up to the limit."""
    times: list[float] = []
    service = CliffracerService(ServiceConfig("patient"))

    @service.event("slow.door", durable=True, retries=14, backoff_s=1.0, max_backoff_s=1800.0)
    async def knock() -> None:
        times.append(simulation.now)
        if len(times) <= 14:
            raise ValueError("closed")

    await simulation.start(service)
    async with ClientProxy("memory://") as proxy:
        await proxy.emit("slow.door", {}, durable=True)
        await simulation.until(lambda: len(times) == 15, 24 * HOUR_S)
    pauses = [late - early for early, late in zip(times, times[1:], strict=False)]
    for number, pause in enumerate(pauses):
        most = min(2.0**number, 1800.0)
        assert most / 2 <= pause <= most + 0.01
    assert sum(pauses) > HOUR_S
    assert len({round(pause / min(2.0**number, 1800.0), 6) for number, pause in enumerate(pauses)}) > 10, "no jitter"


@pytest.mark.simulation(seeds=3, faults=Faults(delay_s=(0.0, 1.0)))
async def test_long_work_is_not_given_to_another(simulation: Simulation) -> None:
    """An event that takes hours is handled once: the service keeps saying that it works."""
    book: Counter[int] = Counter()
    for _ in range(2):
        await simulation.start(Ledger(book, work_s=HOUR_S))
    async with ClientProxy("memory://") as proxy:
        for number in range(2):
            await emit(proxy, "entry.made", number)
        await asyncio.sleep(2.5 * HOUR_S)
    assert book == {0: 1, 1: 1}


@pytest.mark.simulation(seeds=5)
async def test_lease_has_one_holder_when_holders_die(simulation: Simulation) -> None:
    """At no time do two replicas hold a lease; epochs grow with each new holder; a dead one's lease passes on."""
    history: list[tuple[float, float, int, object]] = []

    class Leader(CliffracerService):
        async def lead(self) -> None:
            store = self.runtime.stores["default"]
            while True:
                lease = await store.acquire("leader", self.info.id, ttl_s=30.0)
                if lease is not None:
                    history.append((simulation.now, simulation.now + lease.ttl_s, lease.epoch, self))
                await asyncio.sleep(simulation.random.uniform(5.0, 12.0))

        @rpc
        async def begin(self) -> None:
            self.leading = asyncio.create_task(self.lead())

    replicas = []
    for _ in range(3):
        replicas.append(await simulation.start(Leader()))
        await replicas[-1].rpc_call("leader", "begin")
    for _ in range(10):
        await asyncio.sleep(simulation.random.uniform(60.0, 600.0))
        holder = history[-1][3]
        assert isinstance(holder, Leader)
        simulation.crash(holder)
        replicas.remove(holder)
        died = simulation.now
        for replica in replicas:
            await replica.rpc_call("leader", "begin")
        await asyncio.sleep(60.0)
        assert history[-1][0] > died
        assert history[-1][3] is not holder
        replicas.append(await simulation.start(Leader()))
    for (_, until, epoch, holder), (since, _, next_epoch, next_holder) in zip(history, history[1:], strict=False):
        assert next_epoch == epoch if next_holder is holder and since < until else next_epoch == epoch + 1
        assert next_holder is holder or since >= until


@pytest.mark.simulation(seeds=10, faults=HARSH)
async def test_calls_end_by_their_deadline(simulation: Simulation) -> None:
    """A caller has result or typed error in its time, and no handler runs for longer than it was given."""
    ran: list[float] = []

    class Thinker(CliffracerService):
        @rpc
        async def think(self, seconds: float, context: MessageContext) -> float:
            began, left_s = simulation.now, int(context.headers[TIMEOUT_MS]) / 1000
            assert context.remaining_s() == pytest.approx(left_s, abs=0.001)
            try:
                await asyncio.sleep(seconds)
            finally:
                ran.append(simulation.now - began - left_s)
            return seconds

    await start(simulation, Thinker)

    async def ask(proxy: ClientProxy) -> None:
        timeout, seconds = simulation.random.uniform(0.5, 8.0), simulation.random.uniform(0.0, 8.0)
        began = simulation.now
        try:
            assert await proxy.send("thinker.think", {"seconds": seconds}, timeout=timeout) == seconds
            assert simulation.now - began >= seconds
        except (DeadlineExceeded, NoHandler, ConnectionError):
            pass
        assert simulation.now - began <= timeout + 0.02

    async with ClientProxy("memory://") as proxy, asyncio.TaskGroup() as group:
        for _ in range(40):
            group.create_task(ask(proxy))
            await asyncio.sleep(simulation.random.uniform(0.0, 1.0))
    assert ran
    assert max(ran) <= 0.02


@pytest.mark.simulation(seeds=10, faults=LATE)
async def test_callees_stop_when_their_caller_gives_up(simulation: Simulation) -> None:
    """A cancelled call cancels its handler, and what that called, as soon as the news has travelled."""
    stopped: list[tuple[str, float]] = []

    async def wait(name: str) -> None:
        try:
            await asyncio.sleep(HOUR_S)
        finally:
            stopped.append((name, simulation.now))

    class Inner(CliffracerService):
        @rpc
        async def wait(self) -> None:
            await wait("inner")

    class Outer(CliffracerService):
        @rpc
        async def wait(self) -> None:
            async with asyncio.TaskGroup() as group:
                group.create_task(wait("outer"))
                await self.rpc_call("inner", "wait")

    await simulation.start(Inner)
    await simulation.start(Outer)
    async with ClientProxy("memory://") as proxy:
        call = asyncio.create_task(proxy.send("outer.wait"))
        await asyncio.sleep(5)
        call.cancel()
        gave_up = simulation.now
        await asyncio.sleep(3)
    assert [name for name, _ in stopped] == ["outer", "inner"]
    assert all(0.0 <= at - gave_up <= 2.1 for _, at in stopped)


@pytest.mark.simulation(seeds=10, faults=HARSH)
async def test_only_durable_events_are_repeated(simulation: Simulation) -> None:
    """Under all faults a request and a core event run once or not at all; a durable event at least once."""
    runs: Counter[tuple[str, int]] = Counter()

    class Counting(CliffracerService):
        @rpc
        async def call(self, number: int) -> int:
            runs["call", number] += 1
            return number

        @event("core.event")
        async def on_core(self, number: int) -> None:
            runs["core", number] += 1

        @event("durable.event", durable=True, retries=10_000, ack_wait_s=10.0)
        async def on_durable(self, number: int) -> None:
            runs["durable", number] += 1

    for _ in range(2):
        await start(simulation, Counting)

    async def try_once(sending: Awaitable[object]) -> None:
        try:
            await sending
        except CliffracerError:
            return

    async with ClientProxy("memory://") as proxy:
        for number in range(25):
            await try_once(proxy.send("counting.call", {"number": number}, timeout=6.0))
            await try_once(proxy.emit("core.event", {"number": number}))
            await emit(proxy, "durable.event", number)
        await simulation.until(lambda: sum(kind == "durable" for kind, _ in runs) == 25, HOUR_S)
    assert {kind for kind, _ in runs} == {"call", "core", "durable"}
    assert {count for (kind, _), count in runs.items() if kind != "durable"} == {1}


@pytest.mark.simulation(seeds=10, faults=LATE)
async def test_no_call_is_lost_when_replicas_stop(simulation: Simulation) -> None:
    """Replicas stop gracefully, one after the other, under load and late messages: every call has its result."""

    class Adder(CliffracerService):
        @rpc
        async def add(self, number: int) -> int:
            await asyncio.sleep(simulation.random.uniform(0.0, 0.1))
            return number + 1

    replicas = [await simulation.start(Adder()) for _ in range(2)]
    over = False

    async def roll() -> None:
        nonlocal over
        for _ in range(5):
            await asyncio.sleep(simulation.random.uniform(0.0, 2.0))
            replicas.append(await simulation.start(Adder()))
            await simulation.stop(replicas.pop(0))
        over = True

    async def call(proxy: ClientProxy, number: int) -> None:
        while not over:
            assert await proxy.send("adder.add", {"number": number}) == number + 1

    async with ClientProxy("memory://") as proxy, asyncio.TaskGroup() as group:
        group.create_task(roll())
        for number in range(4):
            group.create_task(call(proxy, number))


@pytest.mark.simulation(seeds=6, faults=HARSH)
async def test_streams_have_no_gap_when_everything_fails(simulation: Simulation) -> None:
    """Items come in order from the first one on, until all came or a typed error did; no generator is left over."""
    running = 0

    class Numbers(CliffracerService):
        @rpc
        async def up_to(self, n: int) -> AsyncIterator[int]:
            nonlocal running
            running += 1
            try:
                for number in range(n):
                    yield number
            finally:
                running -= 1

    await start(simulation, Numbers)
    async with ClientProxy("memory://") as proxy:
        for _ in range(5):
            got: list[int] = []
            try:
                async for number in proxy.caller.stream("numbers", "up_to", {"n": 12}, window=4, timeout=5.0):
                    got.append(number)
                assert len(got) == 12
            except (NoHandler, DeadlineExceeded, ConnectionError):
                await asyncio.sleep(1)
            assert got == list(range(len(got)))
        simulation.faults = Faults()
        await asyncio.sleep(30)
        assert running == 0
        assert [number async for number in proxy.caller.stream("numbers", "up_to", {"n": 12})] == list(range(12))


@pytest.mark.simulation(seeds=10, faults=HARSH)
async def test_redriven_dead_letter_is_handled(simulation: Simulation) -> None:
    """A redriven event reaches the handler that failed, with its first id, and is a dead letter no more."""
    mended = False
    handled: list[str | None] = []
    service = CliffracerService(ServiceConfig("mended"))

    @service.event("glass.broken", durable=True, retries=0, ack_wait_s=10.0)
    async def mend(context: MessageContext) -> None:
        if not mended:
            raise ValueError("no glue")
        handled.append(context.message_id)

    await start(simulation, lambda: service)
    async with ClientProxy("memory://") as proxy:
        await emit(proxy, "glass.broken", 1)

        async def is_dead() -> list[StoredMessage]:
            return [each for each in await dead_letters(proxy, "mended") if each.message.subject.startswith("dlq.")]

        (letter,) = await simulation.until(is_dead, HOUR_S)
        mended = True
        transport = proxy.caller.transport()
        assert isinstance(transport, DurableTransport)
        simulation.faults = LATE
        while True:
            try:
                await redrive(transport, "mended", letter.sequence)
                break
            except NotStored:
                await asyncio.sleep(1)
        await simulation.until(lambda: handled, HOUR_S)
        assert set(handled) == {"glass.broken-1"}
        assert await is_dead() == []


@pytest.mark.simulation(seeds=3)
async def test_values_expire_after_days(simulation: Simulation) -> None:
    """A value with a time to live is there until its time has passed, to the second, days later."""
    store = MemoryStore("memory://")
    await store.open()
    await store.put("key", b"value", ttl_s=72 * HOUR_S)
    await asyncio.sleep(72 * HOUR_S - 1)
    assert await store.get("key") is not None
    await asyncio.sleep(2)
    assert await store.get("key") is None
