"""Simulations: virtual time, the same run for the same seed, faults, and killed services."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import os
import random
import subprocess
import sys
import threading
import time
import uuid
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import cast

import pytest

from cliffracer_core import (
    ClientProxy,
    CliffracerService,
    ConfigurationError,
    ConnectionError,
    DeadlineExceeded,
    NoHandler,
    event,
    rpc,
)
from cliffracer_core.context import create_correlation_id
from cliffracer_core.deadletters import dlq_stream
from cliffracer_core.errors import NotStored
from cliffracer_core.interfaces import DurableTransport
from cliffracer_core.testing import Deadlock, Faults, Simulation, TimeLimit, simulate

HOUR_S = 3600.0
EVERYTHING = Faults(drop=0.05, delay_s=(0.0, 2.0), duplicate=0.05, reorder=0.1, disconnect=0.01, restart=0.005)


class Greeter(CliffracerService):
    @rpc
    async def greet(self, name: str) -> str:
        return f"hello {name}"

    @rpc
    def sleep(self, seconds: float) -> float:
        time.sleep(seconds)
        return time.time()


class Orders(CliffracerService):
    def __init__(self, done: list[int], *, work_s: float = 1.0) -> None:
        super().__init__()
        self.done = done
        self.work_s = work_s
        self.ended: list[int] = []

    @event("order.made", durable=True, retries=1000, ack_wait_s=10.0)
    async def on_order(self, number: int) -> None:
        try:
            await asyncio.sleep(self.work_s)
            self.done.append(number)
        finally:
            self.ended.append(number)


async def emit(proxy: ClientProxy, number: int, subject: str = "order.made") -> None:
    """Publish until the broker has confirmed it, always under one message id."""
    message_id = f"{subject}-{number}"
    while True:
        try:
            await proxy.caller.publish(subject, {"number": number}, durable=True, message_id=message_id, timeout=5.0)
            return
        except NotStored:
            await asyncio.sleep(1.0)


async def busy_run(simulation: Simulation) -> tuple[str, list[int]]:
    """Let much happen, and return all that could differ from one run to the next."""
    done: list[int] = []
    orders = await simulation.start(Orders(done))
    seen = []
    async with ClientProxy("memory://") as proxy, asyncio.TaskGroup() as group:
        for number in range(20):
            group.create_task(emit(proxy, number))
        await asyncio.sleep(simulation.random.uniform(1, 5))
        simulation.crash(orders)
        await asyncio.sleep(1)
        await simulation.start(Orders(done))
        await simulation.until(lambda: len(set(done)) == 20, HOUR_S)
        seen += [str(uuid.uuid4()), create_correlation_id(), str(random.random()), str(time.time())]
    return "\n".join([*map(str, simulation.trace), *seen]), done


@pytest.mark.parametrize("seed", range(3))
def test_run_is_the_same_when_the_seed_is(seed: int) -> None:
    """Trace, results, ids and random numbers depend on the seed and on nothing else."""
    first = simulate(busy_run, seed=seed, faults=EVERYTHING)
    random.seed(seed + 1)
    assert simulate(busy_run, seed=seed, faults=EVERYTHING) == first
    assert simulate(busy_run, seed=seed + 1000, faults=EVERYTHING) != first


def test_run_is_the_same_in_another_process() -> None:
    """Neither the addresses of objects nor the hashes of strings decide anything."""
    code = (
        "import logging, sys, zlib; logging.disable(); sys.path.insert(0, sys.argv[1]); import test_simulation as t; "
        "print(zlib.crc32(repr([t.simulate(t.busy_run, seed=n, faults=t.EVERYTHING) for n in range(4)]).encode()))"
    )
    runs = [
        subprocess.Popen(
            [sys.executable, "-c", code, str(Path(__file__).parent)],
            env={**os.environ, "PYTHONHASHSEED": seed},
            stdout=subprocess.PIPE,
        )
        for seed in ("1", "2")
    ]
    first, second = (run.communicate(timeout=60)[0] for run in runs)
    assert first == second != b""


def test_days_pass_in_no_time() -> None:
    """A timer in five days fires at once, and the clocks agree on it."""

    async def run(simulation: Simulation) -> tuple[float, ...]:
        before = time.monotonic(), time.time(), time.perf_counter()
        await asyncio.sleep(5 * 24 * HOUR_S)
        after = time.monotonic(), time.time(), time.perf_counter()
        return simulation.now, *(late - early for late, early in zip(after, before, strict=True))

    started = time.monotonic()
    assert simulate(run) == pytest.approx((432_000.0,) * 4)
    assert time.monotonic() - started < 5


def test_clocks_and_random_numbers_are_real_afterwards() -> None:
    """What a simulation put in place of clocks, random numbers and threads is gone after it, failed or not."""

    async def fail(simulation: Simulation) -> None:
        raise LookupError

    functions: list[Callable[..., object]] = [time.monotonic, time.time, time.sleep, time.gmtime, os.urandom]
    state = random.getstate()
    with pytest.raises(LookupError):
        simulate(fail, seed=3)
    assert functions == [time.monotonic, time.time, time.sleep, time.gmtime, os.urandom]
    assert random.getstate() == state
    assert time.time() > 1_750_000_000


def test_other_threads_keep_the_real_clock() -> None:
    """Only the thread that simulates lives in virtual time."""
    seen: list[float] = []

    async def run(simulation: Simulation) -> float:
        await asyncio.sleep(HOUR_S)
        thread = threading.Thread(target=lambda: seen.append(time.time()))
        thread.start()
        thread.join()
        return time.time()

    assert seen != [simulate(run)]
    assert abs(seen[0] - time.time()) < HOUR_S


def test_dead_letters_and_dates_follow_the_virtual_clock() -> None:
    """A dead letter tells when its first attempt failed, and when its last one did, days later."""

    async def run(simulation: Simulation) -> tuple[str, str]:
        service = CliffracerService()

        @service.event("order.made", durable=True, retries=1, backoff_s=48 * HOUR_S, max_backoff_s=48 * HOUR_S)
        async def on_order(number: int) -> None:
            raise OSError("no printer")

        await simulation.start(service)
        async with ClientProxy("memory://") as proxy:
            await asyncio.sleep(24 * HOUR_S)
            await emit(proxy, 1)
            transport = cast(DurableTransport, proxy.caller.transport())
            await asyncio.sleep(96 * HOUR_S)
            (letter,) = [each async for each in transport.browse(dlq_stream(service.name))]
        headers = letter.message.headers or {}
        return headers["X-Dead-Letter-First-Failed-At"], headers["X-Dead-Letter-Failed-At"]

    first, last = simulate(run)
    assert first.startswith("2024-01-02T")
    assert "2024-01-03T" < last < "2024-01-04T01"


def test_synchronous_handler_runs_in_line() -> None:
    """A synchronous handler runs without a thread, and what it sleeps is virtual time."""

    before_it = threading.active_count()

    async def run(simulation: Simulation) -> tuple[float, float, int]:
        await simulation.start(Greeter)
        async with ClientProxy("memory://") as proxy:
            before = time.time()
            ended = await proxy.send("greeter.sleep", {"seconds": 20.0})
            return ended - before, await asyncio.to_thread(lambda: simulation.now), threading.active_count()

    slept, now, threads = simulate(run)
    assert slept == now == pytest.approx(20.0)
    assert threads == before_it


def test_deadlock_names_the_task_that_waits() -> None:
    """Where nothing can ever happen again the run fails at once, and says who waits where."""

    async def run(simulation: Simulation) -> None:
        async def wait_for_nobody() -> None:
            await asyncio.Event().wait()

        await simulation.start(Greeter)
        await asyncio.create_task(wait_for_nobody(), name="patient")

    with pytest.raises(Deadlock, match=r"(?s)nothing is ready and no timer.*patient: .*in Event\.wait"):
        simulate(run)


def test_run_fails_when_it_takes_too_long() -> None:
    """A run that waits for what never comes ends at its limit of virtual time."""

    async def run(simulation: Simulation) -> None:
        while True:
            await asyncio.sleep(HOUR_S)

    with pytest.raises(TimeLimit, match="not over after"):
        simulate(run, limit_s=10 * HOUR_S)


def test_run_fails_when_it_spins() -> None:
    """A loop that lets no time pass is found too."""

    async def run(simulation: Simulation) -> None:
        while simulation.now < 1:
            await asyncio.sleep(0)

    with pytest.raises(TimeLimit, match="no time passed"):
        simulate(run)


def test_failure_says_how_to_repeat_it() -> None:
    """An error carries the seed and the last events in a note, and stays the error it was."""

    async def run(simulation: Simulation) -> None:
        await simulation.start(Greeter)
        async with ClientProxy("memory://") as proxy:
            assert await proxy.send("greeter.greet", {"name": "Ada"}) == "goodbye"

    with pytest.raises(AssertionError) as caught:
        simulate(run, seed=17)
    (note,) = caught.value.__notes__
    assert "seed 17" in note
    assert "simulate(..., seed=17)" in note
    assert "message rpc.greeter.greet" in note


def test_simulation_is_refused_inside_a_running_loop() -> None:
    """A simulation has a loop and clocks of its own, so there is one at a time."""

    async def run(simulation: Simulation) -> None:
        simulate(run)

    with pytest.raises(ConfigurationError, match="plain function"):
        simulate(run)


def test_sockets_are_refused() -> None:
    """What touches the real network fails with an error that says why."""

    async def run(simulation: Simulation) -> None:
        await asyncio.open_connection("127.0.0.1", 1)

    with pytest.raises(RuntimeError, match="cannot be opened in a simulation"):
        simulate(run)


@pytest.mark.parametrize(
    "values", [{"drop": 1.5}, {"restart": -0.1}, {"delay_s": (2.0, 1.0)}, {"outage_s": (-1.0, 1.0)}]
)
def test_faults_are_refused_when_they_make_no_sense(values: dict[str, object]) -> None:
    """A probability outside 0 to 1, or a span that is none, is an error that names it."""
    with pytest.raises(ConfigurationError, match=next(iter(values))):
        Faults(**values)  # type: ignore[arg-type]  # that is the test


def test_tasks_are_cancelled_in_the_same_order() -> None:
    """A TaskGroup keeps its tasks in a set; addresses do not decide which of them is cancelled first."""

    async def run(simulation: Simulation) -> list[int]:
        order: list[int] = []

        async def wait(number: int) -> None:
            try:
                await asyncio.sleep(10)
            finally:
                order.append(number)

        async def fail() -> None:
            await asyncio.sleep(1)
            raise LookupError

        with contextlib.suppress(BaseExceptionGroup):
            async with asyncio.TaskGroup() as group:
                for number in range(50):
                    hold.append([bytearray(simulation.random.randrange(500)) for _ in range(number % 7)])
                    group.create_task(wait(number))
                group.create_task(fail())
        return order

    hold: list[object] = []
    first = simulate(run)
    assert len(first) == 50
    for seed in range(5):
        assert simulate(run, seed=seed) == first


def test_events_outlive_the_service_that_published_them() -> None:
    """What a killed service published is delivered again after its ack wait: the broker's timers are its own."""

    async def run(simulation: Simulation) -> None:
        class Announcer(CliffracerService):
            @rpc
            async def announce(self) -> None:
                simulation.faults = Faults(drop=1.0)
                await self.publish("order.made", {"number": 1})
                simulation.faults = Faults()

        done: list[int] = []
        await simulation.start(Orders(done))
        announcer = await simulation.start(Announcer)
        async with ClientProxy("memory://") as proxy:
            await proxy.send("announcer.announce")
        assert count(simulation, "drop") == 1
        simulation.crash(announcer)
        await simulation.until(lambda: done == [1], 60)

    simulate(run)


