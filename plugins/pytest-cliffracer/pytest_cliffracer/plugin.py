"""The fixtures; their work is done in the files beside this one."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from typing import TYPE_CHECKING

import pytest
import pytest_asyncio

from .events import Events
from .servers import running_nats
from .services import ServiceFactory

if TYPE_CHECKING:
    from cliffracer_nats.embedded import EmbeddedNats

    from cliffracer_core import ClientProxy


@pytest.fixture(scope="session")
def nats_server() -> Iterator[EmbeddedNats]:
    """A NATS server with JetStream for the whole session: a process on 127.0.0.1, a free port, a token."""
    with running_nats() as server:
        yield server


@pytest.fixture(scope="session")
def nats_url(nats_server: EmbeddedNats) -> str:
    """Where `nats_server` listens, with its token; a transport for services and clients."""
    return nats_server.url


@pytest.fixture
def cliffracer_transport() -> str:
    """URL of the transport that services, the client and the recorder of a test share; override it to change that."""
    return "memory://"


@pytest_asyncio.fixture
async def cliffracer_service(cliffracer_transport: str) -> AsyncIterator[ServiceFactory]:
    """Start services, and stop them in reverse order after the test.

    Example:
        users = await cliffracer_service(Users, replace={"mailbox": FakeMailbox()})
    """
    factory = ServiceFactory(cliffracer_transport)
    yield factory
    await factory.stop()


@pytest_asyncio.fixture
async def cliffracer_client(cliffracer_transport: str) -> AsyncIterator[ClientProxy]:
    """A connected `ClientProxy` on the same transport; `client(Users, cliffracer_client.caller)` calls typed."""
    from cliffracer_core import ClientProxy

    async with ClientProxy(cliffracer_transport) as proxy:
        yield proxy


@pytest_asyncio.fixture
async def cliffracer_events(cliffracer_client: ClientProxy) -> AsyncIterator[Events]:
    """Record events of the same transport until the test ends.

    Example:
        created = await cliffracer_events("user.created")
        assert [event.data for event in await created.wait()] == [{"id": 1}]
    """
    events = Events(cliffracer_client.caller.transport())
    yield events
    await events.stop()
