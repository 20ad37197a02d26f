"""What a call knows about itself: correlation id, deadline, identity.

One context variable holds the `MessageContext` of the running call; another an id set by hand.
"""

from __future__ import annotations

import itertools
import os
import time
from collections.abc import Callable, Iterator, Mapping
from contextvars import ContextVar

import msgspec

__all__ = ["Identity", "MessageContext", "create_correlation_id", "current_context", "enter_call"]
__all__ += ["get_correlation_id", "leave_calls", "remaining_s", "set_correlation_id", "with_correlation_id"]


def _system_bits(count: int) -> int:
    return int.from_bytes(os.urandom(count // 8))


class _Ids:
    """Ids that differ in 64 random bits from those of other processes, and in a counter from each other."""

    next: Callable[[], str]

    def __init__(self) -> None:
        self.seed(_system_bits)

    def seed(self, bits: Callable[[int], int]) -> None:
        """Begin anew; `bits(n)` gives a random number of n bits."""
        self.next = itertools.chain.from_iterable(_numbered(f"{bits(64):016x}", bits(48))).__next__


_LAST_DIGITS = [f"{number:02x}" for number in range(256)]


def _numbered(prefix: str, first: int) -> Iterator[Iterator[str]]:
    """Count up in hexadecimal behind a prefix, 256 at a time: to format each number costs twice as much."""
    for number in itertools.count(first):
        yield map(f"{prefix}{number:014x}".__add__, _LAST_DIGITS)


ids = _Ids()
os.register_at_fork(after_in_child=lambda: ids.seed(_system_bits))

clock: Callable[[], float] = time.monotonic
"""Seconds; deadlines are points on this clock, which asyncio's loops share."""


class Identity(msgspec.Struct, frozen=True, kw_only=True):
    """Who is calling, as an authenticator established it."""

    id: str
    roles: frozenset[str] = frozenset()
    permissions: frozenset[str] = frozenset()
    claims: dict[str, object] = {}


class MessageContext(msgspec.Struct, kw_only=True, eq=False):
    """One call on its way through the chain: a request, an event, an HTTP request, a timer's tick.

    Middleware reads and may change it; a handler with a parameter of this type receives it.
    """

    kind: str
    """`rpc`, `event`, or the kind a plugin's entry point gives."""
    service: str
    handler: str
    subject: str
    """The subject the message came on."""
    pattern: str
    """The pattern that matched it."""
    body: bytes = b""
    headers: Mapping[str, str] = {}
    reply_to: str | None = None
    """Where the reply goes; None for an event."""
    correlation_id: str = ""
    deadline: float | None = None
    """Point on `time.monotonic()` at which the caller stops waiting; None without one."""
    attempt: int = 1
    """Which delivery of a durable event this is, from 1."""
    message_id: str | None = None
    identity: Identity | None = None
    arguments: dict[str, object] | None = None
    """The decoded arguments by name; None until they are decoded, after the observe stage."""
    state: dict[str, object] = {}
    """Room for middleware to hand things on; keys carry the plugin's name."""

    def remaining_s(self) -> float | None:
        """Seconds left until the deadline, never below 0; None without a deadline."""
        return None if self.deadline is None else max(0.0, self.deadline - clock())


_current: ContextVar[MessageContext | None] = ContextVar("cliffracer_context", default=None)
_chosen: ContextVar[str | None] = ContextVar("cliffracer_correlation_id", default=None)


running_call = _current.get
chosen_correlation_id = _chosen.get
"""What `current_context` returns, and the id set by hand, without a Python call between."""


def current_context() -> MessageContext | None:
    """Return the context of the call this code runs in, None outside a call."""
    return _current.get()


def remaining_s() -> float | None:
    """Seconds the running call has left; None outside a call or without a deadline."""
    context = _current.get()
    return None if context is None else context.remaining_s()


def create_correlation_id() -> str:
    """Make a new id: 32 hexadecimal digits. It is unique, not secret."""
    return ids.next()


def get_correlation_id() -> str | None:
    """Return the id set by hand, else that of the running call, else None."""
    chosen = _chosen.get()
    if chosen is not None:
        return chosen
    context = _current.get()
    return None if context is None else context.correlation_id


def set_correlation_id(correlation_id: str | None) -> None:
    """Set the id for the rest of this task and what it starts; None returns to the call's own."""
    _chosen.set(correlation_id)


class with_correlation_id:  # noqa: N801 - the reference API's name
    """Use an id (a new one without an argument) inside a `with` or an `async with` block."""

    def __init__(self, correlation_id: str | None = None) -> None:
        self._id = correlation_id or create_correlation_id()

    def __enter__(self) -> str:
        self._token = _chosen.set(self._id)
        return self._id

    def __exit__(self, *exc_info: object) -> None:
        _chosen.reset(self._token)

    async def __aenter__(self) -> str:
        return self.__enter__()

    async def __aexit__(self, *exc_info: object) -> None:
        self.__exit__()


enter_call = _current.set
"""Make a `MessageContext` current for the rest of the running task."""


def leave_calls() -> None:
    """Forget any call and chosen id: the state from which every call's own context is copied."""
    _current.set(None)
    _chosen.set(None)
