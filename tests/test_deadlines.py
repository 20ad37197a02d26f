"""Time: what a caller allows, what is left of it on the way, and what happens when it is over."""

from __future__ import annotations

import asyncio
import threading
import time

import pytest

from cliffracer_core import (
    CliffracerService,
    DeadlineExceeded,
    MessageContext,
    Overloaded,
    RPCError,
    ServiceConfig,
    Transport,
    ValidationError,
)
from cliffracer_core.caller import Caller
from cliffracer_core.messages import JSON, Message
from cliffracer_core.testing import eventually


def service_for(name: str, url: str, **values: object) -> CliffracerService:
    return CliffracerService(ServiceConfig(name, transport=url, **values))


def left(context: MessageContext) -> float:
    """Return the time left, of a call that has a deadline."""
    remaining = context.remaining_s()
    assert remaining is not None
    return remaining


async def test_less_time_is_left_at_each_hop_when_calls_go_on(transport_url: str, caller: Caller, name: str) -> None:
    """The first caller's deadline holds for the whole chain, whatever a hop asks for itself."""
    names = [f"{name}-{number}" for number in range(3)]
    first, second, third = [service_for(each, transport_url) for each in names]

    @first.rpc
    async def one(context: MessageContext) -> list[float]:
        return [left(context), *await first.rpc_call(names[1], "two")]

    @second.rpc
    async def two(context: MessageContext) -> list[float]:
        return [left(context), *await second.caller.call(names[2], "three", timeout=200)]

    @third.rpc
    def three(context: MessageContext) -> list[float]:
        return [left(context)]

    async with third, second, first:
        times = await caller.call(names[0], "one", timeout=7)
    assert 7 > times[0] > times[1] > times[2] > 0


async def test_call_never_runs_when_its_time_is_up_in_the_queue(transport_url: str, caller: Caller, name: str) -> None:
    """Who has given up before a slot was free costs no work."""
    service, release, ran = service_for(name, transport_url), asyncio.Event(), list[int]()

    @service.rpc(concurrency=1)
    async def work(number: int) -> int:
        ran.append(number)
        await release.wait()
        return number

    async with service:
        running = asyncio.create_task(caller.call(name, "work", {"number": 0}, timeout=60))
        await eventually(lambda: ran == [0])
        with pytest.raises(DeadlineExceeded):
            await caller.call(name, "work", {"number": 1}, timeout=0.1)
        arrived = service.runtime.handlers["work"].gate.waiting[0].since
        await eventually(lambda: time.monotonic() > arrived + 0.1)  # its time began later here than at the caller
        release.set()
        assert await running == 0
        assert await caller.call(name, "work", {"number": 2}) == 2
    assert ran == [0, 2]


async def test_late_call_is_answered_when_it_leaves_the_queue(transport_url: str, raw: Transport, name: str) -> None:
    """A request whose time ran out in the queue is refused with `DeadlineExceeded`, not dropped."""
    service, release = service_for(name, transport_url), asyncio.Event()

    @service.rpc(concurrency=1)
    async def work() -> None:
        await release.wait()

    async with service:
        held = asyncio.create_task(raw.request(Message(f"rpc.{name}.work"), 60))
        late = asyncio.create_task(raw.request(Message(f"rpc.{name}.work", b"", {"Timeout-Ms": "20"}), 60))
        gate = service.runtime.handlers["work"].gate
        await eventually(lambda: len(gate.waiting) == 1)
        waited_until = time.monotonic() + 0.05
        await eventually(lambda: time.monotonic() > waited_until)
        release.set()
        reply = await asyncio.wait_for(late, 10)
        await held
    assert (reply.headers or {})["Nats-Service-Error"] == f"{name}.work: the time was up before the call began"
    assert JSON.decoder(dict[str, object])(reply.body)["type"] == "deadline_exceeded"


async def test_handler_is_cancelled_when_its_deadline_comes(transport_url: str, raw: Transport, name: str) -> None:
    """A handler that hangs is cancelled at its deadline and its caller told, also where nobody cancels it."""
    service, cancelled = service_for(name, transport_url), asyncio.Event()

    @service.rpc
    async def hang() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            cancelled.set()

    async with service:
        reply = await raw.request(Message(f"rpc.{name}.hang", b"", {"Timeout-Ms": "50"}), 10)
        assert (reply.headers or {})["Nats-Service-Error"] == f"{name}.hang ran past its deadline and was cancelled"
        assert cancelled.is_set()


@pytest.mark.parametrize("where", ["handler", "service"])
async def test_default_time_counts_when_the_caller_sets_none(
    transport_url: str, raw: Transport, name: str, where: str
) -> None:
    """Without `Timeout-Ms` a call has what its handler's `timeout` gives, else the service's."""
    service = service_for(name, transport_url, timeout=0.05 if where == "service" else 60.0)

    async def hang() -> None:
        await asyncio.Event().wait()

    service.rpc(timeout=0.05)(hang) if where == "handler" else service.rpc(hang)
    async with service:
        reply = await raw.request(Message(f"rpc.{name}.hang"), 10)
        assert (reply.headers or {})["Nats-Service-Error-Code"] == "504"


