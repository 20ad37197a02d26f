"""Each server on uvloop, whose transports are no `asyncio.Transport` by their class."""

from __future__ import annotations

import asyncio
from typing import Any

import httpx
import pytest
from cliffracer_http.servers import ServerSettings, make_server
from cliffracer_http.servers.choice import FASTEST_FIRST

uvloop = pytest.importorskip("uvloop")


async def app(scope: Any, receive: Any, send: Any) -> None:
    headers = [(b"content-length", b"2")]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": b"ok"})


@pytest.mark.parametrize("name", FASTEST_FIRST)
def test_server_answers_when_the_loop_is_uvloop(name: str) -> None:
    """More than one request on a connection, and then an end."""

    async def run() -> list[str]:
        server = make_server(name)
        [url] = await server.start(app, ServerSettings())
        try:
            async with httpx.AsyncClient() as client:
                return [(await client.get(url)).text for _ in range(2)]
        finally:
            await server.stop(1.0)

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        assert runner.run(run()) == ["ok", "ok"]
