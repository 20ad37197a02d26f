"""Health pages, with the bodies of the reference documents, and who may read the details."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from typing import Any

import httpx
import pytest
from cliffracer_http import get

from cliffracer_core import CliffracerService, ConnectionError, ServiceConfig, ServiceInfo, hookimpl
from cliffracer_core.interfaces import Check, TransportFactory
from cliffracer_core.memory import MemoryTransport
from cliffracer_core.testing import unique


class Web(CliffracerService):
    version = "1.2.3"

    @get("/x")
    async def x(self) -> int:
        return 1


class Broker:
    """Plugin of a transport that a test cuts off, and of checks."""

    def __init__(self) -> None:
        self.up = True
        self.ill = False
        self.starting = asyncio.Event()

    @hookimpl
    def cliffracer_register_transports(self) -> list[TransportFactory]:
        return [TransportFactory(schemes=("cut",), create=lambda url, service: CutTransport(self))]

    @hookimpl
    def cliffracer_register_health_checks(self, service: ServiceInfo) -> Mapping[str, Any]:
        return {
            "archive": Check(run=self.database, timeout_s=0.2),
            "metrics": self.metrics,
            "quiet": self.quiet,
        }

    async def database(self) -> Mapping[str, object]:
        if self.ill:
            await asyncio.sleep(60)
        return {"connected": True}

    async def metrics(self) -> Mapping[str, object]:
        if self.ill:
            raise ConnectionError("metrics are gone")
        return {"rps": 150, "latency_ms": 3.2}

    async def quiet(self) -> Mapping[str, object]:
        return {}


class CutTransport(MemoryTransport):
    def __init__(self, broker: Broker) -> None:
        super().__init__(f"memory://{unique()}")
        self._plugin = broker

    @property
    def connected(self) -> bool:
        return self._plugin.up and super().connected


async def test_pages_have_their_bodies_when_all_is_well(serve: Any) -> None:
    """/health, /health/live, /health/ready and /health/detailed as the documents show them."""
    service: Any = Web(ServiceConfig(unique(), transport="cut://", http_port=0), plugins={"broker": Broker()})
    client: httpx.AsyncClient = await serve(service)
    name = {"service": service.name}
    assert (await client.get("/health")).json() == {"status": "healthy", **name}
    assert (await client.get("/health/live")).json() == {"status": "alive", **name}
    assert (await client.get("/health/ready")).json() == {"status": "ready", **name}
    detailed = await client.get("/health/detailed")
    assert detailed.json() == {
        "status": "healthy", **name, "version": "1.2.3", "cut": "connected", "archive": "connected",
        "metrics": {"rps": 150, "latency_ms": 3.2}, "quiet": "healthy",
    }  # fmt: skip
    assert (detailed.headers["cache-control"], "x-correlation-id" in detailed.headers) == ("no-store", True)
    head = await client.head("/health/ready")
    assert (head.status_code, head.content) == (200, b"")
    assert (await client.post("/health")).status_code == 405


async def test_service_is_not_ready_when_its_broker_is_away(serve: Any) -> None:
    """Readiness turns and turns back; alive it stays, so that nobody restarts it for the broker's sake."""
    broker = Broker()
    service: Any = Web(ServiceConfig(unique(), transport="cut://", http_port=0), plugins={"broker": broker})
    client: httpx.AsyncClient = await serve(service)
    for up, status, word in ((False, 503, "disconnected"), (True, 200, "ready")):
        broker.up = up
        ready = await client.get("/health/ready")
        assert (ready.status_code, ready.json()["status"]) == (status, word)
        assert (await client.get("/health/live")).status_code == 200
        health = await client.get("/health")
        assert (health.status_code, health.json()["status"]) == (200, "healthy" if up else "disconnected")
        detailed = await client.get("/health/detailed")
        assert (detailed.status_code, detailed.json()["cut"]) == (status, "connected" if up else "disconnected")


async def test_service_is_not_ready_when_it_starts(serve: Any) -> None:
    """What listens already while something else still starts answers: alive, and not ready."""
    seen: list[tuple[int, str]] = []

    class Timer:
        """What starts after the listeners."""

        @hookimpl
        def cliffracer_register_entry_points(self, declaration: Any, service: ServiceInfo) -> list[Any]:
            return [self]

        async def start(self, entry: Any) -> None:
            async with httpx.AsyncClient(base_url=service.http.url) as client:
                for path in ("/health/ready", "/health/live", "/health"):
                    answer = await client.get(path)
                    seen.append((answer.status_code, answer.json()["status"]))

        async def stop(self) -> None: ...

    service: Any = Web(ServiceConfig(unique(), http_port=0), plugins={"timer": Timer()})
    async with service:
        pass
    assert seen == [(503, "not ready"), (200, "alive"), (200, "not ready")]


