"""`Entry.call`: a call in a task that was there before, as HTTP servers make one for each request."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator

import pytest

from cliffracer_core import (
    CliffracerService,
    DeadlineExceeded,
    Declaration,
    MessageContext,
    Overloaded,
    ServiceConfig,
    ServiceError,
    current_context,
    hookimpl,
    rpc,
)
from cliffracer_core.interfaces import Entry
from cliffracer_core.testing import eventually, unique


class Edge:
    """A plugin that calls handlers in whatever task asks it to."""

    def __init__(self) -> None:
        self.entries: dict[str, Entry] = {}

    @hookimpl
    def cliffracer_register_entry_points(self, declaration: Declaration) -> list[Edge]:
        return [self]

    async def start(self, entry: Entry) -> None:
        self.entries[entry.name.partition(".")[2]] = entry

    async def stop(self) -> None:
        return None

    async def call(self, handler: str, seconds: float | None = 30.0, **arguments: object) -> object:
        deadline = None if seconds is None else time.monotonic() + seconds
        return await self.entries[handler].call(
            MessageContext(
                kind="edge", service="s", handler=handler, subject="/", pattern="/", arguments=arguments,
                deadline=deadline, correlation_id="c",
            )
        )  # fmt: skip


class Work(CliffracerService):
    """What is called."""

    def __init__(self, edge: Edge, queue_size: int = 1, grace_s: float = 5.0) -> None:
        config = ServiceConfig(unique(), concurrency=1, queue_size=queue_size, shutdown_grace_s=grace_s)
        super().__init__(config, plugins={"edge": edge})
        self.cancelled = asyncio.Event()
        self.go = asyncio.Event()
        self.tasks: list[object] = []

    @rpc
    async def see(self, number: int) -> str:
        self.tasks.append(asyncio.current_task())
        context = current_context()
        assert context is not None
        return f"{context.kind} {number}"

    @rpc
    async def wait(self) -> str:
        try:
            await self.go.wait()
        except asyncio.CancelledError:
            self.cancelled.set()
            raise
        return "done"

    @rpc
    async def fail(self) -> None:
        raise ServiceError("no")


@pytest.fixture
def edge() -> Edge:
    return Edge()


@pytest.fixture
async def work(edge: Edge) -> AsyncIterator[Work]:
    async with Work(edge) as service:
        yield service


async def test_call_runs_in_the_task_that_makes_it_and_leaves_its_context_as_it_was(edge: Edge, work: Work) -> None:
    """There is no task in between, the handler sees its own context, and afterwards nobody does."""
    assert await edge.call("see", number=7) == "edge 7"
    assert work.tasks == [asyncio.current_task()]
    assert current_context() is None


async def test_error_of_the_handler_reaches_who_called(edge: Edge, work: Work) -> None:
    """As it was raised; the slot is free again."""
    with pytest.raises(ServiceError, match="no"):
        await edge.call("fail")
    with pytest.raises(ServiceError, match="no"):
        await edge.call("fail")


async def test_call_is_cancelled_when_its_deadline_comes(edge: Edge, work: Work) -> None:
    """The handler is cancelled and the caller's task is not: it gets a DeadlineExceeded and goes on."""
    with pytest.raises(DeadlineExceeded, match="deadline"):
        await edge.call("wait", seconds=0.05)
    assert work.cancelled.is_set()
    task = asyncio.current_task()
    assert task is not None
    assert not task.cancelling()
    work.go.set()
    assert await edge.call("wait", seconds=None) == "done"


async def test_handler_is_cancelled_when_the_callers_task_is(edge: Edge, work: Work) -> None:
    """A client that goes away ends its request's task, and with it the handler; no error of ours is made of it."""
    calling = asyncio.create_task(edge.call("wait"))
    await eventually(lambda: len(work.runtime.scope.runs) == 1)
    calling.cancel()
    with pytest.raises(asyncio.CancelledError):
        await calling
    assert work.cancelled.is_set()
    assert not work.runtime.scope.runs
    assert work.runtime.scope.idle


async def test_call_waits_for_a_slot_and_is_refused_when_too_many_wait(edge: Edge, work: Work) -> None:
    """One runs, one waits, the third hears at once; a waiter's deadline counts while it waits."""
    first, second = (asyncio.create_task(edge.call("wait")) for _ in range(2))
    gate = work.runtime.handlers["wait"].gate
    await eventually(lambda: len(gate.waiting) == 1)
    with pytest.raises(Overloaded, match="runs 1 calls and 1 wait"):
        await edge.call("wait")
    second.cancel()
    with pytest.raises(asyncio.CancelledError):
        await second
    late = asyncio.create_task(edge.call("see", number=1))  # another handler has slots of its own
    assert await late == "edge 1"
    work.go.set()
    assert await first == "done"
    assert await edge.call("wait") == "done"
    assert gate.idle
    assert gate.free == 1


async def test_waiter_hears_when_its_deadline_comes_before_a_slot(edge: Edge) -> None:
    """Time spent in the queue is the call's own time."""
    async with Work(edge) as work:
        running = asyncio.create_task(edge.call("wait"))
        await eventually(lambda: work.runtime.handlers["wait"].gate.free == 0)
        with pytest.raises(DeadlineExceeded):
            await edge.call("wait", seconds=0.05)
        assert not work.cancelled.is_set()
        work.go.set()
        assert await running == "done"
        await eventually(lambda: work.runtime.scope.idle)


async def test_call_is_told_when_its_service_stops(edge: Edge) -> None:
    """Past the grace time the one that runs and the one that waits both end as Overloaded, which a retry may mend."""
    service = Work(edge, grace_s=0.3)
    await service.start()
    calls = [asyncio.create_task(edge.call("wait")) for _ in range(2)]
    gate = service.runtime.handlers["wait"].gate
    await eventually(lambda: len(gate.waiting) == 1)
    await service.stop()
    for each in calls:
        with pytest.raises(Overloaded, match="stops"):
            await each
    assert gate.idle


async def test_call_ends_as_it_will_when_its_service_gave_it_up(edge: Edge) -> None:
    """A handler that does not let itself be cancelled outlives its service, and what it returns is not lost."""
    service, released = Work(edge, grace_s=0.1), asyncio.Event()

    @service.rpc
    async def stubborn() -> str:
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            await released.wait()
        return "late"

    await service.start()
    calling = asyncio.create_task(edge.call("stubborn"))
    await eventually(lambda: len(service.runtime.scope.runs) == 1)
    await service.stop()
    released.set()
    assert await asyncio.wait_for(calling, 5) == "late"