def test_killed_service_runs_nothing_more() -> None:
    """After a crash no task, timer or `finally` of the service runs; what it had goes to the next instance."""

    async def run(simulation: Simulation) -> tuple[list[int], list[int], float]:
        done: list[int] = []
        first = await simulation.start(Orders(done, work_s=5.0))
        async with ClientProxy("memory://") as proxy:
            await emit(proxy, 1)
            await asyncio.sleep(2)
            simulation.crash(first)
            gc.collect()
            await asyncio.sleep(60)
            assert done == []
            await simulation.start(Orders(done, work_s=5.0))
            gone = simulation.now
            await simulation.until(lambda: done, 60)
        return done, list(first.ended), simulation.now - gone

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        done, ended, took_s = simulate(run)
        gc.collect()
    assert (done, ended) == ([1], [])
    assert took_s == pytest.approx(5.0, abs=0.1)


def test_killed_service_leaves_its_callers_without_an_answer() -> None:
    """A call that a killed service had runs into its deadline; the next one finds nobody."""

    class Slow(CliffracerService):
        @rpc
        async def think(self) -> None:
            await asyncio.sleep(20)

    async def run(simulation: Simulation) -> float:
        slow = await simulation.start(Slow)
        async with ClientProxy("memory://") as proxy:
            call = asyncio.create_task(proxy.send("slow.think", timeout=10.0))
            await asyncio.sleep(1)
            simulation.crash(slow)
            with pytest.raises(NoHandler):
                await proxy.send("slow.think")
            with pytest.raises(DeadlineExceeded):
                await call
        with pytest.raises(ConfigurationError, match="does not run here"):
            simulation.crash(slow)
        return simulation.now

    assert simulate(run) == pytest.approx(10.0, abs=0.1)