async def test_time_is_capped_when_a_caller_asks_for_too_much(transport_url: str, raw: Transport, name: str) -> None:
    """No caller gets more than `max_timeout_s`."""
    service = service_for(name, transport_url, max_timeout_s=2.0)

    @service.rpc
    async def look(context: MessageContext) -> float:
        return left(context)

    async with service:
        for asked in ("99999999", "9" * 300):
            reply = await raw.request(Message(f"rpc.{name}.look", b"", {"Timeout-Ms": asked}), 10)
            assert 0 < float(reply.body) <= 2.0


async def test_sender_learns_at_once_when_no_time_is_left(name: str) -> None:
    """A handler whose time is over cannot call on: nothing is sent."""
    service, called = service_for(name, "memory://"), list[str]()

    @service.rpc
    async def ask(context: MessageContext) -> str:
        context.deadline = time.monotonic() - 1
        try:
            await service.rpc_call(name, "other")
        except DeadlineExceeded as error:
            return str(error)
        return "sent"

    @service.rpc
    async def other() -> None:
        called.append("other")

    async with service:
        assert await service.rpc_call(name, "ask") == f"no time is left to call 'rpc.{name}.other'"
        for timeout in (0, -1, float("nan"), float("inf")):
            with pytest.raises(ValidationError):
                await service.caller.call(name, "other", timeout=timeout)
    assert called == []


async def test_slot_stays_taken_when_a_thread_runs_past_its_deadline(
    transport_url: str, caller: Caller, name: str
) -> None:
    """The caller of a hanging thread learns at once; the slot is free when the thread ends, and not before."""
    service, release, ran = service_for(name, transport_url, queue_size=1), threading.Event(), list[int]()

    @service.rpc(concurrency=1)
    def work(number: int) -> int:
        ran.append(number)
        if number == 0:
            release.wait(30)
        return number

    async with service:
        with pytest.raises(DeadlineExceeded):
            await asyncio.wait_for(caller.call(name, "work", {"number": 0}, timeout=0.1), 10)
        gate = service.runtime.handlers["work"].gate
        await eventually(lambda: (gate.running, gate.stuck) == (0, 1))
        queued = asyncio.create_task(caller.call(name, "work", {"number": 1}, timeout=60))
        await eventually(lambda: len(gate.waiting) == 1)
        with pytest.raises(Overloaded):
            await caller.call(name, "work", {"number": 2})
        assert ran == [0]
        release.set()
        assert await asyncio.wait_for(queued, 10) == 1
        assert (gate.stuck, ran) == (0, [0, 1])


async def test_stop_does_not_wait_when_a_thread_hangs(name: str) -> None:
    """A thread that nobody can cancel does not hold up the stop; its late end disturbs nobody."""
    service, release = service_for(name, "memory://"), threading.Event()

    @service.rpc
    def work() -> None:
        release.wait(30)

    await service.start()
    handler = service.runtime.handlers["work"]
    with pytest.raises(DeadlineExceeded):
        await service.caller.call(name, "work", timeout=0.1)
    await asyncio.wait_for(service.stop(), 5)
    release.set()
    await eventually(lambda: handler.gate.stuck == 0)


def test_thread_ends_quietly_when_its_loop_is_closed(name: str) -> None:
    """A thread that outlives its event loop ends without an error."""
    service, release = service_for(name, "memory://"), threading.Event()

    @service.rpc
    def work() -> None:
        release.wait(30)

    async def run() -> threading.Thread:
        async with service:
            with pytest.raises(DeadlineExceeded):
                await service.caller.call(name, "work", timeout=0.05)
            return next(each for each in threading.enumerate() if each.name.startswith(f"{name}.work"))

    thread = asyncio.run(run())
    release.set()
    thread.join(10)
    assert not thread.is_alive()


async def test_own_timeout_is_the_handlers_when_it_sets_one(transport_url: str, caller: Caller, name: str) -> None:
    """A handler that limits its own call gets `DeadlineExceeded` for that call and can go on; unhandled it is 502."""
    service = service_for(name, transport_url)

    @service.rpc
    async def ask(handle: bool) -> str:
        try:
            await service.caller.call(name, "hang", timeout=0.05)
        except TimeoutError:
            if not handle:
                raise
        return "went on"

    @service.rpc
    async def hang() -> None:
        await asyncio.Event().wait()

    async with service:
        assert await caller.call(name, "ask", {"handle": True}) == "went on"
        with pytest.raises(RPCError):
            await asyncio.wait_for(caller.call(name, "ask", {"handle": False}, timeout=60), 10)
