"""Deadlines on one timer, and the gate before each handler."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from cliffracer_core.limits import Deadlines, Gate, Run


def recording(into: list[object], item: object) -> Callable[[], None]:
    return lambda: into.append(item)


async def fired(deadlines: Deadlines, when: float) -> float:
    """Wait for a deadline and return the loop time at which it fired."""
    loop = asyncio.get_running_loop()
    future: asyncio.Future[float] = loop.create_future()
    deadlines.add(when, future, lambda: future.set_result(loop.time()))
    return await asyncio.wait_for(future, 10)


async def test_deadline_fires_when_its_time_has_come() -> None:
    """A deadline never fires early."""
    loop = asyncio.get_running_loop()
    when = loop.time() + 0.03
    assert await fired(Deadlines(loop), when) >= when - 0.001


async def test_deadline_in_the_past_fires_when_the_loop_turns() -> None:
    """A deadline that is over when it is added still fires."""
    loop = asyncio.get_running_loop()
    assert await fired(Deadlines(loop), loop.time() - 5) >= 0


async def test_deadlines_fire_in_order_when_added_in_any() -> None:
    """An earlier deadline goes first, also when it was added last."""
    loop = asyncio.get_running_loop()
    deadlines, order = Deadlines(loop), list[object]()
    start = loop.time()
    for delay in (0.06, 0.02, 0.04):
        deadlines.add(start + delay, delay, recording(order, delay))
    await fired(deadlines, start + 0.08)
    assert order == [0.02, 0.04, 0.06]


async def test_deadline_never_fires_when_discarded() -> None:
    """A discarded entry is forgotten, and those that share its bucket are not."""
    loop = asyncio.get_running_loop()
    deadlines, hits = Deadlines(loop), list[object]()
    when = loop.time() + 0.02
    bucket = deadlines.add(when, "one", recording(hits, "one"))
    assert deadlines.add(when, "two", recording(hits, "two")) == bucket
    deadlines.discard(bucket, "one")
    await fired(deadlines, when + 0.02)
    assert hits == ["two"]


async def test_discard_does_nothing_when_the_entry_has_fired() -> None:
    """Taking back what is over, or was never there, is no error."""
    loop = asyncio.get_running_loop()
    deadlines, hits = Deadlines(loop), list[object]()
    bucket = deadlines.add(loop.time(), "one", recording(hits, "one"))
    await fired(deadlines, loop.time() + 0.02)
    deadlines.discard(bucket, "one")
    deadlines.discard(bucket + 1000, "never")
    assert hits == ["one"]


async def test_deadline_fires_when_added_by_another_that_fires() -> None:
    """A callback may add the next deadline, as renewals do."""
    loop = asyncio.get_running_loop()
    deadlines = Deadlines(loop)
    done: asyncio.Future[str] = loop.create_future()
    deadlines.add(
        loop.time() + 0.01,
        "first",
        lambda: (deadlines.add(loop.time(), "next", lambda: done.set_result("next")), None)[1],
    )
    assert await asyncio.wait_for(done, 10) == "next"


async def test_nothing_fires_when_closed() -> None:
    """After close no deadline fires, whether one was waiting or none."""
    loop = asyncio.get_running_loop()
    deadlines, other, hits = Deadlines(loop), Deadlines(loop), list[object]()
    deadlines.add(loop.time() + 0.01, "one", recording(hits, "one"))
    deadlines.close()
    Deadlines(loop).close()
    await fired(other, loop.time() + 0.04)
    assert hits == []


async def test_first_reason_counts_when_a_run_is_stopped_twice() -> None:
    """A call that ran past its deadline was not cancelled by its caller, whatever comes after."""
    run = Run()
    run.task = asyncio.create_task(asyncio.sleep(60))
    run.expire()
    run.stop("caller")
    await asyncio.wait({run.task}, timeout=5)
    assert run.task.cancelled()
    assert run.reason == "deadline"


async def test_run_is_left_alone_when_it_does_not_run() -> None:
    """A run that has not begun, or is over, has no reason to have been stopped."""
    run = Run()
    run.stop("caller")
    assert run.reason is None
    run.task = asyncio.create_task(asyncio.sleep(0))
    await run.task
    run.stop("caller")
    assert run.reason is None
    assert not run.task.cancelled()


async def test_gate_starts_queues_or_refuses_when_slots_and_queue_fill_up() -> None:
    """Up to the limit calls start at once, then they wait, and past the queue they are refused."""
    gate, begun = Gate(2, asyncio.get_running_loop()), list[object]()
    assert [gate.enter(recording(begun, number), 1) for number in range(4)] == [True, True, True, False]
    assert begun == [0, 1]
    assert (gate.running, len(gate.waiting), gate.idle) == (2, 1, False)


async def test_waiting_call_starts_from_the_loop_when_a_slot_is_freed() -> None:
    """Who waits starts in order, each once, and not from the stack of the call that ended."""
    gate, begun = Gate(2, asyncio.get_running_loop()), list[object]()
    for number in range(4):
        gate.enter(recording(begun, number), 9)
    gate.leave()
    gate.leave()
    assert begun == [0, 1]
    assert not gate.enter(recording(begun, "late"), 2)
    await asyncio.sleep(0)
    assert begun == [0, 1, 2, 3]
    gate.leave()
    gate.leave()
    assert gate.idle


async def test_newcomer_queues_up_when_others_wait_for_a_free_slot() -> None:
    """A slot that is free goes to who has waited longest, not to who comes just then."""
    gate, begun = Gate(1, asyncio.get_running_loop()), list[object]()
    for item in ("first", "second"):
        gate.enter(recording(begun, item), 9)
    gate.leave()
    gate.enter(recording(begun, "third"), 9)
    await asyncio.sleep(0)
    assert begun == ["first", "second"]


async def test_slot_stays_taken_when_a_thread_is_stuck() -> None:
    """A thread that outlives its cancelled call keeps the slot until it ends."""
    gate, begun = Gate(1, asyncio.get_running_loop()), list[object]()
    gate.enter(recording(begun, "cancelled"), 9)
    gate.enter(recording(begun, "next"), 9)
    gate.thread_stuck()
    gate.leave()
    await asyncio.sleep(0)
    assert begun == ["cancelled"]
    gate.thread_ended()
    assert begun == ["cancelled", "next"]
