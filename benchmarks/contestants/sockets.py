"""Who broadcasts to sockets: a bare ASGI loop, python-socketio and Cliffracer, all on uvicorn (sansio)."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, NamedTuple

__all__ = ["BARE", "CLIFFRACER", "OPENING", "PATHS", "SOCKETIO", "Broadcasting", "broadcasting"]

BARE, SOCKETIO, CLIFFRACER = "bare ASGI", "python-socketio", "cliffracer"
PATHS = {BARE: "/", SOCKETIO: "/socket.io/?EIO=4&transport=websocket", CLIFFRACER: "/ws"}
OPENING = {SOCKETIO: b"40"}
"""What a client says first."""


class Broadcasting(NamedTuple):
    """A server that runs."""

    port: int
    sockets: Callable[[], int]
    """How many sockets it has."""
    send: Callable[[str], Awaitable[None]]
    """Send a text to all, and wait for those that are behind."""


@contextlib.asynccontextmanager
async def broadcasting(contestant: str) -> AsyncIterator[Broadcasting]:
    """Serve sockets until the block ends."""
    make = {BARE: _bare, SOCKETIO: _socketio, CLIFFRACER: _cliffracer}[contestant]
    async with make() as server:
        yield server


@contextlib.asynccontextmanager
async def _uvicorn(app: Any) -> AsyncIterator[int]:
    import uvicorn

    bound = socket.socket()
    bound.bind(("127.0.0.1", 0))
    config = uvicorn.Config(
        app, lifespan="off", log_config=None, access_log=False, ws="websockets-sansio", ws_per_message_deflate=False
    )
    server = uvicorn.Server(config)
    server.capture_signals = contextlib.nullcontext  # type: ignore[assignment,method-assign]  # the worker's own
    task = asyncio.create_task(server.serve(sockets=[bound]))
    while not server.started:
        await asyncio.sleep(0.01)
    yield bound.getsockname()[1]
    server.should_exit = server.force_exit = True
    await task


@contextlib.asynccontextmanager
async def _bare() -> AsyncIterator[Broadcasting]:
    sends: list[Callable[[Any], Awaitable[None]]] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        await send({"type": "websocket.accept"})
        sends.append(send)
        while (await receive())["type"] != "websocket.disconnect":
            pass
        sends.remove(send)

    async def broadcast(text: str) -> None:
        event = {"type": "websocket.send", "text": text}
        for send in sends:
            await send(event)

    async with _uvicorn(app) as port:
        yield Broadcasting(port, lambda: len(sends), broadcast)


@contextlib.asynccontextmanager
async def _socketio() -> AsyncIterator[Broadcasting]:
    import socketio

    server = socketio.AsyncServer(async_mode="asgi", ping_interval=300, cors_allowed_origins="*")
    connected: set[str] = set()

    async def on_connect(sid: str, environ: Any) -> None:
        connected.add(sid)

    server.on("connect", on_connect)

    async def broadcast(text: str) -> None:
        await server.emit("m", text)

    async with _uvicorn(socketio.ASGIApp(server)) as port:
        yield Broadcasting(port, lambda: len(connected), broadcast)


@contextlib.asynccontextmanager
async def _cliffracer() -> AsyncIterator[Broadcasting]:
    from cliffracer_websocket import RealTimeStreamProcessor

    from cliffracer_core import CliffracerService, ServiceConfig

    class Bench(CliffracerService):
        name = "bench"
        stream = RealTimeStreamProcessor()
        http: Any

        async def on_websocket_message(self, websocket: Any, data: Any) -> None:
            """Nobody sends."""

    sockets = {"max_connections_per_address": 100_000}
    service = Bench(ServiceConfig("bench", http={"port": 0, "server": "uvicorn"}, websocket=sockets))

    async def broadcast(text: str) -> None:
        await service.stream.broadcast_all(text)
        for outbox in list(service.stream.stalled):
            await outbox.drained()

    async with service:
        port = int(service.http.url.rpartition(":")[2])
        yield Broadcasting(port, lambda: len(service.stream.rooms.members), broadcast)
