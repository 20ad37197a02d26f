"""Recording the events that a test's services publish."""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from cliffracer_core import Transport
    from cliffracer_core.interfaces import Subscription
    from cliffracer_core.messages import Message

__all__ = ["Event", "EventRecorder", "Events"]


@dataclasses.dataclass(frozen=True)
class Event:
    """One event as it was published; `data` is its body, decoded by its content type, as builtins."""

    subject: str
    data: Any
    headers: Mapping[str, str]


class EventRecorder:
    """The events of one pattern, in the order they came."""

    def __init__(self, pattern: str) -> None:
        self.pattern = pattern
        self.events: list[Event] = []
        self._changed = asyncio.Event()

    @property
    def data(self) -> list[Any]:
        """The bodies alone."""
        return [event.data for event in self.events]

    @property
    def subjects(self) -> list[str]:
        """The subjects alone."""
        return [event.subject for event in self.events]

    def record(self, message: Message) -> None:
        """Keep a message; the transport calls this. A body that cannot be decoded is kept as bytes."""
        from cliffracer_core.errors import ValidationError
        from cliffracer_core.messages import codec_for

        data: Any = None
        if message.body:
            try:
                data = codec_for(message.headers).decoder(Any)(message.body)
            except ValidationError:
                data = message.body
        self.events.append(Event(message.subject, data, dict(message.headers or {})))
        self._changed.set()

    async def wait(self, count: int = 1, *, timeout_s: float = 5.0) -> list[Event]:
        """Return all events so far, once there are at least `count`.

        Raises:
            AssertionError: there were fewer within `timeout_s` seconds; it names the subjects that came.
        """
        try:
            async with asyncio.timeout(timeout_s):
                while len(self.events) < count:
                    self._changed.clear()
                    await self._changed.wait()
        except TimeoutError:
            raise AssertionError(
                f"{len(self.events)} of {count} events on {self.pattern!r} came within {timeout_s:g} s: {self.subjects}"
            ) from None
        return list(self.events)


class Events:
    """Record events by pattern; what the fixture `cliffracer_events` gives.

    Args:
        transport: where to listen; open.
    """

    def __init__(self, transport: Transport) -> None:
        self._transport = transport
        self._subscriptions: list[Subscription] = []

    async def __call__(self, pattern: str) -> EventRecorder:
        """Begin to record what is published on `pattern`, wildcards allowed; active when this returns.

        Raises:
            InvalidSubject: the pattern does not follow the grammar.
        """
        recorder = EventRecorder(pattern)
        self._subscriptions.append(await self._transport.subscribe(pattern, recorder.record))
        return recorder

    async def stop(self) -> None:
        """Record no more."""
        while self._subscriptions:
            await self._subscriptions.pop().drain()
