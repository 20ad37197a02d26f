"""Several services of one process on one port: one server, one router, each with its own application."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable
from typing import Any

import httpx
import pytest
from cliffracer_http import PlainTextResponse, Request, get

from cliffracer_core import (
    CliffracerService,
    ConfigurationError,
    NotFoundError,
    ServiceConfig,
    ServiceOrchestrator,
    StartupError,
)


class Users(CliffracerService):
    name = "users"

    @get("/users/{id}")
    async def user(self, id: str) -> str:
        return f"user {id}"

    @get("/users")
    async def users(self) -> list[str]:
        raise NotFoundError("no users")


class Orders(CliffracerService):
    name = "orders"

    @get("/orders/{id}")
    async def order(self, id: str) -> str:
        return f"order {id}"


async def hello(request: Request) -> PlainTextResponse:
    return PlainTextResponse("hello")


def config(name: str, port: int, **http: Any) -> ServiceConfig:
    return ServiceConfig(name, http={"port": port, **http})


async def test_services_share_a_port_when_they_run_in_one_process(free_port: Callable[[], int]) -> None:
    """Each path finds its service, mounted ones too; errors and middleware are each service's own."""
    port = free_port()
    users: Any = Users(config("users", port, cors={"origins": ["https://a.example"]}))
    orders: Any = Orders(config("orders", port))
    orders.app.add_route("/hello", hello)

    def not_found(request: Request, error: Exception) -> PlainTextResponse:
        return PlainTextResponse("users' own", 404)

    users.app.add_exception_handler(NotFoundError, not_found)
    async with ServiceOrchestrator(users, orders), httpx.AsyncClient(base_url=users.http.url) as client:
        assert users.http.url == orders.http.url == f"http://127.0.0.1:{port}"
        origin = {"origin": "https://a.example"}
        user = await client.get("/users/1", headers=origin)
        assert (user.json(), user.headers.get("access-control-allow-origin")) == ("user 1", "https://a.example")
        order = await client.get("/orders/2", headers=origin)
        assert (order.json(), order.headers.get("access-control-allow-origin")) == ("order 2", None)
        assert (await client.get("/hello")).text == "hello"
        assert (await client.get("/users")).text == "users' own"
        assert (await client.get("/orders")).status_code == 404
        assert (await client.post("/orders/1")).headers["allow"] == "GET, HEAD, OPTIONS"
        assert [each.path for each in orders.http.routes] == ["/orders/{id}"]


async def test_rest_is_served_when_one_of_several_services_stops(free_port: Callable[[], int]) -> None:
    """The port stays open until the last one has stopped, and is free then."""
    port = free_port()
    users, orders = Users(config("users", port)), Orders(config("orders", port))
    await users.start()
    await orders.start()
    async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}") as client:
        await users.stop()
        assert (await client.get("/orders/1")).json() == "order 1"
        assert (await client.get("/users/1")).status_code == 404
        await orders.stop()
        with pytest.raises(httpx.TransportError):
            await client.get("/orders/1")
    with socket.socket() as again:
        again.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        again.bind(("127.0.0.1", port))


async def test_start_fails_when_two_services_have_one_route(free_port: Callable[[], int]) -> None:
    """Both are named with the path; the first goes on as before."""
    port = free_port()
    users, others = Users(config("users", port)), Users(config("others", port))
    async with users, httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}") as client:
        with pytest.raises(ConfigurationError, match="'users' and 'others' both answer 'GET /users/{id}' on one port"):
            await others.start()
        assert (await client.get("/users/1")).json() == "user 1"
    async with Users(config("others", port, prefix="/v2")):
        pass


async def test_start_fails_when_services_on_one_port_want_different_servers(free_port: Callable[[], int]) -> None:
    """One port has one server with one set of times: which one is meant is not guessed."""
    port = free_port()
    async with Users(config("users", port, server="uvicorn")):
        for http in ({"server": "hypercorn"}, {"server": "uvicorn", "keep_alive_s": 3.0}):
            with pytest.raises(ConfigurationError, match="'users' and 'orders' share a port, and set http.server"):
                await Orders(config("orders", port, **http)).start()


async def test_start_fails_when_the_port_is_taken() -> None:
    """The error names the address and the setting; after that it can start elsewhere."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(StartupError, match=f"127.0.0.1:{port}.*http.port"):
            await Users(config("users", port)).start()
    async with Users(config("users", port)):
        pass


async def test_each_has_its_own_port_when_it_is_zero() -> None:
    """Port 0 is a free one for each service, also for replicas of one."""
    first: Any = Users(config("users", 0))
    second: Any = Users(config("users", 0))
    async with first, second:
        assert first.http.url != second.http.url


async def test_running_request_is_finished_when_its_service_stops() -> None:
    """A stop waits for what was accepted; the client gets its answer."""
    began, go = asyncio.Event(), asyncio.Event()

    class Slow(CliffracerService):
        @get("/slow")
        async def slow(self) -> str:
            began.set()
            await go.wait()
            return "done"

    service: Any = Slow(config("slow", 0))
    async with service, httpx.AsyncClient(base_url=service.http.url) as client:
        running = asyncio.create_task(client.get("/slow"))
        async with asyncio.timeout(10):
            await began.wait()
        stopping = asyncio.create_task(service.stop())
        await asyncio.sleep(0.05)
        assert not stopping.done()
        go.set()
        assert (await running).json() == "done"
        await stopping