def test_start_fails_when_the_service_is_killed_meanwhile() -> None:
    """Whoever waits for a service to start hears that it was killed."""

    class Slow(Greeter):
        @event("a.b", durable=True)
        async def on_event(self, body: dict[str, object]) -> None: ...

    async def run(simulation: Simulation) -> None:
        simulation.restart_server(down_s=4.0)
        service = Slow()
        starting = asyncio.create_task(simulation.start(service))
        await asyncio.sleep(1)
        simulation.crash(service)
        with pytest.raises(ConnectionError, match="killed"):
            await starting

    simulate(run)


def test_restarted_server_keeps_what_was_stored() -> None:
    """While the server is away a service is not ready and a publish fails; stored events arrive afterwards."""

    async def run(simulation: Simulation) -> None:
        done: list[int] = []
        orders = await simulation.start(Orders(done, work_s=5.0))
        async with ClientProxy("memory://") as proxy:
            await emit(proxy, 1)
            await asyncio.sleep(1)
            simulation.restart_server(down_s=30.0)
            assert not orders.ready
            with pytest.raises(NotStored, match="not connected"):
                await proxy.emit("order.made", {"number": 2}, durable=True)
            with pytest.raises(ConnectionError):
                await proxy.emit("order.made", {"number": 2})
            await asyncio.sleep(29)
            assert not orders.ready
            await simulation.until(lambda: orders.ready, 2)
            await simulation.until(lambda: len(done) == 2, 10)
            assert done == [1, 1], "the first attempt's ack did not reach the server, so it came again"

    simulate(run)


