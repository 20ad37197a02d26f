"""What the parts of the transport contract share: opening, skipping, restarting."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable
from typing import ClassVar

import pytest
import pytest_asyncio

from cliffracer_core.errors import ConnectionError, DeadlineExceeded, NoHandler
from cliffracer_core.interfaces import DurableSubscription, DurableTransport, Subscription, Transport
from cliffracer_core.messages import Message
from cliffracer_core.subjects import stream_name

__all__ = ["OFFLINE", "TransportSuite", "durable_on", "settle", "store"]

OFFLINE = (ConnectionError, DeadlineExceeded, NoHandler)
"""What a call may meet while a server restarts."""


class TransportSuite:
    """Base of the parts; see `TransportContract`."""

    pytestmark = pytest.mark.asyncio(loop_scope="function")

    cannot_restart: ClassVar[str] = ""
    """Why `restart_server` is impossible, where it is; the reconnect tests are then skipped with it."""
    ack_wait_s: ClassVar[float] = 1.0
    """Seconds; the shortest ack wait the broker is good at."""

    _opened: list[Transport]

    async def make_transport(self) -> Transport:
        """Return a new transport, not yet open, to the same broker each time within one test."""
        raise NotImplementedError(f"{type(self).__name__!r} has no make_transport; write one")

    async def restart_server(self) -> None:
        """Stop the broker's server without warning and start it again with what it had stored."""
        raise NotImplementedError(
            f"{type(self).__name__!r} has no restart_server; write one, or say why not in cannot_restart"
        )

    @pytest_asyncio.fixture(autouse=True, loop_scope="function")
    async def _close_what_was_opened(self) -> AsyncIterator[None]:
        self._opened = []
        yield
        for transport in reversed(self._opened):
            await transport.close()

    async def connect(self, *needs: str) -> Transport:
        """Return an open transport, closed after the test; skip the test where a capability of `needs` is missing."""
        transport = await self.make_transport()
        self._opened.append(transport)
        await transport.open()
        for need in needs:
            if not getattr(transport.capabilities, need):
                pytest.skip(f"capability {need!r} of {type(transport).__name__!r} is False")
        return transport

    async def connect_durable(self) -> DurableTransport:
        """Return an open transport with durable messages; skip the test where it has none."""
        transport = await self.connect("durable")
        assert isinstance(transport, DurableTransport), "says it is durable and lacks the methods of DurableTransport"
        return transport

    async def restart(self) -> None:
        """Restart the server, or skip the test for the reason given."""
        if self.cannot_restart:
            pytest.skip(self.cannot_restart)
        await self.restart_server()


async def settle(publisher: Transport, *listening: tuple[Transport, Subscription]) -> None:
    """Return when all that `publisher` has sent has been handed over to those listening, who then stop."""
    await publisher.flush()
    for transport, _ in listening:
        await transport.flush()
    for _, subscription in listening:
        await subscription.drain()


def durable_on(
    token: str, pattern: str | None = None, *, name: str = "h", ack_wait_s: float = 30.0, max_in_flight: int = 100
) -> DurableSubscription:
    """Describe a consumer of the stream of a first token; of all of it where no pattern is given."""
    return DurableSubscription(
        stream=stream_name(token),
        pattern=pattern or f"{token}.>",
        durable=f"{token}.{name}",
        ack_wait_s=ack_wait_s,
        max_in_flight=max_in_flight,
    )


async def store(
    transport: DurableTransport, subject: str, bodies: Iterable[bytes], *, stream: str | None = None
) -> None:
    """Publish durably, each body under a message id of its own made of subject and body."""
    into = stream or stream_name(subject)
    for body in bodies:
        message_id = f"{subject}:{body.decode()}"
        await transport.publish_durable(Message(subject, body), stream=into, message_id=message_id, timeout_s=10)
