"""Services on free ports, and clients of them."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from typing import Any

import httpx
import pytest
from cliffracer_http.testing import free_ports

from cliffracer_core import CliffracerService, ServiceConfig
from cliffracer_core.testing import unique

BOTH_LOOPS = ("test_http3_answers_and_is_announced", "test_http3_finishes_what_runs_when_it_stops")
"""Of the tests over QUIC, those that the other loop's UDP could break."""
Serve = Callable[..., Awaitable[httpx.AsyncClient]]


def pytest_asyncio_loop_factories(
    config: pytest.Config, item: pytest.Item
) -> Mapping[str, Callable[[], asyncio.AbstractEventLoop]]:
    """Run the contract of servers on uvloop too, which `cliffracer run` takes where it is installed."""
    factories: dict[str, Callable[[], asyncio.AbstractEventLoop]] = {"asyncio": asyncio.new_event_loop}
    if item.path.name == "test_servers_contract.py" and not ("http3" in item.name and item.name not in BOTH_LOOPS):
        with contextlib.suppress(ImportError):
            import uvloop

            factories["uvloop"] = uvloop.new_event_loop
    return factories


@pytest.fixture
async def serve() -> AsyncIterator[Serve]:
    """Start a service class or object on a free port; the answer is a client of it. Keywords are settings."""
    async with contextlib.AsyncExitStack() as stack:

        async def start(what: Any, *, plugins: Any = None, http: Any = None, **settings: Any) -> httpx.AsyncClient:
            service: Any = what
            if isinstance(what, type):
                config = ServiceConfig(unique(), http={"port": 0, "server": "uvicorn", **(http or {})}, **settings)
                service = what(config, plugins=plugins)
            await stack.enter_async_context(service)
            client = httpx.AsyncClient(base_url=service.http.url, timeout=20)
            return await stack.enter_async_context(client)

        yield start


@pytest.fixture
def blank() -> Callable[..., Any]:
    """Make a service without handlers, for those that functions become."""

    def make(**settings: Any) -> Any:
        http = {"port": 0, "server": "uvicorn", **settings.pop("http", {})}
        return CliffracerService(ServiceConfig(unique(), http=http, **settings))

    return make


@pytest.fixture
def free_port() -> Iterator[Callable[[], int]]:
    """Find a port that nobody else is given during the test."""
    with free_ports() as find:
        yield find
