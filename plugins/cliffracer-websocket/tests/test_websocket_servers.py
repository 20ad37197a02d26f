"""A processor by itself, with Starlette's sockets, on the servers that there are."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator, Callable
from typing import Any

import hypercorn.asyncio
import hypercorn.config
import pytest
import uvicorn
from cliffracer_websocket import RealTimeStreamProcessor
from starlette.websockets import WebSocket
from websockets.asyncio.client import connect

from cliffracer_core.testing import eventually

Application = Callable[[Any, Any, Any], Any]


def listener() -> socket.socket:
    found = socket.socket()
    found.bind(("127.0.0.1", 0))
    found.listen()
    return found


@contextlib.asynccontextmanager
async def on_uvicorn(app: Application) -> AsyncIterator[str]:
    config = uvicorn.Config(app, lifespan="off", log_config=None, ws="websockets-sansio", ws_per_message_deflate=False)
    server = uvicorn.Server(config)
    server.capture_signals = contextlib.nullcontext  # type: ignore[assignment,method-assign]  # no signals in a test
    bound = listener()
    task = asyncio.create_task(server.serve(sockets=[bound]))
    await eventually(lambda: server.started)
    yield f"ws://127.0.0.1:{bound.getsockname()[1]}"
    server.should_exit = True
    await task


@contextlib.asynccontextmanager
async def on_hypercorn(app: Application) -> AsyncIterator[str]:
    bound, stop = listener(), asyncio.Event()
    config = hypercorn.config.Config()
    config.bind = [f"fd://{bound.detach()}"]
    config.graceful_timeout = 1.0
    fd = int(config.bind[0].removeprefix("fd://"))
    with socket.socket(fileno=socket.dup(fd)) as copy:
        port = copy.getsockname()[1]
    serving: Any = hypercorn.asyncio.serve(app, config, shutdown_trigger=stop.wait)
    task = asyncio.create_task(serving)
    yield f"ws://127.0.0.1:{port}"
    stop.set()
    await task


@pytest.mark.parametrize("server", [on_uvicorn, on_hypercorn])
async def test_slow_reader_delays_nobody_on_any_server(
    server: Callable[[Application], contextlib.AbstractAsyncContextManager[str]],
) -> None:
    """Messages find their functions; of a client that does not read order is kept; who goes is forgotten.

    The first step of a send, which the outbox takes itself, is safe on each server.
    """
    processor = RealTimeStreamProcessor(queue_messages=10)
    processor.register_processor("ping", lambda message: "pong")

    async def app(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "websocket":
            return
        websocket = WebSocket(scope, receive, send)
        client = scope["path"]
        await processor.add_connection(client, websocket, groups=["all"])
        await processor.listen(client, websocket)

    async with (
        server(app) as url,
        connect(f"{url}/fast", compression=None) as fast,
        connect(f"{url}/slow", compression=None) as slow,
    ):
        await eventually(lambda: len(processor.presence("all")) == 2)
        await fast.send('{"type":"ping"}')
        assert await fast.recv() == '"pong"'
        await fast.send('{"type":"dance"}')
        assert "\"message type 'dance' has no processor; known are ping\"" in str(await fast.recv())
        slow.transport.pause_reading()
        text, sent = "x" * 300_000, 0

        async def flood() -> bool:
            nonlocal sent
            for _ in range(20):
                await processor.broadcast_to_group("all", [sent, text])
                assert str(await asyncio.wait_for(fast.recv(), 5)).startswith(f"[{sent},")
                sent += 1
            return bool(processor.stalled)

        await eventually(flood)
        for _ in range(50):
            await processor.broadcast_to_group("all", [sent, text])
            assert str(await asyncio.wait_for(fast.recv(), 5)).startswith(f"[{sent},")
            sent += 1
        (outbox,) = processor.stalled
        assert outbox.waiting <= 10
        slow.transport.resume_reading()
        seen: list[str] = []
        while not seen or not seen[-1].startswith(f"[{sent - 1},"):
            seen.append(str(await asyncio.wait_for(slow.recv(), 5)))
        gap = next(index for index, each in enumerate(seen) if each.startswith('{"type":"gap"'))
        numbers = [int(each[1:].partition(",")[0]) for index, each in enumerate(seen) if index != gap]
        assert numbers == sorted(set(numbers))
        assert len(numbers) == sent - outbox.dropped
        assert processor.stalled == set()
    await eventually(lambda: not processor.presence())
    await processor.close()
