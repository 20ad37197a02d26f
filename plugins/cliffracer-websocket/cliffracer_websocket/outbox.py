"""`Outbox`: one client's way out, bounded, and never in the way of another's.

While a client reads as fast as it is written to, `push` runs the server's `send` there and then: no queue,
no task. Once a `send` has to wait, a task of this client's own waits, and what comes meanwhile is queued.
"""

from __future__ import annotations

import asyncio
import logging
import types
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Coroutine, Generator, Iterable, Iterator, MutableMapping
from inspect import iscoroutinefunction
from typing import Any, Literal

import msgspec
from cliffracer_http.servers.frames import Write, text_frame

from .codes import TRY_AGAIN_LATER, close_event

__all__ = ["Event", "Outbox", "OutboxLimits", "Policy", "push_all"]

logger = logging.getLogger("cliffracer.websocket")

Event = MutableMapping[str, Any]
"""An ASGI event; shared by all sockets it goes to, so nobody changes it."""

Policy = Literal["drop_oldest", "conflate", "disconnect"]
Send = Callable[[Event], Coroutine[Any, Any, None]]
Notice = Callable[[dict[str, int]], Iterable[Event]]


class OutboxLimits(msgspec.Struct, frozen=True, kw_only=True):
    """What may wait for one client, and what happens past it."""

    policy: Policy = "drop_oldest"
    messages: int = 256
    bytes: int = 4 * 1024 * 1024


class _Waiting(msgspec.Struct):
    event: Event
    group: str
    size: int
    number: int
    """Of the messages that were queued; one that took another's place has its own."""


class Outbox:
    """One client's way out.

    Args:
        send: the server's ASGI `send`.
        limits: what may wait.
        notice: makes the events that tell the client of a gap, from the number of lost messages by group.
        stalled: the outboxes that wait just now; this one is in it while it does.
    """

    __slots__ = (
        "_bytes", "_counter", "_limits", "_lost", "_queue", "_send", "_stalled", "_task",
        "abort", "closed", "dropped", "notice", "since", "write",
    )  # fmt: skip

    def __init__(
        self, send: Callable[[Any], Awaitable[None]], limits: OutboxLimits, notice: Notice, stalled: set[Outbox]
    ):
        self._send: Send = send if iscoroutinefunction(send) else _as_coroutine(send)
        self._limits = limits
        self.notice = notice
        self._stalled = stalled
        self._task: asyncio.Task[None] | None = None
        self._queue: OrderedDict[object, _Waiting] | None = None
        self._lost: dict[str, int] | None = None
        self._bytes = 0
        self._counter = 0
        self.abort: Callable[[], None] | None = None
        """Ends the connection without a word; called where not even a close frame gets through."""
        self.write: Write | None = None
        """Takes whole frames, where the server does: far less work than its `send`."""
        self.closed = False
        """Nothing is sent any more: the socket was closed from here, or a send failed."""
        self.dropped = 0
        """Messages lost so far."""
        self.since = 0.0
        """When it began to wait, on the loop's clock."""

    @property
    def waiting(self) -> int:
        """How many messages wait."""
        return len(self._queue) if self._queue else 0

    @property
    def busy(self) -> bool:
        """Whether something of it is on its way, and waits."""
        return self._task is not None

    def push(self, event: Event, group: str = "", key: object = None) -> None:
        """Send an event, or queue it where the client is behind.

        Args:
            event: what to send.
            group: whose message it is, for the notice of a gap.
            key: with the policy `conflate`, it takes the place of a waiting message of its group and key.
        """
        if self.closed:
            return
        if self._task is not None:
            self._enqueue(event, group, key)
            return
        if self.write is not None and (text := event.get("text")) is not None and self.write(text_frame(text.encode())):
            return
        step = self._send(event)
        try:
            waits_for = step.send(None)
        except StopIteration:
            return
        except Exception as error:
            self._failed(error)
            return
        self._wait(step, waits_for)

    def close(self, code: int, reason: str = "") -> None:
        """Close the socket after what waits; nothing is sent after that."""
        self.push(close_event(code, reason))
        self.closed = True

    def forget(self) -> None:
        """Send nothing more and let go of what waits."""
        self.closed = True
        if self._task is not None:
            self._task.cancel()
        self._queue = None

    async def drained(self) -> None:
        """Return when nothing waits."""
        while self._task is not None:
            await asyncio.wait([self._task])

    def discard(self, group: str) -> int:
        """Let go of what waits for a group; return how many messages that were."""
        if not self._queue:
            return 0
        gone = [key for key, each in self._queue.items() if each.group == group and group]
        for key in gone:
            self._bytes -= self._queue.pop(key).size
        return len(gone)

    def _wait(self, step: Coroutine[Any, Any, None], waits_for: Any) -> None:
        loop = asyncio.get_running_loop()
        self.since = loop.time()
        self._stalled.add(self)
        self._task = loop.create_task(self._write(step, waits_for))

    async def _write(self, step: Coroutine[Any, Any, None], waits_for: Any) -> None:
        try:
            await _finish(step, waits_for)
            loop = asyncio.get_running_loop()
            while self._lost or self._queue:
                self.since = loop.time()
                if self._lost:
                    lost, self._lost = self._lost, None
                    for event in self.notice(lost):
                        await self._send(event)
                elif self._queue:
                    _, entry = self._queue.popitem(last=False)
                    self._bytes -= entry.size
                    await self._send(entry.event)
        except Exception as error:
            self._failed(error)
        finally:
            self._task = None
            self._stalled.discard(self)

    def _enqueue(self, event: Event, group: str, key: object) -> None:
        queue, limits = self._queue, self._limits
        if queue is None:
            queue = self._queue = OrderedDict()
        size = len(event.get("text") or event.get("bytes") or "")
        self._counter += 1
        place: object = self._counter
        if key is not None and limits.policy == "conflate":
            place = (group, key)
            old = queue.get(place)
            if old is not None:
                self._bytes += size - old.size
                queue[place] = _Waiting(event, group, size, self._counter)
                return
        queue[place] = _Waiting(event, group, size, self._counter)
        self._bytes += size
        while len(queue) > limits.messages or (self._bytes > limits.bytes and len(queue) > 1):
            if limits.policy == "disconnect":
                self._too_slow()
                return
            self._drop()

    def _drop(self) -> None:
        queue = self._queue
        assert queue
        oldest = next(iter(queue))
        if self._limits.policy == "conflate":  # the place of a message is as old as the first one of its key
            oldest = min(queue, key=lambda place: queue[place].number)
        entry = queue.pop(oldest)
        self._bytes -= entry.size
        self.dropped += 1
        if self._lost is None:
            self._lost = {}
        self._lost[entry.group] = self._lost.get(entry.group, 0) + 1

    def _too_slow(self) -> None:
        """Let go of what waits and close; should even that not get through, the stall timeout ends it."""
        self._queue, self._bytes = OrderedDict(), 0
        event = close_event(TRY_AGAIN_LATER, "too slow: the queue is full; connect again and resume")
        self._queue[0] = _Waiting(event, "", 0, 0)
        self.closed = True

    def _failed(self, error: Exception) -> None:
        self.closed = True
        self._queue = None
        logger.debug("a socket took no more: %s", type(error).__name__)


