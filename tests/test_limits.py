"""Deadlines on one timer, and the gate before each handler."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable

from cliffracer_core.deadlines import Deadlines
from cliffracer_core.limits import Gate, Run, Waiting


def recording(into: list[object], item: object) -> Callable[[], None]:
    return lambda: into.append(item)


def waiting(into: list[object], item: object) -> Waiting:
    return Waiting(lambda what, since: into.append(what), item)


class Alarm:
    """An entry that does something at its deadline and is then over."""

    def __init__(self, deadlines: Deadlines[Alarm], deadline: float, do: Callable[[], None]) -> None:
        self.deadline = deadline
        self._deadlines = deadlines
        self._do = do
        deadlines.add(self, self)

    def expire(self) -> None:
        self._deadlines.discard(self)
        self._do()


async def fired(deadlines: Deadlines[Alarm], when: float) -> float:
    """Wait for a deadline and return the loop time at which it expired."""
    loop = asyncio.get_running_loop()
    future: asyncio.Future[float] = loop.create_future()
    Alarm(deadlines, when, lambda: future.set_result(loop.time()))
    return await asyncio.wait_for(future, 10)


async def test_entry_expires_when_its_time_has_come() -> None:
    """An entry never expires early."""
    loop = asyncio.get_running_loop()
    when = loop.time() + 0.03
    assert await fired(Deadlines(loop), when) >= when


async def test_entry_expires_when_its_deadline_was_over_before() -> None:
    """A deadline that is over when it is added counts when the loop turns."""
    loop = asyncio.get_running_loop()
    assert await fired(Deadlines(loop), loop.time() - 5) >= 0


async def test_entries_expire_in_order_when_added_in_any() -> None:
    """An earlier deadline goes first, also when it was added last."""
    loop = asyncio.get_running_loop()
    deadlines, order = Deadlines[Alarm](loop), list[object]()
    start = loop.time()
    for delay in (0.09, 0.03, 0.06):
        Alarm(deadlines, start + delay, recording(order, delay))
    await fired(deadlines, start + 0.12)
    assert order == [0.03, 0.06, 0.09]


async def test_entry_never_expires_when_discarded() -> None:
    """A discarded entry is forgotten, and those of the same time are not; discarding twice is no error."""
    loop = asyncio.get_running_loop()
    deadlines, hits = Deadlines[Alarm](loop), list[object]()
    when = loop.time() + 0.02
    one = Alarm(deadlines, when, recording(hits, "one"))
    Alarm(deadlines, when, recording(hits, "two"))
    deadlines.discard(one)
    deadlines.discard(one)
    await fired(deadlines, when + 0.02)
    assert hits == ["two"]


async def test_entry_expires_when_its_deadline_was_moved_on() -> None:
    """An entry that moves its deadline while it stays is watched on, as renewals are."""
    loop = asyncio.get_running_loop()
    deadlines, hits = Deadlines[Run](loop), list[float]()

    class Renewed(Run):
        def expire(self) -> None:
            hits.append(loop.time())
            self.deadline = math.inf if len(hits) == 3 else loop.time() + 0.02

    deadlines.add("renewed", Renewed(loop.time() + 0.02))
    async with asyncio.timeout(10):
        while len(hits) < 3:
            await asyncio.sleep(0.005)
    assert deadlines.next_at == math.inf


async def test_entry_expires_when_its_deadline_was_moved_before_the_next_look() -> None:
    """A deadline moved to an earlier point counts once it is watched."""
    loop = asyncio.get_running_loop()
    deadlines, done = Deadlines[Alarm](loop), asyncio.Event()
    alarm = Alarm(deadlines, loop.time() + 600, done.set)
    alarm.deadline = loop.time() + 0.02
    deadlines.watch(alarm.deadline)
    await asyncio.wait_for(done.wait(), 10)


async def test_entry_expires_when_added_by_another_that_expires() -> None:
    """An entry may add the next one."""
    loop = asyncio.get_running_loop()
    deadlines, done = Deadlines[Alarm](loop), asyncio.Event()
    Alarm(deadlines, loop.time() + 0.01, lambda: (Alarm(deadlines, loop.time(), done.set), None)[1])
    await asyncio.wait_for(done.wait(), 10)


async def test_nothing_expires_when_closed() -> None:
    """After close nothing expires, whether something was waiting or nothing."""
    loop = asyncio.get_running_loop()
    deadlines, hits = Deadlines[Alarm](loop), list[object]()
    Alarm(deadlines, loop.time() + 0.01, recording(hits, "one"))
    deadlines.close()
    Deadlines(loop).close()
    await fired(Deadlines(loop), loop.time() + 0.04)
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
    assert [gate.enter(waiting(begun, number), 1) for number in range(4)] == [True, True, True, False]
    assert begun == [0, 1]
    assert (gate.running, len(gate.waiting), gate.idle) == (2, 1, False)


async def test_waiting_call_starts_from_the_loop_when_a_slot_is_freed() -> None:
    """Who waits starts in order, each once, and not from the stack of the call that ended."""
    gate, begun = Gate(2, asyncio.get_running_loop()), list[object]()
    for number in range(4):
        gate.enter(waiting(begun, number), 9)
    gate.leave()
    gate.leave()
    assert begun == [0, 1]
    assert not gate.enter(waiting(begun, "late"), 2)
    await asyncio.sleep(0)
    assert begun == [0, 1, 2, 3]
    gate.leave()
    gate.leave()
    assert gate.idle


async def test_newcomer_queues_up_when_others_wait_for_a_free_slot() -> None:
    """A slot that is free goes to who has waited longest, not to who comes just then."""
    gate, begun = Gate(1, asyncio.get_running_loop()), list[object]()
    for item in ("first", "second"):
        gate.enter(waiting(begun, item), 9)
    gate.leave()
    gate.enter(waiting(begun, "third"), 9)
    await asyncio.sleep(0)
    assert begun == ["first", "second"]


async def test_slot_stays_taken_when_a_thread_is_stuck() -> None:
    """A thread that outlives its cancelled call keeps the slot until it ends."""
    gate, begun = Gate(1, asyncio.get_running_loop()), list[object]()
    gate.enter(waiting(begun, "cancelled"), 9)
    gate.enter(waiting(begun, "next"), 9)
    gate.thread_stuck()
    gate.leave()
    await asyncio.sleep(0)
    assert begun == ["cancelled"]
    gate.thread_ended()
    assert begun == ["cancelled", "next"]
