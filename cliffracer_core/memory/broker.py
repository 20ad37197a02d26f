"""The broker in memory: who listens, what is on its way, which streams there are.

Like a network it never calls a subscriber from inside a publish: messages wait in one queue, in order,
and are handed over in the event loop's next turn. All of it belongs to one event loop.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from contextvars import Context
from itertools import count, cycle
from typing import Any

import msgspec

from cliffracer_core.errors import ConfigurationError
from cliffracer_core.messages import Message, SharedHeaders
from cliffracer_core.subjects import compile_pattern, covers, default_stream_subjects, overlaps, validate_subject

from .streams import Stream

__all__ = ["Listener", "MemoryBroker", "Route"]

Receive = Callable[[Message], None]
_MAX_ROUTES = 10_000  # subjects may carry ids; past this the cache starts afresh


class Listener(msgspec.Struct, frozen=True, eq=False):
    """One core subscription."""

    receive: Receive
    queue: str | None
    matches: Callable[[str], bool]


class Route(msgspec.Struct, frozen=True, eq=False):
    """Where messages on one subject go."""

    everyone: tuple[Receive, ...]
    groups: tuple[Callable[[], Receive], ...]
    """For each queue group, a function that says whose turn it is."""
    stream: Stream | None


class MemoryBroker:
    """Connects the `MemoryTransport`s of one event loop and URL authority."""

    def __init__(self) -> None:
        self.replies: dict[str, asyncio.Future[Any]] = {}
        """Requests that wait, by their reply token."""
        self.streams: dict[str, Stream] = {}
        self.context = Context()
        """Callbacks run in this context, so that no publisher's variables reach a subscriber."""
        self._listeners: dict[Listener, None] = {}
        self.routes: dict[str, Route] = {}
        """Those found before, by subject."""
        self.loop = asyncio.get_running_loop()
        self._queue: deque[tuple[Callable[[Any], None], Any]] = deque()
        self._scheduled = False
        self.new_inbox = map("_INBOX.%d".__mod__, count(1)).__next__
        """Makes a reply token that was never used before."""

    def subscribe(self, pattern: str, receive: Receive, queue: str | None) -> Listener:
        """Listen on a valid pattern; in effect at once."""
        listener = Listener(receive, queue, compile_pattern(pattern))
        self._listeners[listener] = None
        self.routes.clear()
        return listener

    def unsubscribe(self, listener: Listener) -> None:
        """Stop listening; what is queued already is still handed over."""
        if listener in self._listeners:
            del self._listeners[listener]
            self.routes.clear()

    def route(self, subject: str) -> Route:
        """Find where a subject leads.

        Raises:
            InvalidSubject: it is not one to publish on.
        """
        route = self.routes.get(subject)
        return self._find_route(subject) if route is None else route

    def _find_route(self, subject: str) -> Route:
        validate_subject(subject)
        everyone: list[Receive] = []
        groups: dict[str, list[Receive]] = {}
        for listener in self._listeners:
            if listener.matches(subject):
                members = everyone if listener.queue is None else groups.setdefault(listener.queue, [])
                members.append(listener.receive)
        turns = tuple(cycle(members).__next__ for members in groups.values())
        stream = next((each for each in self.streams.values() if each.takes(subject)), None)
        if len(self.routes) >= _MAX_ROUTES:
            self.routes.clear()
        route = self.routes[subject] = Route(tuple(everyone), turns, stream)
        return route

    def deliver(self, message: Message, route: Route) -> None:
        """Queue a copy of a checked message for each listener that is to have it."""
        post = self.post
        for receive in route.everyone:
            post(receive, copy_message(message))
        for whose_turn in route.groups:
            post(whose_turn(), copy_message(message))

    def post(self, receive: Callable[[Any], None], what: object) -> None:
        """Queue a call for the event loop's next turn, behind all that is queued."""
        self._queue.append((receive, what))
        if not self._scheduled:
            self._scheduled = True
            self.loop.call_soon(self._hand_over, context=self.context)

    def _hand_over(self) -> None:
        queue = self._queue
        try:
            for _ in range(len(queue)):  # what callbacks add waits for the next turn, so that others get theirs
                if not queue:
                    break
                receive, what = queue.popleft()
                receive(what)  # where it raises, the loop reports it and the next turn goes on
        finally:
            self._scheduled = bool(queue)
            if queue:
                self.loop.call_soon(self._hand_over, context=self.context)

    async def settle(self) -> None:
        """Return when all that is queued now has been handed over."""
        if self._queue:
            done = self.loop.create_future()
            self.post(_wake, done)
            await done

    def ensure_stream(self, name: str, pattern: str) -> Stream:
        """Return the stream `name`, created where it is missing, if it covers the whole pattern.

        Raises:
            ConfigurationError: it does not, or it would overlap another stream.
            InvalidSubject: it would take requests, or has an invalid name.
        """
        stream = self.streams.get(name)
        subjects = default_stream_subjects(name, pattern) if stream is None else stream.subjects
        if not any(covers(subject, pattern) for subject in subjects):
            raise ConfigurationError(
                f"stream {name!r} takes {subjects!r}, which does not cover {pattern!r}; "
                f"narrow the pattern, or name another stream with stream='NAME'"
            )
        if stream is None:
            for other in self.streams.values():
                if any(overlaps(mine, theirs) for mine in subjects for theirs in other.subjects):
                    raise ConfigurationError(
                        f"stream {name!r} would take {subjects!r}, which overlaps stream {other.name!r} "
                        f"with {other.subjects!r}; use stream={other.name!r}"
                    )
            stream = self.streams[name] = Stream(name, subjects, self.post, self.context)
            self.routes.clear()
        return stream

    def restart(self) -> None:
        """Behave as a server that was restarted, for tests.

        Core messages on their way are lost, subscriptions and streams are back at once, and durable
        messages that were neither acked nor nacked are delivered again.
        """
        waiting = [each for each in self._queue if each[0] is _wake]
        self._queue.clear()
        self._queue.extend(waiting)
        for stream in self.streams.values():
            stream.restart()


def copy_message(message: Message) -> Message:
    """Copy a message so that sender and receivers share nothing that can change."""
    headers, body = message.headers, message.body
    if type(body) is not bytes:
        body = bytes(memoryview(body))  # through memoryview, since bytes(5) would be five zeros
    if headers is not None and type(headers) is not SharedHeaders:
        headers = dict(headers) if headers else None
    return Message(message.subject, body, headers, message.reply_to)


def _wake(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)