class _Round:
    """A broadcast on its way through the outboxes."""

    __slots__ = ("at",)

    def __init__(self) -> None:
        self.at: Outbox | None = None


def push_all(outboxes: Iterable[Outbox], event: Event, group: str = "", key: object = None) -> None:
    """Push one event to many, as `Outbox.push` does to one.

    Sockets that take frames get one that is made once. For the rest, one coroutine sends to all, so that each send
    costs a plain await. Where one has to wait, the coroutine is handed to that client's task, which finishes this
    send; another one goes on with the rest, so that the first finds none left.
    """
    rest = iter(_not_written(outboxes, event))
    while True:
        round = _Round()
        step = _send_to(rest, event, group, key, round)
        try:
            waits_for = step.send(None)
        except StopIteration:
            return
        assert round.at is not None
        round.at._wait(step, waits_for)


def _not_written(outboxes: Iterable[Outbox], event: Event) -> Iterable[Outbox]:
    """Write a frame of an event to each socket that takes it; return the others."""
    text = event.get("text")
    if text is None:
        return outboxes
    frame = text_frame(text.encode())
    return [
        each
        for each in outboxes
        if each.write is None or each._task is not None or each.closed or not each.write(frame)
    ]


async def _send_to(rest: Iterator[Outbox], event: Event, group: str, key: object, round: _Round) -> None:
    for outbox in rest:
        if outbox.closed or outbox._task is not None:
            outbox.push(event, group, key)
            continue
        round.at = outbox
        try:
            await outbox._send(event)
        except Exception as error:
            outbox._failed(error)


def _as_coroutine(send: Callable[[Any], Awaitable[None]]) -> Send:
    async def wrapped(event: Event) -> None:
        await send(event)

    return wrapped


@types.coroutine
def _finish(step: Coroutine[Any, Any, None], waits_for: Any) -> Generator[Any, Any, None]:
    """Go on with a coroutine that was stepped once and waits for `waits_for`."""
    try:
        while True:
            try:
                value = yield waits_for
            except GeneratorExit:
                step.close()
                raise
            except BaseException as error:
                waits_for = step.throw(error)
            else:
                waits_for = step.send(value)
    except StopIteration:
        return