async def test_service_is_not_ready_when_it_drains(serve: Any) -> None:
    """While a running request holds up the stop, the connection that is open still answers: 503."""
    began, go = asyncio.Event(), asyncio.Event()

    class Slow(CliffracerService):
        @get("/slow")
        async def slow(self) -> int:
            began.set()
            await go.wait()
            return 1

    service: Any = Slow(ServiceConfig(unique(), http_port=0))
    states: list[tuple[int, str]] = []
    async with service, httpx.AsyncClient(base_url=service.http.url) as client:
        asgi = service.runtime.wiring
        assert asgi.ready()
        running = asyncio.create_task(client.get("/slow"))
        async with asyncio.timeout(10):
            await began.wait()
        site = next(iter(service.runtime._servers))._site
        stopping = asyncio.create_task(service.stop())
        async with asyncio.timeout(10):
            while service.ready:
                await asyncio.sleep(0.01)
        transport = httpx.ASGITransport(app=site)
        async with httpx.AsyncClient(transport=transport, base_url="http://inside") as inside:
            ready = await inside.get("/health/ready")
            states.append((ready.status_code, ready.json()["status"]))
        go.set()
        assert (await running).json() == 1
        await stopping
    assert states == [(503, "not ready")]


async def test_details_name_what_is_wrong_when_checks_fail(serve: Any) -> None:
    """Each check has its own time; one that hangs and one that raises are both told of, the rest too."""
    broker = Broker()
    broker.ill = True
    service: Any = Web(ServiceConfig(unique(), transport="cut://", http_port=0), plugins={"broker": broker})
    client: httpx.AsyncClient = await serve(service)
    answer = await client.get("/health/detailed")
    body = answer.json()
    assert (answer.status_code, body["status"]) == (503, "unhealthy")
    assert body["archive"] == "error: no answer within 0.2 s"
    assert body["metrics"] == "error: connection_error: metrics are gone"
    assert (body["quiet"], body["cut"]) == ("healthy", "connected")
    assert (await client.get("/health/ready")).status_code == 200


@pytest.mark.parametrize("authorization", ["", "Bearer wrong", "secret", "Basic secret", "Bearer secret2"])
async def test_details_are_closed_when_the_token_is_missing_or_wrong(serve: Any, authorization: str) -> None:
    """With `guard_token` the page wants it, also on loopback."""
    client: httpx.AsyncClient = await serve(Web, http={"guard_token": "secret"})
    answer = await client.get("/health/detailed", headers={"authorization": authorization})
    assert (answer.status_code, answer.json()["code"]) == (401, "unauthenticated")
    assert "secret" not in answer.json()["detail"]
    opened = await client.get("/health/detailed", headers={"authorization": "Bearer secret"})
    assert opened.json()["status"] == "healthy"


async def test_details_are_closed_when_the_service_listens_off_loopback(serve: Any) -> None:
    """Without a token they stay closed there; the other pages are open."""
    service: Any = Web(ServiceConfig(unique(), http={"host": "0.0.0.0", "port": 0}))
    async with service:
        url = service.http.url.replace("0.0.0.0", "127.0.0.1")
        async with httpx.AsyncClient(base_url=url) as client:
            answer = await client.get("/health/detailed")
            assert (answer.status_code, answer.json()["code"]) == (403, "permission_denied")
            assert "http.guard_token" in answer.json()["detail"]
            assert (await client.get("/health")).status_code == 200


async def test_pages_speak_for_all_when_several_services_share_a_port(free_port: Callable[[], int]) -> None:
    """One that is unwell makes the whole not ready, and is named."""
    broker = Broker()
    port = free_port()
    first: Any = Web(ServiceConfig("first", transport="cut://", http={"port": port}), plugins={"broker": broker})
    second: Any = CliffracerService(ServiceConfig("second", http={"port": port, "enabled": True}))
    async with first, second, httpx.AsyncClient(base_url=first.http.url) as client:
        both = {"services": {"first": "healthy", "second": "healthy"}}
        assert (await client.get("/health")).json() == {"status": "healthy", **both}
        broker.up = False
        ready = await client.get("/health/ready")
        assert (ready.status_code, ready.json()) == (
            503, {"status": "degraded", "services": {"first": "disconnected", "second": "healthy"}},
        )  # fmt: skip
        detailed = (await client.get("/health/detailed")).json()
        assert (detailed["status"], set(detailed["services"])) == ("unhealthy", {"first", "second"})