def count(simulation: Simulation, what: str) -> int:
    return sum(each.what == what for each in simulation.trace)


def test_dropped_messages_do_not_arrive() -> None:
    """With everything dropped a request runs out of time and a durable publish is not stored."""

    async def run(simulation: Simulation) -> None:
        await simulation.start(Greeter)
        async with ClientProxy("memory://") as proxy:
            simulation.faults = Faults(drop=1.0)
            with pytest.raises(DeadlineExceeded):
                await proxy.send("greeter.greet", {"name": "Ada"})
            with pytest.raises(NotStored, match="no confirmation within 3 s"):
                await proxy.caller.publish("a.b", {}, durable=True, timeout=3.0)
            assert simulation.now == pytest.approx(33.0, abs=0.1)
            assert count(simulation, "drop") == 2
            simulation.faults = Faults()
            assert await proxy.send("greeter.greet", {"name": "Ada"}) == "hello Ada"

    simulate(run)


def test_delay_takes_time_and_keeps_the_order() -> None:
    """Delayed messages of one connection arrive in order, unless they are reordered."""

    async def run(simulation: Simulation) -> list[bytes]:
        got: list[bytes] = []
        async with ClientProxy("memory://") as sender, ClientProxy("memory://") as receiver:
            await receiver.caller.transport().subscribe("a", lambda message: got.append(message.body))
            for number in range(100):
                await sender.emit("a", number)
            await asyncio.sleep(0.9)
            assert not got
            await simulation.settle()
        return got

    ordered = [b"%d" % number for number in range(100)]
    assert simulate(run, faults=Faults(delay_s=(1.0, 2.0))) == ordered
    mixed = simulate(run, faults=Faults(delay_s=(1.0, 2.0), reorder=0.2))
    assert mixed != ordered
    assert sorted(mixed, key=int) == ordered


