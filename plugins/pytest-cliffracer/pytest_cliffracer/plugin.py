"""The fixtures; their work is done in the files beside this one."""

from __future__ import annotations

from collections.abc import AsyncIterator, Generator, Iterator
from typing import TYPE_CHECKING, Any

import pytest
import pytest_asyncio

from .events import Events
from .servers import running_nats, running_postgres
from .services import ServiceFactory
from .simulations import ARGUMENT, MARKER, seeds_of, simulated

if TYPE_CHECKING:
    from cliffracer_db.embedded import EmbeddedPostgres
    from cliffracer_nats.embedded import EmbeddedNats

    from cliffracer_core import ClientProxy


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the options that choose the seeds of simulations."""
    group = parser.getgroup("cliffracer")
    group.addoption("--simulation-seed", type=int, metavar="N", help="run each simulation with this seed alone")
    group.addoption("--simulation-seeds", type=int, metavar="N", help="run each simulation with the seeds 0 to N - 1")


def pytest_configure(config: pytest.Config) -> None:
    """Register the marker."""
    config.addinivalue_line(
        "markers",
        "simulation(seeds=20, faults=Faults(), limit_s=604800): run 'async def test(simulation)' under virtual time, "
        "once for each seed, with services on a simulated broker",
    )


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Make one item for each seed of a marked test."""
    if metafunc.definition.get_closest_marker(MARKER) is not None and ARGUMENT in metafunc.fixturenames:
        seeds = seeds_of(metafunc.definition, metafunc.config)
        metafunc.parametrize(ARGUMENT, seeds, indirect=True, ids=[f"seed{seed}" for seed in seeds])


@pytest.hookimpl(wrapper=True, trylast=True)
def pytest_pycollect_makeitem() -> Generator[None, Any, Any]:
    """Take marked tests before pytest-asyncio, whose wrapper is around this one, sees coroutine functions."""
    collected = yield
    return simulated(collected) if isinstance(collected, list) else collected


@pytest.fixture
def simulation(request: pytest.FixtureRequest) -> int:
    """The world of a test marked `simulation`: services that can be killed, faults, a clock; see docs/simulation.md.

    For example:

        @pytest.mark.simulation(seeds=50, faults=Faults(drop=0.05))
        async def test_nothing_is_lost(simulation: Simulation) -> None:
            users = await simulation.start(Users)
    """
    if not hasattr(request, "param"):
        pytest.fail("fixture 'simulation' is for tests marked @pytest.mark.simulation", pytrace=False)
    return int(request.param)  # the seed; `SimulatedTest` makes the simulation of it


@pytest.fixture(scope="session")
def nats_server() -> Iterator[EmbeddedNats]:
    """A NATS server with JetStream for the whole session: a process on 127.0.0.1, a free port, a token."""
    with running_nats() as server:
        yield server


@pytest.fixture(scope="session")
def nats_url(nats_server: EmbeddedNats) -> str:
    """Where `nats_server` listens, with its token; a transport for services and clients."""
    return nats_server.url


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[EmbeddedPostgres]:
    """A PostgreSQL server for the whole session: a process on 127.0.0.1, a free port, a password."""
    with running_postgres() as server:
        yield server


@pytest.fixture
def postgres_url(postgres_server: EmbeddedPostgres) -> Iterator[str]:
    """An empty database of one test's own, on `postgres_server`; the setting `db.url` of a service."""
    url = postgres_server.create_database()
    yield url
    postgres_server.give_back_database(url)


@pytest.fixture
def cliffracer_transport() -> str:
    """URL of the transport that services, the client and the recorder of a test share; override it to change that."""
    return "memory://"


@pytest_asyncio.fixture
async def cliffracer_service(cliffracer_transport: str) -> AsyncIterator[ServiceFactory]:
    """Start services, and stop them in reverse order after the test.

    For example:

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

    For example:

        created = await cliffracer_events("user.created")
        assert [event.data for event in await created.wait()] == [{"id": 1}]
    """
    events = Events(cliffracer_client.caller.transport())
    yield events
    await events.stop()
