"""Fixtures for the kernel's tests: both transports, names nobody else uses, a client beside the services."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
from hypothesis import HealthCheck, settings

from cliffracer_core import ClientProxy, Transport
from cliffracer_core.caller import Caller
from cliffracer_core.testing import unique

# how long an example takes says how busy the machine is, not whether the promise holds
settings.register_profile("busy", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("busy")


@pytest.fixture
def name() -> str:
    """A service's name, and a first token for subjects: all tests share one NATS server."""
    return unique()


@pytest.fixture(params=["memory", "nats"])
def transport_url(request: pytest.FixtureRequest) -> str:
    """Each transport in turn; what holds on one holds on the other."""
    return "memory://" if request.param == "memory" else str(request.getfixturevalue("nats_url"))


@pytest.fixture
async def caller(transport_url: str) -> AsyncIterator[Caller]:
    """Calls and publishes over `transport_url`, from outside any service."""
    async with ClientProxy(transport_url) as proxy:
        yield proxy.caller


@pytest.fixture
def raw(caller: Caller) -> Transport:
    """The transport under `caller`, for messages that no client of ours would send."""
    return caller.transport()