def test_duplicates_come_with_another_attempt() -> None:
    """A duplicated delivery is a second attempt of the same message, as after an ack that was late."""

    async def run(simulation: Simulation) -> list[tuple[int, str | None]]:
        seen = []
        service = CliffracerService()

        @service.event("a.b", durable=True)
        async def handle(number: int) -> None:
            seen.append(number)
            await asyncio.sleep(1)

        simulation.faults = Faults(duplicate=1.0)
        await simulation.start(service)
        async with ClientProxy("memory://") as proxy:
            await emit(proxy, 1, "a.b")
            simulation.faults = Faults()
            await asyncio.sleep(60)
        assert count(simulation, "duplicate") == len(seen) - 1
        return [(each, None) for each in seen]

    assert len(simulate(run)) > 1


def test_connection_breaks_and_comes_back() -> None:
    """A broken connection fails what needs it, is back after its outage, and listens again."""

    async def run(simulation: Simulation) -> None:
        greeter = await simulation.start(Greeter)
        async with ClientProxy("memory://") as proxy:
            simulation.disconnect(greeter, 10.0)
            assert not greeter.ready
            with pytest.raises(NoHandler):
                await proxy.send("greeter.greet", {"name": "Ada"})
            with pytest.raises(ConnectionError):
                await greeter.publish("a", {})
            await asyncio.sleep(10.1)
            assert await proxy.send("greeter.greet", {"name": "Ada"}) == "hello Ada"

    simulate(run)


def test_random_breakage_happens() -> None:
    """The probabilities of `disconnect` and `restart` take effect, and all comes back."""

    async def run(simulation: Simulation) -> None:
        done: list[int] = []
        await simulation.start(Orders(done))
        async with ClientProxy("memory://") as proxy:
            for number in range(30):
                await emit(proxy, number)
            await simulation.until(lambda: len(set(done)) == 30, HOUR_S)

    for faults, what in ((Faults(disconnect=0.1), "disconnect"), (Faults(restart=0.1), "restart")):
        counts: list[int] = []

        async def counted(simulation: Simulation, what: str = what, counts: list[int] = counts) -> None:
            await run(simulation)
            counts.append(count(simulation, what))
            assert count(simulation, "reconnect") > 0

        simulate(counted, seed=5, faults=faults)
        assert sum(counts) > 0


def test_services_on_other_transports_are_put_in_memory() -> None:
    """A service that is configured for a real server runs in a simulation without a change."""

    async def run(simulation: Simulation) -> list[str]:
        service = Greeter(plugins={}, overrides={})
        service.config.values["transport"] = {"default": "nats://x:4222", "audit": "nats://y:4222"}
        service.config.values["store"] = "nats://x:4222"
        await simulation.start(service)
        await simulation.stop(service)
        return sorted(service.config.values["transport"])  # type: ignore[call-overload,no-any-return]  # the dict above

    assert simulate(run) == ["audit", "default"]
